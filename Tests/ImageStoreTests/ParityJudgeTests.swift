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
    static let script = Judge.script.replacingSuffix("read_set.py", with: "repair_pack.py")

    /// The script's exit status and the pack it wrote.
    static func repair(_ bytes: [UInt8], in folder: String) throws -> (status: Int32, bytes: [UInt8]?) {
        let name = "\(folder)/\(ParitySample.id.text).pack"
        let file = unsafe creat(name, 0o644)
        let written = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(file, $0.baseAddress, $0.count) }
        close(file)
        #expect(written == bytes.count)
        _ = unsafe unlink("\(folder)/repaired")
        let status = Judge.run("python3 \(script) \(name) \(folder)/repaired >/dev/null")
        return (status, status == 1 ? try JudgeTests.file("\(folder)/repaired") : nil)
    }

    @Test func anIndependentRepairAgrees() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let sample = try ParityRepairTests.large.get()
        let layout = sample.layout
        #expect(try Self.repair(sample.bytes, in: folder).status == 0)
        var random = Seeded(231)
        for round in 0..<4 {
            var lost: [Int] = []
            for group in 0..<layout.groups {
                let members = (0..<layout.blocks).filter { layout.group($0) == group }
                lost += members.shuffled(using: &random).prefix(layout.parityPerGroup - round)
            }
            var damaged = sample.losing(lost)
            damaged[round % 2 == 0 ? layout.firstHeader : layout.secondHeader] ^= 1
            damaged[round < 2 ? layout.firstTable + 9 : layout.secondTable + 9] ^= 1
            let judged = try Self.repair(damaged, in: folder)
            #expect(judged.status == 1)
            #expect(judged.bytes == sample.bytes)
            #expect(try ParitySample.repair(damaged)?.bytes == judged.bytes)
        }
        let members = (0..<layout.blocks).filter { layout.group($0) == 1 }.prefix(layout.parityPerGroup + 1)
        let refused = try Self.repair(sample.losing(members), in: folder)
        let written = unsafe access("\(folder)/repaired", F_OK) == 0
        #expect(refused.status == 2 && !written)
    }

    @Test func smallPacksToo() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        for (length, lost) in [(192, [0]), (4256, [0, 1]), (12_000 / 16 * 16, [1, 3])] {
            let sample = try ParitySample(length, percent: 5, seed: UInt64(length))
            let judged = try Self.repair(sample.losing(lost), in: folder)
            #expect(judged.status == 1 && judged.bytes == sample.bytes)
        }
    }
}

extension String {
    /// This text with another ending.
    fileprivate func replacingSuffix(_ suffix: String, with other: String) -> String {
        hasSuffix(suffix) ? String(dropLast(suffix.count)) + other : self
    }
}
