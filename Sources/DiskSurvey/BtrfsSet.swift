// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemMaps
import Findings
import Geometry
import MachineModel

/// A Btrfs that lies on several volumes, of any disks and in any layers. One device alone says little of what is in use
/// on it: the trees that do lie anywhere. So all of them are read together, and where one is missing, or is there twice,
/// the others are imaged whole.
struct BtrfsSet {
    /// What it is known by.
    let uuid: String
    /// How many devices it says that it has.
    let devices: UInt64
    /// Those that were found, by the survey's numbers.
    var nodes: [Int] = []
    /// Whether the same device was found twice.
    var hasCopies = false
    /// Whether the used maps were made from all of them.
    var isMapped = false

    /// Devices that were not found.
    var missing: Int { Int(clamping: devices) - min(nodes.count, Int(clamping: devices)) }
}

extension LayerSurvey {
    /// Finds the devices of each Btrfs on several, and maps them together.
    mutating func joinBtrfs() throws(Fault) {
        var numbers: [String: Set<UInt64>] = [:]
        for (id, node) in nodes.enumerated() where node.map.identity.kind == LayerSurvey.btrfs && !node.isCut {
            guard node.stack == nil, let device = try FilesystemMaps.btrfsDevice(node.source), device.devices > 1 else {
                continue
            }
            let index = sets.firstIndex { $0.uuid == device.filesystem } ?? sets.count
            if index == sets.count { sets.append(BtrfsSet(uuid: device.filesystem, devices: device.devices)) }
            sets[index].nodes.append(id)
            if !numbers[device.filesystem, default: []].insert(device.number).inserted { sets[index].hasCopies = true }
        }
        for index in sets.indices {
            var set = sets[index]
            try map(&set)
            sets[index] = set
        }
    }

    private static let btrfs = ContentKind(rawValue: "btrfs")

    private mutating func map(_ set: inout BtrfsSet) throws(Fault) {
        let places = set.nodes.map { nodes[$0].name }.joined(separator: " + ")
        let disk = set.nodes.map { nodes[$0].disk }.min() ?? 0
        if set.hasCopies {
            let reason =
                "A device of its Btrfs is there more than once (\(places)); one of them is a copy, and which belongs to the "
                + "others cannot be told."
            for id in set.nodes {
                let length = nodes[id].source.length
                nodes[id].map = FilesystemMaps.whole(nodes[id].map.identity, length: length, because: reason)
            }
            findings.append((disk, Finding(.warning, "btrfs.copied", what: reason, place: places)))
            return
        }
        guard set.missing == 0 else {
            findings.append(
                (
                    disk,
                    Finding(
                        .warning, "btrfs.incomplete",
                        what:
                            "\(set.nodes.count) of the \(set.devices) devices of a Btrfs are here: each is imaged whole, and "
                            + "the others are not imaged. Name all of its disks together.", place: places)
                ))
            return
        }
        var volumes: [(source: any BlockSource, identity: Identity)] = []
        for id in set.nodes { volumes.append((nodes[id].source, nodes[id].map.identity)) }
        let maps = try FilesystemMaps.map(btrfs: volumes)
        for (id, map) in zip(set.nodes, maps) { nodes[id].map = map }
        set.isMapped = maps.allSatisfy { $0.wholeBecause == nil }
    }

    /// What is told of a device of `set`.
    func member(of set: BtrfsSet) -> LayerMember {
        LayerMember(
            format: "Btrfs", name: set.nodes.compactMap { nodes[$0].map.identity.label }.first ?? "", uuid: set.uuid,
            members: set.nodes.map { nodes[$0].name }, missing: set.missing,
            isAssembled: set.isMapped && set.nodes.allSatisfy { nodes[$0].map.wholeBecause == nil })
    }
}
