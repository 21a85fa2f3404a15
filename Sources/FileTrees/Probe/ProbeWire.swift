// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings

/// What parent and child say to each other: frames of a length (four bytes, lowest first) and as many bytes, of which the
/// first tells the kind.
enum ProbeWord {
    /// From the parent.
    static let open: UInt8 = 1
    static let step: UInt8 = 2
    static let list: UInt8 = 3
    static let read: UInt8 = 4
    static let streams: UInt8 = 5
    static let block: UInt8 = 6
    /// From the child.
    static let result: UInt8 = 1
    static let fault: UInt8 = 2
    static let want: UInt8 = 3

    /// The longest frame: a read of the largest size and its head.
    static let mostBytes = TreeLimits.read + 4096
    /// Bytes of the volume asked for at once.
    static let mostBlock = 1 << 20
}

/// Makes a frame.
struct WireWriter {
    private(set) var bytes: [UInt8]

    init(_ kind: UInt8) { bytes = [kind] }

    mutating func byte(_ value: UInt8) { bytes.append(value) }
    mutating func number<T: FixedWidthInteger>(_ value: T) { bytes.appendLittleEndian(value) }
    mutating func text(_ value: String) {
        let utf8 = Array(value.utf8)
        number(UInt32(utf8.count))
        bytes += utf8
    }
    mutating func path(_ parts: [String]) {
        number(UInt32(parts.count))
        for part in parts { text(part) }
    }
    mutating func rest(_ value: [UInt8]) { bytes += value }

    /// The frame with its length in front.
    var frame: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count + 4)
        result.appendLittleEndian(UInt32(bytes.count))
        result += bytes
        return result
    }
}

/// Takes a frame apart. Every read is bounded: the other side may have lost its mind.
struct WireReader {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func byte() throws(ProbeSocket.Problem) -> UInt8 { try number(UInt8.self) }

    mutating func number<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) throws(ProbeSocket.Problem) -> T {
        let value = try peek(type)
        position += MemoryLayout<T>.size
        return value
    }

    private func peek<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) throws(ProbeSocket.Problem) -> T {
        let span = unsafe bytes.span.bytes
        guard let value = try? span.littleEndian(type, "number", at: position) else { throw .nonsense }
        return value
    }

    mutating func text() throws(ProbeSocket.Problem) -> String {
        let count = Int(try number(UInt32.self))
        guard count <= bytes.count - position else { throw .nonsense }
        position += count
        return String(decoding: bytes[position - count..<position], as: UTF8.self)
    }

    mutating func path() throws(ProbeSocket.Problem) -> [String] {
        let count = Int(try number(UInt32.self))
        guard count <= TreeLimits.parts else { throw .nonsense }
        var parts: [String] = []
        for _ in 0..<count { parts.append(try text()) }
        return parts
    }

    mutating func rest() -> [UInt8] {
        let value = Array(bytes[min(position, bytes.count)...])
        position = bytes.count
        return value
    }
}

extension WireWriter {
    mutating func entry(_ entry: TreeEntry) {
        text(entry.name)
        text(entry.kind.rawValue)
        number(entry.size)
        byte(entry.attributes == nil ? 0 : 1)
        number(entry.attributes ?? 0)
        byte(entry.reparseTag == nil ? 0 : 1)
        number(entry.reparseTag ?? 0)
    }
}

extension WireReader {
    mutating func entry() throws(ProbeSocket.Problem) -> TreeEntry {
        let name = try text()
        let kind = try text()
        var entry = TreeEntry(name: name, kind: TreeEntry.Kind(rawValue: kind) ?? .other, size: try number(UInt64.self))
        let hasAttributes = try byte() != 0
        let attributes = try number(UInt32.self)
        let hasTag = try byte() != 0
        let tag = try number(UInt32.self)
        if hasAttributes { entry.attributes = attributes }
        if hasTag { entry.reparseTag = tag }
        return entry
    }

    mutating func fault(_ place: String) throws(ProbeSocket.Problem) -> Fault {
        let code = try text()
        let what = try text()
        let where_ = try text()
        let remedy = try text()
        let known: [FaultCode] = [.treeDamaged, .unsupported, .unreadable]
        return Fault(
            known.first { $0.rawValue == code } ?? .treeDamaged, what: what, place: where_.isEmpty ? place : where_,
            remedy: remedy)
    }
}

extension WireWriter {
    mutating func fault(_ fault: Fault) {
        for part in [fault.code.rawValue, fault.what, fault.place, fault.remedy] { text(part) }
    }
}
