// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Glibc
import Testing
import Tools

@testable import WindowsHives

let xz = Tool("xz", package: "xz-utils")
let sha256sum = Tool("sha256sum", package: "coreutils")

/// A folder that goes away with the value.
final class ScratchFolder: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/relight-hives-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw Fault(.system, what: "no scratch folder", remedy: "") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = try? Tool("rm", package: "coreutils").run(["-rf", "--one-file-system", path]) }

    /// Writes a file and gives its path.
    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let file = "\(path)/\(name)"
        let descriptor = unsafe open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        defer { close(descriptor) }
        let written = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
        try #require(written == bytes.count)
        return file
    }
}

/// Whole content of a file.
func content(_ path: String) throws -> [UInt8] {
    let source = try HiveSource(path: path)
    return try source.read(at: 0, count: Int(source.length))
}

/// Real hives, logs and expectations, beside the source tree: `../shared/data/windows`. They are not part of it.
enum RealData {
    static let root = "/" + #filePath.split(separator: "/").dropLast(4).joined(separator: "/") + "/shared/data/windows"
    static let isThere = unsafe access(root, R_OK) == 0
    static let isRequired = unsafe getenv("RELIGHT_DATA").map { unsafe String(cString: $0) } == "1"
    static let missing: Comment = "needs real hives in ../shared/data/windows, which are not part of the source"

    /// The bytes of a file below the folder; one whose name ends in `.xz` is unpacked.
    static func bytes(_ name: String) throws -> [UInt8] {
        let path = "\(root)/\(name)"
        guard name.hasSuffix(".xz") else { return try content(path) }
        let scratch = try ScratchFolder()
        try Tool("bash", package: "bash").check(["-c", "exec xz -dc \"$1\" > \"$2\"", "sh", path, "\(scratch.path)/x"])
        return try content("\(scratch.path)/x")
    }

    static func source(_ name: String) throws -> HiveSource { HiveSource(try bytes(name), name: name) }

    static func text(_ name: String) throws -> String { String(decoding: try bytes(name), as: UTF8.self) }
}

/// Other readers of hives, through `Tests/Judges/dump_hive.py`.
enum Judge: String {
    case hivex, regipy

    static let script =
        "/" + #filePath.split(separator: "/").dropLast(2).joined(separator: "/") + "/Judges/dump_hive.py"

    /// The Python that has it; `nil` when none does.
    var python: String? {
        ["/usr/bin/python3", "/usr/local/bin/python3"].first { python in
            (try? Tool(python, package: "python3").run(["-c", "import \(rawValue)"]))?.status == 0
        } ?? fromPath
    }

    /// The Python that the calling shell would take.
    private var fromPath: String? {
        let search = unsafe getenv("PATH").map { unsafe String(cString: $0) } ?? ""
        return search.split(separator: ":").map { "\($0)/python3" }.first { python in
            (try? Tool(python, package: "python3").run(
                ["-c", "import \(rawValue)"], environment: ["PATH": search]))?.status == 0
        }
    }

    /// What it sees, a line for each key and value, sorted.
    func dump(_ hive: [UInt8], logs: [[UInt8]] = [], in scratch: ScratchFolder) throws -> [String] {
        let python = try #require(python)
        let search = unsafe getenv("PATH").map { unsafe String(cString: $0) } ?? ""
        let files = try ([hive] + logs).enumerated().map { try scratch.write("judged\($0)", $1) }
        let out = "\(scratch.path)/dump"
        try Tool(python, package: "python3").check(
            [Judge.script, rawValue, files[0], out] + files.dropFirst(), environment: ["PATH": search], seconds: 600)
        return String(decoding: try content(out), as: UTF8.self).split(separator: "\n").map(String.init).sorted()
    }
}

/// Whether libhivex can be asked.
let hasHivex = Judge.hivex.python != nil
/// Whether regipy can be asked.
let hasRegipy = Judge.regipy.python != nil

/// What our reader sees, in the judges' form.
enum Ours {
    private static func name(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { $0.value < 32 || $0 == "%" || $0 == "\\" }) else { return text }
        return text.unicodeScalars.map { scalar in
            guard scalar.value < 32 || scalar == "%" || scalar == "\\" else { return String(scalar) }
            return "%" + (scalar.value < 16 ? "0" : "") + String(scalar.value, radix: 16, uppercase: true)
        }.joined()
    }

    private static func data(_ bytes: [UInt8]) -> String {
        if bytes.count <= 64 { return Hex.text(bytes) }
        let check = String(CRC32.ieee.checksum(bytes), radix: 16)
        return String(repeating: "0", count: 8 - check.count) + check
    }

    /// Every key and value; `types` limits the values, and `hasClass` adds the class of keys.
    static func dump(_ hive: Hive, types: Set<UInt32>? = nil, hasClass: Bool = false) throws -> [String] {
        var lines: [String] = []
        func walk(_ key: HiveKey, _ path: String) throws {
            let place = path.isEmpty ? "\\" : path
            lines.append(
                "K\t\(place)\t\(key.lastWritten.ticks)" + (hasClass ? "\t\(try key.className() ?? "")" : ""))
            for value in try key.values() where types?.contains(value.type.rawValue) ?? true {
                let bytes = try value.data()
                #expect(bytes.count == value.length)
                lines.append(
                    "V\t\(place)\t\(name(value.name))\t\(value.type.rawValue)\t\(bytes.count)\t\(data(bytes))")
            }
            for subkey in try key.subkeys() { try walk(subkey, "\(path)\\\(name(subkey.name))") }
        }
        try walk(try hive.root(), "")
        return lines.sorted()
    }
}

/// Compares two dumps, and names the first lines in which they differ.
func expectSame(_ ours: [String], _ theirs: [String], sourceLocation: SourceLocation = #_sourceLocation) {
    guard ours != theirs else { return }
    let difference = Set(ours).symmetricDifference(theirs).sorted().prefix(6).map { $0.prefix(300) }
    Issue.record(
        "\(ours.count) lines of ours, \(theirs.count) of theirs; \(difference.joined(separator: "\n"))",
        sourceLocation: sourceLocation)
}

extension [UInt8] {
    /// Stores `value` little-endian at `offset`.
    mutating func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        for index in 0..<T.bitWidth / 8 { self[offset + index] = UInt8(truncatingIfNeeded: value >> T(8 * index)) }
    }

    /// The hive's base block with its checksum made right.
    mutating func mendBaseBlock() { put(HiveHeader.checksum(self), at: 508) }
}
