// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Testing
import Tools

@testable import WindowsHives

/// Dirty hives and their logs, of our own making.
@Suite struct LogTests {
    typealias Key = HiveBuilder.Key
    typealias Value = HiveBuilder.Value

    /// Versions of a hive, each with one more change; all have the same layout in front, so that few pages differ.
    static func versions(_ count: Int, first: UInt32 = 10, growing: Bool = false) -> [[UInt8]] {
        (0..<count).map { number in
            var root = Key("root", values: [Value("version", UInt32(number))])
            root.subkeys = (0..<60).map { index in
                Key("key \(index)", values: [Value("n", "\(index * 31 % max(1, number + 1)) of the values", type: 1)])
            }
            if growing, number > 0 {
                root.subkeys.append(
                    Key("new", values: [Value("large", 3, [UInt8](repeating: 7, count: number * 9000))]))
            }
            var builder = HiveBuilder()
            builder.sequences = (first + UInt32(number), first + UInt32(number))
            return builder.build(root)
        }
    }

    /// `hive` as it lies there when Windows stopped while writing it.
    static func dirty(_ hive: [UInt8], _ sequences: (UInt32, UInt32)) -> [UInt8] {
        var hive = hive
        hive.put(sequences.0, at: 4)
        hive.put(sequences.1, at: 8)
        hive.mendBaseBlock()
        return hive
    }

    /// A log that leads from `states[0]` to the last of them, its first change numbered `sequence`.
    static func log(_ states: ArraySlice<[UInt8]>, sequence: UInt32, type: UInt32 = 6) -> [UInt8] {
        var bytes = LogBuilder.head(states.first ?? [], type: type, sequence: sequence)
        for (index, (old, new)) in zip(states, states.dropFirst()).enumerated() {
            let pages = LogBuilder.pages(old, new)
            bytes += LogBuilder.entry(new, pages: pages, sequence: sequence &+ UInt32(index))
        }
        return bytes
    }

    static func sources(_ logs: [[UInt8]]) -> [HiveSource] {
        logs.enumerated().map { HiveSource($1, name: "LOG\($0 + 1)") }
    }

    func expect(_ hive: Hive, is expected: [UInt8], sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(hive.imageLength == UInt64(expected.count), sourceLocation: sourceLocation)
        let bins = try hive.bytes(at: 4096, count: Int(hive.imageLength) - 4096)
        #expect(bins.elementsEqual(expected[4096...]), sourceLocation: sourceLocation)
        let block = try hive.bytes(at: 0, count: 4096)
        let header = try #require(HiveHeader(block))
        #expect(!header.isDirty && header.fileType == .primary, sourceLocation: sourceLocation)
        // Recovered and written out it is a clean hive.
        let again = try Hive(HiveSource(block + bins))
        #expect(again.state == .clean, sourceLocation: sourceLocation)
        #expect(try Ours.dump(again) == Ours.dump(Hive(HiveSource(expected))), sourceLocation: sourceLocation)
    }

    @Test func entriesOfOneLogAreApplied() throws {
        let states = Self.versions(4)
        let hive = try Hive(
            HiveSource(Self.dirty(states[0], (11, 10))), logs: Self.sources([Self.log(states[...], sequence: 10)]))
        guard case .recovered(let recovery) = hive.state else {
            Issue.record("\(hive.state)")
            return
        }
        #expect(recovery.format == .entries && recovery.entries == 3 && recovery.lastSequence == 12)
        #expect(recovery.logs == ["LOG1"] && recovery.stoppedBecause == nil && recovery.replaced > 0)
        #expect(hive.storedHeader?.primarySequence == 11)
        try expect(hive, is: states[3])
    }

    @Test func logsFollowEachOtherInEitherOrder() throws {
        let states = Self.versions(6)
        let first = Self.log(states[0...2], sequence: 20)
        let second = Self.log(states[2...5], sequence: 22)
        for logs in [[first, second], [second, first], [[], first, second]] {
            let hive = try Hive(HiveSource(Self.dirty(states[0], (20, 19))), logs: Self.sources(logs))
            guard case .recovered(let recovery) = hive.state else {
                Issue.record("\(hive.state)")
                return
            }
            #expect(recovery.entries == 5 && recovery.logs.count == 2 && recovery.lastSequence == 24)
            try expect(hive, is: states[5])
        }
    }

    @Test func aGapBetweenLogsEndsTheRecovery() throws {
        let states = Self.versions(6)
        let logs = [Self.log(states[0...2], sequence: 20), Self.log(states[2...5], sequence: 23)]
        try expect(Hive(HiveSource(Self.dirty(states[0], (20, 19))), logs: Self.sources(logs)), is: states[2])
    }

    @Test func aLogThatTheHiveHasAlreadyIsLeftOut() throws {
        let states = Self.versions(6)
        let logs = [Self.log(states[0...2], sequence: 20), Self.log(states[2...5], sequence: 22)]
        // The first log's changes were written; then something else was lost.
        let hive = try Hive(HiveSource(Self.dirty(states[2], (23, 22))), logs: Self.sources(logs))
        guard case .recovered(let recovery) = hive.state else {
            Issue.record("\(hive.state)")
            return
        }
        #expect(recovery.logs == ["LOG2"])
        try expect(hive, is: states[5])
        let stale = try Hive(HiveSource(Self.dirty(states[2], (23, 22))), logs: Self.sources([logs[0]]))
        guard case .dirty(let why) = stale.state else {
            Issue.record("\(stale.state)")
            return
        }
        #expect(why.contains("LOG1") && why.contains("20") && why.contains("22"))
        #expect(try stale.root().dword("version") == 2)
    }

    @Test func sequenceNumbersMayBeginAgain() throws {
        let states = Self.versions(5)
        let logs = [Self.log(states[0...2], sequence: .max), Self.log(states[2...4], sequence: 1)]
        let hive = try Hive(HiveSource(Self.dirty(states[0], (0, .max))), logs: Self.sources(logs))
        guard case .recovered(let recovery) = hive.state else {
            Issue.record("\(hive.state)")
            return
        }
        #expect(recovery.entries == 4 && recovery.lastSequence == 2)
        try expect(hive, is: states[4])
    }

    @Test func aHiveGrowsAndShrinksWithItsLog() throws {
        let states = Self.versions(4, growing: true)
        #expect(states[3].count > states[0].count + 8192)
        let grown = try Hive(
            HiveSource(Self.dirty(states[0], (11, 10))), logs: Self.sources([Self.log(states[...], sequence: 10)]))
        try expect(grown, is: states[3])
        let back = Array(states.reversed())
        let shrunk = try Hive(
            HiveSource(Self.dirty(states[3], (11, 10))), logs: Self.sources([Self.log(back[...], sequence: 10)]))
        try expect(shrunk, is: states[0])
    }

    @Test func aTornEntryEndsTheRecoveryAndIsTold() throws {
        let states = Self.versions(4)
        let whole = Self.log(states[...], sequence: 10)
        let entries = Array(stride(from: 512, to: whole.count, by: 512)).filter { place in
            whole[place..<place + 4].elementsEqual("HvLE".utf8)
        }
        let last = try #require(entries.last)
        var changes: [(String, [UInt8])] = [("cut off", Array(whole[..<(whole.count - 512)]))]
        for (name, offset) in [("page", whole.count - 700), ("head", last + 18), ("hash", last + 26)] {
            var bytes = whole
            bytes[offset] ^= 1
            changes.append((name, bytes))
        }
        for (name, bytes) in changes {
            let hive = try Hive(HiveSource(Self.dirty(states[0], (11, 10))), logs: Self.sources([bytes]))
            guard case .recovered(let recovery) = hive.state else {
                Issue.record("\(name): \(hive.state)")
                continue
            }
            #expect(recovery.entries == 2 && recovery.lastSequence == 11, "\(name)")
            #expect(recovery.stoppedBecause?.contains("change 12 in LOG1") == true, "\(name)")
            try expect(hive, is: states[2])
        }
    }

    @Test func whatAnEarlierUseOfTheLogLeftIsNotApplied() throws {
        let states = Self.versions(6)
        // Entries 5 and 6 of before lie behind 20 and 21; so does one with the right number further on.
        let log =
            Self.log(states[0...2], sequence: 20)
            + LogBuilder.entry(states[4], pages: LogBuilder.pages(states[0], states[4]), sequence: 5)
            + LogBuilder.entry(states[5], pages: LogBuilder.pages(states[0], states[5]), sequence: 22)
        let hive = try Hive(HiveSource(Self.dirty(states[0], (20, 19))), logs: Self.sources([log]))
        try expect(hive, is: states[2])
    }

    @Test func pagesThatCannotBeAreNotApplied() throws {
        let states = Self.versions(3)
        let head = LogBuilder.head(states[0], type: 6, sequence: 10)
        let good = LogBuilder.entry(states[1], pages: LogBuilder.pages(states[0], states[1]), sequence: 10)
        for (offset, value) in [
            (40, 0x7FFF_F000), (40, 100), (44, 0), (44, 0x7FFF_FE00), (44, 513), (20, 0), (20, 0x1000_0000),
            (16, 0xFFFF_F000), (16, 100), (16, 0), (4, 100), (4, 0xFFFF_FE00),
        ] as [(Int, UInt32)] {
            var entry = LogBuilder.entry(states[2], pages: LogBuilder.pages(states[1], states[2]), sequence: 11)
            entry.put(value, at: offset)
            LogBuilder.mend(&entry)
            let hive = try Hive(HiveSource(Self.dirty(states[0], (11, 10))), logs: Self.sources([head + good + entry]))
            guard case .recovered(let recovery) = hive.state else {
                Issue.record("\(offset) \(value): \(hive.state)")
                continue
            }
            #expect(recovery.entries == 1 && recovery.stoppedBecause != nil, "\(offset) \(value)")
            try expect(hive, is: states[1])
        }
    }

    @Test func aDamagedBaseBlockComesFromTheLog() throws {
        let states = Self.versions(5)
        let first = Self.log(states[0...2], sequence: 20)
        let second = Self.log(states[2...4], sequence: 22)
        var damaged = states[0]
        damaged[40] ^= 0xFF
        try expect(try Hive(HiveSource(damaged), logs: Self.sources([first, second])), is: states[4])
        var wiped = states[0]
        wiped.replaceSubrange(0..<4096, with: repeatElement(0, count: 4096))
        let hive = try Hive(HiveSource(wiped), logs: Self.sources([second, first]))
        #expect(hive.storedHeader == nil)
        try expect(hive, is: states[4])
        // Nobody knows what reached the hive: of two logs with a gap the later one counts.
        var later = states[2]
        later[40] ^= 0xFF
        let gap = [first, Self.log(states[2...4], sequence: 40)]
        try expect(try Hive(HiveSource(later), logs: Self.sources(gap)), is: states[4])
        // Without a log a wiped one is no hive, and a damaged one is refused or told.
        let fault = try #require(throws: Fault.self) { try Hive(HiveSource(wiped)) }
        #expect(fault.code == .notAHive)
        var named = states[0]
        named[50] ^= 1
        let asItIs = try Hive(HiveSource(named))
        #expect(
            asItIs.state == .dirty(because: "the checksum of its base block is wrong, and no log was given"))
        #expect(try asItIs.root().subkeys().count == 60)
    }

    /// A hive and its log may have been written under different names.
    @Test func theHeaderIsThatOfTheBaseBlockThatIsHandedOut() throws {
        let states = Self.versions(2)
        var log = Self.log(states[...], sequence: 10)
        log.replaceSubrange(48..<54, with: HiveBuilder.wide("new"))
        log.mendBaseBlock()
        let hive = try Hive(HiveSource(Self.dirty(states[0], (11, 10))), logs: Self.sources([log]))
        #expect(hive.header.fileName == "tested")
        #expect(HiveHeader(try hive.bytes(at: 0, count: 4096)) == hive.header)
        try expect(hive, is: states[1])
    }

    @Test func aCleanHiveIgnoresItsLogs() throws {
        let states = Self.versions(3)
        let hive = try Hive(HiveSource(states[0]), logs: Self.sources([Self.log(states[...], sequence: 10)]))
        #expect(hive.state == .clean)
        #expect(try hive.root().dword("version") == 0)
    }

    @Test func logsThatAreNoneAreNamed() throws {
        let states = Self.versions(3)
        let log = Self.log(states[...], sequence: 10)
        func changed(_ offset: Int, _ value: UInt32, mend: Bool = true) -> [UInt8] {
            var bytes = log
            bytes.put(value, at: offset)
            if mend { bytes.mendBaseBlock() }
            return bytes
        }
        for (bytes, words) in [
            ([UInt8](repeating: 0, count: 4096), "no base block"), ([1, 2, 3], "no base block"),
            (changed(48, 7, mend: false), "checksum"), (changed(8, 9), "not written to its end"),
            (changed(24, 9), "understood"), (changed(44, 8), "understood"), (changed(40, 4095), "understood"),
            (changed(28, 0), "not a transaction log"), (changed(28, 5), "not a transaction log"),
            (Array(log[..<512]), "first entry"),
        ] {
            let hive = try Hive(HiveSource(Self.dirty(states[0], (11, 10))), logs: Self.sources([bytes]))
            guard case .dirty(let why) = hive.state else {
                Issue.record("\(words): \(hive.state)")
                continue
            }
            #expect(why.contains("LOG1") && why.contains(words), "\(why)")
        }
    }

    // MARK: The old format

    @Test func aDirtyVectorIsApplied() throws {
        let states = Self.versions(2)
        let log = LogBuilder.dirtyVector(states[0], states[1], sequence: 11)
        let hive = try Hive(HiveSource(Self.dirty(states[0], (11, 10))), logs: Self.sources([log]))
        guard case .recovered(let recovery) = hive.state else {
            Issue.record("\(hive.state)")
            return
        }
        #expect(recovery.format == .dirtyVector && recovery.lastSequence == 11)
        #expect(recovery.replaced == UInt64(512 * LogBuilder.pages(states[0], states[1], size: 512).count))
        try expect(hive, is: states[1])
        // An early number of the same kind, and a damaged base block.
        var early = log
        early.put(2 as UInt32, at: 28)
        early.mendBaseBlock()
        var damaged = Self.dirty(states[0], (11, 10))
        damaged[70] ^= 1
        try expect(try Hive(HiveSource(damaged), logs: Self.sources([[], early])), is: states[1])
    }

    @Test func aDirtyVectorOfAnotherTimeIsNotApplied() throws {
        let states = Self.versions(2)
        var other = HiveBuilder()
        other.time += 1
        let log = LogBuilder.dirtyVector(states[0], other.build(Key("root")) + states[1][8192...], sequence: 11)
        let hive = try Hive(HiveSource(Self.dirty(states[0], (11, 10))), logs: Self.sources([log]))
        guard case .dirty(let why) = hive.state else {
            Issue.record("\(hive.state)")
            return
        }
        #expect(why.contains("it was made at 2022-"))
    }

    @Test func aDirtyVectorThatWouldDamageTheHiveIsNotApplied() throws {
        let states = Self.versions(2)
        let log = LogBuilder.dirtyVector(states[0], states[1], sequence: 11)
        var short = log
        short.removeLast(512)
        var unmarked = log
        unmarked[512] = 0
        var broken = states[1]
        broken[4096] ^= 0xFF
        let wrong = LogBuilder.dirtyVector(states[0], broken, sequence: 11)
        for (bytes, words) in [(short, "ends before"), (unmarked, "no dirty vector"), (wrong, "would be damaged")] {
            let hive = try Hive(HiveSource(Self.dirty(states[0], (11, 10))), logs: Self.sources([bytes]))
            guard case .dirty(let why) = hive.state else {
                Issue.record("\(hive.state)")
                continue
            }
            #expect(why.contains(words), "\(why)")
            #expect(try hive.root().dword("version") == 0)
        }
    }
}

/// Dirty hives that Windows left.
@Suite(.enabled(if: RealData.isThere, RealData.missing), .serialized) struct RealLogTests {
    func sum(_ hive: Hive) throws -> String {
        let scratch = try ScratchFolder()
        let length = Int(hive.imageLength) - 4096
        let path = try scratch.write("bins", try hive.bytes(at: 4096, count: length))
        return String(try sha256sum.check([path]).standardOutput.prefix(64))
    }

    /// The sums are of what Windows made of the same hives, or another tool that is known to do as Windows does.
    @Test(arguments: [
        (
            "yarp-new1/NewDirtyHive.xz", ["yarp-new1/NewDirtyHive.LOG1", "yarp-new1/NewDirtyHive.LOG2"], 4,
            "d762fa532cd95f274afb9277ca269d9a4f711b34a3734898b060382d5bea9237"
        ),
        (
            "yarp-old/OldDirtyHive.xz", ["yarp-old/OldDirtyHive.LOG1"], 1,
            "23c97d7cc7947d32b5b7dc7a3761bc1191e6d5b84797a53dea08084d4cb2b56f"
        ),
        (
            "win10-1709-x64/SYSTEM.xz", ["win10-1709-x64/SYSTEM.LOG1.xz", "win10-1709-x64/SYSTEM.LOG2.xz"], 24,
            "b6e091176b3d00b7b97efdeaeef519b1adfbaa5f6d8118d5c44fa2dcfeb5029a"
        ),
    ])
    func logsMakeOfAHiveWhatWindowsMakesOfIt(name: String, logs: [String], entries: Int, expected: String) throws {
        let hive = try Hive(
            RealData.source("dirty/\(name)"), logs: try logs.reversed().map { try RealData.source("dirty/\($0)") })
        guard case .recovered(let recovery) = hive.state else {
            Issue.record("\(hive.state)")
            return
        }
        #expect(recovery.entries == entries)
        #expect(recovery.logs == logs.map { "dirty/\($0)" })
        #expect(recovery.stoppedBecause == nil, "\(recovery.stoppedBecause ?? "")")
        #expect(try sum(hive) == expected)
        if hasHivex {
            let scratch = try ScratchFolder()
            let bytes = try hive.bytes(at: 0, count: Int(hive.imageLength))
            expectSame(try Ours.dump(hive), try Judge.hivex.dump(bytes, in: scratch))
        }
    }

    @Test(arguments: [
        ("yarp-new1/NewDirtyHive", ["LOG1", "LOG2"], "yarp-new1/RecoveredHive_Windows10.xz"),
        ("yarp-old/OldDirtyHive", ["LOG1"], "yarp-old/RecoveredHive_Windows7.xz"),
    ])
    func aRecoveredHiveHoldsWhatWindowsRecovered(name: String, logs: [String], recovered: String) throws {
        let ours = try Hive(
            RealData.source("dirty/\(name).xz"), logs: try logs.map { try RealData.source("dirty/\(name).\($0)") })
        let theirs = try Hive(RealData.source("dirty/\(recovered)"))
        #expect(theirs.state == .clean)
        // Windows changed times of keys and flags when it opened the hive.
        func plain(_ hive: Hive) throws -> [String] {
            try Ours.dump(hive).map { line in
                let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
                return line.hasPrefix("K\t") ? fields.prefix(2).joined(separator: "\t") : line
            }
        }
        expectSame(try plain(ours), try plain(theirs))
    }

    @Test(.enabled(if: hasRegipy, "the Python module regipy is needed"))
    func regipyRecoversTheSame() throws {
        let scratch = try ScratchFolder()
        let bytes = try RealData.bytes("dirty/yarp-new1/NewDirtyHive.xz")
        let logs = try ["LOG1", "LOG2"].map { try RealData.bytes("dirty/yarp-new1/NewDirtyHive.\($0)") }
        let hive = try Hive(HiveSource(bytes), logs: logs.map { HiveSource($0) })
        expectSame(
            try Ours.dump(hive, types: [3, 4, 11], hasClass: true),
            // It applies the second log it is given first.
            try Judge.regipy.dump(bytes, logs: logs.reversed(), in: scratch))
    }

    @Test func aLogThatIsInvalidIsRefusedWithItsReason() throws {
        let hive = try Hive(
            RealData.source("dirty/yarp-badlog1/BadLogHive.xz"),
            logs: [try RealData.source("dirty/yarp-badlog1/BadLogHive.LOG1")])
        guard case .dirty(let why) = hive.state else {
            Issue.record("\(hive.state)")
            return
        }
        #expect(why.contains("BadLogHive.LOG1: the checksum of its base block is wrong"), "\(why)")
        #expect(try hive.root().subkeys().count > 0)
    }

    /// Logs that lie beside stores: all were applied before.
    @Test(arguments: [
        "3alan-win10-uefi/BCD", "bandysc-win10-uefi/BCD", "bizzaro-win10-uefi/BCD", "cikappa-win11-uefi/BCD",
    ])
    func theLogOfACleanStoreChangesNothing(name: String) throws {
        let with = try Hive(RealData.source("bcd/\(name)"), logs: [try RealData.source("bcd/\(name).LOG")])
        #expect(with.state == .clean)
        // Made dirty, it is recovered to itself.
        var bytes = try RealData.bytes("bcd/\(name)")
        let sequence = bytes.word(at: 4)
        bytes.put(sequence - 1, at: 8)
        bytes.mendBaseBlock()
        let dirty = try Hive(HiveSource(bytes), logs: [try RealData.source("bcd/\(name).LOG")])
        guard case .recovered = dirty.state else {
            Issue.record("\(dirty.state)")
            return
        }
        #expect(try Ours.dump(dirty) == Ours.dump(with))
    }
}
