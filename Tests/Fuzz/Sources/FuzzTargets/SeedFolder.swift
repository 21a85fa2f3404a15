// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import Tools

/// A file for a program that makes a seed; it goes away with the value.
final class Scratch {
    let path: String

    init(bytes: Int) throws {
        var template = Array("/tmp/relight-fuzz-XXXXXX".utf8CString)
        let descriptor = unsafe mkstemp(&template)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard descriptor >= 0, ftruncate(descriptor, off_t(bytes)) == 0 else {
            throw Fault(.system, what: "No scratch file can be made.", place: path, remedy: "Free some room in /tmp.")
        }
        close(descriptor)
    }

    deinit { unsafe unlink(path) }

    @discardableResult
    func run(
        _ program: String, _ package: String, _ arguments: [String], _ input: String = "",
        environment: [String: String] = [:]
    ) throws -> String {
        try Tool(program, package: package).check(arguments, input: Array(input.utf8), environment: environment)
            .standardOutput
    }

    func bytes() throws -> [UInt8] {
        guard let content = SeedFolder.content(path) else {
            throw Fault(.system, what: "The scratch file cannot be read.", place: path, remedy: "Look at /tmp.")
        }
        return content
    }
}

/// The committed inputs: a folder for each target.
public enum SeedFolder {
    /// `Tests/Fuzz/Seeds` of the source tree this was built from.
    public static let path = "\(#filePath)".split(separator: "/").dropLast(3).map { "/" + $0 }.joined() + "/Seeds"

    /// A file's bytes; `nil` when it cannot be read.
    public static func content(_ path: String) -> [UInt8]? {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var result: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let got = unsafe buffer.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
            if got < 0 { return nil }
            if got == 0 { return result }
            result += buffer[..<got]
        }
    }

    /// The inputs of a target, by name.
    public static func inputs(_ target: FuzzTarget) -> [(name: String, bytes: [UInt8])] {
        guard let stream = unsafe opendir("\(path)/\(target.name)") else { return [] }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) {
                unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted().compactMap { name in content("\(path)/\(target.name)/\(name)").map { (name, $0) } }
    }

    /// Makes the seeds of all targets anew, as `seed-NAME`; inputs with other names stay.
    public static func generate() throws {
        for target in FuzzTarget.all {
            unsafe mkdir(path, 0o755)
            unsafe mkdir("\(path)/\(target.name)", 0o755)
            for seed in try target.seeds() {
                let file = "\(path)/\(target.name)/seed-\(seed.name)"
                let descriptor = unsafe open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
                defer { close(descriptor) }
                let written = unsafe seed.bytes.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
                guard written == seed.bytes.count else {
                    throw Fault(.system, what: "The seed cannot be written.", place: file, remedy: "Check the folder.")
                }
                print("\(target.name)/seed-\(seed.name): \(seed.bytes.count) bytes")
            }
        }
    }
}
