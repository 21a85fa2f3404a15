// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel

/// Linux md. Mapped are RAID1, RAID0 of equal members, and linear. Superblock, bitmap, bad-block log and whatever else lies
/// outside the data are used. Members that dropped out, spares, members that are being rebuilt and arrays that are being
/// reshaped are whole, and so are RAID4, 5, 6 and 10: parity is over all blocks, used or not.
///
/// The copies of a RAID1 that was not stopped cleanly may differ; that is found where they are read.
enum MDStack {
    static let format = LayerFormat(
        kinds: ["linux_raid_member"], name: { _ in "md" },
        recognise: { (source, _) throws(LayerProblem) in
            let superblock = try MDSuperblock(source)
            return MemberDescriptor(
                format: superblock.title, name: superblock.name, setUUID: superblock.setUUID,
                memberUUID: superblock.memberUUID ?? "\(superblock.setUUID)/\(superblock.number)",
                content: .md(superblock))
        },
        owns: { if case .md = $0 { true } else { false } }, assemble: assemble)

    private typealias Part = (member: StackMember, superblock: MDSuperblock)

    @Sendable static func assemble(_ members: [StackMember], _ unlocking: Unlocking) throws(Fault) -> [Stack] {
        var sets: [String: [Part]] = [:]
        for member in members {
            guard case .md(let superblock) = member.descriptor.content else { continue }
            sets[superblock.setUUID, default: []].append((member, superblock))
        }
        var result: [Stack] = []
        for (uuid, parts) in sets.sorted(by: { $0.key < $1.key }) {
            var stack: Stack
            do throws(LayerProblem) {
                stack = try assemble(parts)
            } catch {
                switch error {
                case .fault(let fault): throw fault
                case .whole(let reason): stack = Stack(whole: parts.map(\.member), because: reason)
                }
            }
            stack.uuid = uuid
            result.append(stack)
        }
        return result
    }

    private static func assemble(_ parts: [Part]) throws(LayerProblem) -> Stack {
        guard let newest = parts.max(by: { $0.superblock.events < $1.superblock.events })?.superblock else {
            throw .whole("It has no members.")
        }
        let ids = parts.map { $0.member.descriptor.memberUUID ?? "" }
        let slots = parts.map(\.superblock.number)
        guard Set(ids).count == ids.count, Set(slots).count == slots.count else {
            let places = parts.map(\.member.name).joined(separator: ", ")
            throw .whole("A member of its array is there more than once (\(places)); one of them is a copy.")
        }
        for part in parts {
            let other = part.superblock
            guard other.level == newest.level, other.devices == newest.devices, other.layout == newest.layout,
                other.chunk == newest.chunk, other.size == newest.size, other.version == newest.version
            else { throw .whole("The superblocks of its array contradict each other.") }
        }
        if let reason = parts.compactMap({ $0.superblock.unsettled }).first(where: { $0.hasPrefix("Its array") }) {
            throw .whole(reason)
        }

        var stack = Stack(format: newest.title, name: newest.name, uuid: newest.setUUID, members: [])
        var active: [(role: Int, part: Part)] = []
        var whole: [(Part, String)] = []
        for part in parts {
            let superblock = part.superblock
            if let reason = superblock.unsettled {
                whole.append((part, reason))
            } else if superblock.events &+ 1 < newest.events || newest.calls(superblock.number, unlike: superblock.role)
            {
                whole.append((part, "It dropped out of its array, so that what it holds is of another time."))
            } else if case .active(let role) = superblock.role, role < newest.devices {
                active.append((role, part))
            } else {
                whole.append((part, "It is a spare, a journal or a faulty member of its array."))
            }
        }
        active.sort { $0.role < $1.role }
        guard Set(active.map(\.role)).count == active.count else {
            throw .whole("Two members of its array have the same place in it.")
        }
        stack.missing = newest.devices - active.count
        stack.members = whole.map { Stack.Member(whole: $0.0.member, because: $0.1) }
        let isComplete = stack.missing == 0

        let lengths = Dictionary(uniqueKeysWithValues: parts.map { ($0.member.id, $0.member.source.length) })
        func area(_ part: Part) -> Mapping.Area {
            Mapping.Area(target: .member(part.member.id), start: part.superblock.data.start)
        }
        var segments: [Mapping.Segment] = []
        var refusal: String?
        switch newest.level {
        case 1:
            if active.isEmpty {
                refusal = "No member of its array is in order."
            } else {
                let extent = Extent(from: .zero, to: newest.size)
                segments = [
                    Mapping.Segment(extent: extent, arrangement: .copies, areas: active.map { area($0.part) })
                ]
            }
        case 0:
            let shares = Set(active.map { $0.part.superblock.share })
            if !isComplete {
                refusal = "Members of its array are missing."
            } else if shares.count != 1 || newest.chunk < ByteCount(512) {
                refusal = "Its array is a RAID0 of members of different sizes."
            } else if let share = shares.first, let length = share.multiplied(by: UInt64(active.count)) {
                let extent = Extent(from: .zero, to: length)
                segments = [
                    Mapping.Segment(
                        extent: extent, arrangement: active.count == 1 ? .linear : .striped(newest.chunk),
                        areas: active.map { area($0.part) })
                ]
            }
        case -1:
            if !isComplete { refusal = "Members of its array are missing." }
            var position = ByteCount.zero
            for member in isComplete ? active : [] {
                guard let end = position.adding(member.part.superblock.share) else { break }
                segments.append(
                    Mapping.Segment(
                        extent: Extent(from: position, to: end), arrangement: .linear, areas: [area(member.part)]))
                position = end
            }
        default:
            refusal = "Its array is of a kind whose used blocks are not looked for (\(newest.title))."
        }
        if stack.missing > 0 {
            stack.notices.append(
                Stack.Notice(
                    isWarning: true, code: "md.degraded",
                    what: "\(active.count) of the array's \(newest.devices) members are there and in order."))
        }
        guard refusal == nil, !segments.isEmpty else {
            let reason = refusal ?? "The sizes of its members contradict each other."
            stack.members += active.map { Stack.Member(whole: $0.part.member, because: reason) }
            return stack
        }
        let mapping = try Mapping(segments, lengths: lengths)
        let covered = mapping.pushDown(ExtentList(Extent(from: .zero, to: mapping.length)))
        for (_, part) in active {
            stack.members.append(Stack.Member(part.member, except: covered[part.member.id] ?? ExtentList()))
        }
        if newest.level == 1, !newest.isClean {
            stack.notices.append(
                Stack.Notice(
                    isWarning: true, code: "md.not-clean",
                    what: "The array was not stopped cleanly or is being synchronised; its copies may differ."))
        }
        let sources = Dictionary(uniqueKeysWithValues: active.map { ($0.part.member.id, $0.part.member.source) })
        stack.volumes = [
            StackVolume(
                newest.volumeName, uuid: newest.setUUID, layout: newest.levelName, mapping, sources)
        ]
        return stack
    }
}

extension MDSuperblock {
    /// `raid1`, `linear` …
    var levelName: String {
        switch level {
        case -1: "linear"
        case -4: "multipath"
        default: level >= 0 && level <= 10 ? "raid\(level)" : "level \(level)"
        }
    }

    /// `md raid1`.
    var title: String { "md \(levelName)" }

    /// `md/home`: as `/dev/md/home` is called. The name may begin with the machine's.
    var volumeName: String {
        let own = name.split(separator: ":", maxSplits: 1).last.map(String.init) ?? ""
        return "md/\(own.isEmpty ? setUUID : own)"
    }

    /// What a RAID0 or linear array takes of the member: whole chunks.
    var share: ByteCount { chunk > .zero ? data.length.roundedDown(to: chunk) : data.length }

    /// Whether this superblock gives the member `number` another role than the member's own one does.
    func calls(_ number: Int, unlike role: Role) -> Bool { number < roles.count && roles[number] != role }
}
