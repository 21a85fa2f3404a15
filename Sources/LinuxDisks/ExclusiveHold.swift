// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Glibc

/// Whether a block device is claimed by somebody: a mount in any mount namespace, swap, a layer, or a program that opened
/// it with `O_EXCL`.
public enum ExclusiveHold {
    /// Asks the kernel by claiming the device for a moment. False for what is no block device, and where nobody can tell.
    public static func exists(on path: String) -> Bool {
        // Another look like this one, or a mount that is just being tried, is over in a moment.
        for attempt in 0..<5 {
            let descriptor = unsafe relight_open(path, O_RDONLY | O_NONBLOCK | O_EXCL, 0)
            if descriptor >= 0 { close(descriptor) }
            guard descriptor == -EBUSY else { return false }
            if attempt < 4 { usleep(50_000) }
        }
        return true
    }
}
