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

/// Journals that are not empty: written by the kernel before the power failed, or by debugfs; e2fsck's own replay and the
/// kernel's judge.
@Suite(.enabled(if: mke2fs.path != nil && debugfs.path != nil, "e2fsprogs is needed"))
struct ExtJournalTests {
    /// Compares the replay in memory with e2fsck's, byte by byte, and the map with that of the filesystem e2fsck mends.
    /// Returns the number of blocks that were replayed; `nil` where nothing waits.
    static func judge(_ image: String, in folder: ScratchFolder, _ comment: Comment) throws -> Int? {
        let source = try FileSource(path: image)
        let blocks = try ExtSuperblock(parsing: source.bytes(at: .zero, count: 2048).suffix(1024).map { $0 })
        guard let replay = try JournalReplay(source, blocks: blocks.blocks) else { return nil }
        let judged = "\(folder.path)/replayed.img"
        try Tool("cp", package: "coreutils").check(["--sparse=always", image, judged])
        let verdict = try e2fsck.run(["-y", "-E", "journal_only", judged])
        try #require(verdict.status < 4, "\(verdict.lastWords)")
        let theirs = try FileSource(path: judged)
        // e2fsck then notes in the superblock and in the journal's superblock that it is done, and brings copies of group
        // descriptors up to date; so these are left out.
        let copies = try Self.descriptorCopies(judged, blocks.blockSize.bytes)
        let step = 1 << 20
        for start in stride(from: 0, to: source.length.bytes, by: step) {
            let at = ByteCount(UInt64(start))
            let count = Int(min(UInt64(step), source.length.bytes - start))
            let mine = try replay.volume.bytes(at: at, count: count)
            let other = try theirs.bytes(at: at, count: count)
            guard mine != other else { continue }
            for block in stride(from: 0, to: count, by: 1024)
            where mine[block..<min(block + 1024, count)] != other[block..<min(block + 1024, count)] {
                let place = at + ByteCount(UInt64(block))
                let isExempt =
                    place == .kibibytes(1) || replay.journal.contains(place)
                    || copies.contains(place.bytes / blocks.blockSize.bytes)
                #expect(isExempt, "\(comment): byte \(place.bytes) is replayed in two ways")
                guard isExempt else { return nil }
            }
        }
        return replay.volume.changedBlocks
    }

    /// The blocks of the copies of group descriptors, as dumpe2fs tells them.
    private static func descriptorCopies(_ image: String, _ size: UInt64) throws -> Set<UInt64> {
        var result: Set<UInt64> = []
        for line in try dumpe2fs.check([image]).standardOutput.split(separator: "\n") {
            let words = line.split(whereSeparator: { !$0.isLetter && !$0.isNumber && $0 != "-" })
            guard let index = words.firstIndex(of: "descriptor") ?? words.firstIndex(of: "descriptors"),
                let last = words[index...].first(where: { $0.first?.isNumber == true })
            else { continue }
            let ends = last.split(separator: "-").compactMap { UInt64($0) }
            // The first ones are no copies.
            guard let from = ends.first, let to = ends.last, from <= to, from * size > 65_536 else { continue }
            result.formUnion(from...to)
        }
        return result
    }

    /// Every block in use once e2fsck has replayed the journal and mended what it finds is in the map, and e2fsck finds
    /// nothing wrong but what it also finds in the image itself.
    static func expectComplete(_ image: String, _ map: VolumeMap, in folder: ScratchFolder, _ comment: Comment) throws {
        let mended = "\(folder.path)/mended.img"
        try Tool("cp", package: "coreutils").check(["--sparse=always", image, mended])
        let verdict = try e2fsck.run(["-fy", mended])
        try #require(verdict.status < 4, "\(verdict.lastWords)")
        let after = try FilesystemMaps.map(try FileSource(path: mended))
        try #require(after.wholeBecause == nil, "\(after.wholeBecause ?? "")")
        for extent in after.used.extents {
            #expect(map.used.covers(extent), "\(comment): \(extent) is in use after the replay")
        }
    }

    // MARK: - Written by the kernel

    struct Kernel: Sendable, CustomTestStringConvertible {
        var options: [String]
        var mount = ""
        var mebibytes: UInt64 = 128
        /// Whether the kernel keeps what was synced. Linux 6.18 was seen to lose changes of small files with inline_data,
        /// in the image as in its copy; both must still be the same.
        var keepsItsWord = true
        var testDescription: String { (options + [mount]).joined(separator: " ") }
    }

    static let kernels = [
        Kernel(options: ["-t", "ext4"]),
        Kernel(options: ["-t", "ext4", "-b", "4096", "-J", "size=4"]),
        Kernel(options: ["-t", "ext3", "-b", "1024", "-J", "size=1"]),
        Kernel(options: ["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode,^flex_bg", "-J", "size=2"]),
        Kernel(options: ["-t", "ext4", "-b", "1024", "-J", "size=4"], mount: "data=journal"),
        Kernel(options: ["-t", "ext4", "-O", "^metadata_csum,^64bit", "-J", "size=4"], mount: "journal_checksum"),
        Kernel(
            options: ["-t", "ext4", "-O", "^metadata_csum", "-J", "size=4"],
            mount: "data=writeback,journal_async_commit"),
        Kernel(options: ["-t", "ext4", "-J", "size=4"], mount: "data=writeback,journal_async_commit"),
        Kernel(options: ["-t", "ext4", "-O", "bigalloc,ea_inode", "-C", "16384"]),
        Kernel(options: ["-t", "ext4", "-O", "inline_data"], keepsItsWord: false),
        Kernel(options: ["-t", "ext4", "-O", "orphan_file,metadata_csum_seed", "-b", "2048"]),
    ]

    @Test(
        .enabled(if: CrashSeries.isPossible, "python3 and root are needed"), arguments: kernels)
    func afterAPowerCutEverySyncedFileIsThere(kernel: Kernel) throws {
        let folder = try ScratchFolder()
        let size = ByteCount.mebibytes(kernel.mebibytes)
        let image = try folder.file("source.img", size)
        try mke2fs.check(["-q", "-F"] + kernel.options + [image])
        let series = CrashSeries(
            folder: folder, image: image, size: size, options: kernel.mount.isEmpty ? "" : ",\(kernel.mount)")
        var replayed = 0
        var spared = 0
        let isDefault = kernel.options == ["-t", "ext4"]
        for turn in 1...(isFullRun ? 20 : isDefault ? 3 : 1) {
            try series.crash(seed: turn)
            let source = try FileSource(path: image)
            let before = try source.bytes(at: .zero, count: 1 << 20)
            let map = try FilesystemMaps.map(source)
            #expect(try source.bytes(at: .zero, count: 1 << 20) == before)
            #expect(map.wholeBecause == nil, "turn \(turn): \(map.wholeBecause ?? "")")
            #expect(map.states == [.journalToReplay] || map.states == [.clean])
            #expect(map.minimum == nil || map.states == [.clean])
            #expect(map.used.byteCount < size)
            let copy = try series.restored(map.used, "copy.img")
            if let blocks = try Self.judge(image, in: folder, "turn \(turn)") { replayed += blocks }
            try Self.expectComplete(image, map, in: folder, "turn \(turn)")
            // The kernel replays the journals of the image and of its copy.
            let difference = try series.difference(image, copy)
            #expect(difference == nil, "turn \(turn): \(difference ?? "")")
            let problem = try series.problem(of: copy)
            #expect(problem == nil || !kernel.keepsItsWord, "turn \(turn): \(problem ?? "")")
            let verdict = try e2fsck.run(["-fn", copy])
            #expect(verdict.status == 0, "turn \(turn): \(verdict.lastWords)")
            // The map on the disk alone would lose files: that is what the replay is for.
            if let replay = try JournalReplay(source, blocks: size.bytes / (map.blockSize?.bytes ?? 1)) {
                spared += replay.volume.changedBlocks
            }
        }
        #expect(replayed > 0)
        #expect(spared == replayed)
        if isFullRun { #expect(try series.promised() > 10) }
    }

    @Test(.enabled(if: CrashSeries.isPossible, "python3 and root are needed"))
    func fastCommitsThatWaitMakeItWhole() throws {
        let folder = try ScratchFolder()
        let size = ByteCount.mebibytes(64)
        let image = try folder.file("source.img", size)
        try mke2fs.check(["-q", "-F", "-t", "ext4", "-O", "fast_commit", image])
        let series = CrashSeries(folder: folder, image: image, size: size)
        for turn in 1...(isFullRun ? 20 : 2) {
            try series.crash(seed: 100 + turn)
            let map = try FilesystemMaps.map(try FileSource(path: image))
            if let reason = map.wholeBecause {
                #expect(reason.contains("ast commit"))
                #expect(map.states == [.journalToReplay])
            }
            let copy = try series.restored(map.used, "copy.img")
            let problem = try series.problem(of: copy)
            #expect(problem == nil, "turn \(turn): \(problem ?? "")")
            #expect(try e2fsck.run(["-fn", copy]).status == 0)
        }
        // A file that was synced grows and is synced again: that is a fast commit.
        try shell.check(
            [
                "-c",
                """
                set -e; cd "$1"; mount -o loop source.img mnt; trap 'umount mnt' EXIT
                echo x > mnt/grows; sync -f mnt
                python3 -c 'if True:
                    import fcntl, os, struct
                    file = os.open("mnt/grows", os.O_RDWR | os.O_APPEND)
                    os.write(file, bytes(100000)); os.fsync(file)
                    fcntl.ioctl(file, 0x8004587D, struct.pack("I", 2))'
                """, "fast", folder.path,
            ])
        let map = try FilesystemMaps.map(try FileSource(path: image))
        Self.expectWhole(map, "Fast commits wait", .mebibytes(64))
    }

    // MARK: - Written by debugfs

    struct Written: Sendable, CustomTestStringConvertible {
        var options: [String]
        /// What `journal_open` is given.
        var open = ""
        var testDescription: String { (options + [open]).joined(separator: " ") }
    }

    static let written = [
        Written(options: ["-t", "ext4", "-b", "1024"], open: "-c -v 3"),
        Written(options: ["-t", "ext4", "-b", "1024"], open: "-c -v 2"),
        Written(options: ["-t", "ext4", "-b", "1024", "-O", "^64bit,^metadata_csum"], open: "-c -v 2"),
        Written(options: ["-t", "ext4", "-b", "1024", "-O", "^64bit,^metadata_csum"], open: "-c -v 3"),
        Written(options: ["-t", "ext4", "-b", "4096", "-O", "^metadata_csum"]),
        Written(options: ["-t", "ext3", "-b", "1024"]),
        Written(options: ["-t", "ext3", "-b", "4096"]),
    ]

    /// An image with `count` random transactions in its journal; the last may be without its commit block.
    static func image(
        _ shape: Written, in folder: ScratchFolder, seed: UInt64, count: Int, uncommitted: Bool
    ) throws -> String {
        let image = try folder.file("written.img", .mebibytes(32))
        try mke2fs.check(["-q", "-F", "-N", "64"] + shape.options + [image])
        let size = try ExtTests.number("Block size", image)
        var random = Seeded(seed)
        // Blocks behind all metadata, so that what is replayed leaves the filesystem sound.
        let last = (32 << 20) / size - 1
        let targets = (0..<40).map { _ in UInt64.random(in: last - 400..<last, using: &random) }
        var script = "jo \(shape.open)\n"
        for number in 0..<count {
            let blocks = targets.shuffled(using: &random).prefix(Int.random(in: 1...20, using: &random))
            var content = (0..<blocks.count * Int(size)).map { _ in UInt8.random(in: 0...255, using: &random) }
            for index in 0..<blocks.count where Int.random(in: 0..<4, using: &random) == 0 {
                // A block that must be escaped.
                content.replaceSubrange(index * Int(size)..<index * Int(size) + 4, with: [0xC0, 0x3B, 0x39, 0x98])
            }
            let path = "\(folder.path)/t\(number)"
            try shell.check(["-c", "cat > \"$1\"", "write", path], input: content)
            let isLast = uncommitted && number == count - 1
            script += "jw -b \(blocks.map(String.init).joined(separator: ",")) \(isLast ? "-c " : "")\(path)\n"
            // debugfs counts revoke blocks among what the oldest kind of checksums is made of; nobody else does.
            let mayRevoke = !(shape.open.hasPrefix("-c") && shape.options.contains { $0.contains("^metadata_csum") })
            if !isLast, mayRevoke, Int.random(in: 0..<2, using: &random) == 0 {
                let revoked = targets.shuffled(using: &random).prefix(Int.random(in: 1...8, using: &random))
                script += "jw -r \(revoked.map(String.init).joined(separator: ","))\n"
            }
        }
        script += "jc\n"
        try shell.check(["-c", "debugfs -w -f - \"$1\" >/dev/null", "debugfs", image], input: Array(script.utf8))
        return image
    }

    @Test(arguments: written)
    func whatDebugfsWritesIsReplayedAsE2fsckDoes(shape: Written) throws {
        for seed in 1...(isFullRun ? 20 : 2) as ClosedRange<UInt64> {
            let folder = try ScratchFolder()
            let image = try Self.image(
                shape, in: folder, seed: seed, count: 3 + Int(seed % 5) * 4, uncommitted: seed % 2 == 0)
            let replayed = try #require(try Self.judge(image, in: folder, "seed \(seed)"))
            #expect(replayed > 0)
            let map = try FilesystemMaps.map(try FileSource(path: image))
            #expect(map.wholeBecause == nil, "seed \(seed): \(map.wholeBecause ?? "")")
            #expect(map.states == [.journalToReplay])
            try Self.expectComplete(image, map, in: folder, "seed \(seed)")
        }
    }

    // MARK: - Damage

    /// Where the blocks of the journal of `image` lie, as debugfs tells them: indirect blocks are among them, but behind
    /// the first twelve.
    static func places(_ image: String) throws -> [UInt64] {
        let size = try ExtTests.number("Block size", image)
        return try debugfs.check(["-R", "blocks <8>", image]).standardOutput
            .split(whereSeparator: { $0 == " " || $0 == "\n" }).compactMap { UInt64($0) }.map { $0 * size }
    }

    /// Where block `number` of the journal lies.
    static func place(_ number: Int, _ image: String) throws -> UInt64 {
        let places = try places(image)
        return try #require(places.count > number ? places[number] : nil)
    }

    static func spoiled(_ shape: Written, _ body: (String) throws -> Void) throws -> VolumeMap {
        let folder = try ScratchFolder()
        let image = try image(shape, in: folder, seed: 3, count: 4, uncommitted: false)
        try body(image)
        return try FilesystemMaps.map(try FileSource(path: image))
    }

    static func expectWhole(_ map: VolumeMap, _ reason: String, _ size: ByteCount = .mebibytes(32)) {
        #expect(map.wholeBecause?.contains(reason) == true, "\(map.wholeBecause ?? "mapped")")
        #expect(map.states.first == .journalToReplay)
        #expect(map.used == ExtentList(Extent(from: .zero, to: size)))
        #expect(map.minimum == nil)
    }

    /// Where a journal without checksums was changed anywhere, it is replayed as e2fsck replays it or not at all.
    @Test func aChangedJournalIsReplayedAsE2fsckDoesOrNotAtAll() throws {
        let folder = try ScratchFolder()
        let image = try Self.image(Self.written[5], in: folder, seed: 3, count: 6, uncommitted: true)
        let places = try Self.places(image).prefix(70)
        var random = Seeded(15)
        var replayed = 0
        for round in 0..<(isFullRun ? 300 : 40) {
            let at = (places.randomElement(using: &random) ?? 0) + UInt64.random(in: 0..<48, using: &random)
            let old = try FileSource(path: image).bytes(at: ByteCount(at), count: 1)
            let new = Bool.random(using: &random) ? old[0] ^ 1 << UInt8.random(in: 0..<8, using: &random) : 0
            try poke(image, at, [new])
            let works = (try? JournalReplay(try FileSource(path: image), blocks: (32 << 20) / 1024)) != nil
            if works, try Self.judge(image, in: folder, "round \(round): byte \(at) is \(new)") != nil { replayed += 1 }
            try poke(image, at, old)
        }
        #expect(replayed > 10)
    }

    @Test func wrongChecksumsMakeItWhole() throws {
        // The journal's superblock, a descriptor block, a block of content; debugfs begins at block 1 of the journal.
        for (block, offset, reason) in [
            (0, 100, "superblock"), (1, 900, "descriptor"), (2, 500, "checksum of a block"),
        ]
            as [(Int, UInt64, String)]
        {
            let map = try Self.spoiled(Self.written[0]) { image in
                let place = try Self.place(block, image) + offset
                let old = try FileSource(path: image).bytes(at: ByteCount(place), count: 1)[0]
                try poke(image, place, [old ^ 0x40])
            }
            Self.expectWhole(map, reason)
        }
    }

    @Test func placesOutsideTheFilesystemMakeItWhole() throws {
        // The first tag's block number.
        let map = try Self.spoiled(Self.written[5]) {
            try poke($0, try Self.place(1, $0) + 12, [0x7F, 0, 0, 0])
        }
        Self.expectWhole(map, "does not have")
        let itself = try Self.spoiled(Self.written[5]) { image in
            let number = try Self.place(7, image) / 1024
            try poke(
                image, try Self.place(1, image) + 12, (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) }
            )
        }
        Self.expectWhole(itself, "changes itself")
    }

    @Test func unknownThingsInTheJournalMakeItWhole() throws {
        let type = try Self.spoiled(Self.written[5]) { try poke($0, try Self.place(1, $0) + 7, [9]) }
        Self.expectWhole(type, "type 9")
        let feature = try Self.spoiled(Self.written[5]) { try poke($0, try Self.place(0, $0) + 40, [0x40]) }
        Self.expectWhole(feature, "features unknown")
        #expect(feature.states.contains(.unknownFeatures))
        let error = try Self.spoiled(Self.written[5]) { try poke($0, try Self.place(0, $0) + 35, [5]) }
        Self.expectWhole(error, "after an error")
    }

    @Test func aJournalOnAnotherDeviceIsNamed() throws {
        let folder = try ScratchFolder()
        let journal = try folder.file("journal.img", .mebibytes(8))
        let image = try folder.file("x.img", .mebibytes(32))
        try mke2fs.check(
            ["-q", "-F", "-O", "journal_dev", "-b", "1024", "-U", "11111111-2222-3333-4444-555555555555", journal])
        try shell.check(
            [
                "-c",
                """
                set -e; device=$(losetup --find --show "$1"); trap 'losetup -d $device' EXIT
                mke2fs -q -F -t ext4 -b 1024 -J device=$device "$2"
                """, "external", journal, image,
            ])
        let clean = try FilesystemMaps.map(try FileSource(path: image))
        #expect(clean.states == [.clean])
        try debugfs.check(["-w", "-R", "feature needs_recovery", image])
        let map = try FilesystemMaps.map(try FileSource(path: image))
        Self.expectWhole(map, "11111111-2222-3333-4444-555555555555")
    }

    @Test func anEmptyJournalNeedsNoReplay() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(ExtTests.Shape(options: ["-t", "ext4"]), in: folder)
        let before = try FilesystemMaps.map(try FileSource(path: image))
        try debugfs.check(["-w", "-R", "feature needs_recovery", image])
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.wholeBecause == nil)
        #expect(map.used == before.used)
    }

    /// A filesystem that is not marked, though its journal has something: e2fsck would replay it, the kernel would not.
    @Test func aJournalThatIsNotMarkedIsReplayedToo() throws {
        let folder = try ScratchFolder()
        let image = try Self.image(Self.written[0], in: folder, seed: 2, count: 5, uncommitted: false)
        let marked = try FilesystemMaps.map(try FileSource(path: image))
        try debugfs.check(["-w", "-R", "feature -needs_recovery", image])
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.states == [.journalToReplay])
        #expect(map.used == marked.used)
        try Self.expectComplete(image, map, in: folder, "not marked")
    }

    /// resize2fs marks the filesystem while it works.
    @Test func aResizeThatWasInterruptedMakesItWhole() throws {
        let folder = try ScratchFolder()
        let image = try ExtTests.made(ExtTests.Shape(options: ["-t", "ext4"], mebibytes: 256), in: folder)
        // Killed at the first write behind the superblock's.
        let run = try shell.run(
            [
                "-c",
                "strace -qq -o /dev/null -e inject=pwrite64:signal=SIGKILL:when=4 resize2fs -f \"$1\" 60M >/dev/null 2>&1",
                "resize", image,
            ])
        #expect(run.status != 0)
        let map = try FilesystemMaps.map(try FileSource(path: image))
        #expect(map.states == [.dirty], "\(map.wholeBecause ?? "mapped")")
        #expect(map.used.byteCount == .mebibytes(256))
        #expect(map.wholeBecause?.contains("being resized") == true)
    }
}
