// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc

/// What a self-encrypting drive (TCG Opal) says of its lock. Hidden areas of ATA drives (HPA, DCO) are not looked for: Linux
/// opens the first when it finds the drive, and tells nobody of the second.
public enum DriveLock {
    /// What is to be said of the drive at `path`; nothing where it, its bus or the kernel knows nothing of Opal.
    public static func findings(_ path: String) -> [Finding] {
        let descriptor = unsafe relight_open(path, O_RDONLY | O_NONBLOCK, 0)
        guard descriptor >= 0 else { return [] }
        defer { close(descriptor) }
        var flags: UInt32 = 0
        guard unsafe relight_opal_status(descriptor, &flags) == 0 else { return [] }
        return findings(path, flags: flags)
    }

    /// `OPAL_FL_*` of linux/sed-opal.h.
    struct Flags: OptionSet {
        let rawValue: UInt32
        static let supported = Flags(rawValue: 1)
        static let lockingEnabled = Flags(rawValue: 4)
        static let locked = Flags(rawValue: 8)
        static let shadowEnabled = Flags(rawValue: 16)
        static let shadowDone = Flags(rawValue: 32)
    }

    static func findings(_ path: String, flags: UInt32) -> [Finding] {
        let flags = Flags(rawValue: flags)
        guard flags.contains(.lockingEnabled) else { return [] }
        if flags.contains(.shadowEnabled), !flags.contains(.shadowDone) {
            return [
                Finding(
                    .warning, "disk.opal-shadow",
                    what:
                        "It is an Opal drive that shows its shadow boot area instead of its content. Unlock it (`sedutil-cli` "
                        + "or the firmware's password prompt) before it is imaged.", place: path)
            ]
        }
        guard flags.contains(.locked) else { return [] }
        return [
            Finding(
                .warning, "disk.opal-locked",
                what:
                    "It is an Opal drive with a locked range: what lies there cannot be read. Unlock it (`sedutil-cli` or the "
                    + "firmware's password prompt) before it is imaged.", place: path)
        ]
    }
}
