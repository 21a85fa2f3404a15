// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry

/// A run that was interrupted between first and second copies, or a file somebody removed: the next writer puts the
/// missing copy back, from one that is sound.
extension SetWriter {
    /// Writes the second copy of a pack of lists, comparing what it reads with the pack's own hashes.
    static func mendPack(
        _ store: any ObjectStore, _ name: String, _ handle: any ObjectHandle, _ footer: PackFooter, _ hasher: Hasher256
    ) throws(Fault) {
        let upload = try store.upload()
        do throws(Fault) {
            let buffer = ByteBuffer(PackFooter.segmentSize)
            var offset = 0
            for hash in footer.segments {
                let count = min(PackFooter.segmentSize, footer.offset - offset)
                try handle.read(at: UInt64(offset), count, into: buffer)
                let bytes = unsafe buffer.bytes(0..<count)
                guard try unsafe hasher.segment(bytes) == hash else {
                    throw PackStructure.damaged(
                        "\(store.name)/\(name)", at: UInt64(offset),
                        .invalid(field: "segment", at: 0, seen: "another hash", expected: hash.text))
                }
                try unsafe upload.write(at: ByteCount(UInt64(offset)), RawSpan(_unsafeBytes: bytes))
                offset += count
            }
            // The footer was compared with its hash when it was read; at most 64 MiB.
            let rest = try handle.bytes(at: ByteCount(UInt64(offset)), count: Int(handle.size.bytes) - offset)
            try unsafe upload.write(at: ByteCount(UInt64(offset)), rest.span.bytes)
            try store.sealCopy(upload, as: ObjectName.copy(of: name), size: handle.size)
        } catch {
            upload.abandon()
            throw error
        }
    }

    /// Writes copies of points of which one is missing.
    static func mendPoints(_ store: any ObjectStore, _ keys: SetKeys?) throws(Fault) {
        let reader = try SetReader(store) { (_) in keys }
        for id in try reader.ids() {
            let first = ObjectName.point(id)
            let second = ObjectName.copy(of: first)
            // A file that cannot even be opened is not missing; it is what `verify` reports.
            guard let has = try? (store.open(first) != nil, store.open(second) != nil) else { continue }
            guard has.0 != has.1 else { continue }
            let (sound, missing) = has.0 ? (first, second) : (second, first)
            // A damaged file is not copied; it is what `verify` reports.
            guard (try? reader.read(id, sound)) != nil, let handle = try? store.open(sound) else { continue }
            let size = PointFile.headerSize + PointFile.maximumBody
            guard let count = handle.size.int, count <= size else { continue }
            guard let bytes = try? handle.bytes(at: .zero, count: count) else { continue }
            try restore(missing, from: sound, bytes, store)
        }
    }

    /// Writes copies of moves of which one is missing or damaged.
    static func mendMoves(_ store: any ObjectStore, _ set: SetHeader) throws(Fault) {
        for copy in try MoveMap(store, set).damaged {
            guard let id = ObjectName.id(copy.name, suffix: ".moves") else { continue }
            let first = ObjectName.moves(id)
            let other = copy.name == first ? ObjectName.copy(of: first) : first
            guard (try? MoveMap.read(store, other, id, set)) != nil, let handle = try? store.open(other),
                let count = handle.size.int, let bytes = try? handle.bytes(at: .zero, count: count)
            else { continue }
            try store.delete(copy.name)
            try restore(copy.name, from: other, bytes, store)
        }
    }

    /// Puts a missing copy. What somebody removes meanwhile must not come back.
    private static func restore(
        _ missing: String, from sound: String, _ bytes: [UInt8], _ store: any ObjectStore
    ) throws(Fault) {
        var failure: Fault?
        do throws(Fault) { try store.putCopy(missing, bytes) } catch { failure = error }
        if try store.open(sound) == nil {
            try store.delete(missing)
        } else if let failure {
            throw failure
        }
    }
}
