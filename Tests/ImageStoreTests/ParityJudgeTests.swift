// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import TestSupport
import Testing

@testable import ImageStore

/// `Tests/Judges/repair_pack.py` repairs what the program made, knowing docs/image-format.md only.
@Suite(.enabled(if: Judge.run("python3 -c pass 2>/dev/null") == 0, "needs python3"))
struct ParityJudgeTests {
    static let script = String(Judge.script.dropLast("read_set.py".count)) + "repair_pack.py"

    /// A pack of frames of a protected set, and its layout.
    static func pack(_ length: Int, percent: Int) throws -> (id: ObjectID, bytes: [UInt8], layout: ParityLayout) {
        let store = MemoryStore()
        var random = Seeded(UInt64(length))
        let content = (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) }
        try Sample.backup([(content, nil)], to: store, options: .init(parity: percent))
        let (name, bytes) = try #require(
            store.objects.first { name, bytes in name.hasPrefix("packs/") && bytes[10] == PackHeader.Kind.data.rawValue
            })
        let id = try #require(ObjectName.id(name, suffix: ".pack"))
        let check = try #require(try ParityCheck.run(ParitySample.damaged(bytes), id: id, hasher: Hasher256()))
        return (id, bytes, check.layout)
    }

    /// The script's exit status and the pack it wrote.
    static func repair(_ bytes: [UInt8], _ id: ObjectID, in folder: String) throws -> (status: Int32, bytes: [UInt8]?) {
        let name = "\(folder)/\(id.text).pack"
        _ = unsafe unlink(name)
        let file = unsafe creat(name, 0o644)
        let written = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(file, $0.baseAddress, $0.count) }
        close(file)
        #expect(written == bytes.count)
        _ = unsafe unlink("\(folder)/repaired")
        let status = Judge.run("python3 \(script) \(name) \(folder)/repaired >/dev/null")
        return (status, status == 1 ? try JudgeTests.file("\(folder)/repaired") : nil)
    }

    static func losing(_ blocks: some Sequence<Int>, in bytes: [UInt8], _ layout: ParityLayout) -> [UInt8] {
        var result = bytes
        for index in blocks { for place in layout.range(index) { result[place] ^= UInt8(place % 251 + 1) } }
        return result
    }

    @Test func anIndependentRepairAgrees() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let (id, pack, layout) = try Self.pack(530_000, percent: 50)
        #expect(layout.groups == 3)
        #expect(try Self.repair(pack, id, in: folder).status == 0)
        var random = Seeded(231)
        for round in 0..<4 {
            var lost: [Int] = []
            for group in 0..<layout.groups {
                let members = (0..<layout.blocks).filter { layout.group($0) == group }
                lost += members.shuffled(using: &random).prefix(layout.parityPerGroup - round)
            }
            var damaged = Self.losing(lost, in: pack, layout)
            damaged[round % 2 == 0 ? layout.firstHeader : layout.secondHeader] ^= 1
            damaged[round < 2 ? layout.firstTable + 9 : layout.secondTable + 9] ^= 1
            let mine = try #require(try ParitySample.repair(damaged, id: id))
            #expect((mine.bytes == pack) as Bool)
            // The footer follows from the rest.
            damaged[layout.end + 40] ^= 1
            damaged[damaged.count - 1] ^= 1
            let judged = try Self.repair(damaged, id, in: folder)
            #expect(judged.status == 1 && (judged.bytes == pack) as Bool)
        }
        let members = (0..<layout.blocks).filter { layout.group($0) == 1 }.prefix(layout.parityPerGroup + 1)
        let refused = try Self.repair(Self.losing(members, in: pack, layout), id, in: folder)
        let written = unsafe access("\(folder)/repaired", F_OK) == 0
        #expect(refused.status == 2 && !written)
    }

    @Test(arguments: [1, 5000, 12_000]) func smallPacksToo(length: Int) throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let (id, pack, layout) = try Self.pack(length, percent: 5)
        let lost = (0..<layout.parityPerGroup).map { $0 }
        let judged = try Self.repair(Self.losing(lost, in: pack, layout), id, in: folder)
        #expect(judged.status == 1 && (judged.bytes == pack) as Bool)
        let cut = try Self.repair(Array(pack.dropLast(pack.count - layout.end + 500)), id, in: folder)
        #expect(cut.status == 1 && (cut.bytes == pack) as Bool)
    }
}
