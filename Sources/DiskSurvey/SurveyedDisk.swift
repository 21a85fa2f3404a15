// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import FilesystemMaps
import Findings
public import Geometry
public import MachineModel

/// One volume of a disk that was looked at.
public struct SurveyedVolume: Hashable, Sendable {
    /// The partition's number; 0 when the whole disk is the volume.
    public var number: Int
    /// Where it lies on the disk; within the disk.
    public var extent: Extent
    /// What lies in it and which of its bytes are in use, counted from its own start.
    public var map: VolumeMap
    /// What it is a member of; `nil` where of nothing.
    public var memberOf: LayerMember?
    /// The volumes that lie in it, each with its own in turn. One that lies on several members is told with the first.
    public var layers: [NestedVolume]

    /// A volume.
    public init(
        number: Int, extent: Extent, map: VolumeMap, memberOf: LayerMember? = nil, layers: [NestedVolume] = []
    ) {
        self.number = number
        self.extent = extent
        self.map = map
        self.memberOf = memberOf
        self.layers = layers
    }

    /// The volume as the machine model tells it.
    public var model: VolumeModel {
        var result = map.model(number: number, extent: extent)
        result.memberOf = memberOf
        result.layers = layers.isEmpty ? nil : layers
        return result
    }
}

/// A disk that was looked at.
public struct SurveyedDisk: Hashable, Sendable {
    /// The disk, its table, its volumes, and what was noticed.
    public var model: DiskModel
    /// The volumes with their used maps, in the order of `model.volumes`.
    public var volumes: [SurveyedVolume]
    /// Bytes of the disk outside its volumes that belong in an image: the table, the gap before the first partition,
    /// extended boot records. Empty for a disk without a table.
    public var remainder: ExtentList

    /// A disk.
    public init(model: DiskModel, volumes: [SurveyedVolume], remainder: ExtentList) {
        self.model = model
        self.volumes = volumes
        self.remainder = remainder
    }

    /// The same disk with every byte of the volumes with these numbers in use.
    public func inFull(_ numbers: Set<Int>) -> SurveyedDisk {
        var result = self
        for (index, volume) in volumes.enumerated() where numbers.contains(volume.number) {
            result.volumes[index].map = volume.map.inFull(length: volume.extent.length)
            if index < model.volumes.count { result.model.volumes[index] = result.volumes[index].model }
            // What an image of the used bytes would lack is in this one.
            let place = volume.number == 0 ? model.path : "\(model.path):\(volume.number)"
            let codes = Set(volume.map.warnings.map(\.code))
            result.model.findings.removeAll { codes.contains($0.code) && $0.place == place }
        }
        return result
    }

    /// The volume with `number`.
    public func volume(_ number: Int) -> SurveyedVolume? { volumes.first { $0.number == number } }

    /// All bytes of the disk that an image of all of it holds: the volumes' used maps where they lie, and the remainder.
    public var used: ExtentList {
        volumes.reduce(remainder) { result, volume in
            result.union(volume.map.used.shifted(by: volume.extent.start) ?? ExtentList(volume.extent))
        }
    }
}
