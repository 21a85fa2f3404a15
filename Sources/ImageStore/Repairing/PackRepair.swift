// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Threads

/// Checks one file of a pack, and makes it again when it is damaged.
struct PackRepair {
    let store: any ObjectStore
    let set: SetHeader
    let name: String
    let id: ObjectID
    /// What a recovery point says of the pack; `nil` when none refers to it, or its points cannot be read.
    let reference: PackReference?
    private let hasher: Hasher256
    private static let piece = PackFooter.segmentSize

    init(
        _ store: any ObjectStore, _ set: SetHeader, name: String, id: ObjectID, reference: PackReference?
    ) throws(Fault) {
        self.store = store
        self.set = set
        self.name = name
        self.id = id
        self.reference = reference
        self.hasher = try Hasher256()
    }

    /// What is wrong with the pack, every byte of it compared; `nil` when nothing is.
    func problem(_ handle: any ObjectHandle) throws(Fault) -> String? {
        do throws(Fault) {
            let structure = try PackStructure.read(handle, name: name, id: id, set: set, hasher: hasher)
            if let reference, reference.footer != structure.footer.digest || reference.size != handle.size.bytes {
                return "It is not the pack the recovery points were made with."
            }
            let buffer = ByteBuffer(PackRepair.piece)
            for (index, hash) in structure.footer.segments.enumerated() {
                try Interruption.check()
                let start = index * PackRepair.piece
                let count = min(PackRepair.piece, structure.footer.offset - start)
                try handle.read(at: UInt64(start), count, into: buffer)
                guard try unsafe hasher.segment(buffer.bytes(0..<count)) == hash else {
                    return "Damaged within \(count) bytes from byte \(start) on."
                }
            }
            return nil
        } catch {
            guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
            return error.what
        }
    }

    /// How the damaged pack in `handle` can be made good from itself; or why it cannot, and how a part of it can.
    func cure(_ handle: any ObjectHandle) throws(Fault) -> (source: RepairReport.Source?, why: String) {
        let pack = damaged(handle)
        if let check = try ParityCheck.run(pack, id: id, hasher: hasher) {
            if check.beyondRepair.isEmpty { return (.parity(blocks: check.damaged.count), "") }
            let groups = "\(check.beyondRepair.count) of its \(check.layout.groups) groups of blocks"
            let why = "\(groups) have lost more than their \(check.layout.parityPerGroup) parity blocks can replace."
            let others = check.damaged.count { !check.beyondRepair.contains(check.layout.group($0)) }
            return (others > 0 ? .parity(blocks: others) : nil, why)
        }
        guard let (whole, end) = try fromRecords(handle) else {
            return (nil, "No record of it is sound at its beginning. \(noParity)")
        }
        switch try footer(whole, handle, recordsEnd: end, end: end, isProven: false) {
        case .made: return (.records, "")
        case .impossible(let why): return (nil, "\(why) \(noParity)")
        }
    }

    private var noParity: String {
        self.set.parity == 0
            ? "The set was made without parity, and there is no sound second copy."
            : "Nothing is left of the pack's parity section."
    }

    /// Makes the pack again beside the damaged one, compares it, and puts it in its place. Returns why that cannot be
    /// done, or `nil` when it was. Throws `store.full`, `store.failed`, `interrupted`; the damaged file is then as it was.
    func repair(_ handle: any ObjectHandle) throws(Fault) -> String? {
        let upload = try store.upload()
        do throws(Fault) {
            if let reason = try rebuild(handle, into: upload) {
                upload.abandon()
                return reason
            }
            try upload.seal(replacing: name)
        } catch {
            upload.abandon()
            throw error
        }
        return try confirm()
    }

    /// Makes good what parity can of a pack that is beyond repair as a whole: fewer of its records are lost then. Returns
    /// how many blocks of 4 KiB were made good.
    func repairPartly(_ handle: any ObjectHandle) throws(Fault) -> Int {
        let pack = damaged(handle)
        guard let check = try ParityCheck.run(pack, id: id, hasher: hasher) else { return 0 }
        let upload = try store.upload()
        do throws(Fault) {
            let buffer = ByteBuffer(PackRepair.piece)
            let layout = check.layout
            let damaged = check.damaged.map { layout.range($0) } + check.damagedParts
            try copySound(damaged, layout.end, pack, upload, buffer)
            var written: Set<Int> = []
            let repair = try ParityRepair.run(check, pack, hasher: hasher) { offset, bytes throws(Fault) in
                written.insert(offset)
                try upload.write(at: ByteCount(UInt64(offset)), bytes)
            }
            guard repair.isTrustworthy, !repair.repaired.isEmpty else {
                upload.abandon()
                return 0
            }
            // The rest stays as it is, or becomes zeros where the medium does not give it.
            let end = max(layout.end, pack.size)
            let footer = stride(from: layout.end, to: end, by: 4096).map { $0..<min($0 + 4096, end) }
            for range in damaged.filter({ !written.contains($0.lowerBound) }) + footer {
                let bytes = try pack.bytes(range) ?? [UInt8](repeating: 0, count: range.count)
                try unsafe upload.write(at: ByteCount(UInt64(range.lowerBound)), bytes.span.bytes)
            }
            try upload.seal(replacing: name)
            return repair.repaired.count
        } catch {
            upload.abandon()
            throw error
        }
    }

    /// Puts a sound copy of the pack in its place. As ``repair(_:)``.
    func copy(_ source: any ObjectHandle) throws(Fault) -> String? {
        let upload = try store.upload()
        do throws(Fault) {
            let buffer = ByteBuffer(PackRepair.piece)
            try copy(0..<Int(clamping: source.size.bytes), upload, buffer) { (range) throws(Fault) in
                try source.read(at: UInt64(range.lowerBound), range.count, into: buffer)
            }
            // What is about to replace a file is looked at once more: the source may have been changed meanwhile.
            if let problem = try problem(UploadHandle(upload, size: source.size)) {
                upload.abandon()
                return "The other copy is damaged too. \(problem)"
            }
            try upload.seal(replacing: name)
        } catch {
            upload.abandon()
            throw error
        }
        return try confirm()
    }

    /// Reads what was put in place from the medium.
    private func confirm() throws(Fault) -> String? {
        guard let handle = try store.open(name) else { throw store.notKept(name) }
        handle.dropCaches()
        guard try problem(handle) == nil else { throw store.notKept(name) }
        return nil
    }

    private func damaged(_ handle: any ObjectHandle) -> DamagedPack {
        DamagedPack(size: Int(clamping: min(handle.size.bytes, UInt64(UInt32.max)))) { offset, span throws(Fault) in
            try handle.read(at: ByteCount(UInt64(offset)), into: &span)
        }
    }

    private func copy(
        _ range: Range<Int>, _ upload: any ObjectUpload, _ buffer: ByteBuffer,
        _ read: (Range<Int>) throws(Fault) -> Void
    ) throws(Fault) {
        for start in stride(from: range.lowerBound, to: range.upperBound, by: PackRepair.piece) {
            try Interruption.check()
            let part = start..<min(start + PackRepair.piece, range.upperBound)
            try read(part)
            try unsafe upload.write(
                at: ByteCount(UInt64(start)), RawSpan(_unsafeBytes: buffer.bytes(0..<part.count)))
        }
    }

    // MARK: - Making it again

    /// A pack without parity whose header is made again and whose records are taken as they are, and where they end:
    /// they are followed from one to the next. The footer's hash tells whether that is right.
    private func fromRecords(_ handle: any ObjectHandle) throws(Fault) -> (pack: PatchedHandle, end: Int)? {
        let size = Int(clamping: min(handle.size.bytes, UInt64(UInt32.max)))
        var scanner = PackScanner(handle, unitSize: set.unitSize, from: PackHeader.size, to: size)
        var end = PackHeader.size
        var kind: RecordHeader.Kind?
        while case .record(let offset, let record)? = try scanner.next(), offset == end {
            kind = kind ?? record.kind
            end += record.totalSize
        }
        guard let kind else { return nil }
        let header = PackHeader(kind: kind == .page ? .lists : .data, id: id, set: set).bytes
        return (PatchedHandle(handle, header: header, size: ByteCount(UInt64(end))), end)
    }

    /// Writes the pack as it was to `upload`, or returns why that cannot be done.
    private func rebuild(_ handle: any ObjectHandle, into upload: any ObjectUpload) throws(Fault) -> String? {
        let buffer = ByteBuffer(PackRepair.piece)
        let pack = damaged(handle)
        let recordsEnd: Int
        let end: Int
        let check = try ParityCheck.run(pack, id: id, hasher: hasher)
        if let check {
            recordsEnd = check.layout.bodyLength
            end = check.layout.end
            let damaged = check.damaged.map { check.layout.range($0) } + check.damagedParts
            try copySound(damaged, end, pack, upload, buffer)
            let repair = try ParityRepair.run(check, pack, hasher: hasher) { offset, bytes throws(Fault) in
                try upload.write(at: ByteCount(UInt64(offset)), bytes)
            }
            guard repair.isProven else { return "Its parity does not give back what the pack held." }
            // Without a hash in a point nothing else proves what was copied: it may have been read right when it was checked,
            // and wrong when it was copied.
            if reference == nil {
                let made = UploadHandle(upload, size: ByteCount(UInt64(end)))
                guard let again = try ParityCheck.run(self.damaged(made), id: id, hasher: hasher),
                    again.damaged.isEmpty,
                    again.damagedParts.isEmpty
                else { return "What is read from it changes from one time to the next." }
            }
        } else {
            guard let found = try fromRecords(handle) else { return "No record of it is sound at its beginning." }
            (recordsEnd, end) = (found.end, found.end)
            try copy(0..<end, upload, buffer) { (part) throws(Fault) in
                try found.pack.read(at: UInt64(part.lowerBound), part.count, into: buffer)
            }
        }
        let written = UploadHandle(upload, size: ByteCount(UInt64(end)))
        switch try footer(written, handle, recordsEnd: recordsEnd, end: end, isProven: check != nil) {
        case .impossible(let why): return why
        case .made(let bytes): try unsafe upload.write(at: ByteCount(UInt64(end)), bytes.span.bytes)
        }
        return nil
    }

    /// Copies all but `damaged` of the first `end` bytes.
    private func copySound(
        _ damaged: [Range<Int>], _ end: Int, _ pack: DamagedPack, _ upload: any ObjectUpload, _ buffer: ByteBuffer
    ) throws(Fault) {
        var position = 0
        for range in damaged.sorted(by: { $0.lowerBound < $1.lowerBound }) + [end..<end] {
            try copy(position..<max(position, range.lowerBound), upload, buffer) { (part) throws(Fault) in
                guard try pack.read(part, buffer, at: 0) else {
                    throw Fault(
                        .storeFailed,
                        what: "A part of the pack that could be read a moment ago cannot be read any more.",
                        place: "\(store.name)/\(name)",
                        remedy: "Copy the set to another medium as far as it can be read, and repair the copy.")
                }
            }
            position = range.upperBound
        }
    }

    private enum Footer {
        case made([UInt8])
        case impossible(String)
    }

    /// Footer and trailer, which follow from the `end` bytes before them in `pack`, compared with what the points or the
    /// damaged pack itself say of them.
    private func footer(
        _ pack: any ObjectHandle, _ damaged: any ObjectHandle, recordsEnd: Int, end: Int, isProven: Bool
    ) throws(Fault) -> Footer {
        var entries: [UInt8] = []
        var count = 0
        var scanner = PackScanner(pack, unitSize: set.unitSize, from: PackHeader.size, to: recordsEnd)
        while let item = try scanner.next() {
            guard case .record(let offset, let record) = item else {
                return .impossible("Its records do not follow each other.")
            }
            entries += PackFooter.entry(offset: offset, head: record.bytes)
            count += 1
        }
        var segments: [UnitID] = []
        let buffer = ByteBuffer(PackRepair.piece)
        for start in stride(from: 0, to: end, by: PackRepair.piece) {
            try Interruption.check()
            let size = min(PackRepair.piece, end - start)
            try pack.read(at: UInt64(start), size, into: buffer)
            segments.append(try unsafe hasher.segment(buffer.bytes(0..<size)))
        }
        let (footer, digest) = try PackFooter.bytes(
            records: count, entries: entries, recordsEnd: recordsEnd, offset: end, segments: segments, hasher: hasher)
        let size = end + footer.count
        if let reference {
            guard digest == reference.footer, UInt64(size) == reference.size else {
                return .impossible("Its records are damaged, or are not those the recovery points were made with.")
            }
        } else if !isProven {
            // No point and no parity says what it was: its own footer or trailer must.
            let rest = footer.count - PackFooter.trailerSize
            guard UInt64(size) == damaged.size.bytes,
                let old = try? damaged.bytes(at: ByteCount(UInt64(end)), count: footer.count),
                old[..<rest] == footer[..<rest] || old[rest...] == footer[rest...]
            else { return .impossible("Its records are damaged, or nothing tells any more what they were.") }
        }
        return .made(footer)
    }
}

/// An upload that is read before it is sealed.
private final class UploadHandle: ObjectHandle {
    private let upload: any ObjectUpload
    let size: ByteCount

    init(_ upload: any ObjectUpload, size: ByteCount) {
        self.upload = upload
        self.size = size
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try upload.read(at: offset, into: &buffer)
    }

    func dropCaches() {}
}

/// The first bytes of a pack with another header.
private final class PatchedHandle: ObjectHandle {
    private let pack: any ObjectHandle
    private let header: [UInt8]
    let size: ByteCount

    init(_ pack: any ObjectHandle, header: [UInt8], size: ByteCount) {
        self.pack = pack
        self.header = header
        self.size = size
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try pack.read(at: offset, into: &buffer)
        guard offset.bytes < UInt64(header.count) else { return }
        let start = Int(offset.bytes)
        for place in start..<min(header.count, start + buffer.byteCount) {
            buffer.storeBytes(of: header[place], toByteOffset: place - start, as: UInt8.self)
        }
    }

    func dropCaches() {}
}
