// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc
public import LinuxDisks
import Tools

/// The list of files the initramfs should have become, held against what is there.
///
/// The kernel unpacks the initramfs into memory; when that is full it logs one line and starts `/init` all the same,
/// with files missing or cut short. The list lies in the first part of the image, so it is there even then.
///
/// Form, text: first line `relight-manifest 1 <file count> <total bytes> <needed memory in MiB>`, then
/// `<sha256> <size> <path>` for each file, sorted by path.
public struct UnpackedManifest: Hashable, Sendable {
    /// Where it lies.
    public static let path = "\(BootEnvironment.folder)/manifest"
    /// A manifest is refused above this size, bytes.
    static let limit = 32 << 20

    /// A file that should be there.
    public struct File: Hashable, Sendable {
        /// SHA-256 of its content, 64 lower-case hexadecimal digits.
        public var sha256: String
        /// Size in bytes.
        public var size: UInt64
        /// Absolute path.
        public var path: String
    }
    /// Memory a machine needs, MiB.
    public var neededMemory: UInt64
    /// The sum of all sizes, bytes.
    public var totalBytes: UInt64
    /// The files.
    public var files: [File]

    /// Reads the text. Throws `damaged` naming the line; nothing in it is believed before it was checked.
    public init(parsing bytes: [UInt8]) throws(Fault) {
        func damaged(_ line: Int, _ what: String) -> Fault {
            Fault(
                .environmentIncomplete, what: "Line \(line): \(what).", place: UnpackedManifest.path,
                remedy: "The medium is damaged: check it against its checksum and write it again.")
        }
        guard bytes.count <= UnpackedManifest.limit else { throw damaged(1, "the list is implausibly long") }
        let lines = bytes.split(separator: UInt8(ascii: "\n"))
        guard let first = lines.first else { throw damaged(1, "the list is empty") }
        let head = String(decoding: first, as: UTF8.self).split(separator: " ")
        guard head.count == 5, head[0] == "relight-manifest", head[1] == "1", let count = Int(head[2]), count >= 0,
            let total = UInt64(head[3]), let needed = UInt64(head[4]), needed <= 1 << 30
        else { throw damaged(1, "it is not \"relight-manifest 1 COUNT BYTES MEMORY\"") }
        guard lines.count - 1 == count else {
            throw damaged(1, "\(count) files are announced, \(lines.count - 1) are listed")
        }
        neededMemory = needed
        totalBytes = total
        files = []
        files.reserveCapacity(count)
        var sum: UInt64 = 0
        for (index, line) in lines.dropFirst().enumerated() {
            let parts = line.split(separator: UInt8(ascii: " "), maxSplits: 2)
            guard parts.count == 3, parts[0].count == 64, let size = UInt64(String(decoding: parts[1], as: UTF8.self)),
                parts[0].allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }),
                parts[2].first == UInt8(ascii: "/"), !parts[2].contains(0)
            else { throw damaged(index + 2, "it is not \"SHA256 SIZE PATH\"") }
            let (next, overflow) = sum.addingReportingOverflow(size)
            guard !overflow else { throw damaged(index + 2, "the sizes add up to more than 2^64") }
            sum = next
            files.append(
                File(
                    sha256: String(decoding: parts[0], as: UTF8.self), size: size,
                    path: String(decoding: parts[2], as: UTF8.self)))
        }
        guard sum == total else { throw damaged(1, "\(total) bytes are announced, \(sum) are listed") }
    }

    /// What differs from the list.
    public struct Difference: Hashable, Sendable {
        /// The file's path.
        public var path: String
        /// What is wrong, a few words.
        public var what: String
    }

    /// Files that are missing or have another size. Reads no content.
    public func differences(_ system: KernelFiles = .live) -> [Difference] {
        files.compactMap { file in
            var status = stat()
            guard unsafe lstat(system.root + file.path, &status) == 0 else {
                return Difference(path: file.path, what: "missing")
            }
            guard status.st_mode & S_IFMT == S_IFREG else { return Difference(path: file.path, what: "not a file") }
            guard UInt64(exactly: status.st_size) == file.size else {
                return Difference(path: file.path, what: "\(status.st_size) of \(file.size) bytes")
            }
            return nil
        }
    }

    /// Files whose content differs, by the `sha256sum` program; slow.
    public func contentDifferences() throws(Fault) -> [Difference] {
        let list = files.map { "\($0.sha256)  \($0.path)\n" }.joined()
        let result = try Tool("sha256sum", package: "coreutils").run(
            ["--check", "--quiet", "-"], input: Array(list.utf8), seconds: 1800)
        guard result.status != 0 else { return [] }
        return result.standardOutput.split(separator: "\n").map { line in
            let end = line.lastIndex(of: ":") ?? line.endIndex
            return Difference(path: String(line[..<end]), what: "different content")
        }
    }

    /// What to tell people on a machine that has `memory` MiB, at most 80 columns wide.
    public func complaint(_ differences: [Difference], memory: UInt64) -> String {
        var lines = ["RELIGHT IS INCOMPLETE: \(differences.count) of its \(files.count) files did not fit into memory."]
        if memory < neededMemory {
            lines.append("This machine has \(memory) MB of memory; Relight needs \(neededMemory) MB.")
            lines.append("Add memory (in a virtual machine: raise it) and start again.")
        } else {
            lines.append("This machine has \(memory) MB of memory, and \(neededMemory) MB should do.")
            lines.append("The medium may be damaged: check it against its checksum and write it again.")
        }
        lines.append("The first that are missing or cut short:")
        lines += differences.prefix(5).map { "  \($0.path.prefix(60)) (\($0.what))" }
        lines.append("Nothing on any disk was touched. Do not work with half a tool set.")
        return lines.joined(separator: "\n")
    }

    /// The machine's memory in MiB, as the kernel counts it (firmware and the kernel itself are taken off).
    public static func memory(_ files: KernelFiles = .live) -> UInt64 {
        for line in files.lines("/proc/meminfo", limit: 65_536) where line.hasPrefix("MemTotal:") {
            return line.split(separator: " ").dropFirst().first.flatMap { UInt64($0) }.map { $0 / 1024 } ?? 0
        }
        return 0
    }
}

extension FaultCode {
    /// The environment's own files are not all there.
    public static let environmentIncomplete = FaultCode("environment.incomplete", exit: .failed)
}
