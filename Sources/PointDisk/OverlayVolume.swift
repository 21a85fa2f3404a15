// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Findings
public import Geometry
import Glibc
import Synchronization

extension FaultCode {
    /// What changes in a copy-on-write overlay has no room, in memory or in the temporary file.
    public static let noScratchRoom = FaultCode("scratch.full", exit: .refused)
}

/// The room an ``OverlayVolume`` may take.
public struct ScratchRoom: Hashable, Sendable {
    /// Most memory, in bytes: changed blocks and the tables that find them.
    public var memory: ByteCount
    /// The folder of the temporary file for what memory does not hold; `nil` for none.
    public var folder: String?

    /// Room in memory, and beyond that in `folder`.
    public init(memory: ByteCount, folder: String? = nil) {
        self.memory = memory
        self.folder = folder
    }
}

/// What went through an ``OverlayVolume`` and what it took.
public struct OverlayFigures: Hashable, Sendable, Codable {
    /// Bytes written to it, every time they were.
    public var written = ByteCount.zero
    /// Of these, bytes that were found to be what had been read elsewhere: moved, and kept as references.
    public var moved = ByteCount.zero
    /// Of these, bytes that were zero.
    public var zeros = ByteCount.zero
    /// Bytes of changed blocks that had to be kept, at most at a time, in memory and in the file together.
    public var kept = ByteCount.zero
    /// Most memory taken, tables included.
    public var memory = ByteCount.zero
    /// Most room taken in the temporary file.
    public var file = ByteCount.zero

    /// Nothing.
    public init() {}
}

/// A volume that can be written to without one byte of what lies below being changed: a recovery point's volume on which a
/// filesystem's own resizer works.
///
/// A resizer mostly moves data. So a written block that equals one read before is kept as a reference to where it was read,
/// which takes almost nothing, and zeros take nothing. What else is written is held in memory up to a bound, beyond it in
/// a temporary file without a name. Where there is no room left, the write fails and the volume is as it was before it.
///
/// Safe to use from several threads; a read that meets a write of the same block gives either content.
public final class OverlayVolume: BlockTarget {
    /// What to call it in messages.
    public let name: String
    /// Logical sector size.
    public let sectorSize: SectorSize
    /// Bytes in the volume.
    public let length: ByteCount
    /// Bytes of a block, the unit of change.
    public let blockSize: ByteCount
    /// The room it may take.
    public let room: ScratchRoom
    private let base: any BlockSource
    /// What references point into.
    private let referred: any BlockSource
    private let recent: RecentBlocks
    private let state: Mutex<State>
    private let size: Int

    private struct State: Sendable {
        var runs = BlockRuns()
        var held: HeldBlocks
        var file: SpillFile?
        var figures = OverlayFigures()
        /// For the content of one block, to patch or to compare.
        var block: [UInt8]
        var other: [UInt8]
    }

    /// `base` with nothing changed. `blockSize` should be the filesystem's own, for it moves whole blocks; it is brought
    /// into 512 ... 65,536 and to a power of two. Resizers write soon what they read, so a quarter of all blocks is
    /// remembered; `remembersAll` for data that are written much later than they are read.
    public convenience init(
        _ base: any BlockSource, blockSize: ByteCount, room: ScratchRoom, remembersAll: Bool = false
    ) {
        let size = OverlayVolume.usable(blockSize)
        let count = base.length.bytes / UInt64(size)
        let wanted = remembersAll ? count + count / 2 : count / 4
        self.init(base, base, RecentBlocks(min(wanted + 1, room.memory.bytes / 64)), size, room)
    }

    /// `base` with nothing changed, to which data will be copied that are read through `other`: a written block that equals
    /// one read there is kept as a reference into what lies below `other`.
    public convenience init(_ base: any BlockSource, copiedFrom other: OverlayVolume, room: ScratchRoom) {
        self.init(base, other.base, other.recent, other.size, room)
    }

    private init(
        _ base: any BlockSource, _ referred: any BlockSource, _ recent: RecentBlocks, _ size: Int, _ room: ScratchRoom
    ) {
        self.base = base
        self.referred = referred
        self.recent = recent
        self.size = size
        self.room = room
        name = base.name
        sectorSize = base.sectorSize
        length = base.length
        blockSize = ByteCount(UInt64(size))
        let zeros = [UInt8](repeating: 0, count: size)
        state = Mutex(State(held: HeldBlocks(blockSize: size), block: zeros, other: zeros))
    }

    private static func usable(_ blockSize: ByteCount) -> Int {
        var size = 512
        while size < 65_536, UInt64(size) < blockSize.bytes { size <<= 1 }
        return size
    }

    /// No file: nobody may read around the changes.
    public var file: FileWindow? { nil }

    /// What went through it and what it took.
    public var figures: OverlayFigures { state.withLock { $0.figures } }

    /// Whether any block is changed.
    public var isChanged: Bool { state.withLock { !$0.runs.isEmpty } }

    // MARK: Reading

    /// Fills `buffer` from byte `offset`. Throws what the source below throws; `system` when the temporary file cannot be
    /// read.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        let result: Result<Void, Fault> = unsafe buffer.withUnsafeMutableBytes { target in
            do throws(Fault) {
                try unsafe read(offset.bytes, target)
                return .success(())
            } catch { return .failure(error) }
        }
        try result.get()
    }

    /// A stretch that one of the sources below holds: byte `place` of it goes to `range` of the buffer.
    private struct Below {
        var range: Range<Int>
        var place: UInt64
        var isReference: Bool
    }

    private func read(_ offset: UInt64, _ target: UnsafeMutableRawBufferPointer) throws(Fault) {
        guard let start = target.baseAddress, target.count > 0 else { return }
        let box = unsafe Pointer(start)
        let total = target.count
        let size = UInt64(size)
        let below = try state.withLock { (state: inout State) throws(Fault) -> [Below] in
            var below: [Below] = []
            var done = 0
            while done < total {
                let place = offset + UInt64(done)
                let block = place / size
                let inside = place % size
                let last = (place + UInt64(total - done) - 1) / size
                let (content, blocks) = state.runs.stretch(from: block, most: last - block + 1)
                var count = min(Int(clamping: blocks * size - inside), total - done)
                switch content {
                case .zeros:
                    unsafe UnsafeMutableRawBufferPointer(start: box.base + done, count: count)
                        .initializeMemory(as: UInt8.self, repeating: 0)
                case .memory(let slot):
                    count = min(count, Int(size - inside))
                    unsafe state.held.load(slot, Int(inside), count, to: box.base + done)
                case .file(let slot):
                    count = min(count, Int(size - inside))
                    try unsafe state.file?.load(slot, Int(inside), count, to: box.base + done)
                case .reference(let number):
                    below.append(Below(range: done..<done + count, place: number * size + inside, isReference: true))
                case nil: below.append(Below(range: done..<done + count, place: place, isReference: false))
                }
                done += count
            }
            return below
        }
        var index = 0
        while index < below.count {
            var part = below[index]
            index += 1
            // Pages end runs; what goes on is read at once.
            while index < below.count, below[index].range.lowerBound == part.range.upperBound,
                below[index].isReference == part.isReference,
                below[index].place == part.place + UInt64(part.range.count)
            {
                part.range = part.range.lowerBound..<below[index].range.upperBound
                index += 1
            }
            var span = unsafe MutableRawSpan(
                _unsafeStart: box.base + part.range.lowerBound, byteCount: part.range.count)
            try (part.isReference ? referred : base).read(at: ByteCount(part.place), into: &span)
            if part.isReference || base === referred { unsafe note(part, box.base) }
        }
    }

    /// Remembers the whole blocks of what was read below.
    private func note(_ part: Below, _ start: UnsafeMutableRawPointer) {
        let size = UInt64(size)
        var block = (part.place + size - 1) / size
        let end = (part.place + UInt64(part.range.count)) / size
        while block < end {
            let from = part.range.lowerBound + Int(block * size - part.place)
            let bytes = unsafe UnsafeRawBufferPointer(start: start + from, count: self.size)
            if unsafe !OverlayVolume.isZero(bytes) { recent.note(unsafe OverlayVolume.hash(bytes), block) }
            block += 1
        }
    }

    // MARK: Writing

    /// Writes `bytes` at byte `offset`. Throws `scratch.full` when they have no room; the blocks before the one without room
    /// are written then. Throws what the source below throws when a part of a block is written.
    public func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
        try requireInside(bytes.byteCount, at: offset)
        let result: Result<Void, Fault> = unsafe bytes.withUnsafeBytes { source in
            do throws(Fault) {
                try unsafe write(offset.bytes, source)
                return .success(())
            } catch { return .failure(error) }
        }
        try result.get()
    }

    private func write(_ offset: UInt64, _ source: UnsafeRawBufferPointer) throws(Fault) {
        guard let start = source.baseAddress, source.count > 0 else { return }
        let box = unsafe Pointer(UnsafeMutableRawPointer(mutating: start))
        let total = source.count
        let size = UInt64(size)
        try state.withLock { (state: inout State) throws(Fault) in
            state.figures.written += ByteCount(UInt64(total))
            var done = 0
            while done < total {
                let place = offset + UInt64(done)
                let block = place / size
                let inside = Int(place % size)
                let count = min(self.size - inside, total - done)
                if count == self.size {
                    try unsafe put(block, UnsafeRawBufferPointer(start: box.base + done, count: count), &state)
                } else {
                    // A last block that the volume cuts short is kept as a whole one.
                    var patched = state.block
                    try load(block, into: &patched, state)
                    unsafe patched.withUnsafeMutableBytes { patched in
                        if let base = patched.baseAddress {
                            unsafe (base + inside).copyMemory(from: box.base + done, byteCount: count)
                        }
                    }
                    let result: Result<Void, Fault> = unsafe patched.withUnsafeBytes { patched in
                        do throws(Fault) {
                            try unsafe put(block, patched, &state)
                            return .success(())
                        } catch { return .failure(error) }
                    }
                    try result.get()
                }
                done += count
            }
        }
    }

    /// Fills `bytes` with the content of block `block`; what lies past the end of the volume is zero.
    private func load(_ block: UInt64, into bytes: inout [UInt8], _ state: borrowing State) throws(Fault) {
        let size = UInt64(size)
        switch state.runs[block] {
        case .zeros: for index in bytes.indices { bytes[index] = 0 }
        case .memory(let slot):
            unsafe bytes.withUnsafeMutableBytes { target in
                if let base = target.baseAddress { unsafe state.held.load(slot, 0, self.size, to: base) }
            }
        case .file(let slot):
            let file = state.file
            let result: Result<Void, Fault> = unsafe bytes.withUnsafeMutableBytes { target in
                do throws(Fault) {
                    if let base = target.baseAddress { try unsafe file?.load(slot, 0, self.size, to: base) }
                    return .success(())
                } catch { return .failure(error) }
            }
            try result.get()
        case .reference(let number): try OverlayVolume.fill(&bytes, referred, number * size)
        case nil: try OverlayVolume.fill(&bytes, base, block * size)
        }
    }

    private static func fill(_ bytes: inout [UInt8], _ source: any BlockSource, _ place: UInt64) throws(Fault) {
        let there = Int(clamping: min(UInt64(bytes.count), source.length.bytes - min(place, source.length.bytes)))
        for index in there..<bytes.count { bytes[index] = 0 }
        guard there > 0 else { return }
        var span = bytes.mutableSpan
        var all = unsafe span.mutableBytes
        var part = all._mutatingExtracting(0..<there)
        try source.read(at: ByteCount(place), into: &part)
    }

    /// Makes `bytes`, a whole block, the content of block `block`, in the way that takes the least.
    private func put(_ block: UInt64, _ bytes: UnsafeRawBufferPointer, _ state: inout State) throws(Fault) {
        if unsafe OverlayVolume.isZero(bytes) {
            state.figures.zeros += blockSize
            if state.runs[block] != .zeros { try change(block, .zeros, &state) }
            return
        }
        let hash = unsafe OverlayVolume.hash(bytes)
        if let other = recent.block(hash), try unsafe isContent(of: other, bytes, &state) {
            state.figures.moved += blockSize
            try change(block, other == block && base === referred ? nil : .reference(other), &state)
            return
        }
        switch state.runs[block] {
        case .memory(let slot): return unsafe state.held.store(bytes, in: slot)
        case .file(let slot): if let file = state.file { return try unsafe file.store(bytes, in: slot) }
        default: break
        }
        let tables = recent.memory + state.runs.memory + (state.file?.memory ?? 0)
        let free = room.memory.bytes - min(room.memory.bytes, tables)
        if let slot = state.held.take(limit: free) {
            unsafe state.held.store(bytes, in: slot)
            try change(block, .memory(slot), &state)
            return
        }
        guard let folder = room.folder else { throw full() }
        let file: SpillFile
        if let made = state.file { file = made } else { file = try SpillFile(in: folder, blockSize: size) }
        state.file = file
        let slot = file.take()
        do throws(Fault) {
            try unsafe file.store(bytes, in: slot)
        } catch {
            file.give(back: slot)
            throw error
        }
        try change(block, .file(slot), &state)
    }

    /// Whether block `number` of what is referred to holds `bytes`.
    private func isContent(
        of number: UInt64, _ bytes: UnsafeRawBufferPointer, _ state: inout State
    ) throws(Fault) -> Bool {
        guard (number + 1) * UInt64(size) <= referred.length.bytes else { return false }
        try OverlayVolume.fill(&state.other, referred, number * UInt64(size))
        return unsafe state.other.withUnsafeBytes { other in
            guard let one = other.baseAddress, let two = bytes.baseAddress else { return false }
            return unsafe memcmp(one, two, bytes.count) == 0
        }
    }

    private func change(_ block: UInt64, _ content: BlockContent?, _ state: inout State) throws(Fault) {
        if let before = state.runs[block] { OverlayVolume.release(before, &state) }
        state.runs.set(block, content)
        try account(&state)
    }

    private static func release(_ content: BlockContent, _ state: inout State) {
        switch content {
        case .memory(let slot): state.held.give(back: slot)
        case .file(let slot): state.file?.give(back: slot)
        case .zeros, .reference: break
        }
    }

    private func account(_ state: inout State) throws(Fault) {
        let inFile = state.file?.held ?? 0
        let tables = recent.memory + state.runs.memory + (state.file?.memory ?? 0)
        let memory = tables + state.held.memory
        state.figures.memory = max(state.figures.memory, ByteCount(memory))
        state.figures.file = max(state.figures.file, ByteCount(inFile))
        state.figures.kept = max(state.figures.kept, ByteCount(state.held.held + inFile))
        // References are small, but a bound is a bound.
        if tables > room.memory.bytes { throw full() }
    }

    private func full() -> Fault {
        Fault(
            .noScratchRoom,
            what: "What is changed in it takes more than the \(room.memory) of memory there is for it"
                + (room.folder == nil ? ", and no folder for a temporary file was named." : "."), place: name,
            remedy: "Name a folder on a disk with room with `--scratch FOLDER`, or restore to a larger disk.")
    }

    // MARK: The rest of a target

    /// Makes `extent` read as zeros. Takes no room.
    public func zero(_ extent: Extent) throws(Fault) {
        guard !extent.isEmpty else { return }
        guard extent.end <= length else {
            throw Fault(
                .system, what: "\(extent.length.bytes) bytes at \(extent.start.bytes) lie outside it.", place: name,
                remedy: "This is an error in the program: please report it.")
        }
        let size = UInt64(size)
        let first = (extent.start.bytes + size - 1) / size
        // A last block that the volume cuts short is a whole one.
        let last = extent.end == length ? (extent.end.bytes + size - 1) / size : extent.end.bytes / size
        // Without a whole block it is less than two.
        let zeros = [UInt8](repeating: 0, count: 2 * self.size)
        guard first < last else {
            return try write(at: extent.start, unsafe zeros.span.bytes.extracting(0..<Int(extent.length.bytes)))
        }
        let head = Int(first * size - extent.start.bytes)
        if head > 0 { try write(at: extent.start, unsafe zeros.span.bytes.extracting(0..<head)) }
        let tail = extent.end.bytes - min(extent.end.bytes, last * size)
        if tail > 0 { try write(at: ByteCount(last * size), unsafe zeros.span.bytes.extracting(0..<Int(tail))) }
        try state.withLock { (state: inout State) throws(Fault) in
            var released: [BlockContent] = []
            state.runs.setZeros(first..<last) { content in
                if case .reference = content { return }
                if content != .zeros { released.append(content) }
            }
            for content in released { OverlayVolume.release(content, &state) }
            try account(&state)
        }
    }

    /// The same as ``zero(_:)``.
    public func discard(_ extent: Extent) throws(Fault) {
        try zero(extent.intersection(Extent(from: .zero, to: length)))
    }
    /// Nothing to do.
    public func flush() throws(Fault) {}
    /// Nothing to do.
    public func dropCaches() throws(Fault) {}

    // MARK: Content

    private static func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let first = bytes.baseAddress, unsafe bytes[0] == 0 else { return unsafe bytes.isEmpty }
        // Equal to itself one byte further on: all bytes are the first.
        return unsafe memcmp(first, first + 1, bytes.count - 1) == 0
    }

    private static func hash(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
        var hasher = Hasher()
        unsafe hasher.combine(bytes: bytes)
        return UInt64(bitPattern: Int64(hasher.finalize()))
    }

    /// A caller's buffer, handed through a lock that runs its body before it returns.
    @safe private struct Pointer: @unchecked Sendable {
        let base: UnsafeMutableRawPointer
        init(_ base: UnsafeMutableRawPointer) { unsafe self.base = base }
    }
}
