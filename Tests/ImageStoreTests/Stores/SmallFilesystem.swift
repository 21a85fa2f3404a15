// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc

/// A small filesystem of its own, mounted for one test.
struct SmallFilesystem {
    /// Where it is mounted.
    let path: String
    private let outer: String

    /// Kinds of filesystems.
    enum Kind: String, CaseIterable {
        case tmpfs, ext4, btrfs, vfat
    }

    /// Kinds that can be made and mounted here: that takes root, loop devices, the tool and the kernel's driver.
    static let possible = Kind.allCases.filter { kind in
        guard let made = try? SmallFilesystem(kind) else { return false }
        made.end()
        return true
    }

    struct NotMounted: Error {}

    init(_ kind: Kind) throws {
        outer = Sample.folder()
        path = outer + "/mount"
        _ = unsafe mkdir(path, 0o755)
        let image = outer + "/image"
        let command =
            switch kind {
            case .tmpfs: "mount -t tmpfs -o size=8m relight-test \(path)"
            case .ext4:
                "truncate -s 8M \(image) && mkfs.ext4 -q -m 0 \(image) && mount -o loop \(image) \(path)"
            case .btrfs:
                "truncate -s 128M \(image) && mkfs.btrfs -q \(image) && mount -o loop \(image) \(path)"
            case .vfat:
                "truncate -s 8M \(image) && mkfs.vfat \(image) >/dev/null && mount -o loop \(image) \(path)"
            }
        guard Judge.run("{ \(command); } 2>/dev/null") == 0 else {
            Sample.remove(outer)
            throw NotMounted()
        }
    }

    /// Writes files until not a byte more fits.
    func fill() {
        let block = [UInt8](repeating: 0x55, count: 1 << 16)
        for number in 0..<8 {
            let file = unsafe open("\(path)/filler\(number)", O_WRONLY | O_CREAT, 0o600)
            guard file >= 0 else { return }
            var size = block.count
            while size > 0 {
                if unsafe write(file, block, size) <= 0 { size /= 2 }
            }
            fsync(file)
            close(file)
        }
    }

    func end() {
        _ = unsafe umount2(path, Int32(MNT_DETACH))
        Sample.remove(outer)
    }
}
