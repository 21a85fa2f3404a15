// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import Glibc
import Synchronization

/// Answers the kernel's requests for one file with the content of a target.
final class FuseServer: Sendable {
    private let target: any BlockTarget
    /// The connection to the kernel; owned, closed when released.
    let descriptor: Int32
    /// The size programs see: a resizer may cut the file short.
    private let size: Mutex<UInt64>
    private let failed = Mutex<Fault?>(nil)

    init(_ target: any BlockTarget, _ descriptor: Int32) {
        self.target = target
        self.descriptor = descriptor
        size = Mutex(target.length.bytes)
    }

    deinit { close(descriptor) }

    /// The first fault of the target; the program that met it was told only that input or output failed.
    var fault: Fault? { failed.withLock { $0 } }

    /// Answers requests until the file is unmounted. Any number of threads may do so.
    func serve() {
        let request = UnsafeMutableRawBufferPointer.allocate(byteCount: Fuse.buffer, alignment: 4096)
        let reply = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Fuse.replyHeader + Int(Fuse.largest), alignment: 4096)
        defer {
            unsafe request.deallocate()
            unsafe reply.deallocate()
        }
        while true {
            let got = unsafe Glibc.read(descriptor, request.baseAddress, request.count)
            if got < 0 {
                // ENOENT: the request was taken back meanwhile. ENODEV: unmounted.
                if errno == EINTR || errno == EAGAIN || errno == ENOENT { continue }
                return
            }
            if got == 0 { return }
            let bytes = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(rebasing: request[0..<got]))
            guard let header = try? Fuse.Request(bytes) else { continue }
            let outcome = unsafe answer(header, bytes, reply)
            guard outcome != .none else { continue }
            unsafe send(outcome, header.unique, reply)
        }
    }

    private enum Outcome: Equatable {
        /// Nothing is expected.
        case none
        /// Done; so many bytes lie in the buffer behind the header.
        case done(Int)
        /// An errno.
        case failed(Int32)
    }

    private func send(_ outcome: Outcome, _ unique: UInt64, _ reply: UnsafeMutableRawBufferPointer) {
        var count = 0
        var problem: Int32 = 0
        switch outcome {
        case .none: return
        case .done(let bytes): count = bytes
        case .failed(let errno): problem = errno
        }
        let total = Fuse.replyHeader + count
        unsafe reply.storeBytes(of: UInt32(total), toByteOffset: 0, as: UInt32.self)
        unsafe reply.storeBytes(of: -problem, toByteOffset: 4, as: Int32.self)
        unsafe reply.storeBytes(of: unique, toByteOffset: 8, as: UInt64.self)
        // ENOENT: whoever asked was killed meanwhile. There is nobody else to tell.
        _ = unsafe Glibc.write(descriptor, reply.baseAddress, total)
    }

    private func answer(_ request: Fuse.Request, _ bytes: RawSpan, _ reply: UnsafeMutableRawBufferPointer) -> Outcome {
        func give(_ content: [UInt8]) -> Outcome {
            unsafe UnsafeMutableRawBufferPointer(rebasing: reply[Fuse.replyHeader...]).copyBytes(from: content)
            return .done(content.count)
        }
        guard let operation = request.operation else { return .failed(ENOSYS) }
        do {
            switch operation {
            case .forget, .forgetMany, .interrupt: return .none
            case .start:
                let version = try bytes.littleEndian(UInt32.self, "major", at: 40)
                // An older kernel is told ours and asks again or gives up; it never speaks first.
                return version < Fuse.major ? .failed(EPROTO) : give(Fuse.startReply)
            case .getAttributes: return give(Fuse.attributes(size: size.withLock { $0 }))
            case .setAttributes:
                if try bytes.littleEndian(UInt32.self, "valid", at: 40) & Fuse.setsSize != 0 {
                    try resize(try bytes.littleEndian(UInt64.self, "size", at: 56))
                }
                return give(Fuse.attributes(size: size.withLock { $0 }))
            case .open: return give(Fuse.openReply)
            case .read: return try unsafe read(bytes, reply)
            case .write: return try written(bytes).map { give(Fuse.written($0)) } ?? .failed(EINVAL)
            case .statistics: return give(Fuse.statistics(size: size.withLock { $0 }))
            case .allocate: return try allocate(bytes)
            case .sync, .flush:
                try target.flush()
                return .done(0)
            case .release, .end: return .done(0)
            }
        } catch let fault as Fault {
            failed.withLock { if $0 == nil { $0 = fault } }
            return .failed(fault.code.exit == .refused ? ENOSPC : EIO)
        } catch let problem as Refused {
            return .failed(problem.errno)
        } catch {
            return .failed(EINVAL)
        }
    }

    /// An answer that is no fault of the target.
    private struct Refused: Error { var errno: Int32 }

    private func read(_ bytes: RawSpan, _ reply: UnsafeMutableRawBufferPointer) throws -> Outcome {
        let offset = try bytes.littleEndian(UInt64.self, "offset", at: 48)
        let wanted = try bytes.littleEndian(UInt32.self, "size", at: 56)
        guard wanted <= Fuse.largest else { return .failed(EINVAL) }
        let end = size.withLock { $0 }
        guard offset < end else { return .done(0) }
        let count = Int(min(UInt64(wanted), end - offset))
        var buffer = unsafe MutableRawSpan(
            _unsafeBytes: UnsafeMutableRawBufferPointer(
                rebasing: reply[Fuse.replyHeader..<Fuse.replyHeader + count]))
        try target.read(at: ByteCount(offset), into: &buffer)
        return .done(count)
    }

    /// Number of bytes written; `nil` when the request contradicts itself.
    private func written(_ bytes: RawSpan) throws -> UInt32? {
        let offset = try bytes.littleEndian(UInt64.self, "offset", at: 48)
        let count = try bytes.littleEndian(UInt32.self, "size", at: 56)
        let first = Fuse.requestHeader + 40
        guard Int(count) <= bytes.byteCount - first else { return nil }
        let end = size.withLock { $0 }
        // The file does not grow: what would lie past its end has no room, as on a disk.
        guard let last = ByteCount(offset).adding(ByteCount(UInt64(count))), last.bytes <= end else {
            throw Refused(errno: ENOSPC)
        }
        try target.write(at: ByteCount(offset), bytes.extracting(first..<first + Int(count)))
        return count
    }

    private func allocate(_ bytes: RawSpan) throws -> Outcome {
        let offset = try bytes.littleEndian(UInt64.self, "offset", at: 48)
        let length = try bytes.littleEndian(UInt64.self, "length", at: 56)
        let mode = try bytes.littleEndian(UInt32.self, "mode", at: 64)
        let end = size.withLock { $0 }
        guard let last = ByteCount(offset).adding(ByteCount(length)) else { return .failed(EFBIG) }
        if mode & (Fuse.allocateHole | Fuse.allocateZeros) != 0 {
            try target.zero(Extent(from: ByteCount(offset), to: min(last, ByteCount(end))))
            return .done(0)
        }
        // Room is there as long as there is any.
        return last.bytes <= end ? .done(0) : .failed(ENOSPC)
    }

    /// Cuts the file short, or lets it have its length again; what comes back is zero.
    private func resize(_ wanted: UInt64) throws {
        guard wanted <= target.length.bytes else { throw Refused(errno: EFBIG) }
        let before = size.withLock { size in
            defer { size = wanted }
            return size
        }
        if wanted > before { try target.zero(Extent(from: ByteCount(before), to: ByteCount(wanted))) }
    }
}
