// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import FileTrees
import FilesystemMaps
import Findings
import Geometry
import InstalledSystems
import MachineModel
import PartitionTables
import Threads
import VolumeStacks

/// Follows the layers in the volumes of several disks until nothing new is found, and composes their used maps.
///
/// A volume that is a member of a layer waits until all members of that layer are known; when nothing more is found, what is
/// there is put together as far as it goes. The used map of a member is what the layer always uses of it, and what its
/// volumes use, pushed down. A volume of several copies has a map only if all of what was read is the same in all of
/// them, or if a filesystem lies in it directly: then every copy gets the union of their maps.
struct LayerSurvey {
    /// A volume, of a disk or of a layer.
    struct Node {
        let name: String
        let layout: String
        let source: any BlockSource
        /// The disk its first bytes lie on.
        let disk: Int
        let depth: Int
        var map: VolumeMap
        /// Its partitions, where it has a table of its own.
        var parts: [(extent: Extent, node: Int)] = []
        var remainder: ExtentList?
        /// What it is a member of.
        var stack: Int?
        /// Whether a map of each copy went into its own.
        var isUnited = false
        /// Whether it is whole whatever lies in it, since its end or the table around it is in doubt.
        var isCut = false
    }

    private struct Assembled {
        var stack: Stack
        /// The nodes of its volumes.
        var nodes: [Int] = []
        /// Whether what it was read from differs between copies.
        var isDoubtful = false
    }

    private static let mostLayers = 8
    /// Volumes looked into, of all disks together; a volume group may have thousands.
    private static let mostVolumes = 4096
    static let doubt =
        "The copies it was read from differ, so that nobody can tell which of its blocks are in use: a mirror was not stopped "
        + "cleanly, or is damaged."

    private let unlocking: Unlocking
    var nodes: [Node] = []
    /// Each Btrfs that lies on several volumes.
    var sets: [BtrfsSet] = []
    private var stacks: [Assembled] = []
    private var pending: [StackMember] = []
    /// UUIDs of members and sets that were put together.
    private var known: Set<String> = []
    var findings: [(disk: Int, finding: Finding)] = []

    init(_ unlocking: Unlocking) { self.unlocking = unlocking }

    /// Completes `disks`.
    mutating func survey(_ disks: inout [LookedDisk]) throws(Fault) {
        for (index, disk) in disks.enumerated() {
            for looked in disk.volumes {
                nodes.append(
                    Node(
                        name: looked.name, layout: "partition", source: looked.source, disk: index, depth: 0,
                        map: looked.volume.map, isCut: !looked.mayBeMember))
                if looked.mayBeMember { try recognise(nodes.count - 1, as: looked.layer) }
            }
        }
        let physical = nodes.count
        try assembleAll()
        try joinBtrfs()
        spreadDoubt()
        compose()

        var id = 0
        for index in disks.indices {
            for volume in disks[index].volumes.indices {
                disks[index].volumes[volume].volume.map = nodes[id].map
                disks[index].volumes[volume].volume.memberOf = memberOf(id)
                disks[index].volumes[volume].volume.layers = layers(of: id)
                id += 1
            }
        }
        for id in physical..<max(physical, nodes.count) where nodes[id].map.identity.kind != .empty {
            for finding in nodes[id].map.findings(place: nodes[id].name) { findings.append((nodes[id].disk, finding)) }
        }
        for (disk, finding) in findings { disks[disk].model.findings.append(finding) }
    }

    /// Notes what the volume is a member of, if it is. `layer` is what is known besides what libblkid says.
    private mutating func recognise(_ id: Int, as layer: ContentKind? = nil) throws(Fault) {
        let node = nodes[id]
        guard node.depth < LayerSurvey.mostLayers,
            let descriptor = try VolumeStacks.recognise(node.source, kind: layer ?? node.map.identity.kind)
        else { return }
        let member = StackMember(id: id, names: [node.name], source: node.source, descriptor: descriptor)
        let ids = [descriptor.memberUUID, descriptor.setUUID].compactMap { $0 }
        guard descriptor.memberUUID == nil || known.isDisjoint(with: ids) else {
            add(
                Stack(
                    whole: member,
                    because: "What it is a member of was put together without it: it is a copy, or was found too late.")
            )
            return
        }
        pending.append(member)
    }

    private mutating func assembleAll() throws(Fault) {
        while !pending.isEmpty {
            try Interruption.check()
            let found = try VolumeStacks.assemble(pending, unlocking: unlocking)
            var complete = found.filter(\.isComplete)
            // Nothing more will turn up, unless in what is not complete.
            if complete.isEmpty { complete = Array(found.prefix(1)) }
            let taken = Set(complete.flatMap { $0.members.map(\.id) })
            let before = pending
            pending.removeAll { taken.contains($0.id) }
            guard !taken.isEmpty else { return }
            for stack in complete {
                for member in before where stack.members.contains(where: { $0.id == member.id }) {
                    guard let own = member.descriptor.memberUUID else { continue }
                    known.insert(own)
                    if let set = member.descriptor.setUUID { known.insert(set) }
                }
                add(stack)
                try lookInto(stacks.count - 1)
            }
        }
    }

    private mutating func add(_ stack: Stack) {
        for member in stack.members { nodes[member.id].stack = stacks.count }
        let disk = stack.members.map { nodes[$0.id].disk }.min() ?? 0
        let names = stack.members.map { nodes[$0.id].name }.joined(separator: " + ")
        for notice in stack.notices {
            findings.append(
                (
                    disk,
                    Finding(notice.isWarning ? .warning : .notice, notice.code, what: notice.what, place: names)
                ))
        }
        stacks.append(Assembled(stack: stack))
    }

    /// Looks at the volumes of a stack.
    private mutating func lookInto(_ index: Int) throws(Fault) {
        let stack = stacks[index].stack
        let below = stack.members.map { nodes[$0.id] }
        let disk = below.map(\.disk).min() ?? 0
        let depth = (below.map(\.depth).max() ?? 0) + 1
        for volume in stack.volumes {
            try Interruption.check()
            let id = nodes.count
            stacks[index].nodes.append(id)
            guard let source = volume.source, nodes.count < LayerSurvey.mostVolumes else {
                let reason = volume.wholeBecause ?? "There are more volumes than are looked into."
                let map = FilesystemMaps.whole(Identity(kind: .unknown), length: volume.length, because: reason)
                nodes.append(
                    Node(
                        name: volume.name, layout: volume.layout, source: NoBytes(volume), disk: disk, depth: depth,
                        map: map))
                continue
            }
            var node = Node(
                name: volume.name, layout: volume.layout, source: source, disk: disk, depth: depth,
                map: try FilesystemMaps.map(source))
            if volume.copiesDiffer, node.map.identity.usage == .filesystem, !volume.copies.isEmpty {
                try unite(&node, volume.copies)
            }
            nodes.append(node)
            if [.unknown, .empty].contains(node.map.identity.kind) {
                try lookForTable(id)
            } else if !volume.copiesDiffer {
                try recognise(id)
            }
        }
    }

    /// Gives the volume the union of the maps of its copies; where one has none, it keeps its own and is in doubt.
    private func unite(_ node: inout Node, _ copies: [any BlockSource]) throws(Fault) {
        var used = ExtentList()
        for copy in copies {
            let map = try FilesystemMaps.map(copy)
            guard map.wholeBecause == nil, map.identity == node.map.identity else { return }
            used = used.union(map.used)
        }
        node.map.used = used
        node.isUnited = true
    }

    /// A partition table in a volume, as arrays of whole disks and disks of virtual machines have.
    private mutating func lookForTable(_ id: Int) throws(Fault) {
        let node = nodes[id]
        let size = node.source.sectorSize
        guard node.map.identity.ambivalent.isEmpty, node.depth < LayerSurvey.mostLayers,
            let start = try? node.source.bytes(at: .zero, count: Int(size.bytes) * 2), start[510] == 0x55,
            start[511] == 0xAA
        else { return }
        let looked: LookedDisk
        do throws(Fault) {
            looked = try DiskSurvey.look(at: DiskToSurvey(node.source, path: node.name))
        } catch {
            if error.code == .interrupted { throw error }
            return
        }
        guard looked.model.table != nil, nodes.count + looked.volumes.count < LayerSurvey.mostVolumes else { return }
        nodes[id].remainder = looked.remainder
        for finding in looked.model.findings { findings.append((node.disk, finding)) }
        for volume in looked.volumes {
            let part = nodes.count
            nodes[id].parts.append((volume.volume.extent, part))
            nodes.append(
                Node(
                    name: volume.name, layout: "partition", source: volume.source, disk: node.disk,
                    depth: node.depth + 1,
                    map: volume.volume.map, isCut: !volume.mayBeMember))
            if volume.mayBeMember { try recognise(part, as: volume.layer) }
        }
    }

    // MARK: - Used maps

    /// Everything that was read from copies that differ is whole, and so is everything that shares a layer with it.
    private mutating func spreadDoubt() {
        var doubtful: Set<Int> = []
        for index in stacks.indices {
            let stack = stacks[index].stack
            stacks[index].isDoubtful = stack.members.contains { doubtful.contains($0.id) }
            for (volume, id) in zip(stack.volumes, stacks[index].nodes) {
                let differs = volume.copiesDiffer && !nodes[id].isUnited
                guard stacks[index].isDoubtful || differs else { continue }
                // A partition inside lies in what it is a part of.
                var open = [id]
                while let next = open.popLast() {
                    doubtful.insert(next)
                    open += nodes[next].parts.map(\.node)
                }
            }
        }
        // What one device of a Btrfs says of the others was read from it.
        for set in sets where !set.nodes.allSatisfy({ !doubtful.contains($0) }) { doubtful.formUnion(set.nodes) }
        for id in doubtful {
            nodes[id].map.used = ExtentList(Extent(from: .zero, to: nodes[id].source.length))
            if nodes[id].map.wholeBecause == nil { nodes[id].map.wholeBecause = LayerSurvey.doubt }
            nodes[id].parts = []
            nodes[id].remainder = nil
        }
    }

    /// Volumes come after what they lie in, so that the used maps of all are known from the last to the first.
    private mutating func compose() {
        var pushed: [Int: [Int: ExtentList]] = [:]
        for id in nodes.indices.reversed() {
            let node = nodes[id]
            if let remainder = node.remainder, !node.parts.isEmpty {
                nodes[id].map.used = node.parts.reduce(remainder) { result, part in
                    result.union(nodes[part.node].map.used.shifted(by: part.extent.start) ?? ExtentList(part.extent))
                }
                nodes[id].map.wholeBecause = nil
                nodes[id].map.states = isClean(node.parts.map(\.node)) ? [.clean] : []
            }
            guard let index = node.stack else { continue }
            let assembled = stacks[index]
            guard let member = assembled.stack.members.first(where: { $0.id == id }) else { continue }
            let reason = member.wholeBecause ?? (assembled.isDoubtful ? LayerSurvey.doubt : nil)
            if let reason {
                nodes[id].map.used = ExtentList(Extent(from: .zero, to: node.source.length))
                nodes[id].map.wholeBecause = reason
                continue
            }
            if pushed[index] == nil {
                var sum: [Int: ExtentList] = [:]
                for (volume, below) in zip(assembled.stack.volumes, assembled.nodes) {
                    for (member, list) in volume.pushDown(nodes[below].map.used) {
                        sum[member] = sum[member]?.union(list) ?? list
                    }
                }
                pushed[index] = sum
            }
            nodes[id].map.used = member.alwaysUsed.union(pushed[index]?[id] ?? ExtentList())
                .intersection(Extent(from: .zero, to: node.source.length))
            nodes[id].map.wholeBecause = nil
            nodes[id].map.states = isClean(assembled.nodes) ? [.clean] : []
        }
    }

    private func isClean(_ ids: [Int]) -> Bool { ids.allSatisfy { nodes[$0].map.states == [.clean] } }

    // MARK: - Systems

    /// Adds the operating systems to `disks`, which were surveyed.
    func findSystems(in disks: inout [LookedDisk], by host: ProbeHost) throws(Fault) {
        var partitions: [String: (partition: Partition, signature: UInt32?)] = [:]
        for disk in disks {
            guard let table = disk.model.table else { continue }
            let sector = unsafe table.sector0.bytes.span.bytes
            let signature = table.kind == .mbr ? try? sector.littleEndian(UInt32.self, "signature", at: 440) : nil
            for looked in disk.volumes {
                guard let partition = table.partition(looked.volume.number) else { continue }
                partitions[looked.name] = (partition, signature)
            }
        }
        let seen = try InstalledSystems.look(
            at: nodes.map { node in
                let place = node.depth == 0 ? partitions[node.name] : nil
                return SeenVolume(
                    name: node.name, disk: node.disk, source: node.source is NoBytes ? nil : node.source,
                    kind: node.map.identity.kind, label: node.map.identity.label, uuid: node.map.identity.uuid,
                    states: node.map.states, partition: place?.partition, signature: place?.signature)
            }, by: host)
        for index in disks.indices {
            disks[index].model.systems = seen.systems.filter { $0.disk == index }.map(\.system)
            disks[index].model.efiPrograms = seen.programs.filter { $0.disk == index }.map(\.program)
        }
        for (disk, finding) in seen.findings where disks.indices.contains(disk) {
            disks[disk].model.findings.append(finding)
        }
    }

    // MARK: - What is told

    private func memberOf(_ id: Int) -> LayerMember? {
        if let set = sets.first(where: { $0.nodes.contains(id) }) { return member(of: set) }
        guard let index = nodes[id].stack else { return nil }
        let stack = stacks[index].stack
        return LayerMember(
            format: stack.format, name: stack.name, uuid: stack.uuid,
            members: stack.members.map(\.id).sorted().map {
                nodes[$0].name
            }, missing: stack.missing, isAssembled: stack.isAssembled && !stacks[index].isDoubtful)
    }

    /// The volumes that are told as lying in the volume `id`: its partitions, or those of its layer whose first member it is.
    private func layers(of id: Int) -> [NestedVolume] {
        if !nodes[id].parts.isEmpty { return nodes[id].parts.map { nested($0.node) } }
        guard let index = nodes[id].stack else { return [] }
        let stack = stacks[index].stack
        let first = stack.members.map(\.id).min()
        return zip(stack.volumes, stacks[index].nodes).compactMap { volume, node in
            let all = volume.pushDown(ExtentList(Extent(from: .zero, to: volume.length)))
            return (all.filter { !$0.value.isEmpty }.keys.min() ?? first) == id ? nested(node) : nil
        }
    }

    private func nested(_ id: Int) -> NestedVolume {
        let node = nodes[id]
        let map = node.map
        let inner = layers(of: id)
        return NestedVolume(
            name: node.name, layout: node.layout, size: node.source.length, kind: map.identity.kind,
            label: map.identity.label, uuid: map.identity.uuid, filesystemSize: map.filesystemSize,
            blockSize: map.blockSize, used: map.used.byteCount, minimum: map.minimum, minimumIs: map.minimumIs,
            states: map.states, wholeBecause: map.wholeBecause, memberOf: memberOf(id),
            layers: inner.isEmpty ? nil : inner)
    }
}

/// A volume whose bytes cannot be reached.
private final class NoBytes: BlockSource {
    let name: String
    let length: ByteCount
    var sectorSize: SectorSize { .s512 }
    var file: FileWindow? { nil }

    init(_ volume: StackVolume) {
        name = volume.name
        length = volume.length
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        throw Fault(.unsupported, what: "It is not mapped.", place: name, remedy: "Look at the volumes it lies on.")
    }
}
