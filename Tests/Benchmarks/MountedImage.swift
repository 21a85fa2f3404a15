// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc

/// Filesystems of image files, through a loop device.
struct Mounts {
    let shell: Shell
    /// Where an image is mounted while it is looked at.
    let point: String

    /// Mounts `image`, calls `body` with the folder, and takes everything away again.
    func with(_ image: String, _ filesystem: Filesystem, readOnly: Bool, _ body: (String) throws(Fault) -> Void)
        throws(Fault)
    {
        try shell.run("mkdir -p '\(point)'; mountpoint -q '\(point)' && umount '\(point)'; true")
        let device = try attach(image, readOnly: readOnly)
        let failure: Fault?
        do throws(Fault) {
            try shell.run(filesystem.mount(device, point, readOnly: readOnly))
            do throws(Fault) {
                try body(point)
                failure = nil
            } catch {
                failure = error
            }
            try shell.run(
                "sync -f '\(point)'; for i in 1 2 3 4 5; do umount '\(point)' && exit 0; sleep 1; done; exit 1",
                isCleaning: true)
        } catch {
            try? detach(device)
            throw error
        }
        try detach(device)
        if let failure { throw failure }
    }

    /// A loop device for `image`.
    func attach(_ image: String, readOnly: Bool) throws(Fault) -> String {
        try shell.run("losetup --find --show \(readOnly ? "--read-only" : "") '\(image)'").trimmed
    }

    /// Releases a loop device; something may still look at it for a moment.
    func detach(_ device: String) throws(Fault) {
        try shell.run(
            "for i in 1 2 3 4 5 6 7 8 9 10; do losetup -d \(device) && exit 0; sleep 0.3; done; exit 1",
            isCleaning: true)
    }
}

/// The filesystems that are measured.
enum Filesystem: String {
    case ext4, ntfs, xfs

    /// The command that makes one in a file of its final size. Identities are fixed so that runs are alike.
    func make(_ image: String, inodes: Int? = nil) -> String {
        switch self {
        case .ext4:
            let count = inodes.map { "-N \($0) " } ?? ""
            return "mke2fs -q -F -t ext4 -b 4096 \(count)-U 4f1c9a70-0000-4000-8000-72656c696768 "
                + "-E hash_seed=4f1c9a70-0000-4000-8000-000000000001 '\(image)'"
        case .ntfs: return "mkntfs -q -Q -F '\(image)'"
        case .xfs: return "mkfs.xfs -q -f -m uuid=4f1c9a70-0000-4000-8000-78667378667a '\(image)'"
        }
    }

    /// The command that mounts one.
    func mount(_ device: String, _ point: String, readOnly: Bool) -> String {
        switch self {
        case .ext4: return "mount -t ext4 -o \(readOnly ? "ro,noload" : "rw") \(device) '\(point)'"
        case .ntfs: return "ntfs-3g -o big_writes\(readOnly ? ",ro" : "") \(device) '\(point)'"
        case .xfs: return "mount -t xfs -o \(readOnly ? "ro,norecovery,nouuid" : "rw") \(device) '\(point)'"
        }
    }

    /// The command that checks the structure of one in a file without changing it; `nil` where there is no such tool.
    func check(_ image: String) -> String? {
        switch self {
        case .ext4: return "e2fsck -fn '\(image)'"
        case .ntfs: return nil
        case .xfs: return "xfs_repair -n -f '\(image)'"
        }
    }
}

extension String {
    /// Without blanks and line ends at both sides.
    var trimmed: String {
        var part = self[...]
        while let last = part.last, last.isWhitespace { part.removeLast() }
        while let first = part.first, first.isWhitespace { part.removeFirst() }
        return String(part)
    }
}
