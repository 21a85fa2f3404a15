// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import Synchronization
import TestSupport
import Testing
import Tools

@testable import FilesystemMaps

/// Names of what lies at a place of an ext filesystem; debugfs judges.
@Suite(.enabled(if: mke2fs.path != nil && debugfs.path != nil, "e2fsprogs is needed"))
struct ExtNamesTests {
    static let shapes = [
        ExtTests.Shape(options: ["-t", "ext2", "-b", "1024"]),
        ExtTests.Shape(options: ["-t", "ext3", "-b", "4096"]),
        ExtTests.Shape(options: ["-t", "ext4", "-b", "1024"]),
        ExtTests.Shape(options: ["-t", "ext4", "-b", "4096"], mebibytes: 300),
        ExtTests.Shape(options: ["-t", "ext4", "-b", "65536"], mebibytes: 200),
        ExtTests.Shape(options: ["-t", "ext4", "-O", "bigalloc", "-C", "65536"], mebibytes: 300),
        ExtTests.Shape(options: ["-t", "ext4", "-O", "inline_data,project,casefold,ea_inode"]),
        ExtTests.Shape(options: ["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode,^flex_bg"], mebibytes: 64),
    ]

    static func at(_ extents: [Extent], _ image: String, _ names: Int = 100) throws -> LostContent {
        var limits = FileNames.Limits()
        limits.names = names
        return try FileNames.at(
            ExtentList(extents), of: try FileSource(path: image), kind: .ext4, limits: limits)
    }

    /// However much free space was lost, whoever is waiting is asked on the way.
    @Test func theTimeLimitReachesFreeSpace() throws {
        let folder = try ScratchFolder()
        let shape = ExtTests.Shape(options: ["-t", "ext4", "-b", "1024", "-O", "^resize_inode"], mebibytes: 64)
        let source = try FileSource(path: try ExtTests.made(shape, in: folder))
        let end = Extent(from: .mebibytes(42), to: .mebibytes(64))
        let (few, all) = try StopCount.calls(of: .ext4, source, last: end)
        #expect(all >= few + 4)
        let cut = try StopCount.stopped(after: few + 1, of: .ext4, source, end)
        #expect(cut.notes.contains { $0.contains("time") })
        #expect(cut.items.reduce(.zero) { $0 + $1.bytes } == end.length)
        #expect(cut.items.contains { $0.kind == .unknown })
    }

    static func block(_ number: UInt64, _ size: UInt64) -> Extent {
        Extent(from: ByteCount(number * size), to: ByteCount((number + 1) * size))
    }

    /// The blocks of a file by debugfs.
    static func blocks(_ path: String, _ image: String) throws -> [UInt64] {
        try debugfs.check(["-R", "blocks \(path)", image]).standardOutput
            .split { $0 == " " || $0 == "\n" }.compactMap { UInt64($0) }
    }

    /// debugfs' own answers for many blocks: the inode's path, or nothing.
    static func judge(_ blocks: [UInt64], _ image: String) throws -> [UInt64: (inode: UInt64, paths: [String])] {
        let listed = try debugfs.check(
            ["-R", "icheck \(blocks.map(String.init).joined(separator: " "))", image]
        ).standardOutput
        var inodes: [UInt64: UInt64] = [:]
        for line in listed.split(separator: "\n").dropFirst() {
            let fields = line.split(separator: "\t")
            if fields.count == 2, let block = UInt64(fields[0]), let inode = UInt64(fields[1]) { inodes[block] = inode }
        }
        let wanted = Set(inodes.values).map(String.init).joined(separator: " ")
        let named = wanted.isEmpty ? "" : try debugfs.check(["-R", "ncheck \(wanted)", image]).standardOutput
        var paths: [UInt64: [String]] = [:]
        for line in named.split(separator: "\n").dropFirst() {
            let fields = line.split(separator: "\t", maxSplits: 1)
            guard fields.count == 2, let inode = UInt64(fields[0]) else { continue }
            // It writes the root's own files as //name.
            paths[inode, default: []].append(String(fields[1].hasPrefix("//") ? fields[1].dropFirst() : fields[1]))
        }
        // And has no name for the root.
        paths[2] = ["/"]
        return inodes.mapValues { ($0, paths[$0] ?? []) }
    }

    @Test(arguments: shapes) func anyBlockBelongsToWhatDebugfsSays(shape: ExtTests.Shape) throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(shape, in: folder)
        let size = try ExtTests.number("Block size", image)
        let used = try FilesystemMaps.map(try FileSource(path: image)).used
        var generator = Seeded(21)
        var chosen: Set<UInt64> = []
        for extent in used.extents {
            chosen.formUnion([extent.start.bytes / size, (extent.end.bytes - 1) / size])
            for _ in 0..<4 {
                chosen.insert(UInt64.random(in: extent.start.bytes..<extent.end.bytes, using: &generator) / size)
            }
        }
        for path in ["/file4096", "/sub/sparse", "/file700001", "/sub/deeper/s7", "/sub/deeper", "/", "/sub/copy65536"]
        {
            chosen.formUnion(try Self.blocks(path, image).prefix(12))
        }
        let blocks = chosen.filter { $0 > 0 }.sorted().prefix(160)
        let truth = try Self.judge(Array(blocks), image)
        var files = 0
        for number in blocks {
            let found = try Self.at([Self.block(number, size)], image)
            #expect(found.notes.isEmpty && found.more == 0)
            let lost = found.items.filter { $0.kind != .free }
            #expect(found.items.reduce(0) { $0 + ($1.kind == .inode ? 0 : $1.bytes.bytes) } == size, "block \(number)")
            guard let owner = truth[number], owner.inode != 7 else {
                // A table: debugfs knows no inode for it. Inodes that lay there are named beside it.
                // In bigalloc a cluster is in use as a whole, and some of its blocks belong to nothing.
                #expect(
                    lost.allSatisfy {
                        $0.kind == .metadata || $0.kind == .inode
                            || ($0.kind == .unknown && shape.options.contains("bigalloc"))
                    }, "block \(number): \(found)")
                continue
            }
            if owner.inode == 8 {
                #expect(lost.map(\.name) == ["journal"])
            } else if let first = lost.first {
                #expect(lost.count == 1 && owner.paths.contains(first.name), "block \(number): \(found), \(owner)")
                files += 1
            } else {
                // All of the block lies behind the file's end.
                #expect(found.items.allSatisfy { $0.kind == .free })
            }
        }
        #expect(files > 20)
    }

    @Test func everyNameIsFoundAtOnce() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(ExtTests.Shape(options: ["-t", "ext4", "-b", "1024"]), in: folder)
        var extents: [Extent] = []
        var paths: Set<String> = []
        for number in 1...120 {
            let path = "/sub/deeper/s\(number)"
            paths.insert(path)
            extents += try Self.blocks(path, image).map { Self.block($0, 1024) }
        }
        let found = try Self.at(extents, image, 200)
        #expect(Set(found.items.filter { $0.kind == .file }.map(\.name)) == paths)
        // A name takes a few bytes; the rest of each block lies behind the file's end.
        #expect(found.items.filter { $0.kind == .file }.allSatisfy { (8...10).contains($0.bytes.bytes) })
        let few = try Self.at(extents, image, 7)
        #expect(few.items.filter { $0.kind == .file }.count == 7)
        #expect(few.more == 113)
    }

    @Test func tablesAreNamedByTheirGroup() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(
            ExtTests.Shape(options: ["-t", "ext4", "-b", "1024", "-O", "^flex_bg"]), in: folder)
        let listed = try dumpe2fs.check([image]).standardOutput.split(separator: "\n")
        let third = try #require(listed.firstIndex { $0.hasPrefix("Group 3:") })
        func place(_ what: String) throws -> UInt64 {
            let line = try #require(listed[third...].first { $0.contains("\(what) at") })
            let rest = try #require(line.split(separator: " at ").dropFirst().first ?? nil)
            return try #require(UInt64(rest.prefix { $0.isNumber }))
        }
        for (what, name) in [
            ("Block bitmap", "block bitmap of group 3"), ("Inode bitmap", "inode bitmap of group 3"),
            ("Inode table", "inode table of group 3"),
        ] {
            let found = try Self.at([Self.block(try place(what), 1024)], image)
            #expect(found.items.map(\.name) == [name])
        }
        #expect(try Self.at([Self.block(1, 1024)], image).items.isEmpty == false)
    }

    @Test func freeBlocksHoldNothing() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(ExtTests.Shape(options: ["-t", "ext4", "-b", "4096"]), in: folder)
        let source = try FileSource(path: image)
        let free = try FilesystemMaps.map(source).used.complement(in: Extent(from: .zero, to: source.length))
        let found = try Self.at(free.extents, image)
        #expect(found.items == [LostContent.Item(.free, "free space", free.byteCount)])
    }

    @Test func aLostInodeNamesItsFiles() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(ExtTests.Shape(options: ["-t", "ext4", "-b", "4096"]), in: folder)
        // Where an inode lies: "located at block N, offset 0xM".
        let said = try debugfs.check(["-R", "imap /sub/deeper/s50", image]).standardOutput
        let block = try #require(
            said.split(separator: " ").compactMap { UInt64($0.filter { $0 != "," }) }.last)
        let offset = try #require(
            said.split(separator: "0x").last.flatMap { UInt64($0.prefix { $0.isHexDigit }, radix: 16) })
        let start = block * 4096 + offset
        let found = try Self.at(
            [Extent(from: ByteCount(start), to: ByteCount(start + 256))], image)
        #expect(found.items.contains(LostContent.Item(.inode, "/sub/deeper/s50", ByteCount(256))), "\(found)")
        #expect(found.items.contains { $0.name == "inode table of group 0" })
    }

    @Test func namesThatWouldHarmATerminalAreEscaped() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(8))
        let tree = "\(folder.path)/tree"
        try shell.check(
            [
                "-c", "mkdir -p \"$1\" && head -c 3000 /dev/urandom > \"$1/$(printf 'a\\033[2J\\nb\\377\\\\c')\"", "x",
                tree,
            ])
        try mke2fs.check(["-q", "-F", "-t", "ext4", "-b", "1024", "-d", tree, image])
        let found = try Self.at(try Self.blocks("<12>", image).map { Self.block($0, 1024) }, image)
        #expect(
            found.items.filter { $0.kind == .file }.map(\.name) == ["/a\\u{1B}[2J\\u{A}b\\xFF\\\\c"], "\(found.items)")
    }

    @Test func whatCannotBeOpenedIsSaid() throws {
        let folder = try ScratchFolder()
        let image = try folder.file("x.img", .mebibytes(8))
        let found = try Self.at([Extent(from: .zero, to: .kibibytes(4))], image)
        #expect(found.items.map(\.kind) == [.unknown])
        #expect(found.notes.count == 1)
    }

    @Test func noTimeMeansNoNamesButAnEnd() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(ExtTests.Shape(options: ["-t", "ext4", "-b", "1024"]), in: folder)
        let source = try FileSource(path: image)
        let asked = Counter()
        var limits = FileNames.Limits()
        limits.stop = { asked.next() > 40 }
        let found = try FileNames.at(
            ExtentList(Extent(from: .zero, to: source.length)), of: source, kind: .ext4, limits: limits)
        #expect(!found.notes.isEmpty)
        limits.stop = { true }
        #expect(
            try FileNames.at(
                ExtentList(Extent(from: .zero, to: source.length)), of: source, kind: .ext4, limits: limits
            ).items.map(\.kind) == [.unknown])
    }

    /// Damage to a directory hides its names, never the files' loss.
    @Test func aLostDirectoryBlockLeavesFilesWithoutNames() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(ExtTests.Shape(options: ["-t", "ext4", "-b", "4096"]), in: folder)
        let places = try Self.blocks("/sub/deeper", image) + Self.blocks("/sub/deeper/s9", image)
        let found = try Self.at(places.map { Self.block($0, 4096) }, image)
        #expect(found.items.first { $0.kind == .directory }?.name == "/sub/deeper")
        #expect(found.items.first { $0.kind == .file }?.name.hasPrefix("inode ") == true)
    }
}

/// Counts from several threads.
final class Counter: Sendable {
    private let value = Atomic<Int>(0)
    func next() -> Int { value.add(1, ordering: .relaxed).newValue }
}
