// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Glibc

/// The kernel's read-only mark on a disk and its partitions, for as long as the value lives.
///
/// Writing through the nodes then fails with EPERM, though they can still be opened for it. The mark does not stop a
/// mount or a layer that holds the device already, so it is a second lock, never the only one.
public final class ReadOnlyMark: Sendable {
    /// Nodes the mark was set on and that had none before.
    public let marked: [String]

    /// Sets the mark. Nodes that cannot be marked (an image file, no permission) are left alone.
    public init(_ disk: AttachedDisk) {
        var marked: [String] = []
        for path in [disk.path] + disk.partitions.map(\.path) {
            let descriptor = unsafe relight_open(path, O_RDONLY | O_NONBLOCK, 0)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            var before: Int32 = 0
            guard unsafe relight_get_read_only(descriptor, &before) == 0, before == 0 else { continue }
            if relight_set_read_only(descriptor, 1) == 0 { marked.append(path) }
        }
        self.marked = marked
    }

    deinit {
        for path in marked.reversed() {
            let descriptor = unsafe relight_open(path, O_RDONLY | O_NONBLOCK, 0)
            guard descriptor >= 0 else { continue }
            _ = relight_set_read_only(descriptor, 0)
            close(descriptor)
        }
    }
}
