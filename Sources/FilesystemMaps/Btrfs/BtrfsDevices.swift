// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
import MachineModel

/// Which device of which Btrfs a volume is.
public struct BtrfsDevice: Hashable, Sendable {
    /// The filesystem's UUID, as libblkid prints it.
    public var filesystem: String
    /// The device's number (devid).
    public var number: UInt64
    /// How many devices the filesystem has.
    public var devices: UInt64
}

extension FilesystemMaps {
    /// Which device of a Btrfs `volume` is; `nil` where it has no sound superblock of one. Throws `interrupted` only.
    public static func btrfsDevice(_ volume: any BlockSource) throws(Fault) -> BtrfsDevice? {
        do throws(MapProblem) {
            let superblock = try BtrfsMember(volume).superblock
            return BtrfsDevice(
                filesystem: superblock.uuidText, number: superblock.device, devices: superblock.devices)
        } catch {
            if case .fault(let fault) = error, fault.code == .interrupted { throw fault }
            return nil
        }
    }

    /// The used maps of `volumes`, all devices of one Btrfs, in the same order. Where they cannot be told from all of
    /// them together (one is missing, or of another transaction), each is whole, with the reason. Throws `interrupted`
    /// only.
    public static func map(
        btrfs volumes: [(source: any BlockSource, identity: Identity)]
    ) throws(Fault) -> [VolumeMap] {
        do throws(Fault) { return try BtrfsReader.maps(volumes) } catch {
            if error.code == .interrupted { throw error }
            return volumes.map {
                VolumeMap(identity: $0.identity, whole: $0.source.length).whole(
                    because: "Its metadata cannot be read: \(error.what)", .damaged)
            }
        }
    }
}
