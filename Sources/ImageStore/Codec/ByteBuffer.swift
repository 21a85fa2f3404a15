// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

/// A fixed piece of memory, page-aligned, owned by one holder at a time.
@safe final class ByteBuffer: @unchecked Sendable {
    // Handed from thread to thread, never used by two at once; the holder sees to that.
    let base: UnsafeMutableRawPointer
    let count: Int

    init(_ count: Int) {
        self.count = count
        unsafe self.base = UnsafeMutableRawPointer.allocate(byteCount: max(1, count), alignment: 4096)
    }

    deinit { unsafe base.deallocate() }

    /// The first `count` bytes for reading.
    func bytes(_ range: Range<Int>) -> UnsafeRawBufferPointer {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        return unsafe UnsafeRawBufferPointer(start: base + range.lowerBound, count: range.count)
    }

    /// A range for writing.
    func mutable(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
        precondition(range.lowerBound >= 0 && range.upperBound <= count)
        return unsafe UnsafeMutableRawBufferPointer(start: base + range.lowerBound, count: range.count)
    }
}

extension ObjectHandle {
    /// Reads `count` bytes at `offset` to the start of `buffer`.
    func read(at offset: UInt64, _ count: Int, into buffer: ByteBuffer) throws(Fault) {
        var span = unsafe MutableRawSpan(_unsafeBytes: buffer.mutable(0..<count))
        try read(at: ByteCount(offset), into: &span)
    }
}

extension Array where Element == UInt8 {
    /// ``withUnsafeBytes(_:)`` for bodies that throw faults.
    func withRawBytes<R>(_ body: (UnsafeRawBufferPointer) throws(Fault) -> R) throws(Fault) -> R {
        let result: Result<R, Fault> = unsafe withUnsafeBytes { pointer in
            do throws(Fault) { return .success(try unsafe body(pointer)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    /// ``withUnsafeMutableBytes(_:)`` for bodies that throw faults.
    mutating func withMutableRawBytes<R>(
        _ body: (UnsafeMutableRawBufferPointer) throws(Fault) -> R
    ) throws(Fault) -> R {
        let result: Result<R, Fault> = unsafe withUnsafeMutableBytes { pointer in
            do throws(Fault) { return .success(try unsafe body(pointer)) } catch { return .failure(error) }
        }
        return try result.get()
    }
}
