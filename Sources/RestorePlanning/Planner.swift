// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
public import MachineModel

/// Makes plans. Pure: the same request gives the same plan on any machine at any time.
public enum Planner {
    /// A target as it was found.
    public struct Target: Hashable, Sendable {
        /// Its identity and size.
        public var pin: TargetPin
        /// What lies on it now, for the "will be lost" list; empty for a blank disk.
        public var holds: [String]
        /// Reasons known outside why it may not be written: in use, holds the set, is the source.
        public var objections: [Fault]
        /// Whether it is an image file or a loop device: firmware, Windows and the kernel do not see what is on it.
        public var isVirtual: Bool

        /// A target.
        public init(pin: TargetPin, holds: [String] = [], objections: [Fault] = [], isVirtual: Bool = false) {
            self.pin = pin
            self.holds = holds
            self.objections = objections
            self.isVirtual = isVirtual
        }
    }

    /// One volume that goes into a partition the target has already. Nothing else of the target is touched.
    public struct Part: Hashable, Sendable {
        /// The volume's number in the recovery point.
        public var source: Int
        /// The partition's number on the target.
        public var target: Int
        /// The target's table; it stays.
        public var table: PartitionTable

        /// A volume and its partition.
        public init(source: Int, target: Int, table: PartitionTable) {
            self.source = source
            self.target = target
            self.table = table
        }
    }

    /// One disk of the point, or a volume of it, and where it shall go.
    public struct Assignment: Hashable, Sendable {
        /// Which of the point's disks, counted from 0.
        public var sourceIndex: Int
        /// The disk as it was imaged.
        public var source: DiskModel
        /// Where it shall go.
        public var target: Target
        /// The one volume; `nil` for the whole disk.
        public var part: Part?

        /// An assignment.
        public init(sourceIndex: Int, source: DiskModel, target: Target, part: Part? = nil) {
            self.sourceIndex = sourceIndex
            self.source = source
            self.target = target
            self.part = part
        }
    }

    /// Everything a plan is made from.
    public struct Request: Hashable, Sendable {
        /// The image set, as the user named it.
        public var set: String
        /// The recovery point's full id.
        public var point: String
        /// Which disk goes where.
        public var assignments: [Assignment]
        /// What the user wishes.
        public var wishes: PlanWishes
        /// What whoever carries the plan out can do.
        public var abilities: PlanAbilities
        /// Identifiers of disks that are attached.
        public var visible: [VisibleID]
        /// How the targets' machine starts; `nil` when it is not known, or another one.
        public var firmware: FirmwareMode?
        /// Two numbers that new identifiers are made from; random for each plan.
        public var seed: [UInt64]

        /// A request.
        public init(
            set: String, point: String, assignments: [Assignment], wishes: PlanWishes = PlanWishes(),
            abilities: PlanAbilities = .growingExt, visible: [VisibleID] = [], firmware: FirmwareMode? = nil,
            seed: [UInt64] = []
        ) {
            self.set = set
            self.point = point
            self.assignments = assignments
            self.wishes = wishes
            self.abilities = abilities
            self.visible = visible
            self.firmware = firmware
            self.seed = seed
        }
    }

    /// 1 MiB: partitions that move begin at a multiple of this.
    public static let alignment = ByteCount(Arrangement.grain)

    /// The plan for `request`. Throws every reason at once why there is none.
    public static func plan(_ request: Request) throws(PlanRefusal) -> RestorePlan {
        var reasons: [Fault] = []
        var findings: [Finding] = []
        var disks: [DiskPlan] = []
        if request.assignments.isEmpty {
            reasons.append(
                Fault(.planRefused, what: "No target disk is named.", remedy: "Name one with `--to DISK`."))
        }
        let wishes = PartWishes(request, &reasons)
        var ids = IDSource(request.seed)
        for (index, assignment) in request.assignments.enumerated() {
            if request.assignments[..<index].contains(where: { clash($0, assignment) }) {
                reasons.append(
                    Fault(
                        .planRefused, what: "It is named as the target of two disks.",
                        place: assignment.target.pin.path,
                        remedy: "Name another disk for one of them."))
            }
            reasons.append(contentsOf: assignment.target.objections)
            var planner = DiskPlanner(request, assignment, wishes.of(index))
            if let disk = planner.make(&ids) { disks.append(disk) }
            reasons += planner.reasons
            findings += planner.findings
        }
        if reasons.isEmpty {
            findings += layers(request, disks, &reasons)
            collisions(request, disks, &reasons, &findings)
        }
        guard reasons.isEmpty else { throw PlanRefusal(reasons) }
        let plan = RestorePlan(set: request.set, point: request.point, disks: disks, findings: findings)
        // What a restore would refuse is no plan: a whole-disk volume, say, that does not begin its disk.
        do {
            try plan.requireConsistent()
        } catch {
            let source = request.assignments.first?.source.path ?? ""
            throw PlanRefusal([
                Fault(
                    .planRefused, what: "What lies on \(source) cannot be laid out: \(error.what)", place: error.place,
                    remedy: "Use another recovery point; `relight verify` checks the set.")
            ])
        }
        return plan
    }

    /// Whether two assignments write to the same bytes.
    private static func clash(_ one: Assignment, _ other: Assignment) -> Bool {
        guard one.target.pin.path == other.target.pin.path else { return false }
        guard let first = one.part?.target, let second = other.part?.target else { return true }
        return first == second
    }
}

/// What is wished of the parts of each disk.
struct PartWishes {
    /// What is wished of the parts of one disk, by their numbers in the point.
    struct OfDisk {
        var sizes: [Int: ByteCount] = [:]
        var drop: Set<Int> = []
        var recreate: Set<Int> = []
        var recreatesAll = false
    }
    private var disks: [OfDisk]

    func of(_ index: Int) -> OfDisk { disks.indices.contains(index) ? disks[index] : OfDisk() }

    /// Finds the parts that are named; what names none, or several, is a reason against the plan.
    init(_ request: Planner.Request, _ reasons: inout [Fault]) {
        let wishes = request.wishes
        disks = [OfDisk](repeating: OfDisk(), count: request.assignments.count)
        for index in disks.indices { disks[index].recreatesAll = wishes.recreatesAll }
        for wish in wishes.sizes {
            for index in PartWishes.find(wish.part, "--size", request, &reasons) {
                if disks[index].sizes.updateValue(wish.size, forKey: wish.part.number) != nil {
                    reasons.append(
                        Fault(
                            .planRefused, what: "It is given two sizes.", place: wish.part.text,
                            remedy: "Name it once with --size."))
                }
            }
        }
        for part in wishes.drop {
            for index in PartWishes.find(part, "--drop", request, &reasons) { disks[index].drop.insert(part.number) }
        }
        for part in wishes.recreate {
            for index in PartWishes.find(part, "--recreate", request, &reasons) {
                disks[index].recreate.insert(part.number)
            }
        }
        for (index, disk) in disks.enumerated() {
            for number in disk.drop.intersection(disk.sizes.keys).sorted() {
                reasons.append(
                    Fault(
                        .planRefused, what: "Partition \(number) is given a size and left out.",
                        place: request.assignments[index].source.path, remedy: "Choose one of --size and --drop."))
            }
        }
    }

    private static func find(
        _ part: PartName, _ option: String, _ request: Planner.Request, _ reasons: inout [Fault]
    ) -> [Int] {
        let assignments = request.assignments
        let named = assignments.indices.filter { index in
            guard let disk = part.disk else { return true }
            let assignment = assignments[index]
            return disk == "\(assignment.sourceIndex + 1)" || disk == assignment.source.path
                || disk == assignment.source.serial || disk == assignment.target.pin.path
        }
        if part.disk == nil, Set(assignments.map(\.sourceIndex)).count > 1 {
            reasons.append(
                Fault(
                    .planRefused, what: "Several disks are restored; of which one is part \(part.number)?",
                    place: "\(option) \(part.text)", remedy: "Write DISK:\(part.number), such as 1:\(part.number)."))
            return []
        }
        let found = named.filter { index in
            let source = assignments[index].source
            return source.volumes.contains { $0.number == part.number }
                || source.table?.volumes.contains { $0.number == part.number } ?? false
        }
        if found.isEmpty {
            let all = assignments.map { assignment in
                "\(assignment.source.path): "
                    + assignment.source.volumes.map { "\($0.number)" }.joined(separator: ", ")
            }
            reasons.append(
                Fault(
                    .planRefused, what: "The recovery point holds no such part.", place: "\(option) \(part.text)",
                    remedy: "Its parts are \(all.joined(separator: "; "))."))
        }
        return found
    }
}
