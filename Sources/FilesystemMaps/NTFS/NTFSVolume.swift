// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel

/// The value of an attribute, whole: in its record or in clusters.
struct NTFSStream {
    /// What to call it, in the middle of a sentence: `$Bitmap`.
    let name: String
    /// The value where it lies in the record.
    var resident: [UInt8]?
    /// Where it lies otherwise.
    var runs = NTFSRuns()
    /// Bytes that mean something.
    var size: UInt64 = 0
    /// Bytes that were ever written; those behind read as zeros.
    var initializedSize: UInt64 = 0
    /// Compressed or encrypted.
    var isEncoded = false
}

/// A volume's file records and streams, read through any source: also through one that lays a replayed log over it.
struct NTFSVolume {
    /// Records with fixed numbers.
    enum SystemFile: UInt64 {
        case mft = 0
        case mirror = 1
        case logFile = 2
        case volume = 3
        case root = 5
        case bitmap = 6
        case badClusters = 8

        var name: String {
            switch self {
            case .mft: "$MFT"
            case .mirror: "$MFTMirr"
            case .logFile: "$LogFile"
            case .volume: "$Volume"
            case .root: "the root directory"
            case .bitmap: "$Bitmap"
            case .badClusters: "$BadClus"
            }
        }
    }

    let source: any BlockSource
    let boot: NTFSBootSector
    /// The master file table's clusters.
    private(set) var mft = NTFSStream(name: "$MFT")
    /// Records of which only one copy, in the table or in the mirror, is sound.
    private(set) var mended: [UInt64] = []
    /// The records the mirror holds.
    private var mirrored: [UInt64: NTFSRecord] = [:]

    /// Records the mirror always has.
    static let mirroredRecords: UInt64 = 4
    /// A longer attribute list is not believed; Windows makes none above 256 KiB.
    static let longestList: UInt64 = 1 << 20

    /// Reads the master file table's own record, and compares the first records with their mirror.
    init(_ source: any BlockSource, _ boot: NTFSBootSector) throws(MapProblem) {
        self.source = source
        self.boot = boot
        let record = try firstRecord(0)
        mirrored[0] = record
        try loadTable(record)
        for number in 1..<NTFSVolume.mirroredRecords { mirrored[number] = try firstRecord(number) }
    }

    /// One of the first records, by the places the boot sector names: from the table, or else from the mirror.
    private mutating func firstRecord(_ number: UInt64) throws(MapProblem) -> NTFSRecord {
        let name = "record \(number) of $MFT"
        let offset = ByteCount(number * UInt64(boot.recordSize))
        func read(_ cluster: UInt64, _ name: String) throws(MapProblem) -> NTFSRecord {
            try NTFSRecord(
                try Fields(name, of: source, at: place(cluster) + offset, count: boot.recordSize), number: number)
        }
        func attempt(_ cluster: UInt64, _ name: String) -> Result<NTFSRecord, MapProblem> {
            Result { () throws(MapProblem) in try read(cluster, name) }
        }
        switch (attempt(boot.mft, name), attempt(boot.mirror, name + "Mirr")) {
        case (.success(let original), .success(let copy)):
            guard original.inUse == copy.inUse,
                original.raw.bytes.prefix(original.inUse) == copy.raw.bytes.prefix(copy.inUse)
            else { throw .damaged("\(name.capitalizedFirst) and its copy in $MFTMirr are not the same.") }
            return original
        case (.success(let record), .failure(let problem)), (.failure(let problem), .success(let record)):
            if case .fault(let fault) = problem, fault.code == .interrupted { throw problem }
            mended.append(number)
            return record
        case (.failure(let problem), .failure): throw problem
        }
    }

    /// First byte of a cluster below `boot.clusters`.
    private func place(_ cluster: UInt64) -> ByteCount { ByteCount(cluster * boot.clusterSize.bytes) }

    /// The table's clusters: those its own record maps, then those of the records that extend it, each of which lies in
    /// what is known already.
    private mutating func loadTable(_ record: NTFSRecord) throws(MapProblem) {
        let own = record.attributes.filter { $0.type == NTFSAttribute.data && $0.name.isEmpty }
        guard own.count == 1, let first = own.first else { throw .damaged("$MFT has no place of its own.") }
        try begin(&mft, with: first)
        guard mft.runs.runs.first?.lcn == boot.mft else {
            throw .damaged("$MFT does not begin where the boot sector says.")
        }
        for entry in try listed(in: record, type: NTFSAttribute.data, named: "", mft.name) where entry.firstVCN > 0 {
            try extend(&mft, with: entry, of: record)
        }
        try checkEnd(of: mft, record)
    }

    /// File record `number`, which must be in use.
    func record(_ number: UInt64) throws(MapProblem) -> NTFSRecord {
        if let record = mirrored[number] { return record }
        let (offset, overflow) = number.multipliedReportingOverflow(by: UInt64(boot.recordSize))
        guard !overflow, offset < mft.size, UInt64(boot.recordSize) <= mft.size - offset else {
            throw .damaged("$MFT has no record \(number).")
        }
        let name = "record \(number) of $MFT"
        return try NTFSRecord(Fields(name, try read(mft, at: offset, count: boot.recordSize)), number: number)
    }

    /// The stream of `file` with an attribute's type and name; `nil` when it has none.
    func stream(
        _ record: NTFSRecord, type: UInt32, named attributeName: String, _ name: String
    ) throws(MapProblem) -> NTFSStream? {
        var result = NTFSStream(name: name)
        let entries = try listed(in: record, type: type, named: attributeName, name)
        if entries.isEmpty {
            let found = record.attributes.filter { $0.type == type && $0.name == attributeName }
            guard let attribute = found.first else { return nil }
            guard found.count == 1 else { throw .damaged("\(name.capitalizedFirst) is there twice.") }
            try begin(&result, with: attribute)
        } else {
            for (index, entry) in entries.enumerated() {
                guard index > 0 || entry.firstVCN == 0 else {
                    throw .damaged("\(name.capitalizedFirst) has no beginning.")
                }
                try extend(&result, with: entry, of: record, isFirst: index == 0)
            }
        }
        try checkEnd(of: result, record)
        return result
    }

    /// The unnamed data of one of the files with fixed numbers.
    func data(_ file: SystemFile, named attributeName: String = "") throws(MapProblem) -> NTFSStream {
        let record = try record(file.rawValue)
        guard let stream = try stream(record, type: NTFSAttribute.data, named: attributeName, file.name) else {
            throw .damaged("\(file.name.capitalizedFirst) has no data.")
        }
        return stream
    }

    /// A part of an attribute, by its list.
    private struct Entry {
        var firstVCN: UInt64
        var record: UInt64
        var instance: UInt16
    }

    /// The parts of an attribute that `record`'s attribute list names; none where there is no list.
    private func listed(
        in record: NTFSRecord, type: UInt32, named attributeName: String, _ name: String
    ) throws(MapProblem) -> [Entry] {
        guard let attribute = record.attributes.first(where: { $0.type == NTFSAttribute.list }) else { return [] }
        var stream = NTFSStream(name: "the attribute list of \(name)")
        try begin(&stream, with: attribute)
        guard stream.size <= NTFSVolume.longestList, let size = Int(exactly: stream.size) else {
            throw .damaged("The attribute list of \(name) is too long.")
        }
        let list = Fields(stream.name, try read(stream, at: 0, count: size))
        var result: [Entry] = []
        var at = 0
        while at < size {
            let length = Int(try list.little(UInt16.self, "length", at: at + 4))
            guard length >= 26, length <= size - at else { throw .damaged("The attribute list of \(name) is damaged.") }
            let nameLength = Int(try list.little(UInt8.self, "name_length", at: at + 6))
            let nameOffset = Int(try list.little(UInt8.self, "name_offset", at: at + 7))
            if try list.little(UInt32.self, "type", at: at) == type {
                let text =
                    nameLength == 0
                    ? "" : UTF16Text.decode(try list.bytes("name", at: at + nameOffset, count: 2 * nameLength))
                if text == attributeName {
                    result.append(
                        Entry(
                            firstVCN: try list.little(UInt64.self, "lowest_vcn", at: at + 8),
                            record: NTFSReference(try list.little(UInt64.self, "mft_reference", at: at + 16)).record,
                            instance: try list.little(UInt16.self, "instance", at: at + 24)))
                }
            }
            at += length
        }
        return result
    }

    /// Adds the part of an attribute that `entry` of the list of `base` names.
    private func extend(
        _ stream: inout NTFSStream, with entry: Entry, of base: NTFSRecord, isFirst: Bool = false
    ) throws(MapProblem) {
        let record = entry.record == base.number ? base : try record(entry.record)
        guard record.number == base.number || record.base == base.number else {
            throw .damaged("\(record.raw.name.capitalizedFirst) does not belong to \(stream.name).")
        }
        let found = record.attributes.filter { $0.instance == entry.instance }
        guard found.count == 1, let attribute = found.first else {
            throw .damaged("A part of \(stream.name) is missing from \(record.raw.name).")
        }
        if isFirst { return try begin(&stream, with: attribute) }
        guard case .clusters(let mapping) = attribute.content, mapping.firstVCN == entry.firstVCN else {
            throw .damaged("A part of \(stream.name) in \(record.raw.name) is not the one that is listed.")
        }
        try stream.runs.add(
            pairs: mapping.pairs, from: mapping.firstVCN, to: mapping.endVCN, clusters: boot.clusters, stream.name)
    }

    /// Begins a stream with the attribute that has its first byte.
    private func begin(_ stream: inout NTFSStream, with attribute: NTFSAttribute) throws(MapProblem) {
        stream.isEncoded = attribute.isEncoded
        switch attribute.content {
        case .resident(let bytes):
            stream.resident = bytes
            stream.size = UInt64(bytes.count)
            stream.initializedSize = stream.size
        case .clusters(let mapping):
            guard mapping.firstVCN == 0, mapping.dataSize <= mapping.allocatedSize,
                mapping.initializedSize <= mapping.dataSize
            else { throw .damaged("The sizes of \(stream.name) contradict each other.") }
            stream.size = mapping.dataSize
            stream.initializedSize = mapping.initializedSize
            try stream.runs.add(
                pairs: mapping.pairs, from: 0, to: mapping.endVCN, clusters: boot.clusters, stream.name)
        }
    }

    /// Throws where a stream's clusters end before its bytes do.
    private func checkEnd(of stream: NTFSStream, _ record: NTFSRecord) throws(MapProblem) {
        guard stream.resident == nil else { return }
        let (clusters, rest) = stream.size.quotientAndRemainder(dividingBy: boot.clusterSize.bytes)
        guard stream.runs.end >= clusters + (rest > 0 ? 1 : 0) else {
            throw .damaged("\(stream.name.capitalizedFirst) has fewer clusters than bytes.")
        }
    }

    /// `count` bytes (64 MiB at most) of a stream that is neither compressed nor encrypted. Bytes that were never
    /// written are damage here: what this room reads is always written.
    func read(_ stream: NTFSStream, at offset: UInt64, count: Int) throws(MapProblem) -> [UInt8] {
        guard let length = UInt64(exactly: count), length <= 64 << 20, offset <= stream.initializedSize,
            length <= stream.initializedSize - offset, !stream.isEncoded
        else {
            throw .damaged("\(stream.name.capitalizedFirst) cannot be read where it has to be.")
        }
        if let bytes = stream.resident { return Array(bytes[Int(offset)..<Int(offset) + count]) }
        let cluster = boot.clusterSize.bytes
        var result: [UInt8] = []
        result.reserveCapacity(count)
        var position = offset
        var index = stream.runs.index(of: position / cluster)
        while result.count < count {
            guard let current = index, current < stream.runs.runs.count, let lcn = stream.runs.runs[current].lcn else {
                throw .damaged("\(stream.name.capitalizedFirst) has a hole.")
            }
            let run = stream.runs.runs[current]
            let inside = position - run.vcn * cluster
            let piece = min(UInt64(count - result.count), run.count * cluster - inside)
            let fields = try Fields(
                stream.name, of: source, at: place(lcn) + ByteCount(inside), count: Int(piece))
            result += fields.bytes
            position += piece
            index = current + 1
        }
        return result
    }

    /// Where a stream's clusters lie on the volume, holes left out, in the stream's order.
    func extents(_ stream: NTFSStream) -> [Extent] {
        stream.runs.runs.compactMap { run in
            run.lcn.map { Extent(from: place($0), to: place($0 + run.count)) }
        }
    }
}
