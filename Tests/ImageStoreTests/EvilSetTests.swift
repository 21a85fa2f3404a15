// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Testing

/// The program beside the tests, and what runs it.
private enum BuiltProgram {
    static let path: String? = {
        guard let slash = CommandLine.arguments[0].lastIndex(of: "/") else { return nil }
        let beside = CommandLine.arguments[0][..<slash] + "/relight"
        return unsafe access(String(beside), X_OK) == 0 ? String(beside) : nil
    }()
    static let canRun =
        path != nil && Judge.run("/usr/bin/python3 --version >/dev/null 2>&1 && zstd -V >/dev/null") == 0
    static let limited = Judge.script.replacing("read_set.py", with: "run_limited.py")
}

/// The built program on sets whose makers meant no good: it refuses them, or does what it can, within a moment of
/// processor time and 256 MiB, and never ends by a signal.
@Suite(.enabled(if: BuiltProgram.canRun, "needs the built program, python3 and zstd")) struct EvilSetTests {
    /// Exit status, milliseconds, KiB.
    static func cost(_ command: String, in folder: String) throws -> (status: Int, time: Int, memory: Int) {
        let line = "'\(BuiltProgram.limited)' 60 '\(BuiltProgram.path ?? "")' \(command) >cost 2>output"
        try #require(Judge.run("cd '\(folder)' && /usr/bin/python3 \(line)") == 0, "\(command)")
        let numbers = String(decoding: try JudgeTests.file(folder + "/cost"), as: UTF8.self)
            .split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
        try #require(numbers.count == 3)
        return (numbers[0], numbers[1], numbers[2])
    }

    /// Every command that reads a set, on the one at `place` in `folder`.
    static func tryAll(_ place: String, in folder: String, _ what: String) throws {
        try JudgeTests.write(Array("secret\n".utf8), to: folder + "/passphrase")
        #expect(Judge.run("truncate -s 2G '\(folder)/target.img'") == 0)
        let key = "--passphrase-file passphrase"
        for command in [
            "points \(place) \(key)", "show \(place)@latest \(key)", "verify \(place) \(key)",
            "verify --quick \(place) \(key)",
            "restore \(place) --to target.img --yes \(key)", "key list \(place) \(key)", "repair \(place) --yes \(key)",
        ] {
            let cost = try Self.cost(command, in: folder)
            let output = String(decoding: try JudgeTests.file(folder + "/output").prefix(600), as: UTF8.self)
            // 1 and 2 are bad usage, 3 loss that is told; 4 … 6 refusal, damage, no key; never a signal.
            #expect((0...7).contains(cost.status), "\(what): \(command): \(cost.status): \(output)")
            // The tests' build is not optimised.
            #expect(cost.time < 6_000, "\(what): \(command) takes \(cost.time) ms")
            #expect(cost.memory <= 256 << 10, "\(what): \(command) needs \(cost.memory) KiB")
            #expect(!output.contains("\u{1B}[2J"), "\(what): \(command) lets a set talk to the terminal")
        }
    }

    @Test(arguments: EvilSets.all) func theProgramRefusesItOrFinishes(evil: EvilSets.Evil) throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        for (name, bytes) in try evil.objects() {
            let parent = name.split(separator: "/").dropLast().joined(separator: "/")
            try #require(Judge.run("mkdir -p '\(folder)/set/\(parent)'") == 0)
            try JudgeTests.write(bytes, to: "\(folder)/set/\(name)")
        }
        if !evil.shape.isEmpty {
            try JudgeTests.write(Array(evil.shape.utf8), to: folder + "/shape")
            _ = Judge.run("cd '\(folder)/set' && sh ../shape 2>/dev/null")
        }
        try Self.tryAll("set", in: folder, evil.name)
    }

    /// Tar files with right checksums that lie about names and sizes.
    @Test func hostileArchivesAreRefusedOrRead() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        try JudgeTests.write(
            Array(
                """
                import io, tarfile, sys
                def tar(name, members, tail=b""):
                    data = io.BytesIO()
                    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as out:
                        for path, size, kind in members:
                            info = tarfile.TarInfo(path)
                            info.size, info.type = size, kind
                            if kind == tarfile.SYMTYPE: info.linkname = "/etc/passwd"
                            out.addfile(info, io.BytesIO(bytes(size)) if kind == tarfile.REGTYPE else None)
                    open(name, "wb").write(data.getvalue() + tail)
                R = tarfile.REGTYPE
                tar("1.tar", [("../../../../tmp/relight-evil", 10, R), ("/etc/relight-evil", 10, R), ("set/set.a", 128, R)])
                tar("2.tar", [("set/points/%032x.point" % i, 0, R) for i in range(20000)] + [("set/set.a", 128, R)])
                tar("3.tar", [("set/set.a", 0, tarfile.SYMTYPE), ("set/points", 0, tarfile.SYMTYPE)])
                def header(path, size):
                    info = tarfile.TarInfo(path)
                    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT)[:512])
                    block[124:136] = size
                    block[148:156] = b" " * 8
                    block[148:156] = b"%06o\\0 " % sum(block)
                    return bytes(block)
                open("4.tar", "wb").write(header("set/set.a", b"777777777777") + bytes(1024))
                open("5.tar", "wb").write(header("set/set.a", b"\\x80" + b"\\xff" * 11) + bytes(1024))
                open("6.tar", "wb").write(header("set/set.a", b"00000000000\\0") * 20000 + bytes(1024))
                """.utf8), to: folder + "/make.py")
        try #require(Judge.run("cd '\(folder)' && /usr/bin/python3 make.py") == 0)
        for number in 1...6 {
            #expect(Judge.run("mv '\(folder)/\(number).tar' '\(folder)/a\(number).001'") == 0)
            try Self.tryAll("a\(number).001", in: folder, "archive \(number)")
        }
        #expect(unsafe access("/tmp/relight-evil", F_OK) != 0 && access("/etc/relight-evil", F_OK) != 0)
    }
}
