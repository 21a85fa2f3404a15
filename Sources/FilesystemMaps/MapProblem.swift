// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel

/// Why a reader gives up a map.
enum MapProblem: Error {
    /// The volume could not be read, or the program was asked to stop.
    case fault(Fault)
    /// The volume is imaged whole for a reason (a sentence), with a state where one has a name.
    case whole(String, VolumeState?)

    /// What was read contradicts itself or its format.
    static func damaged(_ reason: String) -> MapProblem { .whole(reason, .damaged) }
}

extension VolumeMap {
    /// The map `read` makes; the volume whole where it gives up. Throws what cannot be read, and an interruption.
    static func made(
        of volume: any BlockSource, _ identity: Identity, _ read: (inout VolumeMap) throws(MapProblem) -> Void
    ) throws(Fault) -> VolumeMap {
        var result = VolumeMap(identity: identity, whole: volume.length)
        do throws(MapProblem) {
            try read(&result)
            return result
        } catch {
            switch error {
            case .fault(let fault): throw fault
            case .whole(let reason, let state):
                result.used = ExtentList(Extent(from: .zero, to: volume.length))
                result.states.removeAll { $0 == .clean }
                return result.whole(because: reason, state)
            }
        }
    }
}

/// A structure read from a volume. A field outside of it is damage, told with the structure's name.
struct Fields: Sendable {
    /// What to call it, in the middle of a sentence: `MFT record 6`.
    let name: String
    var bytes: [UInt8]

    /// Bytes that are there already.
    init(_ name: String, _ bytes: [UInt8]) {
        self.name = name
        self.bytes = bytes
    }

    /// Reads `count` bytes (64 MiB at most) at `offset` of `volume`.
    init(_ name: String, of volume: any BlockSource, at offset: ByteCount, count: Int) throws(MapProblem) {
        self.name = name
        guard volume.holds(count, at: offset) else {
            throw .damaged("\(name.capitalizedFirst) lies outside the volume.")
        }
        do throws(Fault) { bytes = try volume.bytes(at: offset, count: count) } catch { throw .fault(error) }
    }

    /// The little-endian integer at `offset`.
    func little<T: FixedWidthInteger & BitwiseCopyable>(
        _ type: T.Type, _ field: StaticString, at offset: Int
    ) throws(MapProblem) -> T {
        let span = unsafe bytes.span.bytes
        do throws(FieldError) { return try span.littleEndian(type, field, at: offset) } catch { throw damaged(error) }
    }

    /// The big-endian integer at `offset`.
    func big<T: FixedWidthInteger & BitwiseCopyable>(
        _ type: T.Type, _ field: StaticString, at offset: Int
    ) throws(MapProblem) -> T {
        let span = unsafe bytes.span.bytes
        do throws(FieldError) { return try span.bigEndian(type, field, at: offset) } catch { throw damaged(error) }
    }

    /// A copy of `count` bytes at `offset`.
    func bytes(_ field: StaticString, at offset: Int, count: Int) throws(MapProblem) -> [UInt8] {
        let span = unsafe bytes.span.bytes
        do throws(FieldError) { return try span.bytes(field, at: offset, count: count) } catch { throw damaged(error) }
    }

    /// Whether the bytes at `offset` are `text`'s.
    func matches(_ text: StaticString, at offset: Int) -> Bool {
        let span = unsafe bytes.span.bytes
        return span.matches("\(text)".utf8, at: offset)
    }

    private func damaged(_ error: FieldError) -> MapProblem {
        .damaged("\(name.capitalizedFirst) is damaged: \(error).")
    }
}

extension String {
    /// The text with its first letter in upper case, to begin a sentence.
    var capitalizedFirst: String { prefix(1).uppercased() + dropFirst() }
}
