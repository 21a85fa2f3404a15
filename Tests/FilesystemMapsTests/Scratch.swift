// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import MachineModel
import Testing
import Tools

@testable import FilesystemMaps

let mke2fs = Tool("mke2fs", package: "e2fsprogs")
let e2fsck = Tool("e2fsck", package: "e2fsprogs")
let debugfs = Tool("debugfs", package: "e2fsprogs")
let dumpe2fs = Tool("dumpe2fs", package: "e2fsprogs")
let mkfat = Tool("mkfs.fat", package: "dosfstools")
let fsckfat = Tool("fsck.fat", package: "dosfstools")
let mcopy = Tool("mcopy", package: "mtools")
let mdel = Tool("mdel", package: "mtools")
let mkswap = Tool("mkswap", package: "util-linux")
let mkxfs = Tool("mkfs.xfs", package: "xfsprogs")
let xfsdb = Tool("xfs_db", package: "xfsprogs")
let xfsrepair = Tool("xfs_repair", package: "xfsprogs")
let mkntfs = Tool("mkntfs", package: "ntfs-3g")
let ntfs3g = Tool("ntfs-3g", package: "ntfs-3g")
let ntfsinfo = Tool("ntfsinfo", package: "ntfs-3g")
let ntfsclone = Tool("ntfsclone", package: "ntfs-3g")
let ntfsfix = Tool("ntfsfix", package: "ntfs-3g")
/// Whether NTFS can be filled here.
let canMountNTFS: Bool = {
    let device = unsafe access("/dev/fuse", R_OK | W_OK)
    return device == 0 && geteuid() == 0
        && [mkntfs, ntfs3g, ntfsinfo, ntfsclone, ntfsfix].allSatisfy { $0.path != nil }
}()
/// Whether XFS can be filled here: a probe, since a kernel may have it as a module or not at all.
let canMountXFS: Bool = {
    guard geteuid() == 0, [mkxfs, xfsdb, xfsrepair].allSatisfy({ $0.path != nil }),
        let folder = try? ScratchFolder(), let image = try? folder.file("probe.img", .mebibytes(320))
    else { return false }
    let script =
        "mkfs.xfs -q \"$1/probe.img\" && mkdir \"$1/mnt\" && mount -o loop \"$1/probe.img\" \"$1/mnt\" && umount \"$1/mnt\""
    return !image.isEmpty && (try? shell.check(["-c", script, "probe", folder.path])) != nil
}()
let mkbtrfs = Tool("mkfs.btrfs", package: "btrfs-progs")
let btrfsTool = Tool("btrfs", package: "btrfs-progs")
/// Whether Btrfs can be filled here.
let canMountBtrfs: Bool = {
    guard geteuid() == 0, mkbtrfs.path != nil, let folder = try? ScratchFolder(),
        let image = try? folder.file("probe.img", .mebibytes(128))
    else { return false }
    let script =
        "mkfs.btrfs -q \"$1/probe.img\" && mkdir \"$1/mnt\" && mount -o loop \"$1/probe.img\" \"$1/mnt\" && umount \"$1/mnt\""
    return !image.isEmpty && (try? shell.check(["-c", script, "probe", folder.path])) != nil
}()
let mkexfat = Tool("mkfs.exfat", package: "exfatprogs")
let fsckexfat = Tool("fsck.exfat", package: "exfatprogs")
/// Whether exFAT can be filled here, without a driver in the kernel.
let canMountExFAT: Bool = {
    let device = unsafe access("/dev/fuse", R_OK | W_OK)
    return device == 0 && geteuid() == 0
        && [mkexfat, fsckexfat, Tool("mount.exfat-fuse", package: "exfat-fuse")].allSatisfy { $0.path != nil }
}()
let mkf2fs = Tool("mkfs.f2fs", package: "f2fs-tools")
let fsckf2fs = Tool("fsck.f2fs", package: "f2fs-tools")
let sloadf2fs = Tool("sload.f2fs", package: "f2fs-tools")
let shell = Tool("sh", package: "dash")

/// How much of the long tests is run: `RELIGHT_TESTS=full`, which `make test-full` sets, is everything; else samples.
let isFull = unsafe getenv("RELIGHT_TESTS").map { unsafe String(cString: $0) } == "full"

/// All of `shapes`, or every other one.
func sampled<T>(_ shapes: [T]) -> [T] {
    isFull ? shapes : shapes.enumerated().filter { $0.offset % 2 == 0 }.map(\.element)
}

/// A folder that goes away with the value.
final class ScratchFolder: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/relight-maps-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw Fault(.system, what: "no scratch folder", remedy: "") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = try? Tool("rm", package: "coreutils").run(["-rf", path]) }

    /// A sparse file of `size` bytes.
    func file(_ name: String, _ size: ByteCount) throws -> String {
        let file = "\(path)/\(name)"
        let descriptor = unsafe open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0, ftruncate(descriptor, off_t(size.bytes)) == 0 else {
            throw Fault(.system, what: "no scratch file", remedy: "")
        }
        close(descriptor)
        return file
    }

    /// A tree of files of many sizes, with subfolders, a hard link and a symbolic link; always the same.
    func tree(symbolicLinks: Bool) throws -> String {
        let root = "\(path)/tree"
        try shell.check(
            [
                "-c",
                """
                set -e; mkdir -p "$1/sub/deeper" "$1/empty"; cd "$1"
                seed=0
                for size in 0 1 511 1023 4096 5000 65536 131073 700001; do
                  seed=$((seed+1))
                  openssl enc -aes-128-ctr -K 0123456789abcdef0123456789abcdef -iv $(printf %032x $seed) -in /dev/zero \
                    2>/dev/null | head -c $size > file$size
                  cp file$size sub/copy$size
                done
                for n in $(seq 1 120); do echo "small $n" > sub/deeper/s$n; done
                if [ "$2" = 1 ]; then ln -s file4096 link; ln file5000 sub/hard; truncate -s 3M sub/sparse; fi
                """, "tree", root, symbolicLinks ? "1" : "0",
            ])
        return root
    }
}

/// Changes bytes of a file.
func poke(_ path: String, _ offset: UInt64, _ bytes: [UInt8]) throws {
    let disk = try WritableDisk(claiming: path)
    try disk.blocks.write(at: ByteCount(offset), unsafe bytes.span.bytes)
    try disk.finish()
}

/// A file of the same size in which everything is `garbage` but what `used` names, which is copied from `source`.
func restored(_ source: any BlockSource, _ used: ExtentList, to path: String, garbage byte: UInt8 = 0xA5) throws {
    let disk = try WritableDisk(claiming: path)
    let garbage = [UInt8](repeating: byte, count: 1 << 20)
    func each(_ extent: Extent, _ body: (ByteCount, Int) throws -> Void) throws {
        var position = extent.start
        while position < extent.end {
            let count = min((extent.end - position).int ?? 0, 1 << 20)
            try body(position, count)
            position += ByteCount(UInt64(count))
        }
    }
    for gap in used.complement(in: Extent(from: .zero, to: source.length)).extents {
        try each(gap) { try disk.blocks.write(at: $0, unsafe garbage.span.bytes.extracting(0..<$1)) }
    }
    for extent in used.extents {
        try each(extent) { at, count in
            let bytes = try source.bytes(at: at, count: count)
            try disk.blocks.write(at: at, unsafe bytes.span.bytes)
        }
    }
    try disk.finish()
}

/// A source without a file behind it.
func withoutFile(_ source: any BlockSource) -> any BlockSource { Faulty(source, bad: ExtentList()) }
