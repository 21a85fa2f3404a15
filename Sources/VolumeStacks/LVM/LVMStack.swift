// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel

/// LVM2: volume groups. Mapped are logical volumes that are linear, striped, mirrored or RAID1, from their extents to those
/// of the physical volumes, over as many hidden volumes as lie between. The extents of all others (thin pools and what
/// lies in them, snapshots and their origins, caches, VDO, RAID with parity, integrity, anything being moved or
/// converted) are used, and so is all that lies outside the extents: labels, metadata areas, the end. Extents that belong
/// to no logical volume are not.
enum LVMStack {
    static let format = LayerFormat(
        kinds: ["LVM2_member"], name: { _ in "LVM2" },
        recognise: { (source, _) throws(LayerProblem) in
            let volume = try LVMPhysicalVolume(source)
            return MemberDescriptor(
                format: "LVM2", name: volume.stored?.group.name ?? "",
                setUUID: (volume.stored?.group.id).map(LVMGroup.dashed), memberUUID: LVMGroup.dashed(volume.uuid),
                content: .lvm(volume), wholeBecause: volume.unsettled)
        },
        owns: { if case .lvm = $0 { true } else { false } }, assemble: assemble)

    private typealias Part = (member: StackMember, volume: LVMPhysicalVolume)

    @Sendable static func assemble(_ members: [StackMember], _ unlocking: Unlocking) throws(Fault) -> [Stack] {
        let parts: [Part] = members.compactMap { member in
            if case .lvm(let volume) = member.descriptor.content { (member, volume) } else { nil }
        }
        // Every group at its newest state.
        var groups: [String: LVMStored] = [:]
        var refused: [String: String] = [:]
        for part in parts {
            guard let stored = part.volume.stored else { continue }
            let id = stored.group.id
            if let reason = part.volume.unsettled { refused[id] = reason }
            if let known = groups[id] {
                if !known.isSame(as: stored) {
                    refused[id] = "The metadata of its volume group differ between its physical volumes."
                }
                if known.group.sequence >= stored.group.sequence { continue }
            }
            groups[id] = stored
        }
        var byUUID: [String: [Part]] = [:]
        for part in parts { byUUID[part.volume.uuid, default: []].append(part) }
        // Physical volumes of no group, of two groups, or there twice.
        var claims: [String: Int] = [:]
        for stored in groups.values {
            for volume in stored.group.physical.values { claims[volume.uuid, default: 0] += 1 }
        }

        var result: [Stack] = []
        var taken: Set<Int> = []
        for (id, stored) in groups.sorted(by: { $0.key < $1.key }) {
            let group = stored.group
            let own = group.physical.values.flatMap { byUUID[$0.uuid] ?? [] }.filter { !taken.contains($0.member.id) }
                .sorted { $0.member.id < $1.member.id }
            guard !own.isEmpty else { continue }
            taken.formUnion(own.map(\.member.id))
            var reason = refused[id]
            if group.physical.values.contains(where: { claims[$0.uuid] ?? 0 > 1 }) {
                reason = "Two volume groups claim one physical volume."
            }
            if let twice = group.physical.values.first(where: { byUUID[$0.uuid]?.count ?? 0 > 1 }) {
                let places = (byUUID[twice.uuid] ?? []).map(\.member.name).joined(separator: ", ")
                reason =
                    "The physical volume \(LVMGroup.dashed(twice.uuid)) is there more than once (\(places)); one of them is "
                    + "a copy."
            }
            if let odd = group.status.first(where: { !LVMGroup.harmlessGroup.contains($0) }) {
                reason = "Its volume group is in a state that is not known here (\(odd.printable))."
            }
            var stack: Stack
            if let reason {
                stack = Stack(whole: own.map(\.member), because: reason)
            } else {
                do throws(LayerProblem) {
                    stack = try LVMAssembly(group, own.map { ($0.member, $0.volume.uuid) }).stack
                } catch {
                    switch error {
                    case .fault(let fault): throw fault
                    case .whole(let reason): stack = Stack(whole: own.map(\.member), because: reason)
                    }
                }
            }
            stack.name = group.name
            stack.uuid = LVMGroup.dashed(id)
            stack.missing = group.physical.count - Set(own.map(\.volume.uuid)).count
            if stack.missing > 0 {
                stack.notices.append(
                    Stack.Notice(
                        isWarning: true, code: "lvm.incomplete",
                        what: "\(stack.missing) of the \(group.physical.count) physical volumes of the volume group "
                            + "\(group.name) are not on the disks looked at."))
            }
            for part in own {
                for problem in part.volume.problems {
                    stack.notices.append(
                        Stack.Notice(isWarning: true, code: "lvm.damaged", what: "\(part.member.name): \(problem)"))
                }
            }
            result.append(stack)
        }
        for part in parts where !taken.contains(part.member.id) {
            let reason =
                part.volume.stored.map { "Its volume group \($0.group.name) no longer counts it as one of its own." }
                ?? part.volume.problems.first ?? "It is in no volume group that is known here."
            var stack = Stack(whole: [part.member], because: reason)
            // Others may tell of its group.
            stack.waits = part.volume.stored == nil
            result.append(stack)
        }
        return result
    }
}

/// One volume group being put together.
private struct LVMAssembly {
    var stack: Stack
    private let group: LVMGroup
    /// The members by the group's names for them; those that cannot be relied on are left out.
    private var members: [String: StackMember] = [:]
    private var lengths: [Int: ByteCount] = [:]
    /// What is known of each logical volume; `nil` as the outcome stands for one that is not mapped.
    private var mappings: [String: Mapping?] = [:]
    private var visiting: Set<String> = []

    init(_ group: LVMGroup, _ own: [(member: StackMember, uuid: String)]) throws(LayerProblem) {
        self.group = group
        stack = Stack(format: "LVM2", name: group.name, uuid: nil, members: [])
        var whole: [Int: String] = [:]
        var places: [Int: LVMGroup.PhysicalVolume] = [:]
        for (member, uuid) in own {
            guard let (name, volume) = group.physical.first(where: { $0.value.uuid == uuid }) else { continue }
            places[member.id] = volume
            lengths[member.id] = member.source.length
            let end = volume.start + ByteCount(volume.extents * group.extentSize.bytes)
            if volume.isMissing {
                whole[member.id] =
                    "Its volume group went on without it, so that what it holds is of another time."
            } else if end > member.source.length {
                whole[member.id] = "Its extents pass the end of what is there."
            } else {
                members[name] = member
            }
        }

        // Extents that logical volumes have, by physical volume; each may have one owner only.
        var allocated: [String: [Extent]] = [:]
        var obscure: Set<String> = []
        for volume in group.logical.values {
            for segment in volume.segments {
                obscure.formUnion(segment.obscure)
                let areas: [LVMGroup.Area]
                let count: UInt64
                switch segment.layout {
                case .striped(let list, _): (areas, count) = (list, segment.count / UInt64(list.count))
                case .copies(let list): (areas, count) = (list, segment.count)
                case .other: continue
                }
                for area in areas {
                    guard let physical = group.physical[area.name] else { continue }
                    guard let run = Extent(start: ByteCount(area.extent), length: ByteCount(count)),
                        run.end.bytes <= physical.extents
                    else { throw .whole("Its volume group has a logical volume that passes the end of \(area.name).") }
                    allocated[area.name, default: []].append(run)
                }
            }
        }
        for (name, runs) in allocated {
            let sorted = runs.sorted { $0.start < $1.start }
            for (left, right) in zip(sorted, sorted.dropFirst()) where left.overlaps(right) {
                throw .whole("Its volume group gives extents of \(name) to two logical volumes.")
            }
        }

        // A volume that others are made of is seen through them.
        let below = Set(group.logical.values.flatMap { $0.segments.flatMap(\.references) })
        var mapped: [Int: ExtentList] = [:]
        let sources = Dictionary(uniqueKeysWithValues: own.map { ($0.member.id, $0.member.source) })
        for (name, volume) in group.logical.sorted(by: { $0.key < $1.key }) where volume.isVisible {
            let title = "\(group.name)/\(volume.segments.first?.snapshot ?? name)"
            let layout = volume.segments.first.map { LVMAssembly.title($0) } ?? "linear"
            guard !below.contains(name), let mapping = try mapping(name, depth: 0) else {
                let length = group.extentSize.bytes.multipliedReportingOverflow(by: volume.extents)
                stack.volumes.append(
                    StackVolume(
                        name: title, uuid: LVMGroup.dashed(volume.uuid), layout: layout,
                        length: ByteCount(length.overflow ? 0 : length.partialValue),
                        because: reason(name, volume, isBelow: below.contains(name))))
                continue
            }
            stack.volumes.append(
                StackVolume(title, uuid: LVMGroup.dashed(volume.uuid), layout: layout, mapping, sources))
            for (id, list) in mapping.pushDown(ExtentList(Extent(from: .zero, to: mapping.length))) {
                mapped[id] = mapped[id]?.union(list) ?? list
            }
        }

        for (member, _) in own {
            if let reason = whole[member.id] {
                stack.members.append(Stack.Member(whole: member, because: reason))
                continue
            }
            guard let place = places[member.id], let name = members.first(where: { $0.value.id == member.id })?.key
            else {
                stack.members.append(Stack.Member(whole: member, because: "Its volume group does not name it."))
                continue
            }
            if obscure.contains(name) {
                stack.members.append(
                    Stack.Member(
                        whole: member,
                        because: "A part of it is in use in a way that is not known here, or being moved."))
                continue
            }
            let size = group.extentSize.bytes
            let area = Extent(from: place.start, to: place.start + ByteCount(place.extents * size))
            let runs = ExtentList(
                (allocated[name] ?? []).map {
                    Extent(
                        from: place.start + ByteCount($0.start.bytes * size),
                        to: place.start + ByteCount($0.end.bytes * size))
                })
            var result = Stack.Member(member, except: ExtentList(area))
            result.alwaysUsed = result.alwaysUsed.union(runs.subtracting(mapped[member.id] ?? ExtentList()))
            stack.members.append(result)
        }
    }

    private static func title(_ segment: LVMGroup.Segment) -> String {
        switch segment.layout {
        case .striped(let areas, _): areas.count == 1 ? "linear" : "striped"
        case .copies, .other: segment.type
        }
    }

    private func reason(_ name: String, _ volume: LVMGroup.LogicalVolume, isBelow: Bool) -> String {
        if let odd = volume.status.first(where: { !LVMGroup.harmlessVolume.contains($0) }) {
            return "It is being moved or changed, or in a state that is not known here (\(odd.printable))."
        }
        if isBelow {
            let users = group.logical.filter { $0.value.segments.contains { $0.references.contains(name) } }
            let type = users.values.flatMap(\.segments).first { $0.references.contains(name) }?.type ?? "another volume"
            return type == "snapshot" ? "It has a snapshot, or is one." : "It is a part of another volume (\(type))."
        }
        for segment in volume.segments {
            if case .other = segment.layout {
                return "Its used blocks are not looked for in a volume of type \(segment.type.prefix(32))."
            }
        }
        return "Not all of it is there: a physical volume is missing, or its parts cannot be followed."
    }

    /// The mapping of a logical volume; `nil` where it has none.
    private mutating func mapping(_ name: String, depth: Int) throws(LayerProblem) -> Mapping? {
        if let known = mappings[name] { return known }
        guard depth < 6, let volume = group.logical[name], visiting.insert(name).inserted else { return nil }
        defer { visiting.remove(name) }
        let result = try made(volume, depth: depth)
        mappings[name] = .some(result)
        return result
    }

    private mutating func made(_ volume: LVMGroup.LogicalVolume, depth: Int) throws(LayerProblem) -> Mapping? {
        guard volume.status.allSatisfy(LVMGroup.harmlessVolume.contains) else { return nil }
        let size = group.extentSize
        var segments: [Mapping.Segment] = []
        for segment in volume.segments {
            let extent = Extent(
                from: ByteCount(segment.first * size.bytes), to: ByteCount((segment.first + segment.count) * size.bytes)
            )
            switch segment.layout {
            case .other: return nil
            case .striped(let areas, let chunk):
                var places: [Mapping.Area] = []
                for area in areas {
                    guard let place = try place(area, depth: depth) else { return nil }
                    places.append(place)
                }
                segments.append(
                    Mapping.Segment(
                        extent: extent, arrangement: places.count == 1 ? .linear : .striped(chunk), areas: places))
            case .copies(let areas):
                // A copy that is not wholly there is not read; what is there of it is used.
                var places: [Mapping.Area] = []
                for area in areas { if let place = try place(area, depth: depth) { places.append(place) } }
                guard !places.isEmpty else { return nil }
                segments.append(Mapping.Segment(extent: extent, arrangement: .copies, areas: places))
            }
        }
        return try Mapping(segments, lengths: lengths)
    }

    private mutating func place(_ area: LVMGroup.Area, depth: Int) throws(LayerProblem) -> Mapping.Area? {
        if let volume = group.physical[area.name] {
            guard let member = members[area.name] else { return nil }
            let start = volume.start + ByteCount(area.extent * group.extentSize.bytes)
            return Mapping.Area(target: .member(member.id), start: start)
        }
        guard let below = try mapping(area.name, depth: depth + 1),
            let start = group.extentSize.multiplied(by: area.extent)
        else { return nil }
        return Mapping.Area(target: .mapping(below), start: start)
    }
}
