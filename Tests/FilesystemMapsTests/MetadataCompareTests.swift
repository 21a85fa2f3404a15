// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import MachineModel
import TestSupport
import Testing
import Tools

@testable import FilesystemMaps

private let tune2fs = Tool("tune2fs", package: "e2fsprogs")
let python = Tool("python3", package: "python3")

/// What metadata say is unchanged, against the bytes themselves.
@Suite(.serialized, .enabled(if: mke2fs.path != nil && debugfs.path != nil, "e2fsprogs is needed"))
struct MetadataCompareTests {
    /// A tree older than the margin when it is put into a filesystem; made once.
    private static let tree: (folder: ScratchFolder, path: String)? = {
        guard let folder = try? ScratchFolder(), let path = try? folder.tree(symbolicLinks: true) else { return nil }
        _ = try? shell.check(
            [
                "-c",
                """
                set -e; cd "$1"; mkdir many; for n in $(seq 60); do head -c $((n * 1777)) /dev/urandom > many/m$n; done
                head -c 1024 /dev/zero | tr '\\0' '#' > grubenv
                head -c 262144 /dev/urandom > swapfile; chmod 600 swapfile; mkswap swapfile > /dev/null
                head -c 1000000 /dev/urandom > decimal; mkswap decimal > /dev/null 2>&1; sleep 7
                """, "x", path,
            ])
        return (folder, path)
    }()

    /// A filesystem with the tree, as old state.
    private static func made(
        _ options: [String], _ folder: ScratchFolder, _ name: String = "old.img", mebibytes: UInt64 = 40
    ) throws -> String {
        let tree = try #require(tree)
        let image = try folder.file(name, .mebibytes(mebibytes))
        try mke2fs.check(["-q", "-F", "-d", tree.path] + options + [image])
        return image
    }

    private static func copy(_ image: String, _ folder: ScratchFolder, _ name: String = "new.img") throws -> String {
        try Tool("cp", package: "coreutils").check(["--sparse=always", image, "\(folder.path)/\(name)"])
        return "\(folder.path)/\(name)"
    }

    private static var now: UInt64 { UInt64(time(nil)) }

    private static func compare(_ new: String, _ old: String, imaged: UInt64 = now) throws -> MetadataCompare.Outcome {
        try MetadataCompare.compare(
            try FileSource(path: new), with: try FileSource(path: old), kind: .ext4, imaged: imaged)
    }

    /// No byte said to be unchanged differs.
    @discardableResult
    private static func check(_ outcome: MetadataCompare.Outcome, _ new: String, _ old: String) throws -> ExtentList {
        guard case .unchanged(let list, _) = outcome else {
            Issue.record("\(outcome)")
            return ExtentList()
        }
        let (one, other) = (try FileSource(path: new), try FileSource(path: old))
        for extent in list.extents {
            let count = try #require(extent.length.int)
            #expect(
                try one.bytes(at: extent.start, count: count) == other.bytes(at: extent.start, count: count),
                "\(extent)")
        }
        return list
    }

    /// The bytes of a file's blocks by debugfs.
    private static func place(_ path: String, _ image: String) throws -> ExtentList {
        let size = try ExtTests.number("Block size", image)
        return ExtentList(try ExtNamesTests.blocks(path, image).map { ExtNamesTests.block($0, size) })
    }

    static let shapes: [[String]] = [
        ["-t", "ext4", "-b", "1024"], ["-t", "ext4", "-b", "4096"], ["-t", "ext3", "-I", "256", "-b", "1024"],
        ["-t", "ext4", "-O", "bigalloc", "-C", "16384"], ["-t", "ext4", "-O", "inline_data,metadata_csum_seed"],
    ]

    @Test(arguments: shapes) func whatWasNotTouchedIsUnchanged(options: [String]) throws {
        let folder = try ScratchFolder()
        let old = try Self.made(options, folder)
        let outcome = try Self.compare(old, old)
        let list = try Self.check(outcome, old, old)
        for path in ["/file700001", "/many/m59", "/sub/copy65536", "/file131073"] {
            let data = try Self.place(path, old)
            // With a block map, indirect blocks are among those debugfs names.
            let isMapped = options.contains("ext3")
            #expect(data.subtracting(list).byteCount <= (isMapped ? .kibibytes(6) : .zero), "\(path)")
        }
        for path in ["/", "/sub/deeper", "/grubenv", "/swapfile", "/decimal", "<8>"] {
            #expect(try Self.place(path, old).extents.allSatisfy { list.intersection($0).isEmpty }, "\(path)")
        }
        // Nothing but data of regular files.
        let size = try ExtTests.number("Block size", old)
        #expect(list.byteCount.bytes % size == 0)
        guard case .unchanged(_, let files) = outcome else { return }
        #expect(files > 60)
    }

    /// The kernel changes files in every way there is; what it left alone is told, and nothing else is.
    @Test(
        .enabled(if: geteuid() == 0 && python.path != nil, "needs root and python3"),
        arguments: shapes, [1, 2, 3] as [UInt64])
    func noByteThatDiffersIsUnchanged(options: [String], seed: UInt64) throws {
        let folder = try ScratchFolder()
        let old = try Self.made(options, folder)
        let imaged = Self.now
        let new = try Self.copy(old, folder)
        let mounted = "\(folder.path)/mnt"
        try Tool("mkdir", package: "coreutils").check([mounted])
        let mount = try Tool("mount", package: "mount").run(["-o", "loop", new, mounted])
        try #require(mount.status == 0, "no loop mounts here: \(mount.standardError)")
        let changes = try python.run(["-c", Self.changes, mounted, "\(seed)"])
        try Tool("umount", package: "mount").check([mounted])
        #expect(changes.status == 0, "\(changes.standardError)")
        let list = try Self.check(try Self.compare(new, old, imaged: imaged), new, old)
        #expect(list.byteCount > .kibibytes(500))
        // The times alone would do; the inodes alone must do as well.
        let inodes = try ExtCompare.compare(
            try FileSource(path: new), try FileSource(path: old), imaged: imaged, trusted: .max)
        #expect(try Self.check(inodes, new, old) == list)
        // What the changes name as untouched is found.
        for path in changes.standardOutput.split(separator: "\n").prefix(12) {
            let size = try FileSource(path: new).length
            let blocks = try Self.place(String(path), new).intersection(Extent(from: .zero, to: size))
            #expect(blocks.subtracting(list).byteCount <= (options.contains("ext3") ? .kibibytes(6) : .zero), "\(path)")
        }
    }

    /// Random changes by every road; prints the regular files left alone that have blocks.
    static let changes = """
        import sys, os, random, mmap, subprocess
        root, seed = sys.argv[1], int(sys.argv[2])
        r = random.Random(seed)
        files = sorted(os.path.join(d, f) for d, _, fs in os.walk(root) for f in fs
                       if os.path.isfile(os.path.join(d, f)) and not os.path.islink(os.path.join(d, f)))
        files = [f for f in files if os.path.basename(f) not in ('grubenv', 'swapfile', 'decimal') and '/deeper/' not in f]
        touched = set()
        def inode(f): return os.stat(f).st_ino
        def overwrite(f):
            n = os.path.getsize(f)
            with open(f, 'r+b') as h:
                h.seek(r.randrange(max(n, 1))); h.write(os.urandom(max(1, min(n, 5000) - 1))[:max(1, n - h.tell())])
        def mapped(f):
            if os.path.getsize(f) == 0: return
            with open(f, 'r+b') as h:
                with mmap.mmap(h.fileno(), 0) as m: m[r.randrange(len(m))] ^= 0x5A
        def kept_mtime(f):
            s = os.stat(f); overwrite(f); os.utime(f, ns=(s.st_atime_ns, s.st_mtime_ns))
        def truncate(f): os.truncate(f, os.path.getsize(f) // 2); 
        def cut_and_refill(f):
            n = os.path.getsize(f); os.truncate(f, 0)
            with open(f, 'wb') as h: h.write(os.urandom(n))
        def append(f):
            with open(f, 'ab') as h: h.write(os.urandom(r.randrange(1, 30000)))
        def rename(f): os.rename(f, f + '-renamed')
        def chmod(f): os.chmod(f, 0o640)
        def replace(f):
            n = os.path.getsize(f); os.unlink(f)
            with open(f, 'wb') as h: h.write(os.urandom(n))
        def swap_names(f):
            other = r.choice(files)
            if not os.path.exists(other) or other == f: return
            touched.add(inode(other)); os.rename(f, f + '.x'); os.rename(other, f); os.rename(f + '.x', other)
        def punch(f): subprocess.run(['fallocate', '-p', '-o', '4096', '-l', '8192', f], check=False, stderr=subprocess.DEVNULL)
        def zero(f): subprocess.run(['fallocate', '-z', '-o', '0', '-l', '8192', f], check=False, stderr=subprocess.DEVNULL)
        def grow(f): subprocess.run(['fallocate', '-n', '-l', str(os.path.getsize(f) + 65536), f], check=False, stderr=subprocess.DEVNULL)
        def collapse(f): subprocess.run(['fallocate', '-c', '-o', '0', '-l', '16384', f], check=False, stderr=subprocess.DEVNULL)
        def direct(f):
            if os.path.getsize(f) < 8192: return
            m = mmap.mmap(-1, 4096); m.write(os.urandom(4096))
            fd = os.open(f, os.O_WRONLY | os.O_DIRECT)
            try: os.pwrite(fd, m, 0)
            except OSError: pass
            os.close(fd)
        def link(f): os.link(f, f + '-link')
        def unlink(f): os.unlink(f)
        def attribute(f):
            try: os.setxattr(f, 'user.note', os.urandom(300))
            except OSError: pass
        ways = [overwrite, mapped, kept_mtime, truncate, cut_and_refill, append, rename, chmod, replace, swap_names, punch,
                zero, grow, collapse, direct, link, unlink, attribute]
        for way in ways + [r.choice(ways) for _ in range(12)]:
            f = r.choice(files)
            if not os.path.exists(f): continue
            touched.add(inode(f)); way(f)
            if os.path.exists(f): touched.add(inode(f))
        for n in range(15):
            with open(os.path.join(root, 'fresh%d' % n), 'wb') as h: h.write(os.urandom(r.randrange(1, 200000)))
        for f in files:
            if os.path.exists(f) and inode(f) not in touched and os.stat(f).st_blocks > 0: print(f[len(root):])
        """

    /// What is written past the filesystem leaves its inode alone.
    @Test(arguments: ["/swapfile", "/decimal", "/grubenv"]) func whatIsWrittenPastTheFilesystemIsRead(path: String)
        throws
    {
        let folder = try ScratchFolder()
        let old = try Self.made(["-t", "ext4", "-b", "1024"], folder)
        let new = try Self.copy(old, folder)
        let last = try #require(try Self.place(path, new).extents.last)
        try poke(new, last.end.bytes - 600, [1, 2, 3, 4])
        try Self.check(try Self.compare(new, old), new, old)
    }

    @Test func filesChangedJustBeforeAreNotTrusted() throws {
        let folder = try ScratchFolder()
        let old = try Self.made(["-t", "ext4"], folder)
        let place = try Self.place("/file700001", old)
        let fresh = try #require(try Self.place("/many/m40", old).extents.first)
        // Written last, by debugfs' own clock.
        try debugfs.check(["-w", "-R", "set_inode_field /many/m40 ctime @\(Self.now)", old])
        let list = try Self.check(try Self.compare(old, old), old, old)
        #expect(list.intersection(fresh).isEmpty)
        #expect(place.subtracting(list).isEmpty)
        // An image time before everything: nothing is trusted.
        #expect(try Self.check(try Self.compare(old, old, imaged: 1000), old, old).isEmpty)
    }

    /// The same size, times and blocks, but another inode in the same place.
    @Test(arguments: ["generation 77", "version 9", "ctime_extra 400", "mtime_extra 400", "mode 0100640"])
    func anInodeThatDiffersIsRead(field: String) throws {
        let folder = try ScratchFolder()
        let old = try Self.made(["-t", "ext4"], folder)
        let place = try Self.place("/file700001", old)
        let new = try Self.copy(old, folder)
        try debugfs.check(["-w", "-R", "set_inode_field /file700001 \(field)", new])
        let list = try Self.check(try Self.compare(new, old), new, old)
        #expect(!list.isEmpty && place.extents.allSatisfy { list.intersection($0).isEmpty })
    }

    /// Two inodes that claim one block: it is read.
    @Test func whatAnotherInodeClaimsIsRead() throws {
        let folder = try ScratchFolder()
        let old = try Self.made(["-t", "ext2", "-I", "256", "-b", "1024"], folder)
        let new = try Self.copy(old, folder)
        let block = try #require(try ExtNamesTests.blocks("/file700001", new).first)
        try debugfs.check(["-w", "-R", "set_inode_field /file4096 block[0] \(block)", new])
        try debugfs.check(["-w", "-R", "set_inode_field /file4096 mtime 5", new])
        let list = try Self.check(try Self.compare(new, old), new, old)
        #expect(list.intersection(ExtNamesTests.block(block, 1024)).isEmpty && !list.isEmpty)
    }

    struct Refused: Sendable, CustomTestStringConvertible {
        var says: String
        var options = ["-t", "ext4"]
        var change: @Sendable (_ new: String, _ old: String) throws -> Void
        var testDescription: String { says }
    }

    static let refused = [
        Refused(says: "journal") { new, _ in try debugfs.check(["-w", "-R", "feature needs_recovery", new]) },
        Refused(says: "when last imaged, its journal") { _, old in
            try debugfs.check(["-w", "-R", "feature needs_recovery", old])
        },
        Refused(says: "errors") { new, _ in try debugfs.check(["-w", "-R", "set_super_value state 3", new]) },
        Refused(says: "another filesystem") { new, _ in try tune2fs.check(["-U", "random", new]) },
        Refused(says: "another filesystem") { new, _ in
            try debugfs.check(["-w", "-R", "set_super_value mkfs_time 20260101000000", new])
        },
        Refused(says: "size or features") { new, _ in
            try Tool("truncate", package: "coreutils").check(["-s", "60M", new])
            try Tool("resize2fs", package: "e2fsprogs").check(["-f", new])
        },
        Refused(says: "checked by e2fsck") { new, _ in
            try debugfs.check(["-w", "-R", "set_super_value lastcheck 20360101000000", new])
        },
        Refused(says: "clock") { new, _ in
            try debugfs.check(["-w", "-R", "set_super_value mtime 20200101000000", new])
        },
        Refused(says: "finer than a second", options: ["-t", "ext3", "-I", "128"]) { _, _ in },
        Refused(says: "inode 12 is damaged") { new, _ in
            let table = try dumpe2fs.check([new]).standardOutput.split(separator: "Inode table at ").dropFirst().first
            let first = try #require(table.flatMap { UInt64($0.prefix { $0.isNumber }) })
            try poke(new, first * (try ExtTests.number("Block size", new)) + 11 * 256 + 8, [1, 1, 1, 1])
        },
    ]

    @Test(arguments: refused) func whereInDoubtNothingIsSaid(refused: Refused) throws {
        let folder = try ScratchFolder()
        let old = try Self.made(refused.options, folder)
        let new = try Self.copy(old, folder)
        try refused.change(new, old)
        guard case .unknown(let reason) = try Self.compare(new, old) else {
            Issue.record("it was compared")
            return
        }
        #expect(reason.contains(refused.says), "\(reason)")
    }

    @Test func otherFilesystemsAreNotCompared() throws {
        let disk = MemoryDisk([UInt8](repeating: 0, count: 4096))
        #expect(
            try MetadataCompare.compare(disk, with: disk, kind: .fat, imaged: 0)
                == .unknown("this filesystem's times are too coarse"))
        guard case .unknown = try MetadataCompare.compare(disk, with: disk, kind: .ext4, imaged: 0) else {
            Issue.record("zeros were compared")
            return
        }
    }

    /// Hostile metadata on either side: it ends, and says nothing outside the volume.
    @Test func mutatedFilesystems() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(6))
        try mke2fs.check(
            [
                "-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum", "-N", "256", "-d",
                try folder.tree(symbolicLinks: true), image,
            ])
        let bytes = try FileSource(path: image).bytes(at: .zero, count: 6 << 20)
        let (disk, fixed) = (MemoryDisk(bytes), MemoryDisk(bytes))
        let table = Int(
            try #require(
                try dumpe2fs.check([image]).standardOutput.split(separator: "Inode table at ").dropFirst().first
                    .flatMap { UInt64($0.prefix { $0.isNumber }) }))
        var compared = 0
        var turn = 0
        _ = try MutationTests.run(
            disk, places: [1024..<1800, 2048..<2112, table << 10..<(table + 48) << 10], count: 1200, seed: 41
        ) { disk in
            turn += 1
            let outcome = try MetadataCompare.compare(
                turn % 2 == 0 ? disk : fixed, with: turn % 2 == 0 ? fixed : disk, kind: .ext4, imaged: Self.now + 1000)
            if case .unchanged(let list, _) = outcome {
                compared += 1
                #expect(list.end <= disk.length)
            }
            return VolumeMap(identity: Identity(kind: .ext4), whole: disk.length)
        }
        #expect(compared > 100)
    }
}
