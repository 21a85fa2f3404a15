// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import ImageStore

/// A set, and what is known about it: what each point must restore to, and what every object of it must be.
///
/// Objects never change. So `shadow` keeps each as it was when it appeared, and the set as it would be without damage can
/// be read at any time. Which damage may cost which point is told by reading the point from there and noting what was
/// opened: where of all that at least one copy is sound, the point must come back; else it may fail, but never lie.
final class ModelSet {
    let place: any ModelPlace
    let keys: KeyRing
    let options: SetWriter.Options
    let label: String
    /// What each point must restore to. A point whose removal was cut off may be there or not.
    var points: [String: [ModelVolume]] = [:]
    var doomed: Set<String> = []
    /// Ids in the order in which they were made: names are random, this is not.
    var order: [String] = []
    private(set) var shadow: [String: [UInt8]] = [:]
    /// Names in the order in which they appeared, for choices that the seed alone decides.
    private(set) var names: [String] = []
    /// Damage that was done once to an object and is one turned bit: parity must make it good.
    var flips: [String: Int] = [:]
    /// Whether a run was cut off since the last one that ended well: second copies may be missing then.
    var isUntidy = false
    /// Whether a cut-off prune still counts as running.
    var mayBeBusy = false

    init(_ place: any ModelPlace, label: String, _ random: inout Seeded) {
        self.place = place
        self.label = label
        let isEncrypted = Bool.random(using: &random)
        keys = isEncrypted ? EncryptionTests.ring("pass \(label)") : .none
        options = SetWriter.Options(
            compression: Bool.random(using: &random) ? .standard : .off, packSize: .mebibytes(1),
            indexMemory: .mebibytes(2), unitSize: .kibibytes(Bool.random(using: &random) ? 64 : 16), time: 1,
            encryption: isEncrypted ? NewEncryption(Bool.random(using: &random) ? .aes256 : .aes128, cost: 10) : nil,
            parity: Bool.random(using: &random) ? 10 : 0)
    }

    /// What the model keeps an eye on: not the marks of who is at work, what is unfinished, or what can be made again.
    static func isTracked(_ name: String) -> Bool {
        !["writers/", "tmp/", "logs/", "gone/"].contains { name.hasPrefix($0) }
            && ![ObjectName.text, "catalogue"].contains(name)
    }

    static func counterpart(_ name: String) -> String? {
        if name == "set.a" { return "set.b" }
        if name == "set.b" { return "set.a" }
        return name.hasPrefix("copies/") ? String(name.dropFirst(7)) : "copies/" + name
    }

    func objects() throws -> [String: [UInt8]] { try place.objects().filter { ModelSet.isTracked($0.key) } }

    /// Names of objects that are not as they were made, in the model's order.
    func damaged(_ objects: [String: [UInt8]]) -> [String] {
        names.filter { name in shadow[name].map { objects[name] != $0 } ?? false }
    }

    /// Whether nothing is damaged.
    func isWhole() throws -> Bool { try damaged(objects()).isEmpty }

    // MARK: - What a verb may have done

    /// Takes note of what changed since `before`. `mayRemove`: what the verb is there to remove.
    func settle(_ before: [String: [UInt8]], mayRemove: (String) -> Bool, _ note: String) throws {
        let after = try objects()
        var new: [String] = []
        for (name, bytes) in after {
            if let known = shadow[name] {
                if bytes != known, before[name] != bytes {
                    Issue.record("\(note): \(name) was written with another content")
                }
            } else {
                shadow[name] = bytes
                new.append(name)
            }
        }
        // Names are random; kind and size are not.
        func rank(_ name: String) -> (String, Int, String) {
            let kind = name.split(separator: "/").first.map(String.init) ?? ""
            return (kind, shadow[name]?.count ?? 0, name)
        }
        names += new.sorted { rank($0) < rank($1) }
        for name in names where before[name] != nil && after[name] == nil {
            // Who mends a damaged copy from a sound one takes it away first.
            let other = name.hasPrefix("copies/") ? String(name.dropFirst(7)) : "copies/" + name
            let isBeingMended = before[name] != shadow[name] && shadow[other] != nil && after[other] == shadow[other]
            if mayRemove(name) {
                shadow[name] = nil
            } else if !ObjectName.headers.contains(name), !isBeingMended {
                Issue.record("\(note): \(name) was removed")
            }
        }
        names.removeAll { shadow[$0] == nil }
        for name in flips.keys where shadow[name] == nil || after[name] == shadow[name] { flips[name] = nil }
    }

    /// Objects the model forgets, whether they are still there or damage took them before.
    func drop(_ names: [String]) {
        for name in names { shadow[name] = nil }
        self.names.removeAll { shadow[$0] == nil }
    }

    // MARK: - What must hold after every step

    /// Every point in `ids` (all when nil) restores to what it must, as far as damage allows; verification agrees.
    func check(_ ids: [String]?, verify: Bool, _ note: String) throws {
        let objects = try objects()
        let damaged = Set(damaged(objects))
        if points.isEmpty, doomed.isEmpty { return }
        let reader: SetReader
        do throws(Fault) {
            reader = try SetReader(place.store, keys: keys)
        } catch {
            // Only damage to the header's copies or to both copies of the key slot hides all points.
            let slots = names.filter { $0.contains("keys/") }
            let isLocked = !slots.isEmpty && slots.allSatisfy { damaged.contains($0) }
            let isHeadless = ObjectName.headers.allSatisfy { damaged.contains($0) }
            if !isLocked, !isHeadless { Issue.record("\(note): the set does not open: \(error)") }
            return
        }
        let listing = try reader.points()
        let listed = Set(listing.points.map(\.id))
        for id in listed where points[id] == nil { Issue.record("\(note): a point \(id) nobody made") }
        var complete = true
        for id in order {
            guard let volumes = points[id] else { continue }
            let name = "points/\(id).point"
            if doomed.contains(id), objects[name] == nil, objects["copies/" + name] == nil {
                forgotten(id)
                continue
            }
            let isSound = [name, "copies/" + name].contains { shadow[$0] != nil && !damaged.contains($0) }
            if !listed.contains(id) {
                complete = false
                if isSound { Issue.record("\(note): the point \(id) is not listed: \(listing.findings)") }
                continue
            }
            if let ids, !ids.contains(id) { continue }
            let needed = try self.needed(id, volumes, note)
            let must = needed.allSatisfy { name in
                shadow[name] == nil || !damaged.contains(name)
                    || ModelSet.counterpart(name).map { shadow[$0] != nil && !damaged.contains($0) } == true
            }
            let fault = try ModelSet.restore(reader, id, volumes, note)
            if let fault {
                complete = false
                if must { Issue.record("\(note): point \(id) must restore, but: \(fault)") }
            }
        }
        guard verify else { return }
        let report: VerifyReport
        do throws(Fault) {
            report = try reader.verify(.full, threads: 1)
        } catch {
            Issue.record("\(note): verification ends with \(error)")
            return
        }
        if damaged.isEmpty, !report.isComplete || (!isUntidy && !report.isSound) {
            Issue.record("\(note): verification finds damage where there is none: \(report.damages)")
        }
        // What was changed and still lies there is found, whatever it is; so is what a point needs and is not there.
        let waiting = Set(report.condemned)
        if report.isSound, let wrong = damaged.sorted().first(where: { objects[$0] != nil && !waiting.contains($0) }) {
            Issue.record("\(note): verification finds nothing, but \(wrong) is damaged")
        }
        if report.isComplete, !complete { Issue.record("\(note): verification says all is there, but it is not") }
    }

    func forgotten(_ id: String) {
        points[id] = nil
        doomed.remove(id)
        order.removeAll { $0 == id }
        drop(["points/\(id).point", "copies/points/\(id).point"])
    }

    /// Objects that restoring the point opens in the set as it would be without damage.
    private func needed(_ id: String, _ volumes: [ModelVolume], _ note: String) throws -> [String] {
        let opened = Mutex<Set<String>>([])
        let ideal = MemoryStore(objects: shadow)
        ideal.interceptor = { (operation) throws(Fault) in
            if case .open(let name) = operation { opened.withLock { _ = $0.insert(name) } }
        }
        let fault = try ModelSet.restore(SetReader(ideal, keys: keys), id, volumes, note + " (without damage)")
        if let fault { Issue.record("\(note): point \(id) cannot be restored even without damage: \(fault)") }
        return opened.withLock { $0 }.filter {
            !$0.hasPrefix("moves/") && !$0.hasPrefix("copies/moves/") && !ObjectName.headers.contains($0)
        }
    }

    /// Restores a point piece by piece. The first fault is returned; wrong data are an issue.
    static func restore(
        _ reader: SetReader, _ id: String, _ volumes: [ModelVolume], _ note: String
    ) throws -> Fault? {
        var first: Fault?
        do throws(Fault) {
            let point = try reader.point(id)
            guard point.streams.count == volumes.count else {
                Issue.record("\(note): point \(id) has \(point.streams.count) streams")
                return nil
            }
            for (stream, volume) in zip(point.streams, volumes) {
                var expected = volume.expected
                let decoder = try PieceDecoder(stream.point)
                let cursor = try stream.pieces()
                while let piece = cursor.next() {
                    do throws(Fault) {
                        try decoder.decode(piece) { (bytes: RawSpan) throws(Fault) in
                            let range = Sample.range(piece.extent)
                            let same = unsafe bytes.withUnsafeBytes { found in
                                unsafe expected.withUnsafeMutableBytes { wanted in
                                    guard let left = found.baseAddress, let base = wanted.baseAddress else {
                                        return false
                                    }
                                    let right = unsafe base + range.lowerBound
                                    guard found.count == range.count, unsafe memcmp(left, right, range.count) == 0
                                    else {
                                        return false
                                    }
                                    // What was given back; the rest must be zeros.
                                    unsafe memset(right, 0, range.count)
                                    return true
                                }
                            }
                            if !same { Issue.record("\(note): wrong data in point \(id) at \(range)") }
                        }
                    } catch {
                        first = first ?? error
                        expected.replaceSubrange(
                            Sample.range(piece.extent), with: repeatElement(0, count: Int(piece.extent.length.bytes)))
                    }
                }
                if expected.contains(where: { $0 != 0 }) {
                    Issue.record("\(note): a part of point \(id) is neither given back nor said to be lost")
                }
            }
        } catch { first = first ?? error }
        return first
    }
}
