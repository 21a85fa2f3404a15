// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel

/// F2FS: everything before the main area, and the blocks of it that the segment information table calls valid, after
/// the journal of the newer sound checkpoint was taken into account.
///
/// The table is believed when the checkpoint is the last one before an unmount, no file was synced since, and as many
/// blocks are valid as the checkpoint says. A broken superblock is replaced by its copy, a broken checkpoint never: the
/// other one is a state of before.
enum F2FSReader {
    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in try map(volume, into: &result) }
    }

    /// What libblkid does not recognise: a volume with F2FS's magic where the first superblock lies, or nothing, and a
    /// sound copy.
    @Sendable static func recognise(_ volume: any BlockSource) throws(Fault) -> Identity? {
        let place = F2FSSuperblock.places[0]
        guard volume.holds(F2FSSuperblock.size, at: place) else { return nil }
        let first = Fields("the superblock", try volume.bytes(at: place, count: F2FSSuperblock.size))
        if (try? first.little(UInt32.self, "magic", at: 0)) != 0xF2F5_2010 {
            guard Lost.isBlank(first.bytes), Lost.isBlank(try volume.bytes(at: .zero, count: 1024)) else { return nil }
        }
        guard let (superblock, _) = try? superblock(volume) else { return nil }
        return Identity(
            kind: .f2fs, usage: .filesystem, label: superblock.label.isEmpty ? nil : superblock.label,
            uuid: superblock.uuidText)
    }

    private static func map(_ volume: any BlockSource, into result: inout VolumeMap) throws(MapProblem) {
        let (superblock, isCopy) = try superblock(volume)
        result.blockSize = ByteCount(F2FSSuperblock.blockSize)
        result.filesystemSize = superblock.size
        try requireKnown(superblock)
        guard superblock.size <= volume.length else {
            throw .damaged(
                "The filesystem (\(superblock.size)) is larger than the volume (\(volume.length)): its end is missing.")
        }
        let (checkpoint, isAlone) = try F2FSCheckpoint.newest(volume, superblock)
        guard !isAlone else {
            throw .damaged("One of its two checkpoints is damaged: it may have been the newer one.")
        }
        try checkpoint.requireClean(volume, superblock)
        if isCopy {
            result.damage =
                "Its first superblock (byte 1024) is damaged; the copy at byte 5120 was used. Run `fsck.f2fs` on it, or on what is restored from "
                + "its image."
            result.states.append(.damaged)
        }
        let block = F2FSSuperblock.blockSize
        let main = ByteCount(superblock.main * block)
        var used = RunCollector()
        used.add(Extent(from: .zero, to: main))
        try F2FSSegments(volume, superblock, checkpoint).used { run in
            used.add(
                Extent(from: main + ByteCount(run.lowerBound * block), to: main + ByteCount(run.upperBound * block)))
        }
        result.used = used.list
        if result.states.isEmpty { result.states = [.clean] }
    }

    /// The first sound superblock, and whether it is the copy.
    private static func superblock(_ volume: any BlockSource) throws(MapProblem) -> (F2FSSuperblock, isCopy: Bool) {
        var problem: MapProblem?
        for place in F2FSSuperblock.places {
            do throws(MapProblem) {
                let fields = try Fields("the superblock", of: volume, at: place, count: F2FSSuperblock.size)
                do throws(FieldError) {
                    return (try F2FSSuperblock(parsing: fields.bytes), place != F2FSSuperblock.places[0])
                } catch {
                    throw .damaged("Its superblock is damaged: \(error).")
                }
            } catch {
                if case .fault(let fault) = error, fault.code == .interrupted { throw error }
                problem = problem ?? error
            }
        }
        throw problem ?? .damaged("It has no superblock.")
    }

    /// Throws where the superblock has something that is unknown here.
    private static func requireKnown(_ superblock: F2FSSuperblock) throws(MapProblem) {
        if superblock.features.contains(.zoned) {
            throw .whole("It is made for zoned devices, whose write pointers are not looked into.", .unknownFeatures)
        }
        if superblock.features.contains(.readOnly) {
            throw .whole("It is a read-only F2FS, whose checkpoints are of another form.", .unknownFeatures)
        }
        guard superblock.features.isSubset(of: .known) else {
            throw .whole(
                "It has features unknown here (\(Hex.number(superblock.features.rawValue))).", .unknownFeatures)
        }
        if superblock.hasOtherDevices {
            throw .whole("It lies on several devices, which are not read together.", nil)
        }
    }
}
