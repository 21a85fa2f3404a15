// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry
public import ImageStore
import LinuxDisks
import MachineModel
public import RestorePlanning
public import Restoring

/// An image set that was opened for reading, and what keeps its place mounted.
public struct OpenedSet: Sendable {
    /// The set.
    public let reader: SetReader
    /// Its folder.
    public let folder: String
    /// How a stored plan names it: `label:NAME/folder`, or the folder's full path, which holds from anywhere.
    public let name: String
    /// Where the set lies; released with this value.
    let location: StoreLocation

    /// Opens the set at a place: a folder, or `label:NAME/folder`. `keys` are asked when it is encrypted; with
    /// `locked`, it is opened only as far as that goes without its key.
    public init(_ place: String, keys: KeyRing = .none, locked: Bool = false) throws(Fault) {
        location = try StoreLocation.open(place, .readOnly, identify: Identify.volume)
        folder = location.path
        name = location.volume == nil ? KernelFiles.live.resolved(place) ?? place : place
        do {
            let store = FolderStore(path: location.path)
            reader = try locked ? SetReader(locked: store) : SetReader(store, keys: keys)
        } catch {
            location.release()
            throw error
        }
    }

    /// Gives the place up.
    public func close() { location.release() }
}

/// Plans and carries out restores.
public enum Restore {
    /// The plan for `point` of the set in `folder`. Nothing is written.
    public static func plan(
        _ point: RecoveryPoint, set: String, folder: String, _ request: PlanRequest
    ) throws -> RestorePlan {
        let assignments = try request.assignments(point.facts.disks, set: folder, scan: DiskScan())
        var plan = try Planner.plan(
            Planner.Request(set: set, point: point.summary.id, assignments: assignments, layout: request.layout))
        plan.findings += losses(point, plan)
        return plan
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

    /// Looks at the targets of a stored plan again: everything that speaks against writing to them now.
    public static func objections(to plan: RestorePlan, folder: String) throws(Fault) -> [Fault] {
        try plan.requireSound()
        let scan = DiskScan()
        var result: [Fault] = []
        for disk in plan.disks {
            try Restorer.checkPin(disk.target)
            let assessor = TargetAssessor(scan: scan, set: folder, fileSectorSize: disk.target.sectorSize)
            let now = try assessor.assess(disk.target.path, growing: disk.volumes.contains(where: \.grows))
            result += now.objections
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
        _ plan: RestorePlan, from point: RecoveryPoint, readBack: ReadBack, events: @escaping EventHandler
    ) throws(Fault) -> [DiskReport] {
        guard plan.point == point.summary.id else {
            throw Fault(
                .planRefused,
                what: "The plan was made for the recovery point \(plan.point), not for \(point.summary.id).",
                remedy: "Make a new plan: `relight plan`.")
        }
        return try Restorer(source: PointSource(point), readBack: readBack, events: events).run(plan)
    }
}
