// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Testing
import Tools

@testable import WindowsHives

/// `relight hive show`, with hives of the tests' own making.
@Suite(.enabled(if: Program.path != nil, "needs the built program"))
struct HiveCommandTests {
    typealias Key = HiveBuilder.Key
    typealias Value = HiveBuilder.Value
    let scratch: Scratch

    init() throws { scratch = try Scratch() }

    /// A SYSTEM hive whose computer is called `name`.
    static func system(_ name: String) -> [UInt8] {
        var root = Key("ROOT")
        for (name, number) in [("Current", 1), ("Default", 1), ("Failed", 0), ("LastKnownGood", 1)]
            as [(String, UInt32)]
        {
            root.set("Select", Value(name, number))
        }
        root.set("ControlSet001\\Control\\ComputerName\\ComputerName", Value("ComputerName", name))
        root.set("ControlSet001\\Services\\disk", Value("Start", 0))
        root.set("ControlSet001\\Services\\disk", Value("Group", "SCSI Class"))
        root.set("ControlSet001\\Services\\disk", Value("DependOnService", ["a", "b"]))
        root.set("ControlSet001\\Services\\disk", Value("ImagePath", "System32\\drivers\\disk.sys", type: 2))
        root.set("ControlSet001\\Services\\disk", Value("Blob", 3, [UInt8](0..<100)))
        root.set("ControlSet001\\Services\\disk", Value("", 11, [1, 0, 0, 0, 0, 0, 0, 0x80]))
        root.set("ControlSet001\\Services\\evil\u{1B}[31m\nname", Value("x\u{7}", "y\u{1B}[0m"))
        return HiveBuilder().build(root)
    }

    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let path = "\(scratch.path)/\(name)"
        try Data(bytes).write(to: URL(filePath: path))
        return path
    }

    private struct Shown: Decodable {
        var schema: String
        var kind: String
        var version: String
        var state: State
        var keys: [ShownKey]
        var findings: [Finding]
        var windows: Windows?
        struct State: Decodable {
            var state: String
            var because: String?
            var changes: Int?
            var logs: [String]?
        }
        struct Windows: Decodable { var computerName: String? }
        struct ShownKey: Decodable {
            var path: String
            var values: [ShownValue]
            var subkeys: [String]
            var lastWritten: String
        }
        struct ShownValue: Decodable {
            var name: String
            var type: String
            var typeNumber: UInt32
            var length: Int
            var data: String?
            var text: String?
            var texts: [String]?
            var number: UInt64?
        }
    }

    private func json(_ arguments: String...) throws -> Shown {
        let run = try Program.run(["--json", "hive", "show"] + arguments)
        #expect(run.status == 0, "\(run.err)")
        let shown = try JSONDecoder().decode(Shown.self, from: Data(run.out.utf8))
        #expect(shown.schema == "relight.hive/1")
        return shown
    }

    @Test func aKeyIsShownForPeople() throws {
        let file = try write("SYSTEM", Self.system("PC1"))
        let root = try Program.run("hive", "show", file)
        #expect(root.status == 0 && root.err == "")
        #expect(root.out.contains("SYSTEM hive, version 1.5, clean"))
        #expect(root.out.contains("  \\ControlSet001\n  \\Select\n"), "\(root.out)")
        // Any case, and slashes for backslashes.
        for path in ["ControlSet001\\Services\\disk", "controlset001/services/DISK"] {
            let run = try Program.run("hive", "show", file, path)
            for line in [
                "\\ControlSet001\\Services\\disk", "Start            REG_DWORD      0x00000000 (0)",
                "Group            REG_SZ         \"SCSI Class\"", "DependOnService  REG_MULTI_SZ   \"a\" \"b\"",
                "ImagePath        REG_EXPAND_SZ  \"System32\\drivers\\disk.sys\"", "(100 bytes)",
                "(default)        REG_QWORD      0x8000000000000001 (9223372036854775809)",
            ] { #expect(run.out.contains(line), "\(line) is not in:\n\(run.out)") }
        }
        let all = try Program.run("hive", "show", file, "--recursive")
        #expect(
            all.out.contains("\\ControlSet001\\Control\\ComputerName\\ComputerName\n") && all.out.contains("\"PC1\""))
        // What a hive holds does not steer the terminal.
        #expect(!all.out.contains("\u{1B}") && !all.out.contains("\u{7}"))
    }

    @Test func aKeyIsShownAsJSON() throws {
        let file = try write("SYSTEM", Self.system("PC1"))
        let shown = try json(file, "ControlSet001\\Services\\disk")
        #expect(
            shown.kind == "system" && shown.version == "1.5" && shown.state.state == "clean" && shown.windows == nil)
        let key = try #require(shown.keys.first)
        #expect(shown.keys.count == 1 && key.path == "ControlSet001\\Services\\disk" && key.values.count == 6)
        #expect(key.lastWritten.hasPrefix("2022-"))
        let values = Dictionary(uniqueKeysWithValues: key.values.map { ($0.name, $0) })
        #expect(values["Start"]?.number == 0 && values["Start"]?.type == "REG_DWORD")
        #expect(values["Group"]?.text == "SCSI Class" && values["Group"]?.typeNumber == 1)
        #expect(values["DependOnService"]?.texts == ["a", "b"])
        #expect(values["Blob"]?.length == 100 && values["Blob"]?.data?.hasPrefix("00010203") == true)
        #expect(values[""]?.number == 0x8000_0000_0000_0001)
        let root = try json(file)
        #expect(root.keys.map(\.subkeys) == [["ControlSet001", "Select"]] && root.windows?.computerName == "PC1")
        let all = try json(file, "--recursive")
        #expect(all.keys.count == 9)
    }

    @Test func aDirtyHiveIsShownWithItsLogsAndLeftAsItIs() throws {
        let states = [Self.system("OLD"), Self.system("NEW")]
        var dirty = states[0]
        dirty.replaceSubrange(8..<12, with: HiveBuilder.words([6]))
        dirty.replaceSubrange(508..<512, with: HiveBuilder.words([HiveHeader.checksum(dirty)]))
        let log =
            LogBuilder.head(states[0], type: 6, sequence: 7)
            + LogBuilder.entry(states[1], pages: LogBuilder.pages(states[0], states[1]), sequence: 7)
        let (file, logFile) = (try write("SYSTEM", dirty), try write("SYSTEM.LOG1", log))
        let sums = try [file, logFile].map(sha256)
        let name = "ControlSet001\\Control\\ComputerName\\ComputerName"
        let without = try json(file, name)
        #expect(without.state.state == "dirty" && without.keys.first?.values.first?.text == "OLD")
        #expect(without.findings.map(\.code) == ["hive.dirty"])
        #expect(without.findings.first?.what.contains("add --log \(logFile)") == true)
        let with = try json(file, name, "--log", logFile)
        #expect(with.state.state == "recovered" && with.state.changes == 1 && with.state.logs == [logFile])
        #expect(with.keys.first?.values.first?.text == "NEW" && with.findings.isEmpty)
        let people = try Program.run("hive", "show", file, "--log", logFile)
        #expect(people.out.contains("shown with 1 change from \(logFile)"))
        #expect(try [file, logFile].map(sha256) == sums)
    }

    @Test func whatIsWrongIsSaidWithTheNextStep() throws {
        let file = try write("SYSTEM", Self.system("PC1"))
        try Program.mustFail(
            ["hive", "show", file, "ControlSet001\\Servicess\\disk"], status: 1, code: "missing",
            saying: ["no key Servicess in ControlSet001", "hive show \(file) 'ControlSet001'"])
        try Program.mustFail(["hive", "show", "\(file)x"], status: 1, code: "missing", saying: ["\(file)x"])
        try Program.mustFail(
            ["hive", "show", scratch.path], status: 1, code: "wrong-kind", saying: ["not a plain file"])
        let other = try write("other", [UInt8](repeating: 1, count: 9000))
        try Program.mustFail(["hive", "show", other], status: 1, code: "hive.not-a-hive", saying: ["\"regf\""])
        let log = try write("SYSTEM.LOG1", LogBuilder.head(Self.system("x"), type: 6, sequence: 7))
        try Program.mustFail(
            ["hive", "show", log], status: 1, code: "hive.unsupported", saying: ["a transaction log", "not its log"])
        var damaged = Self.system("PC1")
        let root = 4100 + Int(damaged.word(at: 36))
        damaged.replaceSubrange(root + 28..<root + 32, with: [7, 0, 0, 0])
        try Program.mustFail(
            ["hive", "show", try write("damaged", damaged)], status: 5, code: "hive.damaged",
            saying: ["no cell can be", "RegBack"])
        try Program.mustFail(["hive", "diff", file], status: 2, code: "usage", saying: ["show"])
    }

    @Test(.enabled(if: Tool("hivexget", package: "libhivex-bin").path != nil, "libhivex-bin is needed"))
    func hivexgetSeesTheSame() throws {
        let file = try write("SYSTEM", Self.system("PC1"))
        let key = "ControlSet001\\Control\\ComputerName\\ComputerName"
        let theirs = try Tool("hivexget", package: "libhivex-bin").check([file, key, "ComputerName"]).standardOutput
        #expect(
            try json(file, key).keys.first?.values.first?.text == theirs.split(separator: "\n").first.map(String.init))
        let shell = try Tool("hivexsh", package: "libhivex-bin").check(
            [file], input: Array("cd ControlSet001\\Services\\disk\nlsval Start\n".utf8)
        ).standardOutput
        #expect(shell.hasPrefix("0\n"), "\(shell)")
    }
}
