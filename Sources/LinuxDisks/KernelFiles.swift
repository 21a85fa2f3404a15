// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Glibc

/// Small files and folders the kernel shows in `/sys`, `/proc` and `/dev`, under a root that tests may move.
///
/// Reading never throws: an attribute that is missing, too long or unreadable is `nil`, because which attributes exist
/// differs by kernel and by device.
public struct KernelFiles: Sendable, Hashable {
    /// Folder in front of every path; empty for the running system. No slash at its end.
    public let root: String

    /// The running system.
    public static let live = KernelFiles(root: "")

    /// Files below `root`.
    public init(root: String) {
        self.root = root.hasSuffix("/") ? String(root.dropLast()) : root
    }

    /// Content of the file at `path`, at most `limit` bytes; `nil` when it cannot be read.
    public func bytes(_ path: String, limit: Int = 4096) -> [UInt8]? {
        let descriptor = unsafe relight_open(root + path, O_RDONLY | O_NONBLOCK, 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var result: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: min(limit, 65_536))
        while result.count < limit {
            let wanted = min(buffer.count, limit - result.count)
            let got = unsafe buffer.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, wanted) }
            if got < 0, errno == EINTR { continue }
            if got < 0 { return nil }
            if got == 0 { break }
            result.append(contentsOf: buffer[0..<got])
        }
        return result
    }

    /// The file's text without blanks at its ends and without control characters; `nil` when unreadable or empty.
    public func word(_ path: String, limit: Int = 4096) -> String? {
        guard let bytes = bytes(path, limit: limit) else { return nil }
        return KernelFiles.clean(bytes)
    }

    /// The file as an unsigned decimal number.
    public func number(_ path: String) -> UInt64? { word(path, limit: 64).flatMap { UInt64($0) } }

    /// The file's lines, at most `limit` bytes of them; empty when it cannot be read.
    public func lines(_ path: String, limit: Int = 4 << 20) -> [String] {
        guard let bytes = bytes(path, limit: limit) else { return [] }
        return bytes.split(separator: UInt8(ascii: "\n")).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Names in a folder, sorted, without `.` and `..`; empty when it cannot be read. At most 100,000.
    public func names(_ folder: String) -> [String] {
        guard let stream = unsafe opendir(root + folder) else { return [] }
        defer { unsafe closedir(stream) }
        var result: [String] = []
        while result.count < 100_000, let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { result.append(name) }
        }
        return result.sorted()
    }

    /// Whether something is at `path`.
    public func exists(_ path: String) -> Bool { unsafe access(root + path, F_OK) == 0 }

    /// `path` with all symbolic links followed, without the root; `nil` when it leads nowhere or out of the root.
    public func resolved(_ path: String) -> String? {
        guard let found = KernelFiles.realPath(root + path) else { return nil }
        guard !root.isEmpty else { return found }
        guard let base = KernelFiles.realPath(root), found.hasPrefix(base + "/") else { return nil }
        return String(found.dropFirst(base.count))
    }

    static func realPath(_ path: String) -> String? {
        guard let found = unsafe realpath(path, nil) else { return nil }
        defer { unsafe free(found) }
        return unsafe String(cString: found)
    }

    /// Text a device gave, made safe to print: control characters become blanks, blanks at the ends go.
    static func clean(_ bytes: some Sequence<UInt8>) -> String? {
        let text = String(decoding: bytes.map { $0 < 0x20 || $0 == 0x7F ? 0x20 : $0 }, as: UTF8.self)
        let trimmed = text.drop { $0 == " " }
        guard let last = trimmed.lastIndex(where: { $0 != " " }) else { return nil }
        return String(trimmed[...last])
    }

    /// Undoes the octal escapes (`\040`) of mountinfo and swaps.
    static func unescaped(_ text: some StringProtocol) -> String {
        guard text.contains("\\") else { return String(text) }
        var result: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.first {
            if byte == UInt8(ascii: "\\"), rest.count >= 4,
                let value = UInt8(String(decoding: rest.dropFirst().prefix(3), as: UTF8.self), radix: 8)
            {
                result.append(value)
                rest = rest.dropFirst(4)
            } else {
                result.append(byte)
                rest = rest.dropFirst()
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}

/// A device's number, `major:minor`.
public struct DeviceNumber: Hashable, Sendable, CustomStringConvertible {
    /// Which driver.
    public let major: UInt32
    /// Which of its devices.
    public let minor: UInt32

    /// A number from its halves.
    public init(major: UInt32, minor: UInt32) {
        self.major = major
        self.minor = minor
    }

    /// Reads `8:1`.
    public init?(_ text: some StringProtocol) {
        let halves = text.split(separator: ":", omittingEmptySubsequences: false)
        guard halves.count == 2, let major = UInt32(halves[0]), let minor = UInt32(halves[1]) else { return nil }
        self.init(major: major, minor: minor)
    }

    /// A number as stat(2) gives it.
    init(raw: UInt64) {
        self.init(major: relight_device_major(raw), minor: relight_device_minor(raw))
    }

    /// `8:1`.
    public var description: String { "\(major):\(minor)" }
}
