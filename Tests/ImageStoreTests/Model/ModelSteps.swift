// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import TestSupport
import Testing

@testable import ImageStore

/// A world of two sets and some machines, and what can happen there. Each row of ``ModelWorld/verbs`` is a verb.
final class ModelWorld {
    var random: Seeded
    let sets: [ModelSet]
    private var machines: [[ModelVolume]]
    private(set) var trace: [String] = []
    private let prefix: String
    private var step = 0
    /// What every point of both sets held, forgotten ones too: a copy of a copy names the first.
    private var history: [String: [ModelVolume]] = [:]
    var counts: [String: Int] = [:]

    init(_ seed: UInt64, _ prefix: String, makePlace: () -> any ModelPlace) {
        var random = Seeded(seed)
        sets = ["A", "B"].map { ModelSet(makePlace(), label: $0, &random) }
        machines = (0..<3).map { _ in
            (0..<Int.random(in: 1...2, using: &random)).map { _ in ModelVolume(&random) }
        }
        self.prefix = prefix
        self.random = random
    }

    typealias Verb = (name: String, weight: Int, run: @Sendable (ModelWorld, ModelSet) throws -> String)

    /// What can happen, and how often.
    static let verbs: [Verb] = [
        ("backup", 10, { try $0.backup($1) }),
        ("forget", 3, { try $0.forget($1) }),
        ("prune", 4, { try $0.prune($1) }),
        ("copy", 3, { try $0.copy($1) }),
        ("archive", 2, { try $0.archive($1) }),
        ("damage", 5, { try $0.damage($1) }),
        ("repair", 4, { try $0.repair($1) }),
        ("heal", 2, { try $0.heal($1) }),
    ]
    private static let total = verbs.reduce(0) { $0 + $1.weight }

    /// One random step, and what must hold after it.
    func run() throws {
        step += 1
        // Most happens in the first set; the second is there to be copied into.
        let set = Int.random(in: 0..<4, using: &random) == 0 ? sets[1] : sets[0]
        var choice = Int.random(in: 0..<ModelWorld.total, using: &random)
        guard
            let verb = ModelWorld.verbs.first(where: { verb in
                choice -= verb.weight
                return choice < 0
            })
        else { return }
        let what = try verb.run(self, set)
        counts[verb.name, default: 0] += 1
        let note = "\(prefix), step \(step): \(set.label) \(verb.name) \(what)"
        trace.append(note)
        // All points now and then, else one; verification reads everything.
        let all = step % 10 == 0
        let some = set.order.isEmpty ? [] : [set.order[Int.random(in: 0..<set.order.count, using: &random)]]
        try set.check(all ? nil : some, verify: all || Int.random(in: 0..<3, using: &random) == 0, note)
    }

    /// Runs `work` with a store that may stop working; says whether it did. A fault that neither that nor damage explains
    /// is an issue.
    func attempt(
        _ set: ModelSet, _ verb: String, mayRemove: (String) -> Bool = { _ in false }, canBeKilled: Bool = true,
        allowed: [FaultCode] = [], work: (any ObjectStore) throws -> Void
    ) throws -> (fault: Fault?, killed: Bool) {
        let before = try set.objects()
        let wasWhole = set.damaged(before).isEmpty
        let life =
            canBeKilled && Int.random(in: 0..<5, using: &random) == 0 ? Int.random(in: 0..<40, using: &random) : nil
        let store = MortalStore(set.place.store, life: life, left: set.place.leftovers)
        var fault: Fault?
        do { try work(store) } catch let error as Fault { fault = error }
        if store.isDead {
            try set.place.leave(store)
            set.isUntidy = true
        } else if let fault, wasWhole, !allowed.contains(fault.code) {
            Issue.record("\(prefix), step \(step): \(set.label) \(verb) fails without a cause: \(fault)")
        }
        try set.settle(before, mayRemove: mayRemove, "\(prefix), step \(step): \(set.label) \(verb)")
        return (fault, store.isDead)
    }

    private static func outcome(_ result: (fault: Fault?, killed: Bool)) -> String {
        result.killed ? "killed" : result.fault.map { "refused: \($0.code.rawValue)" } ?? "done"
    }

    // MARK: - The verbs

    private func backup(_ set: ModelSet) throws -> String {
        let machine = Int.random(in: 0..<machines.count, using: &random)
        for index in machines[machine].indices { machines[machine][index].change(&random) }
        // Machines have files in common.
        if Int.random(in: 0..<4, using: &random) == 0 {
            let other = machines[(machine + 1) % machines.count][0].blocks
            machines[machine][0].blocks += other.prefix(16)
            if machines[machine][0].blocks.count > 90 { machines[machine][0] = ModelVolume(&random) }
        }
        let volumes = machines[machine]
        let readBack = Bool.random(using: &random)
        let isEmpty = try set.objects().isEmpty
        let before = Set(set.points.keys)
        let result = try attempt(set, "backup") { store in
            try Sample.backup(
                volumes.map { ($0.content, $0.used) }, to: store, name: "machine \(machine)", options: set.options,
                keys: set.keys, readBack: readBack)
        }
        // The point is there from the moment its first copy is, and belongs to this run.
        let made = set.names.filter { $0.hasPrefix("points/") }.map { String($0.dropFirst(7).prefix(32)) }.filter {
            !before.contains($0)
        }
        if made.count > 1 || (result.fault == nil && made.count != 1) {
            Issue.record("\(prefix), step \(step): a backup makes \(made.count) points")
        }
        for id in made {
            set.points[id] = volumes
            history[id] = volumes
            set.order.append(id)
        }
        if result.fault == nil, !result.killed { set.isUntidy = false }
        set.place.pass(hours: UInt64.random(in: 0...30, using: &random))
        return "machine \(machine)\(isEmpty ? ", first" : ""): \(ModelWorld.outcome(result))"
    }

    private func forget(_ set: ModelSet) throws -> String {
        // A few points are kept, so that space is reclaimed between points that share it.
        guard set.order.count > 2 else { return "too few points" }
        let id = set.order[Int.random(in: 0..<set.order.count, using: &random)]
        let names = ["points/\(id).point", "copies/points/\(id).point"]
        let result = try attempt(set, "forget", mayRemove: { names.contains($0) }) { store in
            let keeper = try SetKeeper(store, keys: set.keys)
            try keeper.forget(keeper.plan(nil, named: [id]))
        }
        if result.fault == nil {
            set.forgotten(id)
        } else if result.killed {
            set.doomed.insert(id)
        }
        return ModelWorld.outcome(result)
    }

    private func prune(_ set: ModelSet) throws -> String {
        guard !(try set.objects().isEmpty) else { return "nothing there" }
        var options = PruneOptions()
        options.garbagePercent = Int.random(in: 1...60, using: &random)
        options.leastGarbage = .kibibytes(UInt64.random(in: 0...64, using: &random))
        options.packSize = .mebibytes(1)
        options.allPointsForgotten = set.order.isEmpty
        var freed = ""
        let result = try attempt(
            set, "prune",
            mayRemove: { name in
                ["packs/", "moves/", "copies/packs/", "copies/moves/"].contains { name.hasPrefix($0) }
            }, allowed: [.notASet] + (set.mayBeBusy ? [.setBusy] : [])
        ) { store in
            let report = try SetKeeper(store, keys: set.keys).prune(options)
            freed = ", \(report.removed.count) removed, \(report.rewritten.count) rewritten"
        }
        // Its announcement stands for a day.
        if result.killed { set.mayBeBusy = true }
        if Bool.random(using: &random) {
            set.place.pass(hours: 25)
            set.mayBeBusy = false
        }
        return ModelWorld.outcome(result) + freed
    }

    /// One point or all points of the other set.
    private func copy(_ set: ModelSet) throws -> String {
        let source = set === sets[0] ? sets[1] : sets[0]
        guard !source.order.isEmpty, set.order.count < 12 else { return "nothing to copy" }
        var options = SetCopy.Options()
        options.writing = set.options
        options.readBack = Bool.random(using: &random)
        options.threads = 1
        options.allowPlain = true
        let wasWhole = try source.isWhole()
        let one =
            Bool.random(using: &random) ? source.order[Int.random(in: 0..<source.order.count, using: &random)] : nil
        options.point = one
        let before = Set(set.points.keys)
        var report: CopyReport?
        let result = try attempt(
            set, "copy",
            allowed: wasWhole && source.doomed.isEmpty ? [] : [.setDamaged, .noSuchPoint, .notASet, .wrongKey]
        ) { store in
            let reader = try SetReader(source.place.store, keys: source.keys)
            report = try SetCopy.run(from: reader, to: store, options: options, keys: set.keys, newKeys: set.keys)
        }
        // Each copy names the point it was made from; what was cut off may have made some.
        let made = set.names.filter { $0.hasPrefix("points/") }.map { String($0.dropFirst(7).prefix(32)) }.filter {
            !before.contains($0)
        }
        guard !made.isEmpty else { return ModelWorld.outcome(result) }
        let summaries = try SetReader(set.place.store, keys: set.keys).points().points
        for id in made {
            let origin = summaries.first { $0.id == id }?.facts.origin
            guard let volumes = origin.flatMap({ history[$0.point] }) else {
                Issue.record("\(prefix), step \(step): a copy \(id) of an unknown point")
                continue
            }
            set.points[id] = volumes
            history[id] = volumes
            set.order.append(id)
        }
        if result.fault == nil, !result.killed {
            set.isUntidy = false
            if wasWhole, report?.failed.isEmpty == false {
                Issue.record("\(prefix), step \(step): a sound point is not copied: \(report?.failed as Any)")
            }
        }
        return "\(made.count) points: " + ModelWorld.outcome(result)
    }

    /// A point is written to a file, read back from there, and the file thrown away.
    private func archive(_ set: ModelSet) throws -> String {
        guard !set.order.isEmpty else { return "no point" }
        let id = set.order[Int.random(in: 0..<set.order.count, using: &random)]
        let isSplit = Bool.random(using: &random)
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        var options = PointArchive.Options(time: 1_700_000_000)
        options.partSize = isSplit ? .kibibytes(UInt64.random(in: 8...300, using: &random)) : nil
        options.folder = Bool.random(using: &random) ? "set" : ""
        options.threads = 1
        guard let volumes = set.points[id] else { return "no point" }
        let note = "\(prefix), step \(step): archive of \(id)"
        var canFail = try !set.isWhole() || set.doomed.contains(id)
        do throws(Fault) {
            let point = try SetReader(set.place.store, keys: set.keys).point(id)
            let report = try PointArchive.write(point, to: folder + "/archive", options: options)
            // From here on nothing may fail: what was written is complete.
            canFail = false
            let reader = try SetReader(ArchiveStore(report.files[0]), keys: set.keys)
            if let fault = try? ModelSet.restore(reader, report.point.id, volumes, note) {
                Issue.record("\(note): it does not restore: \(fault)")
            }
            let verified = try reader.verify(.full, threads: 1)
            if !verified.isSound { Issue.record("\(note): \(verified.damages)") }
            return isSplit ? "in parts" : "whole"
        } catch {
            if !canFail { Issue.record("\(note) fails: \(error)") }
            return "refused: \(error.code.rawValue)"
        }
    }

    private func damage(_ set: ModelSet) throws -> String {
        let objects = try set.objects()
        let there = set.names.filter { objects[$0] != nil }
        guard !there.isEmpty else { return "nothing there" }
        // Packs are large and few: each kind of object gets its share.
        let kinds = Array(Set(there.map { String($0.prefix(while: { $0 != "/" })) })).sorted()
        let kind = kinds[Int.random(in: 0..<kinds.count, using: &random)]
        let candidates = there.filter { $0.prefix(while: { $0 != "/" }) == kind }
        let name = candidates[Int.random(in: 0..<candidates.count, using: &random)]
        guard var bytes = objects[name], !bytes.isEmpty else { return "nothing in it" }
        let isFirst = bytes == set.shadow[name]
        set.flips[name] = nil
        var what: String
        switch Int.random(in: 0..<6, using: &random) {
        case 0:
            what = "removal"
            try set.place.set(name, nil)
        case 1:
            let length = Int.random(in: 0..<bytes.count, using: &random)
            what = "cut at \(length)"
            try set.place.set(name, Array(bytes[..<length]))
        case 2 where candidates.count > 1:
            let other = candidates[Int.random(in: 0..<candidates.count, using: &random)]
            what = "exchange"
            try set.place.set(name, objects[other])
            try set.place.set(other, bytes)
            set.flips[other] = nil
        default:
            let place = Int.random(in: 0..<bytes.count, using: &random)
            bytes[place] ^= UInt8(1) << UInt8.random(in: 0...7, using: &random)
            what = "flip at \(place)"
            try set.place.set(name, bytes)
            if isFirst { set.flips[name] = place }
        }
        return "\(what) of \(kind) \(candidates.firstIndex(of: name) ?? 0)"
    }

    private func repair(_ set: ModelSet) throws -> String {
        let before = try set.objects()
        guard !before.isEmpty else { return "nothing there" }
        let damaged = set.damaged(before)
        var report: RepairReport?
        let result = try attempt(set, "repair", allowed: [.notASet]) { store in
            let repair = SetRepair(try SetReader(store, keys: set.keys))
            report = try repair.apply(repair.plan())
        }
        guard let report, result.fault == nil else { return ModelWorld.outcome(result) }
        let after = try set.objects()
        let reader = try SetReader(set.place.store, keys: set.keys)
        let slots = try KeySlots(reader.store, reader.set).slots.map(\.id)
        for name in damaged where after[name] != set.shadow[name] {
            // A slot of a set that was killed before it had a header is nobody's.
            if let id = ObjectName.id(name, suffix: ".key"), !slots.contains(id) { continue }
            // From its copy, or the pack's own parity.
            let copy = ModelSet.counterpart(name)
            let hasCopy = copy.map { set.shadow[$0] != nil && before[$0] == set.shadow[$0] } ?? false
            let isProtected = set.options.parity > 0 && name.hasSuffix(".pack") && set.flips[name] != nil
            if hasCopy || isProtected {
                Issue.record(
                    "\(prefix), step \(step): \(set.label): \(name) could be repaired and is not: \(report.items)")
            }
        }
        return "of \(damaged.count): \(report.repaired) repaired, \(report.impossible) cannot be"
    }

    /// Someone has another copy of the set, and puts files back from there.
    private func heal(_ set: ModelSet) throws -> String {
        let damaged = set.damaged(try set.objects())
        for name in damaged { try set.place.set(name, set.shadow[name]) }
        set.flips = [:]
        return "\(damaged.count)"
    }
}
