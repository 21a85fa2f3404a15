// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import TestSupport
import Testing

@testable import ImageStore

/// What must hold of every set, as checks that say what is wrong.
enum SafetyCheck: String, CaseIterable, CustomTestStringConvertible {
    case aPowerCutAtAnyMomentHarmsNoReportedPoint
    case whatTheMediumKeptWrongIsNoticed
    case noNonceIsUsedTwice
    case unusedBytesAreNotStored
    case aLostFirstCopyCostsNothing
    case aCondemnedPackIsNotBuiltUpon
    case aRunningWritersFilesAreLeftAlone
    case aFinishedObjectStays

    var testDescription: String { rawValue }

    /// What is wrong; `nil`: nothing.
    func violation() throws -> String? {
        switch self {
        case .aPowerCutAtAnyMomentHarmsNoReportedPoint: try PowerCut.twoBackups().violations.first
        case .whatTheMediumKeptWrongIsNoticed: Self.unnoticed()
        case .noNonceIsUsedTwice: try Self.nonceUsedTwice()
        case .unusedBytesAreNotStored: try Self.storedUnused()
        case .aLostFirstCopyCostsNothing: try Self.costOfLostCopies()
        case .aCondemnedPackIsNotBuiltUpon: try Self.builtUponCondemned()
        case .aRunningWritersFilesAreLeftAlone: try Self.takenFromRunningWriter()
        case .aFinishedObjectStays: try Self.replacedObject()
        }
    }

    private static let content = Sample.content(300_000, seed: 51)

    private static func unnoticed() -> String? {
        for lying in ["packs/", "copies/packs/", "points/"] {
            let medium = FailingStore(MemoryStore(), lying: lying)
            if (try? Sample.backup([(content, nil)], to: medium)) != nil {
                return "success is reported although \(lying) holds something else"
            }
        }
        return nil
    }

    private static func nonceUsedTwice() throws -> String? {
        let store = MemoryStore()
        let keys = EncryptionTests.ring("pass")
        try Sample.backup([(content, nil)], to: store, options: EncryptionTests.options(), keys: keys)
        try Sample.backup([(Sample.content(200_000, seed: 52), nil)], to: store, keys: keys)
        var used: [String: String] = [:]
        func use(_ salt: [UInt8], _ counter: [UInt8], _ place: String) -> String? {
            guard let other = used.updateValue(place, forKey: "\(salt) \(counter)") else { return nil }
            return "\(place) and \(other) have one nonce under one key"
        }
        for (name, bytes) in store.objects where name.hasPrefix("packs/") || name.hasPrefix("points/") {
            if name.hasPrefix("points/") {
                if let problem = use(Array(bytes[96..<112]), Array(bytes[112..<120]), name) { return problem }
                continue
            }
            // Record heads begin at multiples of 16; the footer, whose place the trailer tells, repeats them.
            let footer = bytes.suffix(64).dropFirst(8).prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
            for offset in stride(from: 0, to: footer - 48, by: 16)
            where Array(bytes[offset..<offset + 4]) == RecordHeader.magic && bytes[offset + 6] != 0 {
                let head = bytes[offset..<offset + 48]
                if let problem = use(
                    Array(head[(offset + 16)..<(offset + 32)]), Array(head[(offset + 32)..<(offset + 40)]),
                    "\(name) at \(offset)")
                {
                    return problem
                }
            }
        }
        return used.count < 4 ? "only \(used.count) nonces were found" : nil
    }

    private static func storedUnused() throws -> String? {
        let canary = Array("CANARY-of-a-deleted-file".utf8)
        let used = ExtentList([
            Extent(from: .zero, to: .kibibytes(20)), Extent(from: .kibibytes(40), to: .kibibytes(90)),
        ])
        var volume = Array(content[..<(100 << 10)])
        let store = MemoryStore()
        volume.replaceSubrange((30 << 10)..<(30 << 10) + canary.count, with: canary)
        try Sample.backup([(volume, used)], to: store, options: .init(compression: .off))
        for (name, bytes) in store.objects where bytes.count >= canary.count {
            for start in 0...bytes.count - canary.count
            where bytes[start] == canary[0] && Array(bytes[start..<start + canary.count]) == canary {
                return "\(name) holds bytes of the volume that are not in use"
            }
        }
        volume[35 << 10] ^= 1
        let (_, statistics) = try Sample.backup([(volume, used)], to: store)
        return statistics.new == .zero ? nil : "a change of unused bytes made \(statistics.new) of new content"
    }

    private static func costOfLostCopies() throws -> String? {
        let whole = MemoryStore()
        try Sample.backup([(content, nil)], to: whole)
        let lost = whole.objects.filter {
            $0.key.hasPrefix("points/") || ($0.key.hasPrefix("packs/") && $0.value[10] == 2)
        }
        if lost.count < 2 { return "only \(lost.count) objects were found that are stored twice" }
        for name in lost.keys {
            let store = MemoryStore(objects: whole.objects.filter { $0.key != name })
            guard let restored = try? Sample.restore(SetReader(store).point().streams[0]), restored == content else {
                return "without \(name) the point cannot be restored"
            }
        }
        return nil
    }

    private static func builtUponCondemned() throws -> String? {
        let store = MemoryStore()
        try Sample.backup([(content, nil)], to: store)
        // The point is forgotten, its packs are marked, and somebody backs the same up before they are removed.
        let packs = store.objects.keys.filter { $0.hasPrefix("packs/") }
        for name in store.objects.keys where name.contains("points/") { try store.delete(name) }
        for name in packs {
            guard let id = ObjectName.id(name, suffix: ".pack") else { return "\(name) is no pack" }
            try store.put(ObjectName.tombstone(id), [])
        }
        try Sample.backup([(content, nil)], to: store)
        for name in packs { try store.delete(name) }
        let restored = try? Sample.restore(SetReader(store).point().streams[0])
        return restored == content ? nil : "a point needs a pack that was about to be removed when it was made"
    }

    private static func takenFromRunningWriter() throws -> String? {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let upload = try FolderStore(path: folder).upload()
        defer { upload.abandon() }
        try upload.write([1, 2, 3])
        let taken = try FolderStore(path: folder).leftovers()
        return taken.isEmpty ? nil : "\(taken.map(\.name)) counts as left behind while its writer runs"
    }

    private static func replacedObject() throws -> String? {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder)
        try store.put("packs/00/object", [1])
        let second = try store.upload()
        defer { second.abandon() }
        try second.write([2, 2])
        let refused = (try? second.seal(as: "packs/00/object")) == nil
        let kept = try store.content("packs/00/object") == [1]
        return refused && kept ? nil : "a finished object was replaced by another"
    }
}

extension SafetyRule {
    /// The check that must notice when the rule is broken.
    var check: SafetyCheck {
        switch self {
        case .fileFlush, .renameFlush, .folderFlush, .temporaryFlush, .sharedPlaces:
            .aPowerCutAtAnyMomentHarmsNoReportedPoint
        case .readBack: .whatTheMediumKeptWrongIsNoticed
        case .freshSalt: .noNonceIsUsedTwice
        case .masking: .unusedBytesAreNotStored
        case .secondCopies: .aLostFirstCopyCostsNothing
        case .tombstones: .aCondemnedPackIsNotBuiltUpon
        case .leftoverLock: .aRunningWritersFilesAreLeftAlone
        case .neverReplace: .aFinishedObjectStays
        }
    }
}

/// Every safety rule is kept; and if one were not, the check named for it would say so.
@Suite struct SafetyRuleTests {
    @Test(arguments: SafetyCheck.allCases) func nothingIsWrong(check: SafetyCheck) throws {
        let violation = try check.violation()
        #expect(violation == nil, "\(violation ?? "")")
    }

    @Test(arguments: SafetyRule.allCases) func aBrokenRuleIsNoticed(rule: SafetyRule) throws {
        let violation = try SafetyRules.$broken.withValue([rule]) { try rule.check.violation() }
        #expect(violation != nil, "\(rule) is broken, and \(rule.check) does not notice")
        print("broken rule: \(rule): \(rule.check): \(violation ?? "not noticed")")
    }

    @Test func aBrokenOrderOfTheCommitIsNoticed() throws {
        let violation = try PowerCut.twoBackups { LateStore($0) }.violations.first
        #expect(violation != nil)
        print("broken rule: points after packs: \(violation ?? "not noticed")")
    }

    @Test func anEmptyFileIsNoObjectAndMakesRoomForOne() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder)
        for place in ["packs", "packs/00", "gone"] { try store.makeFolders(place) }
        for name in ["set.a", "packs/00/one", "gone/one"] { touch("\(folder)/\(name)") }
        #expect(try store.list("packs").isEmpty)
        #expect(try store.open("set.a") == nil)
        #expect(try store.list("gone").count == 1 && store.open("gone/one") != nil)
        try store.put("packs/00/one", [1])
        #expect(try store.content("packs/00/one") == [1])
        let second = try store.upload()
        defer { second.abandon() }
        #expect(throws: Fault.self) { try second.seal(as: "gone/one") }
    }

    @Test func nobodyElseCanBreakARule() { #expect(SafetyRules.broken.isEmpty) }
}
