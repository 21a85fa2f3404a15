// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Synchronization

/// Opens packs and keeps the last ones open.
final class PackShelf: Sendable {
    let store: any ObjectStore
    let set: SetHeader
    private let open = Mutex<[String: (handle: any ObjectHandle, turn: UInt64)]>([:])
    private let turn = Atomic<UInt64>(0)
    private static let most = 24

    init(store: any ObjectStore, set: SetHeader) {
        self.store = store
        self.set = set
    }

    /// The pack `id` (or its second copy), its header checked once when it is opened.
    func pack(_ id: ObjectID, copy: Bool = false) throws(Fault) -> any ObjectHandle {
        let name = copy ? ObjectName.copy(of: ObjectName.pack(id)) : ObjectName.pack(id)
        let now = turn.add(1, ordering: .relaxed).newValue
        let known: (any ObjectHandle)? = open.withLock { open in
            open[name]?.turn = now
            return open[name]?.handle
        }
        if let known { return known }
        guard let handle = try store.open(name) else {
            throw Fault(
                .setDamaged, what: "The file is missing.", place: "\(store.name)/\(name)",
                remedy: "Put the file back from a copy of the set; `relight verify` lists what is lost without it.")
        }
        open.withLock { open in
            if open.count >= PackShelf.most, let oldest = open.min(by: { $0.value.turn < $1.value.turn }) {
                open[oldest.key] = nil
            }
            open[name] = (handle, now)
        }
        return handle
    }

    /// The full name of a pack, for messages.
    func place(_ id: ObjectID, copy: Bool = false) -> String {
        "\(store.name)/\(copy ? ObjectName.copy(of: ObjectName.pack(id)) : ObjectName.pack(id))"
    }
}

/// Reads what is around the records of one pack: header, trailer, footer.
struct PackStructure: Sendable {
    var header: PackHeader
    var footer: PackFooter

    /// Reads and checks header, trailer and footer of a sealed pack.
    static func read(
        _ handle: any ObjectHandle, name: String, id: ObjectID, set: SetHeader, hasher: Hasher256
    ) throws(Fault) -> PackStructure {
        var entries: [PackFooter.Entry] = []
        var structure = try scan(handle, name: name, id: id, set: set, hasher: hasher) { offset, record in
            entries.append(PackFooter.Entry(offset: offset, record: record))
        }
        structure.footer.entries = entries
        return structure
    }

    /// Reads as ``read(_:name:id:set:hasher:)`` does, but gives the footer's records to `each` one after the other instead
    /// of listing them. When it throws, what `each` was given must not be used.
    static func scan(
        _ handle: any ObjectHandle, name: String, id: ObjectID, set: SetHeader, hasher: Hasher256,
        _ each: (Int, RecordHeader) -> Void
    ) throws(Fault) -> PackStructure {
        let header = try self.header(handle, name: name, id: id, set: set)
        let size = handle.size.bytes
        let least = UInt64(PackHeader.size + PackFooter.fixedSize + PackFooter.trailerSize)
        guard size >= least else {
            throw damaged(name, at: 0, FieldError.truncated(field: "pack", at: 0, need: Int(least), have: Int(size)))
        }
        guard size <= UInt64(UInt32.max) else {
            throw damaged(
                name, at: 0,
                FieldError.invalid(field: "pack", at: 0, seen: "\(size) bytes", expected: "less than 4 GiB"))
        }
        let end = size - UInt64(PackFooter.trailerSize)
        let tail = try handle.bytes(at: ByteCount(end), count: PackFooter.trailerSize)
        let trailer: PackFooter.Trailer
        do throws(FieldError) {
            trailer = try unsafe PackFooter.Trailer(tail.span.bytes, packSize: size)
        } catch {
            throw damaged(name, at: end, error)
        }
        let bytes = try handle.bytes(at: ByteCount(UInt64(trailer.offset)), count: trailer.length)
        do throws(FieldError) {
            guard try hasherResult(hasher, bytes) == trailer.digest else {
                throw FieldError.invalid(
                    field: "footer hash", at: 0, seen: "another hash", expected: "the one in the trailer")
            }
            let footer = try unsafe PackFooter(
                scanning: bytes.span.bytes, trailer: trailer, unitSize: set.unitSize, each)
            return PackStructure(header: header, footer: footer)
        } catch {
            throw damaged(name, at: UInt64(trailer.offset), error)
        }
    }

    private static func hasherResult(_ hasher: Hasher256, _ bytes: [UInt8]) throws(FieldError) -> UnitID {
        do throws(Fault) {
            return try hasher.hash(bytes)
        } catch {
            throw .invalid(field: "SHA-256", at: 0, seen: error.what, expected: "a hash")
        }
    }

    /// Reads and checks a pack's header.
    static func header(
        _ handle: any ObjectHandle, name: String, id: ObjectID, set: SetHeader
    ) throws(Fault) -> PackHeader {
        guard handle.size.bytes >= UInt64(PackHeader.size) else {
            throw damaged(
                name, at: 0,
                .truncated(field: "pack header", at: 0, need: PackHeader.size, have: Int(handle.size.bytes)))
        }
        let head = try handle.bytes(at: .zero, count: PackHeader.size)
        do throws(FieldError) {
            let header = try unsafe PackHeader(head.span.bytes)
            guard header.id == id, header.set == set else {
                throw FieldError.invalid(
                    field: "pack id", at: 16, seen: "\(header.id.text) of set \(header.set.id.text)",
                    expected: "\(id.text) of set \(set.id.text)")
            }
            return header
        } catch {
            throw damaged(name, at: 0, error)
        }
    }

    static func damaged(_ name: String, at offset: UInt64, _ error: FieldError) -> Fault {
        Fault(
            .setDamaged, what: "Damaged at byte \(offset): \(error).", place: name,
            remedy: "Run `relight verify` to see what is lost; put the file back if you have another copy.",
            extent: Extent(start: ByteCount(offset), length: .zero))
    }
}

/// Walks through a pack's records without its footer, finding the next record after damage.
struct PackScanner {
    enum Item {
        /// A record with a sound head whose payload lies inside the pack. The bytes are valid until the next step.
        case record(offset: Int, RecordHeader)
        /// Bytes that are no record.
        case gap(Range<Int>)
    }
    private let handle: any ObjectHandle
    private let unitSize: Int
    private let end: Int
    private var position: Int
    private let window = ByteBuffer(4 << 20)
    private var windowStart = 0
    private var windowCount = 0

    /// Scans bytes `start ..< end`.
    init(_ handle: any ObjectHandle, unitSize: Int, from start: Int, to end: Int) {
        self.handle = handle
        self.unitSize = unitSize
        self.position = start
        self.end = end
    }

    /// The next item; `nil` at the end.
    mutating func next() throws(Fault) -> Item? {
        guard position < end else { return nil }
        if let record = try record(at: position) {
            let item = Item.record(offset: position, record)
            position += record.totalSize
            return item
        }
        let start = position
        position += RecordHeader.alignment
        while position < end {
            if try record(at: position) != nil { return .gap(start..<position) }
            position += RecordHeader.alignment
        }
        position = end
        return .gap(start..<end)
    }

    /// The payload of the record last returned.
    func payload(_ record: RecordHeader, at offset: Int) -> UnsafeRawBufferPointer {
        let start = offset + record.headSize - windowStart
        return unsafe window.bytes(start..<start + record.storedLength)
    }

    /// The padding after the payload of the record last returned.
    func padding(_ record: RecordHeader, at offset: Int) -> UnsafeRawBufferPointer {
        let start = offset - windowStart
        return unsafe window.bytes(start + record.headSize + record.storedLength..<start + record.totalSize)
    }

    private mutating func record(at offset: Int) throws(Fault) -> RecordHeader? {
        guard end - offset >= RecordHeader.fixedSize + UnitID.size else { return nil }
        try load(offset, min(RecordHeader.fixedSize + RecordHeader.maximumIDs * UnitID.size, end - offset))
        let span = unsafe RawSpan(_unsafeBytes: window.bytes(0..<windowCount))
        guard span.matches(RecordHeader.magic, at: offset - windowStart),
            let record = try? RecordHeader(span, at: offset - windowStart, unitSize: unitSize),
            record.totalSize <= end - offset
        else { return nil }
        try load(offset, record.totalSize)
        return record
    }

    private mutating func load(_ offset: Int, _ count: Int) throws(Fault) {
        if offset >= windowStart, offset + count <= windowStart + windowCount { return }
        let size = min(window.count, end - offset)
        try handle.read(at: UInt64(offset), size, into: window)
        windowStart = offset
        windowCount = size
    }
}
