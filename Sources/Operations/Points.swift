// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry
public import ImageStore
import LinuxDisks
public import RestorePlanning
public import Restoring

/// An image set that was opened for reading, and what keeps its place mounted.
public struct OpenedSet: Sendable {
    /// The set.
    public let reader: SetReader
    /// Its folder.
    public let folder: String
    /// Where the set lies; released with this value.
    let location: StoreLocation

    /// Opens the set at a place: a folder, or `label:NAME/folder`.
    public init(_ place: String) throws(Fault) {
        location = try StoreLocation.open(place, .readOnly, identify: Identify.volume)
        folder = location.path
        do {
            reader = try SetReader(FolderStore(path: location.path))
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
        return try Planner.plan(
            Planner.Request(set: set, point: point.summary.id, assignments: assignments, layout: request.layout))
    }

    /// Looks at the targets of a stored plan again: everything that speaks against writing to them now.
    public static func objections(to plan: RestorePlan, folder: String) throws(Fault) -> [Fault] {
        let scan = DiskScan()
        var result: [Fault] = []
        for disk in plan.disks {
            let assessor = TargetAssessor(scan: scan, set: folder, fileSectorSize: disk.target.sectorSize)
            let now = try assessor.assess(disk.target.path, growing: disk.volumes.contains(where: \.grows))
            result += now.objections
        }
        return result
    }

    /// Carries `plan` out from `point`. Whoever calls this has shown the plan and been told yes.
    public static func run(
        _ plan: RestorePlan, from point: RecoveryPoint, readBack: ReadBack, events: @escaping EventHandler
    ) throws(Fault) -> [DiskReport] {
        guard plan.point == point.summary.id else {
            throw Fault(
                .planRefused, what: "The plan was made for the recovery point \(plan.point), not for \(point.summary.id).",
                remedy: "Make a new plan: `relight plan`.")
        }
        return try Restorer(source: PointSource(point), readBack: readBack, events: events).run(plan)
    }
}
