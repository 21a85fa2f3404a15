// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Threads

/// The clusters of all file records in use that $Bitmap calls free.
///
/// Drivers that write without a log (ntfs-3g, older kernels) leave no trace when they are cut off: a file's record may
/// be on the disk and its bits in $Bitmap not. The records are read in order, and each attribute's runs by themselves.
struct NTFSTableWalk {
    private let volume: NTFSVolume
    private let known: ExtentList
    /// Clusters of records that the bitmap calls free.
    private(set) var missing: [Extent] = []

    /// Bytes of the table read at a time: a multiple of every size of a record.
    private static let batch: UInt64 = 1 << 20
    /// More runs outside of the bitmap than this make the volume whole.
    private static let mostMissing = 1 << 20

    /// A walk that compares with `known`, the clusters in use by $Bitmap.
    init(_ volume: NTFSVolume, known: ExtentList) {
        self.volume = volume
        self.known = known
    }

    /// Walks all records. Throws where one that is in use cannot be read.
    mutating func run() throws(MapProblem) {
        let mft = volume.mft
        let size = UInt64(volume.boot.recordSize)
        let all = mft.initializedSize / size * size
        var position: UInt64 = 0
        while position < all {
            do throws(Fault) { try Interruption.check() } catch { throw .fault(error) }
            let bytes = try volume.read(mft, at: position, count: Int(min(NTFSTableWalk.batch, all - position)))
            for at in stride(from: 0, to: bytes.count, by: Int(size)) {
                try look(at: bytes[at..<at + Int(size)], number: (position + UInt64(at)) / size)
            }
            position += UInt64(bytes.count)
        }
    }

    private mutating func look(at bytes: ArraySlice<UInt8>, number: UInt64) throws(MapProblem) {
        // The first ones are those that the mirror mends.
        if number < NTFSVolume.mirroredRecords { return try take(try volume.record(number)) }
        guard bytes.prefix(4).elementsEqual("FILE".utf8) else {
            // A record that was never used need not be one.
            if try isTaken(number) { throw .damaged("Record \(number) of $MFT is in use, but no FILE record.") }
            return
        }
        // The lowest bit of its flags: in use.
        if bytes[bytes.startIndex + 22] & 1 == 0 { return }
        // What $BadClus names holds nothing; it is compared with the bitmap by itself.
        if number == NTFSVolume.SystemFile.badClusters.rawValue { return }
        try take(try NTFSRecord(Fields("record \(number) of $MFT", Array(bytes)), number: number))
    }

    /// Compares the clusters of a record with the bitmap.
    private mutating func take(_ record: NTFSRecord) throws(MapProblem) {
        for attribute in record.attributes {
            guard case .clusters(let mapping) = attribute.content else { continue }
            var runs = NTFSRuns(from: mapping.firstVCN)
            try runs.add(
                pairs: mapping.pairs, from: mapping.firstVCN, to: mapping.endVCN, clusters: volume.boot.clusters,
                record.raw.name)
            for run in runs.runs {
                guard let lcn = run.lcn else { continue }
                let cluster = volume.boot.clusterSize.bytes
                let place = Extent(from: ByteCount(lcn * cluster), to: ByteCount((lcn + run.count) * cluster))
                if known.covers(place) { continue }
                missing += known.complement(in: place).extents
                guard missing.count < NTFSTableWalk.mostMissing else {
                    throw .damaged("$Bitmap calls clusters of very many files free.")
                }
            }
        }
    }

    /// Whether $MFT's own bitmap has record `number`.
    private func isTaken(_ number: UInt64) throws(MapProblem) -> Bool {
        let record = try volume.record(NTFSVolume.SystemFile.mft.rawValue)
        guard let map = try volume.stream(record, type: NTFSAttribute.bitmap, named: "", "$MFT's bitmap") else {
            throw .damaged("$MFT has no bitmap.")
        }
        guard number / 8 < map.initializedSize else { return false }
        let byte = try volume.read(map, at: number / 8, count: 1)
        return byte[0] >> UInt8(number % 8) & 1 != 0
    }
}
