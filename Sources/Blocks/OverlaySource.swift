// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Synchronization

/// Another source with some of its blocks changed in memory: what a disk would hold after a journal was replayed,
/// without one byte being written to it.
///
/// A block is changed by bytes, which are kept, or by naming the place of the source below that holds its new content,
/// which takes a few bytes of memory however large the block is. The memory taken is bounded.
public final class OverlaySource: BlockSource {
    /// Bytes of a block, the unit of change; blocks are counted from the start of the source.
    public let blockSize: ByteCount
    /// Most memory the changes may take, in bytes.
    public let limit: ByteCount
    private let base: any BlockSource
    private let state = Mutex(State())

    private struct State {
        var blocks: [UInt64: Content] = [:]
        var memory: UInt64 = 0
    }

    /// What a changed block holds.
    private enum Content {
        case bytes([UInt8])
        /// What the source below has at this byte.
        case elsewhere(UInt64)
    }

    /// What an entry counts besides its bytes: key, value and the table's free room.
    private static let entrySize: UInt64 = 64

    /// `base` with nothing changed. `blockSize` is 512 bytes or more; a last part of `base` that is no whole block cannot
    /// be changed.
    public init(_ base: any BlockSource, blockSize: ByteCount, limit: ByteCount = .mebibytes(64)) {
        self.base = base
        self.blockSize = max(blockSize, ByteCount(512))
        self.limit = limit
    }

    /// The name of the source below.
    public var name: String { base.name }
    /// The sector size of the source below.
    public var sectorSize: SectorSize { base.sectorSize }
    /// The size of the source below.
    public var length: ByteCount { base.length }
    /// No file: nobody may read around the changes.
    public var file: FileWindow? { nil }
    /// Number of changed blocks.
    public var changedBlocks: Int { state.withLock { $0.blocks.count } }
    /// Memory the changes take, bytes.
    public var memory: ByteCount { ByteCount(state.withLock { $0.memory }) }

    /// Whether a block that `extent` touches is changed.
    public func hasChanges(in extent: Extent) -> Bool {
        guard !extent.isEmpty else { return false }
        let last = (extent.end.bytes - 1) / blockSize.bytes
        return state.withLock { state in
            var number = extent.start.bytes / blockSize.bytes
            while number <= last {
                if state.blocks[number] != nil { return true }
                number += 1
            }
            return false
        }
    }

    /// Changes `bytes` at byte `offset`, in any blocks. Throws ``FaultCode/unsupported`` when the changes would take more
    /// than ``limit``; the blocks before the one that found no room are changed then.
    public func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
        try requireInside(bytes.byteCount, at: offset)
        var done = 0
        while done < bytes.byteCount {
            let place = offset.bytes + UInt64(done)
            let number = place / blockSize.bytes
            let inside = Int(place % blockSize.bytes)
            let size = try sizeOfBlock(number)
            let count = min(size - inside, bytes.byteCount - done)
            // A block that is replaced as a whole need not be readable below.
            var block = count == size ? [UInt8](repeating: 0, count: size) : try content(number, size)
            for index in 0..<count {
                block[inside + index] = unsafe bytes.unsafeLoad(
                    fromUncheckedByteOffset: done + index, as: UInt8.self)
            }
            try change(number, .bytes(block))
            done += count
        }
    }

    /// Makes the block that begins at byte `offset` read as what the source below has at byte `place`. Both are multiples
    /// of ``blockSize`` and name whole blocks of the source. Throws as ``write(at:_:)`` does.
    public func redirect(_ offset: ByteCount, to place: ByteCount) throws(Fault) {
        let number = offset.bytes / blockSize.bytes
        let size = try sizeOfBlock(number)
        try requireInside(size, at: place)
        guard offset.isMultiple(of: blockSize), place.isMultiple(of: blockSize) else {
            throw Fault(
                .system, what: "Byte \(offset.bytes) or byte \(place.bytes) is not the start of a block.", place: name,
                remedy: "This is an error in the program: please report it.")
        }
        try change(number, .elsewhere(place.bytes))
    }

    /// Fills `buffer` from byte `offset`: changed blocks from memory or from where they lie, all else from below.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        let total = buffer.byteCount
        let base = self.base
        let blockSize = self.blockSize.bytes
        let result: Result<Void, Fault> = unsafe buffer.withUnsafeMutableBytes { target in
            guard let start = target.baseAddress else { return .success(()) }
            func below(_ place: UInt64, _ range: Range<Int>) throws(Fault) {
                guard !range.isEmpty else { return }
                var part = unsafe MutableRawSpan(_unsafeStart: start + range.lowerBound, byteCount: range.count)
                try base.read(at: ByteCount(place), into: &part)
            }
            do throws(Fault) {
                var done = 0
                var unchanged = 0
                while done < total {
                    let place = offset.bytes + UInt64(done)
                    let inside = place % blockSize
                    let count = min(Int(clamping: blockSize - inside), total - done)
                    if let content = state.withLock({ $0.blocks[place / blockSize] }) {
                        try below(offset.bytes + UInt64(unchanged), unchanged..<done)
                        switch content {
                        case .bytes(let bytes):
                            unsafe bytes.withUnsafeBytes { source in
                                guard let first = source.baseAddress else { return }
                                unsafe (start + done).copyMemory(from: first + Int(inside), byteCount: count)
                            }
                        case .elsewhere(let other): try below(other + inside, done..<done + count)
                        }
                        unchanged = done + count
                    }
                    done += count
                }
                try below(offset.bytes + UInt64(unchanged), unchanged..<total)
                return .success(())
            } catch { return .failure(error) }
        }
        try result.get()
    }

    /// The bytes of block `number`, which must lie within the source as a whole.
    private func sizeOfBlock(_ number: UInt64) throws(Fault) -> Int {
        guard let size = blockSize.int, let start = blockSize.multiplied(by: number), holds(size, at: start) else {
            throw Fault(
                .diskDamaged, what: "Block \(number) of \(blockSize.bytes) bytes lies outside it.", place: name,
                remedy: "A journal names a place past the end: the volume can still be imaged whole.")
        }
        return size
    }

    private func content(_ number: UInt64, _ size: Int) throws(Fault) -> [UInt8] {
        try bytes(at: ByteCount(number * blockSize.bytes), count: size)
    }

    private func change(_ number: UInt64, _ content: Content) throws(Fault) {
        func cost(_ content: Content) -> UInt64 {
            switch content {
            case .bytes(let bytes): OverlaySource.entrySize + UInt64(bytes.count)
            case .elsewhere: OverlaySource.entrySize
            }
        }
        let fits = state.withLock { state in
            let before = state.blocks[number].map(cost) ?? 0
            let after = state.memory - before + cost(content)
            guard after <= limit.bytes else { return false }
            state.memory = after
            state.blocks[number] = content
            return true
        }
        guard fits else {
            throw Fault(
                .unsupported, what: "What its journal changes takes more than \(limit) of memory.", place: name,
                remedy: "The volume can still be imaged whole; mounting and unmounting it empties its journal.")
        }
    }
}
