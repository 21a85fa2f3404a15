// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import Synchronization

/// Where the bytes of a volume lie: segments in a row, each on one area, striped over several, or in several copies. An
/// area lies on a member, or in another mapping.
final class Mapping: Sendable {
    /// A place that holds a run of bytes.
    struct Area: Sendable {
        enum Target: Sendable {
            case member(Int)
            case mapping(Mapping)
        }
        let target: Target
        /// Where it begins there.
        let start: ByteCount
    }

    enum Arrangement: Hashable, Sendable {
        case linear
        /// Pieces of this size in turn.
        case striped(ByteCount)
        case copies
    }

    struct Segment: Sendable {
        /// The bytes of the volume.
        let extent: Extent
        let arrangement: Arrangement
        let areas: [Area]

        /// Bytes it takes in each area.
        var share: ByteCount {
            guard case .striped = arrangement else { return extent.length }
            return ByteCount(extent.length.bytes / UInt64(max(1, areas.count)))
        }
    }

    let segments: [Segment]
    let length: ByteCount
    /// The most copies of any byte, here and below.
    let copies: Int
    /// Whether copies are all there is: one segment of them, each in one place below. Only then does a choice of one copy
    /// stand for all that its members can hold.
    let isPlainMirror: Bool

    /// `lengths` are those of the members. Throws what in the segments contradicts itself.
    init(_ segments: [Segment], lengths: [Int: ByteCount]) throws(LayerProblem) {
        var position = ByteCount.zero
        var copies = 1
        for segment in segments {
            guard segment.extent.start == position, !segment.extent.isEmpty, let first = segment.areas.first else {
                throw .whole("The parts of a volume do not follow each other.")
            }
            _ = first
            position = segment.extent.end
            switch segment.arrangement {
            case .linear:
                guard segment.areas.count == 1 else { throw .whole("A part of a volume lies in several places.") }
            case .striped(let chunk):
                let row = chunk.multiplied(by: UInt64(segment.areas.count))
                guard chunk >= ByteCount(512), let row, segment.extent.length.isMultiple(of: row) else {
                    throw .whole("A striped volume does not end with a stripe.")
                }
            case .copies: copies = max(copies, segment.areas.count)
            }
            for area in segment.areas {
                let room: ByteCount?
                switch area.target {
                case .member(let id): room = lengths[id]
                case .mapping(let mapping):
                    room = mapping.length
                    copies = max(copies, mapping.copies)
                }
                guard let room, let end = area.start.adding(segment.share), end <= room else {
                    throw .whole("A part of a volume lies past the end of what holds it.")
                }
            }
        }
        guard !segments.isEmpty else { throw .whole("A volume has no parts.") }
        self.segments = segments
        length = position
        self.copies = copies
        isPlainMirror =
            segments.count == 1 && segments[0].arrangement == .copies
            && segments[0].areas.allSatisfy {
                if case .mapping(let mapping) = $0.target { mapping.copies == 1 } else { true }
            }
    }

    /// The bytes of each member that hold `used`.
    func pushDown(_ used: ExtentList) -> [Int: ExtentList] {
        var found: [Int: [Extent]] = [:]
        push(used, into: &found)
        return found.mapValues { ExtentList($0) }
    }

    /// More runs than this are not made of one volume; the gaps between them are used then. 16 bytes each.
    private static let mostRuns = 1 << 21

    private func push(_ used: ExtentList, into found: inout [Int: [Extent]]) {
        for segment in segments {
            var own = used.intersection(segment.extent)
            if own.isEmpty { continue }
            if own.extents.count > Mapping.mostRuns / segment.areas.count { own = ExtentList(segment.extent) }
            for (index, area) in segment.areas.enumerated() {
                var places: [Extent] = []
                places.reserveCapacity(own.extents.count)
                for run in own.extents {
                    let from = run.start - segment.extent.start
                    let to = run.end - segment.extent.start
                    let start: ByteCount
                    let end: ByteCount
                    if case .striped(let chunk) = segment.arrangement {
                        start = Mapping.share(of: from, stripe: index, of: segment.areas.count, chunk)
                        end = Mapping.share(of: to, stripe: index, of: segment.areas.count, chunk)
                    } else {
                        (start, end) = (from, to)
                    }
                    if start < end { places.append(Extent(from: area.start + start, to: area.start + end)) }
                }
                switch area.target {
                case .member(let id): found[id, default: []] += places
                case .mapping(let mapping): mapping.push(ExtentList(places), into: &found)
                }
            }
        }
    }

    /// How many of the first `count` bytes of a striped segment lie on the stripe `index`.
    private static func share(of count: ByteCount, stripe index: Int, of stripes: Int, _ chunk: ByteCount) -> ByteCount
    {
        let row = chunk.bytes * UInt64(stripes)
        let rest = count.bytes % row
        let before = UInt64(index) * chunk.bytes
        let inRow = rest <= before ? 0 : min(rest - before, chunk.bytes)
        return ByteCount(count.bytes / row * chunk.bytes + inRow)
    }

    /// The segment that holds `offset`, which lies within.
    private func index(of offset: ByteCount) -> Int {
        var low = 0
        var high = segments.count - 1
        while low < high {
            let middle = (low + high) / 2
            if segments[middle].extent.end > offset { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// Fills `buffer` from byte `offset`; the caller has checked that it lies within.
    fileprivate func read(
        at offset: ByteCount, into buffer: inout MutableRawSpan, _ members: MappedMembers
    ) throws(Fault) {
        var done = 0
        while done < buffer.byteCount {
            let position = offset + ByteCount(UInt64(done))
            let segment = segments[index(of: position)]
            var count = min(segment.extent.end - position, ByteCount(UInt64(buffer.byteCount - done)))
            let within = position - segment.extent.start
            switch segment.arrangement {
            case .linear:
                var part = buffer._mutatingExtracting(done..<done + Int(count.bytes))
                try members.read(segment.areas[0], within, into: &part)
            case .striped(let chunk):
                let stripe = within.bytes / chunk.bytes
                let stripes = UInt64(segment.areas.count)
                let rest = within.bytes % chunk.bytes
                count = min(count, ByteCount(chunk.bytes - rest))
                var part = buffer._mutatingExtracting(done..<done + Int(count.bytes))
                try members.read(
                    segment.areas[Int(stripe % stripes)], ByteCount(stripe / stripes * chunk.bytes + rest), into: &part)
            case .copies:
                count = min(count, .mebibytes(1))
                var part = buffer._mutatingExtracting(done..<done + Int(count.bytes))
                try members.readCopies(segment.areas, within, into: &part)
            }
            done += Int(count.bytes)
        }
    }
}

/// The members of a mapping while it is read.
private final class MappedMembers: Sendable {
    private let sources: [Int: any BlockSource]
    /// The one copy that is read; `nil` to read and compare all.
    private let copy: Int?
    let differ = Atomic<Bool>(false)

    init(_ sources: [Int: any BlockSource], copy: Int?) {
        self.sources = sources
        self.copy = copy
    }

    func read(_ area: Mapping.Area, _ offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        switch area.target {
        case .member(let id):
            guard let source = sources[id] else {
                throw Fault(.diskDamaged, what: "A member of the volume is not there.", remedy: "Name all its disks.")
            }
            try source.read(at: area.start + offset, into: &buffer)
        case .mapping(let mapping): try mapping.read(at: area.start + offset, into: &buffer, self)
        }
    }

    func readCopies(_ areas: [Mapping.Area], _ offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        if let copy { return try read(areas[min(copy, areas.count - 1)], offset, into: &buffer) }
        var failure: Fault?
        var hasContent = false
        for area in areas {
            do throws(Fault) {
                guard hasContent else {
                    try read(area, offset, into: &buffer)
                    hasContent = true
                    continue
                }
                var other = [UInt8](repeating: 0, count: buffer.byteCount)
                do {
                    var span = other.mutableSpan
                    var bytes = unsafe span.mutableBytes
                    try read(area, offset, into: &bytes)
                }
                let equal = unsafe buffer.withUnsafeMutableBytes { left in
                    unsafe other.withUnsafeBytes { right in
                        guard let left = left.baseAddress, let right = right.baseAddress else { return true }
                        return unsafe memcmp(left, right, other.count) == 0
                    }
                }
                if !equal { differ.store(true, ordering: .relaxed) }
            } catch {
                guard error.code == .unreadable else { throw error }
                failure = error
                differ.store(true, ordering: .relaxed)
            }
        }
        if !hasContent, let failure { throw failure }
    }
}

/// A volume read through its mapping.
final class MappedSource: BlockSource {
    let name: String
    let sectorSize: SectorSize
    let length: ByteCount
    private let mapping: Mapping
    private let members: MappedMembers

    init(_ mapping: Mapping, _ members: [Int: any BlockSource], name: String, copy: Int? = nil) {
        self.mapping = mapping
        self.members = MappedMembers(members, copy: copy)
        self.name = name
        length = mapping.length
        sectorSize = members.values.map(\.sectorSize).max { $0.bytes < $1.bytes } ?? .s512
    }

    /// Whether copies were found to differ.
    var copiesDiffer: Bool { members.differ.load(ordering: .relaxed) }

    var file: FileWindow? { nil }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        try mapping.read(at: offset, into: &buffer, members)
    }
}

extension StackVolume {
    /// A volume with a mapping onto `members`.
    init(_ name: String, uuid: String?, layout: String, _ mapping: Mapping, _ members: [Int: any BlockSource]) {
        let source = MappedSource(mapping, members, name: name)
        self.init(
            name: name, uuid: uuid, layout: layout, source: source,
            copies: mapping.isPlainMirror
                ? (0..<mapping.copies).map { MappedSource(mapping, members, name: name, copy: $0) } : [],
            push: { mapping.pushDown($0) }, differs: { source.copiesDiffer })
    }
}
