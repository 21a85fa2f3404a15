// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import MachineModel

@testable import VolumeStacks

extension FuzzTarget {
    /// LVM2: label, metadata areas, their text, and the group put together from one physical volume.
    static let lvm = FuzzTarget(name: "lvm", longest: 40_000, seeds: LVMSeeds.make, mend: LVMSeeds.mend) { input in
        layer(input, "LVM2_member")
    }

    /// Linux md: superblocks of all versions, an array of one member, and of two.
    static let md = FuzzTarget(name: "md", longest: 20_000, seeds: MDSeeds.make, mend: MDSeeds.mend) { input in
        layer(input, "linux_raid_member")
    }

    /// LUKS1 and LUKS2: headers, their text.
    static let luks = FuzzTarget(name: "luks", longest: 60_000, seeds: LUKSSeeds.make, mend: LUKSSeeds.mend) { input in
        layer(input, "crypto_LUKS")
    }

    private static func layer(_ input: [UInt8], _ kind: String) {
        let disk = SparseDisk(input, limit: .mebibytes(64))
        guard let descriptor = try? VolumeStacks.recognise(disk, kind: ContentKind(rawValue: kind)) else { return }
        let member = StackMember(id: 3, names: ["a"], source: disk, descriptor: descriptor)
        let twin = StackMember(id: 9, names: ["b"], source: disk, descriptor: descriptor)
        for members in [[member], [member, twin]] {
            guard let stacks = try? VolumeStacks.assemble(members) else { continue }
            promise(
                stacks.flatMap { $0.members.map(\.id) }.sorted() == members.map(\.id), "each member is in one stack")
            for stack in stacks { check(stack, on: disk) }
        }
    }

    private static func check(_ stack: Stack, on disk: SparseDisk) {
        keep(stack.name)
        let whole = Extent(from: .zero, to: disk.length)
        for member in stack.members {
            keep(member)
            promise(member.alwaysUsed.end <= disk.length, "what is always used lies on the member")
            promise(
                member.wholeBecause == nil || member.alwaysUsed == ExtentList(whole), "a whole member is used whole")
        }
        for volume in stack.volumes {
            keep(volume.name)
            promise(
                volume.name.unicodeScalars.allSatisfy { $0.value > 32 && $0.value < 127 }, "names are safe to print")
            let pushed = volume.pushDown(ExtentList(Extent(from: .zero, to: volume.length)))
            guard let source = volume.source else {
                promise(pushed.isEmpty, "what is not mapped is not pushed down")
                continue
            }
            for (id, list) in pushed {
                guard let member = stack.members.first(where: { $0.id == id }) else {
                    promise(false, "only members hold volumes")
                    return
                }
                promise(list.end <= disk.length, "a volume lies on its members")
                promise(
                    member.wholeBecause != nil || member.alwaysUsed.subtracting(list) == member.alwaysUsed,
                    "what is mapped is not always used")
            }
            _ = try? source.bytes(at: .zero, count: min(65_536, volume.length.int ?? 0))
            for copy in volume.copies { _ = try? copy.bytes(at: .zero, count: min(4096, volume.length.int ?? 0)) }
        }
    }
}

enum LVMSeeds {
    private static let area = (start: 4096, size: 28_672)
    private static let text = 4096 + 512

    /// The checksums of label, area header and text.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        for sector in 0..<4 {
            var label = disk.bytes(UInt64(sector * 512), 512)
            guard label.starts(with: "LABELONE".utf8) else { continue }
            label.put(unsafe LVMPhysicalVolume.crc(label.span.bytes.extracting(20..<512)), at: 16)
            disk.store(UInt64(sector * 512), label)
        }
        var head = disk.bytes(UInt64(area.start), 512)
        let offset = head.number(UInt64.self, at: 40)
        let size = head.number(UInt64.self, at: 48)
        if offset < 1 << 16, size < 1 << 16 {
            let text = disk.bytes(UInt64(area.start) + offset, Int(size))
            head.put(unsafe LVMPhysicalVolume.crc(text.span.bytes), at: 56)
        }
        head.put(unsafe LVMPhysicalVolume.crc(head.span.bytes.extracting(4..<512)), at: 0)
        disk.store(UInt64(area.start), head)
        input = disk.input
    }

    private static func volume(_ name: String, _ status: String, _ segments: [String]) -> String {
        var id = ""
        for part in [6, 4, 4, 4, 4, 4, 6] {
            id += (id.isEmpty ? "" : "-") + String(repeating: name.first ?? "x", count: part)
        }
        var text = "\(name) {\nid = \"\(id)\"\nstatus = [\(status)]\nflags = []\nsegment_count = \(segments.count)\n"
        for (index, segment) in segments.enumerated() { text += "segment\(index + 1) {\n\(segment)\n}\n" }
        return text + "}\n"
    }

    private static func striped(_ first: Int, _ count: Int, _ areas: String, _ stripes: Int = 1) -> String {
        "start_extent = \(first)\nextent_count = \(count)\ntype = \"striped\"\nstripe_count = \(stripes)\n"
            + (stripes > 1 ? "stripe_size = 16\n" : "") + "stripes = [\(areas)]"
    }

    private static let groups: [(name: String, volumes: String)] = {
        let visible = "\"READ\", \"WRITE\", \"VISIBLE\""
        let hidden = "\"READ\", \"WRITE\""
        let simple =
            volume("a", visible, [striped(0, 2, "\"pv0\", 3"), striped(2, 1, "\"pv0\", 0")])
            + volume("s", visible, [striped(0, 4, "\"pv0\", 6, \"pv0\", 10", 2)])
        let raid =
            ["m_rmeta_0", "m_rmeta_1"].enumerated().map { volume($1, hidden, [striped(0, 1, "\"pv0\", \($0)")]) }
            .joined()
            + ["n_rimage_0", "o_rimage_1"].enumerated().map {
                volume($1, hidden, [striped(0, 3, "\"pv0\", \(3 + 3 * $0)")])
            }.joined()
            + volume(
                "r", visible,
                [
                    "start_extent = 0\nextent_count = 3\ntype = \"raid1\"\ndevice_count = 2\n"
                        + "raids = [\"m_rmeta_0\", \"n_rimage_0\", \"m_rmeta_1\", \"o_rimage_1\"]"
                ])
            + volume(
                "q", visible,
                [
                    "start_extent = 0\nextent_count = 2\ntype = \"mirror\"\nmirror_count = 2\nmirrors = [\"pv0\", 10, \"pv0\", 12]"
                ])
        let thin =
            volume("p_tdata", hidden, [striped(0, 4, "\"pv0\", 2")])
            + volume("p_tmeta", hidden, [striped(0, 1, "\"pv0\", 1")])
            + volume(
                "p", visible,
                ["start_extent = 0\nextent_count = 4\ntype = \"thin-pool\"\nmetadata = \"p_tmeta\"\npool = \"p_tdata\""]
            )
            + volume("t", visible, ["start_extent = 0\nextent_count = 90\ntype = \"thin\"\nthin_pool = \"p\""])
            + volume("c", hidden, [striped(0, 1, "\"pv0\", 12")]) + volume("d", visible, [striped(0, 1, "\"pv0\", 13")])
            + volume(
                "x", visible,
                ["start_extent = 0\nextent_count = 1\ntype = \"snapshot\"\norigin = \"d\"\ncow_store = \"c\""])
        return [("simple", simple), ("raid", raid), ("thin", thin)]
    }()

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        groups.map { name, volumes in
            let text =
                "vg {\nid = \"vvvvvv-vvvv-vvvv-vvvv-vvvv-vvvv-vvvvvv\"\nseqno = 7\nformat = \"lvm2\"\n"
                + "status = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\nextent_size = 64\nphysical_volumes {\npv0 {\n"
                + "id = \"uuuuuu-uuuu-uuuu-uuuu-uuuu-uuuu-uuuuuu\"\nstatus = [\"ALLOCATABLE\"]\nflags = []\npe_start = 64\n"
                + "pe_count = 15\n}\n}\nlogical_volumes {\n\(volumes)}\n}\ncontents = \"Text Format Volume Group\"\nversion = 1\n"
            var disk = [UInt8](repeating: 0, count: 512 << 10)
            func put(_ bytes: some Sequence<UInt8>, _ offset: Int) {
                for (index, byte) in bytes.enumerated() { disk[offset + index] = byte }
            }
            put("LABELONE".utf8, 512)
            disk.put(UInt64(1), at: 520)
            disk.put(UInt32(32), at: 532)
            put("LVM2 001".utf8, 536)
            put([UInt8](repeating: UInt8(ascii: "u"), count: 32), 544)
            for (index, number) in [512 << 10, 32768, 0, 0, 0, 4096, 28_672].enumerated() {
                disk.put(UInt64(number), at: 576 + 8 * index)
            }
            put([0x20, 0x4C, 0x56, 0x4D, 0x32, 0x20, 0x78, 0x5B, 0x35, 0x41, 0x25, 0x72, 0x30, 0x4E, 0x2A, 0x3E], 4100)
            disk.put(UInt32(1), at: 4116)
            for (index, number) in [4096, 28_672, 512, text.utf8.count + 1].enumerated() {
                disk.put(UInt64(number), at: 4120 + 8 * index)
            }
            put(text.utf8, LVMSeeds.text)
            // Only what is not zero is in an input: a place for the checksum.
            disk.put(UInt32.max, at: 4096 + 56)
            var input = SparseDisk.input(disk, length: UInt64(disk.count), block: 64)
            mend(&input)
            return (name, input)
        }
    }
}

enum MDSeeds {
    private static let size = 256 << 10
    private static let places = [4096, 0, (256 << 10) - 8192]

    private static func sum(_ bytes: [UInt8]) -> UInt32 {
        let padded = bytes + [0, 0, 0]
        let sum = stride(from: 0, to: bytes.count, by: 4).reduce(UInt64(0)) {
            $0 + UInt64(padded.number(UInt32.self, at: $1))
        }
        return UInt32(truncatingIfNeeded: (sum & 0xFFFF_FFFF) &+ (sum >> 32))
    }

    /// Superblocks' checksums.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        let end = disk.length / 4096 * 4096
        for place in [4096, 0, end > 8192 ? end - 8192 : 0] {
            var head = disk.bytes(place, 256)
            guard head.number(UInt32.self, at: 0) == 0xA92B_4EFC, head.number(UInt32.self, at: 4) == 1 else { continue }
            let count = min(1920, Int(head.number(UInt32.self, at: 220)))
            head.put(UInt32(0), at: 216)
            disk.store(place, head)
            head.put(sum(disk.bytes(place, 256 + 2 * count)), at: 216)
            disk.store(place, head)
        }
        let place = disk.length / 65536 * 65536
        guard place >= 65536 else {
            input = disk.input
            return
        }
        var block = disk.bytes(place - 65536, 4096)
        if block.number(UInt32.self, at: 0) == 0xA92B_4EFC, block.number(UInt32.self, at: 4) == 0 {
            block.put(UInt32(0), at: 152)
            block.put(sum(block), at: 152)
            disk.store(place - 65536, block)
        }
        input = disk.input
    }

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        var result: [(name: String, bytes: [UInt8])] = []
        for (version, place) in zip(["1.2", "1.1", "1.0"], places) {
            for level in [1, 0] as [Int32] where level == 1 || version == "1.2" {
                var disk = [UInt8](repeating: 0, count: size)
                let start = version == "1.0" ? 0 : 64
                let numbers: [(Int, UInt32)] = [
                    (0, 0xA92B_4EFC), (4, 1), (8, 0), (72, UInt32(bitPattern: level)), (80, level == 1 ? 320 : 0),
                    (88, level == 1 ? 0 : 8), (92, level == 1 ? 2 : 1), (128, UInt32(start)), (136, 400),
                    (144, UInt32(place / 512)), (200, 5), (208, .max), (212, .max), (220, 4), (256, 0x0001_0000),
                    (260, 0xFFFF_FFFF),
                ]
                for (offset, number) in numbers { disk.put(number, at: place + offset) }
                for index in 0..<16 { disk[place + 16 + index] = 0xAA }
                for (index, byte) in "host:arr".utf8.enumerated() { disk[place + 32 + index] = byte }
                var input = SparseDisk.input(disk, length: UInt64(size), block: 64)
                mend(&input)
                result.append(("\(version)-raid\(level)", input))
            }
        }
        var disk = [UInt8](repeating: 0, count: size)
        let place = size - 65536
        let words: [(Int, UInt32)] = [
            (0, 0xA92B_4EFC), (2, 90), (5, 1), (7, 1), (8, 128), (9, 2), (10, 2), (33, 1), (39, 9), (992, 0), (995, 0),
            (996, 6),
        ]
        for (index, word) in words { disk.put(word, at: place + 4 * index) }
        var input = SparseDisk.input(disk, length: UInt64(size), block: 64)
        mend(&input)
        result.append(("0.90", input))
        return result
    }
}

enum LUKSSeeds {
    /// Checksums of both copies of a LUKS2 header.
    static func mend(_ input: inout [UInt8]) {
        var disk = SparseEditor(input)
        for place in [0, 16_384] as [UInt64] {
            var binary = disk.bytes(place, 4096)
            let size = Int(binary.big(UInt64.self, at: 8) & 0xFF_FFFF)
            guard binary.big(UInt16.self, at: 6) == 2, size >= 4096, size <= 1 << 16 else { continue }
            binary.replaceSubrange(448..<512, with: [UInt8](repeating: 0, count: 64))
            disk.store(place, binary)
            guard let check = Digest.value(disk.bytes(place, size), "sha256") else { continue }
            binary.replaceSubrange(448..<448 + check.count, with: check)
            disk.store(place, binary)
        }
        input = disk.input
    }

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        let magic: [UInt8] = [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE]
        var first = [UInt8](repeating: 0, count: 4096)
        func put(_ text: String, _ offset: Int, _ disk: inout [UInt8]) {
            for (index, byte) in text.utf8.enumerated() { disk[offset + index] = byte }
        }
        first.replaceSubrange(0..<6, with: magic)
        first.putBig(1 as UInt16, at: 6)
        put("aes", 8, &first)
        put("xts-plain64", 40, &first)
        put("sha256", 72, &first)
        first.putBig(4096 as UInt32, at: 104)
        first.putBig(64 as UInt32, at: 108)
        put("11111111-2222-3333-4444-555555555555", 168, &first)

        func two(_ segment: String, _ requirements: String = "") -> [UInt8] {
            var disk = [UInt8](repeating: 0, count: 32_768)
            for (place, magic) in [(0, magic), (16_384, Array("SKUL".utf8) + magic.suffix(2))] {
                disk.replaceSubrange(place..<place + 6, with: magic)
                disk.putBig(2 as UInt16, at: place + 6)
                disk.putBig(16_384 as UInt64, at: place + 8)
                disk.putBig(3 as UInt64, at: place + 16)
                put("sha256", place + 72, &disk)
                put("11111111-2222-3333-4444-555555555555", place + 168, &disk)
                disk.putBig(UInt64(place), at: place + 256)
                for index in 448..<480 { disk[place + index] = 0xFF }
                put(
                    """
                    {"keyslots":{},"tokens":{},"segments":{"0":\(segment)},"digests":{},"config":{"json_size":"12288",\
                    "keyslots_size":"1015808"\(requirements)}}
                    """, place + 4096, &disk)
            }
            return disk
        }
        let plain = """
            {"type":"crypt","offset":"1048576","size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":4096}
            """
        let disks = [
            ("luks1", first), ("luks2", two(plain)),
            (
                "luks2-integrity",
                two(plain.replacing("}", with: ",\"integrity\":{\"type\":\"hmac(sha256)\"}}"))
            ),
            ("luks2-reencrypt", two(plain, ",\"requirements\":{\"mandatory\":[\"online-reencrypt-v2\"]}")),
        ]
        return disks.map { name, disk in
            var input = SparseDisk.input(disk, length: 4 << 20, block: 64)
            mend(&input)
            return (name, input)
        }
    }
}
