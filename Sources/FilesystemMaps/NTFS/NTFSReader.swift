// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel
import Threads

/// NTFS: the clusters of $Bitmap, the boot sector, and its backup behind the last cluster; bad clusters are left out.
///
/// The bitmap is believed only when the volume says that it is complete: $Volume is not marked dirty, $LogFile has
/// nothing to replay, no Windows sleeps in hiberfil.sys, and the clusters of the metadata met on the way are in use.
/// Where a driver without a log wrote last, the clusters of all file records are taken besides (``NTFSTableWalk``).
/// Broken records of $MFT are taken from $MFTMirr, a broken boot sector from its backup in the volume's last sector;
/// the volume then counts as damaged, but still only its used clusters are imaged.
enum NTFSReader {
    /// More bad clusters than one in this many are not believed.
    private static let badShare: UInt64 = 16
    /// Bytes of the bitmap read at a time: a multiple of eight.
    private static let batch = 1 << 20

    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        try VolumeMap.made(of: volume, identity) { (result) throws(MapProblem) in try map(volume, into: &result) }
    }

    /// What libblkid does not recognise because a first copy is damaged: a volume whose first sector still has NTFS's name. A
    /// backup boot sector behind a blank one says nothing: an encrypted volume whose head was lost, or a format that leaves
    /// the first sector blank, may have been laid over an old NTFS.
    @Sendable static func recognise(_ volume: any BlockSource) throws(Fault) -> Identity? {
        guard volume.holds(512, at: .zero) else { return nil }
        let first = Fields("the boot sector", try volume.bytes(at: .zero, count: 512))
        guard first.matches(NTFSBootSector.name, at: 3), let (boot, _) = try? boot(volume)
        else { return nil }
        return Identity(kind: .ntfs, usage: .filesystem, uuid: boot.serialText)
    }

    private static func map(_ source: any BlockSource, into result: inout VolumeMap) throws(MapProblem) {
        let (boot, isBackup) = try boot(source)
        result.blockSize = boot.clusterSize
        result.filesystemSize = boot.size
        if result.identity.uuid == nil { result.identity.uuid = boot.serialText }
        guard boot.sectorBytes <= source.length else {
            throw .damaged(
                "The filesystem (\(boot.size)) is larger than the volume (\(source.length)): its end is missing.")
        }
        let volume = try NTFSVolume(source, boot)
        if isBackup || !volume.mended.isEmpty {
            let records = volume.mended.map { "\($0)" }.joined(separator: ", ")
            let what =
                isBackup
                ? "Its boot sector (byte 0) is damaged; the backup in its last sector was used."
                : "One of the two copies of record \(records) of $MFT is damaged; the other was used."
            result.damage = what + " Run chkdsk on it, or on what is restored from its image."
            result.states.append(.damaged)
        }
        try readInformation(volume, &result)
        let log = try NTFSLogFile.requireClean(volume)
        try NTFSHibernation.requireNone(volume)

        let bitmap = try volume.data(.bitmap)
        var inClusters = try clusters(volume, bitmap)
        // What is known to be in use must be so in the bitmap.
        for file in [NTFSVolume.SystemFile.mft, .mirror, .logFile, .bitmap] {
            for extent in volume.extents(try volume.data(file)) where !inClusters.covers(extent) {
                throw .damaged("$Bitmap calls a part of \(file.name) free.")
            }
        }
        guard inClusters.covers(Extent(from: .zero, to: min(boot.clusterSize, boot.clusterBytes))) else {
            throw .damaged("$Bitmap calls the boot sector free.")
        }
        if log == .emptied {
            var walk = NTFSTableWalk(volume, known: inClusters)
            try walk.run()
            let missing = ExtentList(walk.missing)
            if !missing.isEmpty {
                inClusters = inClusters.union(missing)
                let what =
                    "$Bitmap calls \(missing.byteCount) of its files' clusters free, as after a power cut with ntfs-3g; they "
                    + "are imaged too. Run chkdsk on it, or on what is restored from its image."
                result.damage = result.damage.map { "\($0) \(what)" } ?? what
                if !result.states.contains(.damaged) { result.states.append(.damaged) }
            }
        }
        if let warning = NTFSSnapshots.warning(source) { result.warnings.append(warning) }
        result.used = try inClusters.subtracting(bad(volume, within: inClusters)).union(tail(source, boot))
        if result.states.isEmpty { result.states = [.clean] }
    }

    /// The boot sector, or else its backup, and whether it is that.
    private static func boot(_ volume: any BlockSource) throws(MapProblem) -> (NTFSBootSector, isBackup: Bool) {
        let problem: FieldError
        let first = try Fields("the boot sector", of: volume, at: .zero, count: 512)
        do throws(FieldError) { return (try NTFSBootSector(parsing: first.bytes), false) } catch { problem = error }
        for size in [UInt64(512), 1024, 2048, 4096] {
            // The backup may have survived on a sector that cannot be read in whole.
            guard let place = volume.length.subtracting(ByteCount(size)),
                let copy = try? Fields("the backup boot sector", of: volume, at: place, count: 512),
                let boot = try? NTFSBootSector(parsing: copy.bytes), boot.bytesPerSector.bytes == size
            else { continue }
            return (boot, true)
        }
        throw .damaged("Its boot sector is damaged, and there is no sound backup in its last sector: \(problem).")
    }

    /// Label, version and flags of $Volume.
    private static func readInformation(_ volume: NTFSVolume, _ result: inout VolumeMap) throws(MapProblem) {
        let record = try volume.record(NTFSVolume.SystemFile.volume.rawValue)
        func value(_ type: UInt32) throws(MapProblem) -> Fields? {
            try volume.stream(record, type: type, named: "", "$Volume")?.resident.map { Fields("$Volume", $0) }
        }
        if result.identity.label == nil, let name = try value(NTFSAttribute.volumeName) {
            let text = UTF16Text.decode(name.bytes)
            result.identity.label = text.isEmpty ? nil : text
        }
        guard let information = try value(NTFSAttribute.volumeInformation) else {
            throw .damaged("$Volume does not tell the volume's version and flags.")
        }
        let major = try information.little(UInt8.self, "major_ver", at: 8)
        let minor = try information.little(UInt8.self, "minor_ver", at: 9)
        result.identity.version = "\(major).\(minor)"
        guard ["1.2", "3.0", "3.1"].contains(result.identity.version) else {
            throw .whole("It is of NTFS version \(major).\(minor), which is unknown here.", .unknownFeatures)
        }
        let flags = try information.little(UInt16.self, "flags", at: 10)
        if flags & 1 != 0 {
            throw .whole("It is marked dirty: run chkdsk on it before its bitmap can be relied on.", .dirty)
        }
        if flags & 0x4000 != 0 {
            throw .whole("chkdsk was at work on it and did not finish.", .dirty)
        }
    }

    /// The clusters in use, by $Bitmap.
    private static func clusters(_ volume: NTFSVolume, _ bitmap: NTFSStream) throws(MapProblem) -> ExtentList {
        let boot = volume.boot
        let need = (boot.clusters - 1) / 8 + 1
        // Its size is rounded up to eight bytes. A larger one belongs to a larger volume than the boot sector tells of,
        // as a stale backup does.
        guard bitmap.size >= need, bitmap.size - need < 8 else {
            throw .damaged(
                "$Bitmap has \(bitmap.size) bytes, but the \(boot.clusters) clusters that the boot sector tells of need "
                    + "\(need).")
        }
        var used = RunCollector()
        let size = boot.clusterSize.bytes
        func found(_ run: Range<UInt64>) {
            used.add(Extent(from: ByteCount(run.lowerBound * size), to: ByteCount(run.upperBound * size)))
        }
        var bits = BitRuns(count: boot.clusters)
        var offset: UInt64 = 0
        while offset < need {
            do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
            let bytes = try volume.read(bitmap, at: offset, count: Int(min(UInt64(batch), need - offset)))
            bits.add(unsafe bytes.span.bytes, found)
            offset += UInt64(bytes.count)
        }
        bits.finish(found)
        return used.list
    }

    /// The clusters that $BadClus calls bad: what lies there is no file's.
    private static func bad(_ volume: NTFSVolume, within used: ExtentList) throws(MapProblem) -> ExtentList {
        let stream = try volume.data(.badClusters, named: "$Bad")
        let bad = ExtentList(volume.extents(stream))
        guard bad.byteCount.bytes <= volume.boot.clusterBytes.bytes / badShare else {
            throw .damaged("$BadClus calls \(bad.byteCount) of the volume bad, which is not believed.")
        }
        for file in [NTFSVolume.SystemFile.mft, .mirror, .logFile, .bitmap] {
            for extent in volume.extents(try volume.data(file)) where !bad.intersection(extent).isEmpty {
                throw .damaged("$BadClus calls a part of \(file.name) bad.")
            }
        }
        for extent in bad.extents where !used.covers(extent) {
            throw .damaged("$Bitmap calls a bad cluster free.")
        }
        return bad
    }

    /// What no bit stands for: a rest smaller than a cluster and the backup boot sector, which lies behind the last
    /// sector of the filesystem, or in the volume's last one, or, after ntfsresize, somewhere in the next cluster.
    private static func tail(_ source: any BlockSource, _ boot: NTFSBootSector) -> ExtentList {
        let end = max(boot.clusterBytes + boot.clusterSize, boot.size)
        let last = source.length.subtracting(boot.bytesPerSector) ?? .zero
        return ExtentList([
            Extent(from: boot.clusterBytes, to: min(end, source.length)), Extent(from: last, to: source.length),
        ])
    }
}
