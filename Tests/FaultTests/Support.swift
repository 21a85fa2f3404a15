// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import Testing
import Tools

/// How much is tested: `RELIGHT_TESTS=full` asks for every point, else every so many-th.
enum Amount {
    static let isFull: Bool = unsafe getenv("RELIGHT_TESTS").map { unsafe String(cString: $0) } == "full"
}

/// A folder that goes away with the value.
final class Scratch: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/relight-faults-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw Fault(.system, what: "no scratch folder", remedy: "") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = try? Tool("rm", package: "coreutils").run(["-rf", "--one-file-system", path]) }

    /// Runs a script in the folder; `$relight` stands for the program. Throws when a command of it fails.
    @discardableResult
    func sh(_ script: String, in folder: String = ".") throws -> String {
        let output = try Tool("bash", package: "bash").run(
            ["-euo", "pipefail", "-c", "PATH=/usr/sbin:/usr/bin:/sbin:/bin; " + script],
            environment: ["relight": try Program.path()], directory: "\(path)/\(folder)")
        guard output.status == 0 else {
            throw Fault(.toolFailed, what: output.standardOutput + output.standardError, place: script, remedy: "")
        }
        return output.standardOutput
    }
}

/// The built program, and strace to interfere with it.
enum Program {
    static let beside: String? = {
        guard let slash = CommandLine.arguments[0].lastIndex(of: "/") else { return nil }
        let beside = CommandLine.arguments[0][..<slash] + "/relight"
        return unsafe access(String(beside), X_OK) == 0 ? String(beside) : nil
    }()

    static func path() throws -> String { try #require(beside, "the program relight is not built") }

    static func run(_ arguments: [String], in folder: String) throws -> ToolOutput {
        try Tool(try path(), package: "relight").run(arguments, directory: folder, seconds: 120)
    }

    /// A processor this process may run on.
    private static let processor: String = {
        let list = try? Tool("taskset", package: "util-linux").check(["-cp", "\(getpid())"]).lastLine
        return String(list?.split(separator: " ").last?.prefix { $0.isNumber } ?? "0")
    }()

    /// Runs the program under strace on one processor, so that it has one worker and a call's number tells which it is.
    static func traced(_ options: [String], _ arguments: [String], in folder: String) throws -> ToolOutput {
        try Tool("taskset", package: "util-linux").run(
            ["-c", processor, "/usr/bin/strace"] + options + ["--", try path()] + arguments, directory: folder,
            seconds: 120)
    }

    /// Whether the program is built and strace may trace it.
    static let canBeTraced: Bool = {
        guard let beside, unsafe access("/usr/bin/strace", X_OK) == 0 else { return false }
        let output = try? Tool("/usr/bin/strace", package: "strace").run(["-o", "/dev/null", beside, "--version"])
        return output?.status == 0
    }()
    static let why: Comment = "needs the built program, and strace with the right to trace it"
}

/// A call of the program that changes files.
struct Call: Sendable, CustomStringConvertible {
    /// The system call's name.
    var name: String
    /// The how-many-th call of this name, from 1.
    var number: Int
    /// As strace prints it.
    var text: String

    var description: String { "\(name) \(number)" }

    /// Calls by which files are made, changed, flushed, renamed and removed.
    static let names = [
        "pwrite64", "write", "fsync", "fdatasync", "syncfs", "rename", "renameat", "renameat2", "link", "linkat",
        "unlink",
        "unlinkat", "truncate", "ftruncate", "fallocate", "mkdir", "mkdirat", "rmdir", "openat", "copy_file_range",
    ]

    /// Runs the program and lists these calls, in their order. Of `openat`, only those that may create or cut a file;
    /// of `write`, none to standard output and standard error.
    static func record(_ arguments: [String], in folder: String) throws -> (calls: [Call], output: ToolOutput) {
        let log = folder + "/strace.log"
        let output = try Program.traced(
            [
                "-f", "--seccomp-bpf", "-qq", "-s", "16", "-o", log, "-e", "signal=none", "-e",
                "trace=" + names.joined(separator: ","),
            ],
            arguments, in: folder)
        let text = try Tool("cat", package: "coreutils").check([log], limit: 64 << 20).standardOutput
        _ = unsafe unlink(log)
        var counts: [String: Int] = [:]
        var calls: [Call] = []
        var main: Substring?
        for line in text.split(separator: "\n") {
            guard let space = line.firstIndex(of: " "), let open = line.firstIndex(of: "("), space < open else {
                continue
            }
            let process = line[..<space]
            let rest = line[space...].drop { $0 == " " }
            let name = String(rest.prefix { $0 != "(" })
            guard names.contains(name) else { continue }
            main = main ?? process
            let makes = rest.contains("O_CREAT") || rest.contains("O_TRUNC")
            let matters =
                name == "openat"
                ? makes && !rest.contains("\"/dev/null\"")
                : name == "write" ? !rest.hasPrefix("write(1,") && !rest.hasPrefix("write(2,") : true
            guard process == main else {
                // Programs it asks about the machine only read.
                #expect(!matters, "a call on another thread or by another program: \(line)")
                continue
            }
            counts[name, default: 0] += 1
            if matters { calls.append(Call(name: name, number: counts[name] ?? 0, text: String(rest.prefix(200)))) }
        }
        return (calls, output)
    }
}

extension ToolOutput {
    /// A sentence for whoever runs the program, not a crash.
    var isCleanFailure: Bool {
        !standardError.isEmpty && !standardError.contains("Fatal error") && !standardError.contains("Crash")
    }
}
