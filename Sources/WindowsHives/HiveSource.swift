// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Glibc

/// Random access to the bytes of a hive or of a log. Reads may come from several threads, one at a time for each hive.
public struct HiveSource: Sendable {
    /// What to call it in messages: a path.
    public let name: String
    /// Size in bytes.
    public let length: UInt64
    private let reader: @Sendable (_ offset: UInt64, _ count: Int) throws(Fault) -> [UInt8]

    /// Bytes that `read` delivers: exactly `count` of them from byte `offset`, which always lie within `length`.
    public init(
        name: String, length: UInt64,
        read: @escaping @Sendable (_ offset: UInt64, _ count: Int) throws(Fault) -> [UInt8]
    ) {
        self.name = name
        self.length = length
        self.reader = read
    }

    /// Bytes in memory.
    public init(_ bytes: [UInt8], name: String = "hive") {
        self.init(name: name, length: UInt64(bytes.count)) { (offset: UInt64, count: Int) throws(Fault) -> [UInt8] in
            let start = Int(offset)
            return Array(bytes[start..<start + count])
        }
    }

    /// A plain file, opened read-only. Throws `missing`, `no-access`, `wrong-kind`, `system`.
    public init(path: String) throws(Fault) {
        let file = try OpenFile(path)
        self.init(name: path, length: file.length) { (offset: UInt64, count: Int) throws(Fault) -> [UInt8] in
            try file.read(offset, count)
        }
    }

    /// `count` bytes from byte `offset`; throws where they do not lie within the source.
    func read(at offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        guard count >= 0, offset <= length, UInt64(count) <= length - offset else {
            throw Fault(
                .hiveDamaged, what: "\(count) bytes at byte \(offset) lie past its end; it has \(length) bytes.",
                place: name, remedy: "The file was cut short: take it from a backup or an earlier recovery point.")
        }
        if count == 0 { return [] }
        let bytes = try reader(offset, count)
        guard bytes.count == count else {
            throw Fault(
                .system, what: "Reading \(count) bytes at byte \(offset) gave \(bytes.count).", place: name,
                remedy: "Check whether the disk is still attached, and the kernel log.")
        }
        return bytes
    }
}

/// An open file, closed when released.
private final class OpenFile: Sendable {
    let descriptor: Int32
    let path: String
    let length: UInt64

    init(_ path: String) throws(Fault) {
        let opened = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard opened >= 0 else {
            let problem = errno
            let text = unsafe String(cString: strerror(problem))
            throw Fault(
                problem == ENOENT || problem == ENOTDIR
                    ? .missing : problem == EACCES || problem == EPERM ? .noAccess : .system,
                what: "The file cannot be opened: \(text).", place: path,
                remedy: "Check the name, and whether the filesystem it lies on is mounted.")
        }
        var status = stat()
        guard unsafe fstat(opened, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
            let length = UInt64(exactly: status.st_size)
        else {
            close(opened)
            throw Fault(
                .wrongKind, what: "This is not a plain file.", place: path,
                remedy: "Name a registry hive, such as Windows/System32/config/SYSTEM of a mounted Windows volume.")
        }
        descriptor = opened
        self.path = path
        self.length = length
    }

    deinit { close(descriptor) }

    func read(_ offset: UInt64, _ count: Int) throws(Fault) -> [UInt8] {
        var failure: Int32 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            guard let base = buffer.baseAddress else { return }
            while filled < count {
                let got = unsafe pread(
                    descriptor, base + filled, count - filled, off_t(truncatingIfNeeded: offset) + off_t(filled))
                if got > 0 {
                    filled += got
                } else if got == 0 {
                    return
                } else if errno != EINTR {
                    failure = errno
                    return
                }
            }
        }
        guard failure == 0 else {
            throw Fault(
                .unreadable, what: "Reading at byte \(offset) failed: \(unsafe String(cString: strerror(failure))).",
                place: path, remedy: "The disk may be failing: check the kernel log, and image it before anything else."
            )
        }
        return bytes
    }
}
