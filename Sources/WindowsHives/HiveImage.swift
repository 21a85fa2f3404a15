// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Synchronization

/// The content of a hive as it is after recovery: the bins of the file with the pages of logs laid over them.
///
/// Places are bytes from the start of the bins, as everything in a hive counts; the base block is kept apart.
final class HiveImage: Sendable {
    let source: HiveSource
    let header: HiveHeader
    /// The base block's 4096 bytes, mended when the hive was recovered.
    let baseBlock: [UInt8]
    let overlay: LogOverlay?
    private let cache = Mutex(PageCache())

    /// Bytes before the bins in the file.
    static let binsStart: UInt64 = 4096

    init(source: HiveSource, header: HiveHeader, baseBlock: [UInt8], overlay: LogOverlay?) {
        self.source = source
        self.header = header
        self.baseBlock = baseBlock
        self.overlay = overlay
    }

    /// Bytes of all bins.
    var length: Int { Int(header.binsLength) }

    /// `count` bytes of the bins from `offset`.
    func read(at offset: Int, count: Int) throws(Fault) -> [UInt8] {
        guard offset >= 0, count >= 0, offset <= length, count <= length - offset else {
            throw damaged("\(count) bytes at byte \(offset) of the bins lie past their end at \(length).")
        }
        return try cache.withLock { (cache: inout PageCache) throws(Fault) -> [UInt8] in
            var result: [UInt8] = []
            result.reserveCapacity(count)
            var position = offset
            while result.count < count {
                let page = position / PageCache.pageLength
                let bytes: [UInt8]
                if let kept = cache.bytes(page) {
                    bytes = kept
                } else {
                    bytes = try load(page)
                    cache.keep(page, bytes)
                }
                let start = position - page * PageCache.pageLength
                let end = min(bytes.count, start + count - result.count)
                guard start < end else {
                    throw damaged(
                        "The file ends at byte \(source.length), before byte \(HiveImage.binsStart + UInt64(position)) "
                            + "that its base block says it has.")
                }
                result += bytes[start..<end]
                position += end - start
            }
            return result
        }
    }

    /// A page; shorter where the file was cut off.
    private func load(_ page: Int) throws(Fault) -> [UInt8] {
        let start = page * PageCache.pageLength
        let whole = min(PageCache.pageLength, length - start)
        let stored = source.length - min(source.length, HiveImage.binsStart + UInt64(start))
        var bytes = try source.read(
            at: HiveImage.binsStart + UInt64(start), orNothing: min(whole, Int(min(stored, UInt64(whole)))))
        guard let overlay else { return bytes }
        // A log may make a hive grow; what no page of it tells of is empty there.
        bytes += [UInt8](repeating: 0, count: whole - bytes.count)
        try overlay.lay(over: &bytes, from: start)
        return bytes
    }

    /// Walks the headers of all bins; throws at the first that is not one. Specification, "Hive bin".
    func checkBins() throws(Fault) {
        var position = 0
        while position < length {
            let head = try read(at: position, count: 12)
            let size = Int(head.word(at: 8))
            guard head.starts(with: "hbin".utf8), Int(head.word(at: 4)) == position, size >= 4096, size % 4096 == 0,
                size <= length - position
            else { throw damaged("There is no sound bin at byte \(position) of the bins.") }
            position += size
        }
    }

    /// A fault of the hive's content.
    func damaged(_ what: String, cell: UInt32? = nil) -> Fault {
        var place = source.name
        if let cell { place += ", cell 0x\(String(cell, radix: 16)) (byte \(HiveImage.binsStart + UInt64(cell)))" }
        return Fault(
            .hiveDamaged, what: what, place: place,
            remedy: "The registry hive is damaged there: take it from a shadow copy, from Windows' own copies "
                + "(System32/config/RegBack), or from an earlier recovery point.")
    }
}

extension HiveSource {
    /// `count` bytes from byte `offset`, which need not lie within the source when there are none to read.
    fileprivate func read(at offset: UInt64, orNothing count: Int) throws(Fault) -> [UInt8] {
        count == 0 ? [] : try read(at: offset, count: count)
    }
}
