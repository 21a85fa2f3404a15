// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel
import TestSupport
import Testing
import Tools

@testable import VolumeStacks

/// A disk whose bytes tell their place: each sector begins with its number and the disk's.
private func numbered(_ disk: UInt8, _ size: Int) -> MemoryDisk {
    var bytes = [UInt8](repeating: disk, count: size)
    for sector in 0..<size / 512 {
        for index in 0..<4 { bytes[sector * 512 + index] = UInt8(truncatingIfNeeded: sector >> (8 * index)) }
    }
    return MemoryDisk(bytes)
}

private func bytes(_ from: UInt64, _ to: UInt64) -> Extent { Extent(from: ByteCount(from), to: ByteCount(to)) }

struct MappingTests {
    private let lengths = [0: ByteCount(1 << 20), 1: ByteCount(1 << 20), 2: ByteCount(1 << 20)]

    private func area(_ member: Int, _ start: UInt64) -> Mapping.Area {
        Mapping.Area(target: .member(member), start: ByteCount(start))
    }

    /// Linear, striped over three, a mirror, and a mapping in a mapping.
    private func mixed() throws -> Mapping {
        let inner = try Mapping(
            [
                Mapping.Segment(
                    extent: bytes(0, 3 * 65536), arrangement: .striped(ByteCount(4096)),
                    areas: [area(2, 0), area(0, 65536), area(1, 131072)])
            ], lengths: lengths)
        return try Mapping(
            [
                Mapping.Segment(extent: bytes(0, 8192), arrangement: .linear, areas: [area(1, 512)]),
                Mapping.Segment(
                    extent: bytes(8192, 8192 + 2 * 65536), arrangement: .linear,
                    areas: [Mapping.Area(target: .mapping(inner), start: ByteCount(65536))]),
                Mapping.Segment(
                    extent: bytes(139_264, 139_264 + 16384), arrangement: .copies,
                    areas: [area(0, 512 << 10), area(1, 768 << 10)]),
            ], lengths: lengths)
    }

    /// Wherever a byte is read from, that byte of the member is in what is pushed down for it, and no other.
    @Test func whatIsPushedDownIsWhatIsRead() throws {
        let mapping = try mixed()
        let disks = [0: numbered(10, 1 << 20), 1: numbered(11, 1 << 20), 2: numbered(12, 1 << 20)]
        let source = MappedSource(mapping, disks, name: "mixed", copy: 0)
        var seed = Seeded(3)
        for _ in 0..<300 {
            let start = UInt64.random(in: 0..<mapping.length.bytes / 512, using: &seed) * 512
            let end = min(mapping.length.bytes, start + UInt64.random(in: 1...80, using: &seed) * 512)
            let read = try source.bytes(at: ByteCount(start), count: Int(end - start))
            let pushed = mapping.pushDown(ExtentList(bytes(start, end)))
            var places: [Int: [Extent]] = [:]
            for sector in stride(from: 0, to: read.count, by: 512) {
                let number = (0..<4).reduce(UInt64(0)) { $0 | UInt64(read[sector + $1]) << UInt64(8 * $1) }
                places[Int(read[sector + 4]) - 10, default: []].append(bytes(number * 512, number * 512 + 512))
            }
            let mirrored = ExtentList(bytes(start, end)).intersection(bytes(139_264, 155_648))
            let second = mirrored.shifted(by: ByteCount((768 << 10) - 139_264))?.extents ?? []
            places[1, default: []] += second
            for id in 0..<3 { #expect(pushed[id] ?? ExtentList() == ExtentList(places[id] ?? [])) }
        }
    }

    @Test func copiesThatDifferAreNoticedOnlyWhereTheyAreRead() throws {
        let mapping = try Mapping(
            [Mapping.Segment(extent: bytes(0, 65536), arrangement: .copies, areas: [area(0, 0), area(1, 4096)])],
            lengths: lengths)
        let first = MemoryDisk([UInt8](repeating: 7, count: 1 << 20))
        var other = [UInt8](repeating: 7, count: 1 << 20)
        other[4096 + 9000] = 8
        let volume = StackVolume("m", uuid: nil, layout: "raid1", mapping, [0: first, 1: MemoryDisk(other)])
        let source = try #require(volume.source)
        _ = try source.bytes(at: .zero, count: 9000)
        #expect(!volume.copiesDiffer)
        _ = try source.bytes(at: ByteCount(9001), count: 100)
        #expect(!volume.copiesDiffer)
        _ = try source.bytes(at: ByteCount(9000), count: 1)
        #expect(volume.copiesDiffer)
        #expect(try volume.copies.map { try $0.bytes(at: ByteCount(9000), count: 1) } == [[7], [8]])
    }

    @Test func aCopyThatCannotBeReadIsADifferenceAndTheOtherIsRead() throws {
        let mapping = try Mapping(
            [Mapping.Segment(extent: bytes(0, 65536), arrangement: .copies, areas: [area(0, 0), area(1, 0)])],
            lengths: lengths)
        let good = MemoryDisk([UInt8](repeating: 7, count: 1 << 20))
        let bad = Faulty(good, bad: ExtentList(bytes(512, 1024)))
        let volume = StackVolume("m", uuid: nil, layout: "raid1", mapping, [0: bad, 1: good])
        #expect(try volume.source?.bytes(at: ByteCount(512), count: 4) == [7, 7, 7, 7])
        #expect(volume.copiesDiffer)
    }

    @Test func segmentsThatDoNotFitAreRefused() {
        let linear = { (extent: Extent, start: UInt64) in
            Mapping.Segment(extent: extent, arrangement: .linear, areas: [self.area(0, start)])
        }
        for segments in [
            [], [linear(bytes(512, 1024), 0)], [linear(bytes(0, 1024), 1 << 20)], [linear(bytes(0, 2 << 20), 0)],
            [linear(bytes(0, 512), .max)], [linear(bytes(0, 512), 0), linear(bytes(1024, 2048), 0)],
            [
                Mapping.Segment(
                    extent: bytes(0, 4096), arrangement: .striped(ByteCount(4096)), areas: [area(0, 0), area(1, 0)])
            ],
            [Mapping.Segment(extent: bytes(0, 4096), arrangement: .linear, areas: [area(7, 0)])],
        ] as [[Mapping.Segment]] {
            #expect(throws: LayerProblem.self) { try Mapping(segments, lengths: lengths) }
        }
    }
}

struct LVMTextTests {
    @Test func sectionsListsNumbersAndCommentsAreRead() throws {
        let text = """
            vg { # a comment
            id = "a\\"b\\\\c"
            n = 18446744073709551615
            list = ["x", 3, "y",]
            empty = []
            sub { deep { x = 1 } }
            }
            # another
            version = 1
            """
        let result = try LVMText.parse(Array(text.utf8) + [0])
        let group = try #require(result["vg"]?.section)
        #expect(group["id"]?.text == "a\"b\\c")
        #expect(group["n"]?.number == .max)
        #expect(group["list"]?.list?.count == 3)
        #expect(group["empty"]?.texts == [])
        #expect(group["sub"]?.section?["deep"]?.section?["x"]?.number == 1)
        #expect(result["version"]?.number == 1)
    }

    @Test(arguments: [
        "a {", "a }", "a = ", "a = [1", "a = \"x", "a b", "{ }", "a = 1\na = 2", "a = [1 2]", "= 1", "a = 1 }",
        String(repeating: "a {", count: 100), "x = " + String(repeating: "[", count: 5000),
    ])
    func whatIsNoTextIsRefused(text: String) {
        #expect(throws: LayerProblem.self) { try LVMText.parse(Array(text.utf8)) }
    }

    @Test func thereIsAnEndToValues() {
        let many = "x = [" + String(repeating: "1,", count: 500_000) + "1]"
        #expect(throws: LayerProblem.self) { try LVMText.parse(Array(many.utf8)) }
    }
}

struct NamedLayerTests {
    @Test(arguments: ["BitLocker", "isw_raid_member", "ddf_raid_member", "zfs_member", "drbd", "vdo", "mpath_member"])
    func itIsNamedAndWhole(kind: String) throws {
        let disk = MemoryDisk([UInt8](repeating: 0, count: 1 << 20))
        let descriptor = try #require(try VolumeStacks.recognise(disk, kind: ContentKind(rawValue: kind)))
        #expect(descriptor.wholeBecause?.isEmpty == false && !descriptor.format.isEmpty)
        let stacks = try VolumeStacks.assemble([StackMember(id: 5, names: ["d"], source: disk, descriptor: descriptor)])
        #expect(stacks.map(\.isAssembled) == [false])
        #expect(stacks[0].members[0].alwaysUsed.byteCount == disk.length)
        #expect(try VolumeStacks.recognise(disk, kind: .ext4) == nil)
    }

    @Test(arguments: ["LVM2_member", "linux_raid_member", "crypto_LUKS"])
    func aMemberWithoutItsMetadataIsWhole(kind: String) throws {
        let disk = MemoryDisk([UInt8](repeating: 0, count: 1 << 20))
        let descriptor = try #require(try VolumeStacks.recognise(disk, kind: ContentKind(rawValue: kind)))
        let stacks = try VolumeStacks.assemble([StackMember(id: 1, names: ["d"], source: disk, descriptor: descriptor)])
        #expect(stacks[0].members[0].wholeBecause != nil)
    }
}

struct VolumeKeyTests {
    /// IEEE 1619-2007, annex B, vector 10: AES-256 in XTS, data unit 0xFF.
    @Test func decryptionIsThatOfTheStandard() throws {
        let hex = { (text: String) in
            stride(from: 0, to: text.utf8.count, by: 2).compactMap { offset -> UInt8? in
                let start = text.index(text.startIndex, offsetBy: offset)
                return UInt8(text[start..<text.index(start, offsetBy: 2)], radix: 16)
            }
        }
        let key = try #require(
            VolumeKey(
                hex("2718281828459045235360287471352662497757247093699959574966967627")
                    + hex("3141592653589793238462643383279502884197169399375105820974944592")))
        let begin = hex("1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b")
        // Only the first blocks are looked at; XTS makes each on its own.
        var sector = begin + [UInt8](repeating: 0, count: 480)
        let done = unsafe sector.withUnsafeMutableBytes { unsafe key.decrypt($0, size: 512, first: 0xFF) }
        #expect(done)
        #expect(Array(sector.prefix(32)) == Array(0..<32))
        #expect(VolumeKey([1, 2, 3]) == nil)
    }

    @Test func theKeyIsReadFromCryptsetupsWords() {
        let text = "LUKS header information for x\nMK bits:       \t16\nMK dump:\tfb 91 \n\t\t0a FF \nUUID: x\n"
        #expect(LUKSKey.parse(text) == [0xFB, 0x91, 0x0A, 0xFF])
        #expect(LUKSKey.parse("no key") == [])
    }
}
