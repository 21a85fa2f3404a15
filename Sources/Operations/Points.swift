// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FilesystemResize
public import Findings
import Geometry
public import ImageStore
import LinuxDisks
import MachineModel
public import PointDisk
public import RestorePlanning
public import Restoring

/// An image set that was opened for reading, and what keeps its place mounted.
public struct OpenedSet: Sendable {
    /// The set.
    public let reader: SetReader
    /// Where it lies.
    public let place: SetPlace

    /// Opens the set at a place, and in the other places `also`. `keys` are asked when it is encrypted; with `locked`, it
    /// is opened only as far as that goes without its key.
    public init(
        _ place: String, also: [String] = [], keys: KeyRing = .none, locked: Bool = false
    ) throws(Fault) {
        self.place = try SetPlace(place, also: also)
        do throws(Fault) {
            reader = try locked ? SetReader(locked: self.place.store) : SetReader(self.place.store, keys: keys)
        } catch {
            self.place.close()
            throw self.place.worded(error)
        }
    }

    /// Gives the place up.
    public func close() { place.close() }

    /// Throws unless every pack that `point` needs is in one of the places that were named.
    public func requireComplete(_ point: RecoveryPoint) throws(Fault) {
        if let fault = try missingPacks(of: point) { throw fault }
    }

    /// The fault for packs of `point` that are not in any place that was named; `nil` when all are.
    public func missingPacks(of point: RecoveryPoint) throws(Fault) -> Fault? {
        try place.missing(point.missingPacks(), ofThoseNeededBy: "this point needs")
    }
}

extension SetPlace {
    /// The fault for packs that are not in any place that was named; `nil` when `missing` names none. It comes before any
    /// word of damage: the rest of a set that lies on several media is whole.
    public func missing(_ missing: [String], ofThoseNeededBy needing: String) -> Fault? {
        guard let first = missing.first else { return nil }
        let (are, they) = missing.count == 1 ? ("is", "it") : ("are", "they")
        return Fault(
            .setDamaged,
            what: isArchive
                ? "\(missing.count) of the packs \(needing) \(are) missing in the archive, such as \(first)."
                : "\(missing.count) of the packs \(needing) \(are) missing here, such as \(first); \(they) may lie on "
                    + "another medium of the set.",
            place: names.joined(separator: " + "),
            remedy: isArchive
                ? "Copy the archive again from where it was made."
                : "Attach that medium and name it with --also PLACE. If there is none, put the packs back from a copy of "
                    + "the set; `relight verify` says what is lost without them.")
    }
}

/// What a restore did.
public struct RestoreOutcome: Sendable {
    /// By targets.
    public let disks: [DiskReport]
    /// What could not be restored, with the files it belongs to.
    public let lost: [LostVolume]
}

/// Plans and carries out restores.
public enum Restore {
    /// The plan for `point` of `set`. Nothing is written. Where a target is too small by what the image estimates, and there
    /// is `scratch` for it, the smallest sizes are measured and the plan is made from them. Throws `set.damaged` when packs
    /// are missing, unless they are to be skipped.
    public static func plan(
        _ point: RecoveryPoint, of set: OpenedSet, _ request: PlanRequest, onDamage: OnDamage = .fail,
        measuringWith scratch: ScratchRoom? = nil, events: @escaping EventHandler = { _ in }
    ) throws -> RestorePlan {
        if onDamage == .fail { try set.requireComplete(point) }
        let names = set.place.names
        let scan = DiskScan()
        var assignments = try request.assignments(point.facts.disks, set: set.place.paths, scan: scan)
        let isReal = assignments.contains { !$0.target.isVirtual }
        var random = SystemRandomNumberGenerator()
        let seed = [random.next(), random.next()] as [UInt64]
        let visible = isReal ? VisibleIDs.all(scan) : []
        let firmware = isReal ? MachineProbe.firmware() : nil
        func make(_ assignments: [Planner.Assignment]) throws(PlanRefusal) -> RestorePlan {
            try Planner.plan(
                Planner.Request(
                    set: names.first ?? "", point: point.summary.id, assignments: assignments, wishes: request.wishes,
                    abilities: Restorer.abilities, visible: visible, firmware: firmware, seed: seed))
        }
        var plan: RestorePlan
        do {
            plan = try make(assignments)
        } catch {
            guard let scratch, error.reasons.allSatisfy({ $0.code == .targetTooSmall }) else { throw error }
            // Measuring takes long: only where the most it could find would help.
            var hopeful = assignments
            for index in hopeful.indices { hopeful[index].source = Restore.atBest(hopeful[index].source) }
            guard (try? make(hopeful)) != nil else { throw error }
            guard
                let measured = try measuredIfPossible(
                    point, Set(assignments.map(\.sourceIndex)), room: scratch, events: events)
            else { throw error }
            guard measured != point.facts.disks else { throw error }
            for index in assignments.indices { assignments[index].source = measured[assignments[index].sourceIndex] }
            plan = try make(assignments)
        }
        let needs = plan.disks.compactMap { Restore.loopNeeded($0, scan) }
        if !needs.isEmpty { throw PlanRefusal(needs) }
        if names.count > 1 { plan.also = Array(names.dropFirst()) }
        plan.pointLabel = point.summary.label
        plan.findings += losses(point, plan)
        plan.findings += scratchNeeds(point, plan, scratch ?? .usual())
        return plan
    }

    /// What speaks against growing filesystems in an image file; `nil` when nothing does.
    private static func loopNeeded(_ disk: DiskPlan, _ scan: DiskScan) -> Fault? {
        guard disk.volumes.contains(where: \.grows), !LoopDevice.isAvailable,
            !scan.devices.contains(where: { $0.path == disk.target.path })
        else { return nil }
        return Fault(
            .planRefused, what: "Growing a filesystem inside an image file needs a loop device.",
            place: disk.target.path, remedy: "Run relight as root, or use `--layout keep`.")
    }

    /// What the restored disks will lack: sectors that could not be read, disks that go nowhere.
    private static func losses(_ point: RecoveryPoint, _ plan: RestorePlan) -> [Finding] {
        var result: [Finding] = []
        let disks = point.facts.disks
        for stream in point.streams where !stream.unreadable.isEmpty {
            let index = stream.description.disk
            guard plan.disks.contains(where: { $0.sourceIndex == index }), disks.indices.contains(index) else {
                continue
            }
            var place = disks[index].path
            if case .volume(let number) = stream.description.kind, number > 0 { place += ":\(number)" }
            for sentence in Finding.unreadable(
                stream.unreadable, "could not be read when the image was made; zeros are restored there.")
            {
                result.append(Finding(.warning, FaultCode.unreadable.rawValue, what: sentence, place: place))
            }
        }
        for (index, disk) in disks.enumerated() where !plan.disks.contains(where: { $0.sourceIndex == index }) {
            result.append(
                Finding(
                    .notice, "disk.not-restored", what: "Disk \(index + 1) of the recovery point is not restored.",
                    place: disk.path))
        }
        return result
    }

    /// What speaks against carrying `plan` out from `point`: it leaves volumes out without saying so, or says other things of
    /// them than the point. A stored plan is a text that anyone may have changed.
    static func requireAgreement(of plan: RestorePlan, with point: RecoveryPoint) throws(Fault) {
        func refuse(_ what: String, _ disk: DiskPlan) -> Fault {
            Fault(
                .planRefused, what: "The plan does not agree with the recovery point. \(what)", place: disk.target.path,
                remedy: "Make it again: `relight plan`.")
        }
        for disk in plan.disks {
            guard point.facts.disks.indices.contains(disk.sourceIndex) else {
                throw refuse("The point has no disk \(disk.sourceIndex + 1).", disk)
            }
            let source = point.facts.disks[disk.sourceIndex]
            let numbers = disk.volumes.map(\.sourceNumber)
            if disk.keeps == nil {
                for volume in source.volumes
                where !numbers.contains(volume.number) && !disk.dropped.contains(where: { $0.number == volume.number })
                {
                    throw refuse("It neither restores volume \(volume.number) nor says that it is dropped.", disk)
                }
            }
            for planned in disk.volumes {
                guard let volume = source.volumes.first(where: { $0.number == planned.sourceNumber }),
                    volume.kind == planned.kind, volume.extent == planned.source
                else { throw refuse("Volume \(planned.sourceNumber) is another one there.", disk) }
            }
        }
    }

    /// The disks with their volumes' smallest sizes measured; `nil`, and a notice, where that cannot be done here.
    private static func measuredIfPossible(
        _ point: RecoveryPoint, _ chosen: Set<Int>, room: ScratchRoom, events: @escaping EventHandler
    ) throws(Fault) -> [DiskModel]? {
        do throws(Fault) {
            return try measured(point, chosen, room: room, events: events)
        } catch {
            if error.code == .interrupted { throw error }
            events(.finding(Finding(.notice, "volume.not-measured", what: "\(error.what) \(error.remedy)")))
            return nil
        }
    }

    /// A disk's volumes as small as what they hold, where they can be shrunk at all.
    private static func atBest(_ disk: DiskModel) -> DiskModel {
        var disk = disk
        for index in disk.volumes.indices {
            let volume = disk.volumes[index]
            guard FilesystemTools.tool(for: volume.kind)?.canShrink == true, volume.wholeBecause == nil else {
                continue
            }
            disk.volumes[index].minimum = min(volume.minimum ?? volume.used, volume.used)
            disk.volumes[index].minimumIs = "measured"
        }
        return disk
    }

    /// Looks at the targets of a stored plan again: everything that speaks against writing to them now.
    public static func objections(to plan: RestorePlan, from set: OpenedSet) throws(Fault) -> [Fault] {
        try plan.requireSound()
        let scan = DiskScan()
        var result: [Fault] = []
        for disk in plan.disks {
            try Restorer.checkPin(disk.target)
            let assessor = TargetAssessor(scan: scan, set: set.place.paths, fileSectorSize: disk.target.sectorSize)
            let now = try assessor.assess(
                disk.target.path, part: disk.keeps == nil ? nil : disk.volumes.first?.number)
            result += now.objections
            if now.pin.path != disk.target.path {
                result.append(
                    Fault(
                        .planRefused, what: "The plan names this target by another path than its own.",
                        place: disk.target.path, remedy: "Make a new plan with `relight plan`."))
            }
            if let need = loopNeeded(disk, scan) { result.append(need) }
            if now.objections.isEmpty, now.holds != disk.overwrites {
                func words(_ held: [String]) -> String { held.isEmpty ? "nothing" : held.joined(separator: "; ") }
                result.append(
                    Fault(
                        .targetChanged,
                        what: "It holds \(words(now.holds)); when the plan was made it held \(words(disk.overwrites)).",
                        place: disk.target.path,
                        remedy: "Make a new plan with `relight plan`, and look at what would be lost."))
            }
        }
        return result
    }

    /// Carries `plan` out from `point`. Whoever calls this has shown the plan and been told yes.
    public static func run(
        _ plan: RestorePlan, from point: RecoveryPoint, readBack: ReadBack, onDamage: OnDamage = .fail,
        scratch: ScratchRoom = .usual(), events: @escaping EventHandler
    ) throws(Fault) -> RestoreOutcome {
        guard plan.point == point.summary.id else {
            throw Fault(
                .planRefused,
                what: "The plan was made for the recovery point \(plan.point), not for \(point.summary.id).",
                remedy: "Make a new plan: `relight plan`.")
        }
        try requireAgreement(of: plan, with: point)
        let source = PointSource(point, onDamage: onDamage)
        let reports: [DiskReport]
        do throws(Fault) {
            reports = try Restorer(source: source, readBack: readBack, scratch: scratch, events: events).run(plan)
        } catch {
            var fault = error
            if fault.code == .setDamaged || fault.code == .storeFailed {
                for item in try lostVolumes(source, point) { fault.what += " \(item.sentence)" }
            }
            throw fault
        }
        return RestoreOutcome(disks: reports, lost: try lostVolumes(source, point))
    }

    private static func lostVolumes(_ source: PointSource, _ point: RecoveryPoint) throws(Fault) -> [LostVolume] {
        var result: [LostVolume] = []
        for (stream, extents) in source.lost {
            let description = stream.description
            let volume: Int? = if case .volume(let number) = description.kind { number } else { nil }
            result.append(
                LostVolume(
                    point: point.summary.id, disk: description.disk, volume: volume, extents: extents,
                    content: try LostNames.at(extents, of: stream)))
        }
        return result
    }
}
