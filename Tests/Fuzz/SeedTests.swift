// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel
import Testing

@testable import FileTrees
@testable import FilesystemMaps
@testable import ImageStore
@testable import InstalledSystems
@testable import PartitionTables
@testable import VolumeStacks
@testable import WindowsHives

/// The committed inputs of the fuzzers, run without the fuzzers: what once crashed must not crash again.
@Suite struct SeedTests {
    @Test(arguments: FuzzTarget.all.map(\.name))
    func committedInputs(_ name: String) throws {
        let target = try #require(FuzzTarget.all.first { $0.name == name })
        let inputs = SeedFolder.inputs(target)
        #expect(inputs.contains { $0.name.hasPrefix("seed-") }, "the folder \(SeedFolder.path)/\(name) has no seed")
        for input in inputs {
            target.run(input.bytes)
            // Every seed fits the room its fuzzer has.
            #expect(input.bytes.count <= target.longest)
        }
    }

    /// Some mutations of each seed with the checksums repaired: the fuzzers' own, without their runtime.
    @Test(
        arguments: FuzzTarget.all.map(\.name).filter {
            !["survey", "set", "locked", "protected", "moved"].contains($0)
        })
    func mutatedInputs(_ name: String) throws {
        let target = try #require(FuzzTarget.all.first { $0.name == name })
        var random = Mutations(seed: 1)
        for input in SeedFolder.inputs(target) {
            for _ in 0..<40 {
                var bytes = input.bytes
                if target.isText { random.changeNumber(&bytes) }
                random.changeField(&bytes)
                target.mend(&bytes)
                target.run(bytes)
            }
        }
    }

    /// Layers: many mutations, every one with its checksums made right. What is made of them keeps its promises, and many
    /// are still put together.
    @Test(arguments: ["lvm", "md", "luks"])
    func mutatedLayers(_ name: String) throws {
        let target = try #require(FuzzTarget.all.first { $0.name == name })
        let kind = ["lvm": "LVM2_member", "md": "linux_raid_member", "luks": "crypto_LUKS"][name] ?? ""
        var random = Mutations(seed: 7)
        var sound = 0
        for input in SeedFolder.inputs(target) {
            for round in 0..<1200 {
                var bytes = input.bytes
                if round % 2 == 0 { random.changeNumber(&bytes) } else { random.changeField(&bytes) }
                target.mend(&bytes)
                target.run(bytes)
                let disk = SparseDisk(bytes, limit: .mebibytes(64))
                let descriptor = try VolumeStacks.recognise(disk, kind: ContentKind(rawValue: kind))
                if case .damaged? = descriptor?.content { continue }
                sound += 1
            }
        }
        #expect(sound > 500)
    }

    @Test func theSeedsOfLayersArePutTogether() throws {
        func stack(_ target: FuzzTarget, _ name: String, _ kind: String) throws -> Stack {
            let disk = SparseDisk(try seed(target, name), limit: .mebibytes(64))
            let descriptor = try #require(try VolumeStacks.recognise(disk, kind: ContentKind(rawValue: kind)))
            let member = StackMember(id: 0, names: ["d"], source: disk, descriptor: descriptor)
            return try #require(try VolumeStacks.assemble([member]).first)
        }
        let expected = ["simple": ["vg/a", "vg/s"], "raid": ["vg/q", "vg/r"], "thin": []]
        for (name, volumes) in expected {
            let group = try stack(.lvm, name, "LVM2_member")
            #expect(group.volumes.filter { $0.source != nil }.map(\.name) == volumes, "\(group.members)")
            #expect(group.members[0].wholeBecause == nil)
        }
        for name in ["1.2-raid1", "1.2-raid0", "1.1-raid1", "1.0-raid1", "0.90"] {
            let array = try stack(.md, name, "linux_raid_member")
            #expect(array.volumes.count == 1, "\(name): \(array.members)")
        }
        for (name, reason) in [
            ("luks1", "locked"), ("luks2", "locked"), ("luks2-integrity", "checksum"), ("luks2-reencrypt", "anew"),
        ] {
            let volume = try stack(.luks, name, "crypto_LUKS")
            #expect(volume.members[0].wholeBecause?.contains(reason) == true, "\(volume.members)")
        }
    }

    /// The input `name` of `target`.
    private func seed(_ target: FuzzTarget, _ name: String) throws -> [UInt8] {
        try #require(SeedFolder.inputs(target).first { $0.name == "seed-\(name)" }).bytes
    }

    @Test(arguments: ["gpt", "gpt-hybrid", "gpt-backup-only", "gpt-4kn"])
    func aChangedTableIsReadAgainOnceItsChecksAreMended(_ name: String) throws {
        var input = try seed(.tables, name)
        let size: UInt64 = name == "gpt-4kn" ? 4096 : 512
        // The first entry's attributes, in both copies.
        var editor = SparseEditor(input)
        for header in [1, editor.length / size - 1] {
            let entries = editor.bytes(header * size, Int(size)).number(UInt64.self, at: 72)
            editor.store(entries * size + 48, [0x55])
        }
        input = editor.input
        let damaged = try? TableReader.read(SparseDisk(input, limit: .mebibytes(64)))
        #expect(damaged?.table == nil)
        TableSeeds.mend(&input)
        let table = try TableReader.read(SparseDisk(input, limit: .mebibytes(64))).table
        #expect(table?.partitions.first?.attributes == 0x55)
    }

    @Test(arguments: ["ext2", "ext4", "ext4-groups", "ext4-bigalloc", "ext4-gdt-csum"])
    func aChangedFilesystemIsMappedAgainOnceItsChecksAreMended(_ name: String) throws {
        let sound = try seed(.ext, name)
        let identity = Identity(kind: .ext4, usage: .filesystem)
        let before = try ExtReader.map(SparseDisk(sound, limit: .mebibytes(64)), identity)
        #expect(before.wholeBecause == nil)
        // The volume's name, and a free block that becomes a used one.
        var editor = SparseEditor(sound)
        editor.store(1024 + 0x78, Array("fuzz".utf8))
        var input = editor.input
        if name.hasPrefix("ext4"), name != "ext4-gdt-csum" {
            #expect(try ExtReader.map(SparseDisk(input, limit: .mebibytes(64)), identity).wholeBecause != nil)
        }
        ExtSeeds.mend(&input)
        #expect(try ExtReader.map(SparseDisk(input, limit: .mebibytes(64)), identity) == before)
    }

    @Test(arguments: ["ext3-journal", "ext4-journal"]) func theSeedsOfExtWithAJournalAreReplayed(name: String) throws {
        let identity = Identity(kind: .ext4, usage: .filesystem)
        let sound = try seed(.ext, name)
        let disk = SparseDisk(sound, limit: .mebibytes(64))
        let map = try ExtReader.map(disk, identity)
        #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
        #expect(map.states == [.journalToReplay])
        let replay = try #require(try JournalReplay(disk, blocks: 3072))
        // Two transactions: a bitmap, an escaped block and another; one of the first was revoked by the second.
        #expect(replay.volume.changedBlocks == 3)
        #expect(try replay.volume.bytes(at: .kibibytes(3071), count: 5) == [0xC0, 0x3B, 0x39, 0x98, 1])
        #expect(try replay.volume.bytes(at: .kibibytes(3070), count: 1) == [0])
        #expect(try replay.volume.bytes(at: .kibibytes(3069), count: 1) == [3])
        #expect(try replay.volume.bytes(at: .kibibytes(3068), count: 1) == [0])
        // A block of the journal that is changed is replayed again once its checksums are mended.
        var editor = SparseEditor(sound)
        let place = try #require(
            stride(from: 0, to: editor.length, by: 1024).first {
                editor.bytes($0, 16).allSatisfy { $0 == 3 }
            })
        editor.store(place, [9])
        var input = editor.input
        if name == "ext4-journal" {
            #expect(try ExtReader.map(SparseDisk(input, limit: .mebibytes(64)), identity).wholeBecause != nil)
        }
        ExtSeeds.mend(&input)
        let changed = try #require(try JournalReplay(SparseDisk(input, limit: .mebibytes(64)), blocks: 3072))
        #expect(try changed.volume.bytes(at: .kibibytes(3069), count: 2) == [9, 3])
    }

    @Test func theSeedsOfNTFSAreMappedHoweverTheirMetadataLie() throws {
        let identity = Identity(kind: .ntfs, usage: .filesystem)
        let plain = try NTFSReader.map(SparseDisk(try seed(.ntfs, "plain"), limit: .mebibytes(64)), identity)
        #expect(plain.wholeBecause == nil && plain.states == [.clean])
        #expect(plain.identity.label == "label")
        let clusters = { (from: UInt64, count: UInt64) in
            Extent(from: ByteCount(from * 512), to: ByteCount((from + count) * 512))
        }
        // Boot sector, $MFT, $LogFile, the directory, $Bitmap, a file, $MFTMirr, the end with the backup boot sector.
        let common = [clusters(0, 1), clusters(100, 16), clusters(200, 2), clusters(400, 8), clusters(1024, 8)]
        let end = clusters(8187, 6)
        #expect(plain.used == ExtentList(common + [clusters(8, 32), clusters(300, 2), end]))
        // $Bitmap and $MFT each in two pieces that attribute lists tell of.
        let spilled = try NTFSReader.map(SparseDisk(try seed(.ntfs, "spilled"), limit: .mebibytes(64)), identity)
        #expect(spilled.wholeBecause == nil, "\(spilled.wholeBecause ?? "")")
        let pieces = [clusters(8, 32), clusters(64, 16), clusters(300, 1), clusters(310, 1), end]
        #expect(spilled.used == ExtentList(common + pieces))
        // Three bad clusters that the bitmap calls used.
        let slept = try NTFSReader.map(SparseDisk(try seed(.ntfs, "hibernation"), limit: .mebibytes(64)), identity)
        #expect(slept.used == plain.used, "\(slept.wholeBecause ?? "")")
        var disk = SparseEditor(try seed(.ntfs, "hibernation"))
        disk.store(400 * 512, Array("hibr".utf8))
        #expect(try NTFSReader.map(SparseDisk(disk.input, limit: .mebibytes(64)), identity).states == [.hibernated])
        let dirty = try NTFSReader.map(SparseDisk(try seed(.ntfs, "dirty"), limit: .mebibytes(64)), identity)
        #expect(dirty.states == [.dirty])
    }

    @Test func theSystemsOfTheSeedsAreFound() throws {
        for (name, kind) in [("ext4", "ext4"), ("ext4-inline", "ext4"), ("ext2", "ext2")] {
            let disk = SparseDisk(try seed(.trees, name), limit: .mebibytes(64))
            let volume = SeenVolume(name: "v:1", disk: 0, source: disk, kind: ContentKind(rawValue: kind))
            let found = try InstalledSystems.look(at: [volume], by: .inProcess)
            #expect(found.systems.map(\.system.name) == ["Seed OS 1"], "\(name): \(found.findings)")
            #expect(found.systems.first?.system.hostname == "seed")
        }
        for name in ["fat12", "fat16"] {
            let tree = try FATFileTree(SparseDisk(try seed(.trees, name), limit: .mebibytes(64)))
            #expect(try tree.file("efi/boot/bootx64.efi") == Array("MZ".utf8))
            #expect(try tree.holds("EFI/A Long Name.efi"))
        }
    }

    @Test func theSeedsOfXFSAreMapped() throws {
        let identity = Identity(kind: .xfs, usage: .filesystem)
        for name in ["version5", "version4"] {
            let map = try XFSReader.map(SparseDisk(try seed(.xfs, name), limit: .mebibytes(64)), identity)
            #expect(map.wholeBecause == nil, "\(map.wholeBecause ?? "")")
            // Headers and log of the first group; of the second one all but a hundred single blocks.
            #expect(map.used.byteCount.bytes == 128 * 512 + (256 - 100) * 512)
            #expect(map.used.extents.count == 1 + 1 + 100)
        }
        let mounted = try XFSReader.map(SparseDisk(try seed(.xfs, "mounted"), limit: .mebibytes(64)), identity)
        #expect(mounted.states == [.journalToReplay])
        #expect(mounted.wholeBecause == nil, "\(mounted.wholeBecause ?? "")")
        // After the replay two blocks more are in use; before it they were free.
        #expect(mounted.used.byteCount.bytes == 130 * 512 + (256 - 100) * 512)
    }

    /// The replay of a filesystem of the seeds' kind, and its map.
    private func replay(_ bytes: [UInt8]) throws -> (replay: XFSReplay, map: VolumeMap) {
        let disk = MemoryDisk(bytes)
        let superblock = try XFSSuperblock(parsing: disk.bytes(at: .zero, count: 512))
        let log = try XFSLog(disk, superblock)
        return (
            try XFSReplay(disk, superblock, log, log.head()),
            try XFSReader.map(disk, Identity(kind: .xfs, usage: .filesystem))
        )
    }

    @Test func aBufferThatALaterTransactionCancelsIsNotReplayed() throws {
        // The header of the first group, a leaf of its tree and one of its tree of sizes.
        let all = try replay(XFSSeeds.volume(version5: true, mounted: true))
        #expect(all.replay.volume.changedBlocks == 3)
        #expect(all.map.wholeBecause == nil)
        let most = try replay(XFSSeeds.volume(version5: true, mounted: true, cancelled: 12))
        #expect(most.replay.volume.changedBlocks == 2)
        #expect(!most.replay.volume.hasChanges(in: Extent(from: ByteCount(12 * 512), to: ByteCount(13 * 512))))
        // Then the two trees do not agree, and nothing is believed.
        #expect(most.map.states == [.journalToReplay, .damaged], "\(most.map.wholeBecause ?? "mapped")")
        // A place that is not in the log changes nothing.
        #expect(
            try replay(XFSSeeds.volume(version5: true, mounted: true, cancelled: 13)).replay.volume.changedBlocks == 3)
    }

    @Test func aBlockThatIsNewerThanItsTransactionIsNotReplayed() throws {
        // The transaction begins at block 0 of round 1 of the log: that is what a block written after it says.
        func volume(_ age: UInt64, uuid: UInt8 = 0x10) throws -> [UInt8] {
            var bytes = XFSSeeds.volume(version5: true, mounted: true)
            bytes.putBig(age, at: 12 * 512 + 24)
            bytes[12 * 512 + 32] = uuid
            return bytes
        }
        #expect(try replay(volume(1 << 32)).replay.volume.changedBlocks == 2)
        #expect(try replay(volume((1 << 32) - 1)).replay.volume.changedBlocks == 3)
        // Another filesystem's block says nothing, however new it is.
        #expect(try replay(volume(1 << 32, uuid: 0x77)).replay.volume.changedBlocks == 3)
        // What is newer than the log's last record cannot be.
        #expect(throws: MapProblem.self) { try replay(volume(2 << 32)) }
    }

    @Test func anUnknownItemInTheLogOfXFSMakesItWhole() throws {
        let identity = Identity(kind: .xfs, usage: .filesystem)
        var disk = SparseEditor(try seed(.xfs, "mounted"))
        // The log's record; behind its header and three operations' headers the format of the first buffer.
        let place: UInt64 = 64 * 512 + 512 + 12 + 12 + 16 + 12
        #expect(disk.bytes(place, 2) == [0x3C, 0x12])
        disk.store(place, [0x60])
        var input = disk.input
        #expect(
            try XFSReader.map(SparseDisk(input, limit: .mebibytes(64)), identity).states == [
                .journalToReplay, .damaged,
            ])
        XFSSeeds.mend(&input)
        let map = try XFSReader.map(SparseDisk(input, limit: .mebibytes(64)), identity)
        #expect(map.states == [.journalToReplay, .unknownFeatures])
        #expect(map.wholeBecause?.contains("1260") == true, "\(map.wholeBecause ?? "mapped")")
    }

    @Test func theSeedsOfBtrfsAreMapped() throws {
        let identity = Identity(kind: .btrfs, usage: .filesystem)
        func extent(_ from: UInt64, _ count: UInt64) -> Extent {
            Extent(from: ByteCount(from), to: ByteCount(from + count))
        }
        let fixed = [extent(0, 1 << 20), extent(0x100000, 4096), extent(0x160000, 8192), extent(0x164000, 4096)]
        let expected: [String: [Extent]] = [
            "single": [extent(0x120000, 8192)],
            // Both copies of four blocks.
            "dup": [0x120000, 0x140000].flatMap { [extent($0, 8192), extent($0 + 0x3000, 8192)] },
            "striped": [extent(0x120000, 12_288)],
            "log": [extent(0x120000, 8192), extent(0x130000, 8192), extent(0x168000, 8192)],
            "all": [extent(0x168000, 8192)]
                + [0x120000, 0x140000].flatMap { [extent($0, 20_480), extent($0 + 0x10000, 8192)] },
        ]
        #expect(expected.count == BtrfsSeeds.options.count)
        for (name, extents) in expected {
            let map = try BtrfsReader.map(SparseDisk(try seed(.btrfs, name), limit: .mebibytes(64)), identity)
            #expect(map.wholeBecause == nil, "\(name): \(map.wholeBecause ?? "")")
            #expect(map.states == [["log", "all"].contains(name) ? .journalToReplay : .clean])
            #expect(map.used == ExtentList(fixed + extents), "\(name)")
        }
    }

    @Test(arguments: ["single", "all"])
    func aChangedBtrfsIsMappedAgainOnceItsChecksumsAreMended(_ name: String) throws {
        let identity = Identity(kind: .btrfs, usage: .filesystem)
        let sound = try seed(.btrfs, name)
        let before = try BtrfsReader.map(SparseDisk(sound, limit: .mebibytes(64)), identity)
        // The label, and bytes of no weight in blocks of the chunk tree and the tree of trees.
        for place in [65_536 + 299, 0x100000 + 64, 0x120000 + 64] as [UInt64] {
            var disk = SparseEditor(sound)
            disk.store(place, [0x55])
            var input = disk.input
            try #require(input != sound)
            #expect(try BtrfsReader.map(SparseDisk(input, limit: .mebibytes(64)), identity) != before)
            BtrfsSeeds.mend(&input)
            #expect(try BtrfsReader.map(SparseDisk(input, limit: .mebibytes(64)), identity) == before)
        }
    }

    @Test func theSeedsOfExFATAreMapped() throws {
        let identity = Identity(kind: .exFAT, usage: .filesystem)
        for (name, sector, cluster, pieces) in [
            ("plain", 512, 4096, 1), ("pieces", 512, 512, 1), ("sectors-4096", 4096, 4096, 1), ("backup", 512, 1024, 1),
        ] as [(String, UInt64, UInt64, UInt64)] {
            let map = try ExFATReader.map(SparseDisk(try seed(.exfat, name), limit: .mebibytes(64)), identity)
            #expect(map.wholeBecause == nil, "\(name): \(map.wholeBecause ?? "")")
            #expect(map.used.byteCount.bytes == 64 * sector + (pieces + 6) * cluster, "\(name)")
            #expect(map.states == [name == "backup" ? .damaged : .clean])
        }
        let dirty = try ExFATReader.map(SparseDisk(try seed(.exfat, "dirty"), limit: .mebibytes(64)), identity)
        #expect(dirty.states == [.dirty])
        var disk = SparseEditor(try seed(.exfat, "plain"))
        disk.store(200, [0x55])
        var input = disk.input
        ExFATSeeds.mend(&input)
        #expect(try ExFATReader.map(SparseDisk(input, limit: .mebibytes(64)), identity).wholeBecause == nil)
    }

    @Test func theSeedsOfF2FSAreMapped() throws {
        let identity = Identity(kind: .f2fs, usage: .filesystem)
        func map(_ input: [UInt8]) throws -> VolumeMap {
            try F2FSReader.map(SparseDisk(input, limit: .mebibytes(64)), identity)
        }
        for name in ["plain", "compact"] {
            let found = try map(try seed(.f2fs, name))
            #expect(found.wholeBecause == nil, "\(name): \(found.wholeBecause ?? "")")
            let expected = [(0, 4096 + 20), (4096 + 512, 7), (4096 + 5 * 512, 512)] as [(UInt64, UInt64)]
            #expect(
                found.used
                    == ExtentList(
                        expected.map { Extent(from: ByteCount($0 * 4096), to: ByteCount(($0 + $1) * 4096)) }))
        }
        #expect(try map(try seed(.f2fs, "crashed")).states == [.journalToReplay])
        #expect(try map(try seed(.f2fs, "synced")).states == [.journalToReplay])
        // An elapsed time, in both blocks of the newer checkpoint.
        var disk = SparseEditor(try seed(.f2fs, "compact"))
        for block in [1024, 1024 + 5] as [UInt64] { disk.store(block * 4096 + 192 + 1, [0]) }
        disk.store(1024 + 1030, [0x55])
        var input = disk.input
        F2FSSeeds.mend(&input)
        #expect(try map(input).wholeBecause == nil)
    }

    @Test func theSeedsOfHFSPlusAreMapped() throws {
        let identity = Identity(kind: .hfsPlus, usage: .filesystem)
        for (name, blocks) in [("plain", 18), ("journaled", 27), ("wrapped", 18 + 16 + 4)] as [(String, UInt64)] {
            let map = try HFSPlusReader.map(SparseDisk(try seed(.hfsplus, name), limit: .mebibytes(64)), identity)
            #expect(map.wholeBecause == nil, "\(name): \(map.wholeBecause ?? "")")
            #expect(map.used.byteCount.bytes == blocks * 512, "\(name)")
        }
        let waiting = try HFSPlusReader.map(SparseDisk(try seed(.hfsplus, "waiting"), limit: .mebibytes(64)), identity)
        #expect(waiting.states == [.journalToReplay])
    }

    @Test func theSeedsOfHivesAreReadAndRecovered() throws {
        func open(_ input: [UInt8]) throws -> Hive {
            let files = HiveSeeds.files(input).map { HiveSource($0) }
            return try Hive(files[0], logs: Array(files[1...]))
        }
        let kinds: [(String, HiveKind)] = [("system", .system), ("bcd", .bcd), ("roots", .bcd), ("lists", .bcd)]
        for (name, kind) in kinds {
            let hive = try open(try seed(.hive, name))
            #expect(hive.state == .clean && hive.kind == kind, "\(name)")
        }
        for (name, changes, number) in [("entries", 2, 3), ("vector", 1, 2)] as [(String, Int, UInt32)] {
            let hive = try open(try seed(.hive, name))
            guard case .recovered(let recovery) = hive.state else {
                Issue.record("\(name): \(hive.state)")
                continue
            }
            #expect(recovery.entries == changes)
            #expect(try hive.key("ControlSet001\\Services\\disk")?.dword("Start") == number)
        }
        // A letter of a name in a page of a log, and a hive's time.
        let sound = try seed(.hive, "entries")
        let letters = HiveBuilder.wide("PC2")
        let place = try #require(
            (0..<sound.count - letters.count).first { sound[$0..<$0 + letters.count].elementsEqual(letters) })
        var input = sound
        input[place] = UInt8(ascii: "X")
        func name(_ input: [UInt8]) throws -> String? {
            try open(input).key("ControlSet001\\Control\\ComputerName\\ComputerName")?.string("ComputerName")
        }
        #expect(try name(sound) == "PC3")
        #expect(try name(input) == "PC1")
        HiveSeeds.mend(&input)
        #expect(try name(input) == "PC3")
    }

    @Test func aChangedXFSIsMappedAgainOnceItsChecksumsAreMended() throws {
        let identity = Identity(kind: .xfs, usage: .filesystem)
        let sound = try seed(.xfs, "version5")
        let before = try XFSReader.map(SparseDisk(sound, limit: .mebibytes(64)), identity)
        // Bytes of no weight in a superblock, a group's header and a tree's block.
        for place in [110, 512 + 208, 8 * 512 + 24] as [UInt64] {
            var disk = SparseEditor(sound)
            disk.store(place, [0x55])
            var input = disk.input
            try #require(input != sound)
            #expect(try XFSReader.map(SparseDisk(input, limit: .mebibytes(64)), identity) != before)
            XFSSeeds.mend(&input)
            #expect(try XFSReader.map(SparseDisk(input, limit: .mebibytes(64)), identity) == before)
        }
    }

    @Test func aChangedNTFSIsMappedAgainOnceItsPiecesAreMended() throws {
        let identity = Identity(kind: .ntfs, usage: .filesystem)
        let sound = try seed(.ntfs, "plain")
        let before = try NTFSReader.map(SparseDisk(sound, limit: .mebibytes(64)), identity)
        var disk = SparseEditor(sound)
        // The log sequence number of record 3, in one copy only, and the end of a piece.
        disk.store((8 + 6) * 512 + 8, [0x55])
        disk.store((8 + 6) * 512 + 510, [0x55])
        var input = disk.input
        #expect(try NTFSReader.map(SparseDisk(input, limit: .mebibytes(64)), identity) != before)
        NTFSSeeds.mend(&input)
        #expect(try NTFSReader.map(SparseDisk(input, limit: .mebibytes(64)), identity) == before)
    }

    @Test func aChangedSetIsReadAgainOnceItsChecksAreMended() throws {
        var input = try seed(.set, "whole")
        // The bytes of the set's number in the facts' JSON, in both copies of the point.
        let needle = Array("\"number\":1,".utf8)
        var changed = 0
        for start in 0...(input.count - needle.count) where input[start..<start + needle.count].elementsEqual(needle) {
            input[start + needle.count - 2] = UInt8(ascii: "7")
            changed += 1
        }
        #expect(changed >= 2)
        #expect(try SetReader(MemoryStore(objects: SetSeeds.unpacked(input))).points().points.isEmpty)
        SetSeeds.mend(&input)
        let reader = try SetReader(MemoryStore(objects: SetSeeds.unpacked(input)))
        #expect(try reader.points().points.map(\.number) == [7])
        #expect(try reader.verify(.full, threads: 1).damages.isEmpty)
    }
}
