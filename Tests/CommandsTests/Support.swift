// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Testing
import Tools

let shell = Tool("bash", package: "bash")

/// A folder that goes away with the value.
final class Scratch: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/relight-commands-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw Fault(.system, what: "no scratch folder", remedy: "") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = try? Tool("rm", package: "coreutils").run(["-rf", "--one-file-system", path]) }

    /// Runs a script in the folder, with `$1` … from `arguments`; throws when a command of it fails.
    @discardableResult
    func sh(_ script: String, _ arguments: [String] = []) throws -> String {
        try shell.check(["-euo", "pipefail", "-c", script, "sh"] + arguments, directory: path).standardOutput
    }

    /// A sparse file of `size` (as truncate takes it) and its path.
    func file(_ name: String, _ size: String) throws -> String {
        try sh("truncate -s \"$2\" \"$1\"", [name, size])
        return "\(path)/\(name)"
    }
}

/// What a run of the program gave.
struct Run {
    var status: Int32
    var out: String
    var err: String

    /// The one JSON document on standard output; fails where there is none, or more than one.
    func document(sourceLocation: SourceLocation = #_sourceLocation) throws -> Document {
        let document = try? JSONDecoder().decode(Document.self, from: Data(out.utf8))
        return try #require(
            document, "standard output is not one JSON document: \(out)", sourceLocation: sourceLocation)
    }

    struct Document: Decodable {
        var schema: String
        var code: String?
        var what: String?
        var place: String?
        var remedy: String?
        var reasons: [Document]?
        var findings: [Finding]?
        var point: String?
        var new: UInt64?
        var shared: UInt64?
        var stored: UInt64?
        var unreadable: UInt64?
        var skipped: UInt64?
        var compare: String?
        var points: [Point]?
        var unreadableExtents: [Unreadable]?

        enum CodingKeys: String, CodingKey {
            case schema, code, what, remedy, reasons, findings, point, new, shared, stored, unreadable, skipped,
                compare, points,
                unreadableExtents
            case place = "where"
        }
        struct Point: Decodable { var id: String }
        struct Unreadable: Decodable {
            var disk: Int
            var volume: Int?
            var extents: [[UInt64]]
        }

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            schema = try container.decodeIfPresent(String.self, forKey: .schema) ?? ""
            code = try container.decodeIfPresent(String.self, forKey: .code)
            what = try container.decodeIfPresent(String.self, forKey: .what)
            place = try container.decodeIfPresent(String.self, forKey: .place)
            remedy = try container.decodeIfPresent(String.self, forKey: .remedy)
            reasons = try container.decodeIfPresent([Document].self, forKey: .reasons)
            // `verify` has numbers and texts of its own under some of these names.
            findings = try? container.decodeIfPresent([Finding].self, forKey: .findings)
            point = try? container.decodeIfPresent(String.self, forKey: .point)
            new = try? container.decodeIfPresent(UInt64.self, forKey: .new)
            shared = try? container.decodeIfPresent(UInt64.self, forKey: .shared)
            stored = try? container.decodeIfPresent(UInt64.self, forKey: .stored)
            unreadable = try? container.decodeIfPresent(UInt64.self, forKey: .unreadable)
            skipped = try? container.decodeIfPresent(UInt64.self, forKey: .skipped)
            compare = try? container.decodeIfPresent(String.self, forKey: .compare)
            points = try? container.decodeIfPresent([Point].self, forKey: .points)
            unreadableExtents = try? container.decodeIfPresent([Unreadable].self, forKey: .unreadableExtents)
        }
    }
}

/// The built program.
enum Program {
    /// Beside the tests; `nil` when it was not built.
    static let path: String? = {
        guard let slash = CommandLine.arguments[0].lastIndex(of: "/") else { return nil }
        let beside = CommandLine.arguments[0][..<slash] + "/relight"
        return unsafe access(String(beside), X_OK) == 0 ? String(beside) : nil
    }()

    static func run(_ arguments: String..., seconds: Double = 120) throws -> Run {
        try run(arguments, seconds: seconds)
    }

    static func run(_ arguments: [String], seconds: Double = 120) throws -> Run {
        let tool = Tool(try #require(path, "the program relight is not built"), package: "relight")
        let result = try tool.run(arguments, environment: ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin"], seconds: seconds)
        return Run(status: result.status, out: result.standardOutput, err: result.standardError)
    }

    /// Runs the program by a script, in which `$relight` stands for it.
    static func script(_ text: String, _ arguments: [String] = [], in scratch: Scratch) throws -> Run {
        let result = try shell.run(
            ["-c", text, "sh"] + arguments, environment: ["relight": try #require(path)], directory: scratch.path,
            seconds: 120)
        return Run(status: result.status, out: result.standardOutput, err: result.standardError)
    }

    /// Runs a command that must fail, for people and under --json, and looks at both. Returns the JSON document.
    @discardableResult
    static func mustFail(
        _ arguments: [String], status: Int32, code: String, saying words: [String],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Run.Document {
        let plain = try run(arguments)
        #expect(plain.status == status, "\(plain.err)", sourceLocation: sourceLocation)
        for word in words { #expect(plain.err.contains(word), "\(plain.err)", sourceLocation: sourceLocation) }
        let json = try run(["--json"] + arguments)
        #expect(json.status == status, sourceLocation: sourceLocation)
        let document = try json.document(sourceLocation: sourceLocation)
        #expect(document.schema == "relight.error/1", sourceLocation: sourceLocation)
        #expect(document.code == code, sourceLocation: sourceLocation)
        #expect(document.what?.isEmpty == false && document.place != nil, sourceLocation: sourceLocation)
        #expect(document.remedy?.isEmpty == false, sourceLocation: sourceLocation)
        return document
    }
}

/// SHA-256 of a file, as text.
func sha256(_ path: String) throws -> String {
    String(try Tool("sha256sum", package: "coreutils").check([path]).standardOutput.prefix(64))
}

/// Disks with known content, made once for all tests, and a set that holds the first.
struct Samples: Sendable {
    let scratch: Scratch
    var path: String { scratch.path }
    /// GPT: 1 BIOS boot, 2 ESP, 3 swap, 4 ext4.
    var gpt: String { "\(path)/gpt.img" }
    /// MBR: 1 ext4, 5 FAT, 6 swap, 7 ext4; boot code and a filled gap.
    var mbr: String { "\(path)/mbr.img" }
    /// ext4 without a table.
    var wholeExt: String { "\(path)/wholeext.img" }
    /// FAT without a table.
    var wholeFAT: String { "\(path)/wholefat.img" }
    /// A set with one point of `gpt`.
    var set: String { "\(path)/set" }

    static let tools = [
        "sfdisk", "sgdisk", "mke2fs", "e2fsck", "debugfs", "mkfs.fat", "fsck.fat", "mcopy", "mkswap", "openssl",
    ]
    static var areAvailable: Bool {
        tools.allSatisfy { Tool($0, package: "").path != nil } && Program.path != nil
    }
    static let why: Comment =
        "needs the built program, sfdisk, sgdisk, e2fsprogs, dosfstools, mtools, mkswap and openssl"
    static var areLoopsAvailable: Bool {
        areAvailable && getuid() == 0 && (try? Tool("losetup", package: "mount").check(["--find"])) != nil
    }

    /// Made at first use; removed when the tests end.
    static let shared = Result { try Samples() }
    private static let removal: Void = {
        atexit { if case .success(let samples) = Samples.shared { _ = try? samples.scratch.sh("rm -rf \"$PWD\"") } }
    }()

    static func get() throws -> Samples {
        _ = removal
        return try shared.get()
    }

    private init() throws {
        scratch = try Scratch()
        try scratch.sh(Samples.script)
        let backup = try Program.run("--quiet", "backup", gpt, "--to", set)
        try #require(backup.status == 0, "\(backup.err)")
    }

    private static let script = #"""
        mkdir -p tree/sub/deeper tree/empty fattree/EFI/BOOT
        seed=0
        for size in 0 1 511 4096 5000 65536 131073 700001; do
          seed=$((seed+1))
          openssl enc -aes-128-ctr -K 0123456789abcdef0123456789abcdef -iv $(printf %032x $seed) -in /dev/zero \
            2>/dev/null < /dev/null | head -c $size > tree/file$size || true
          cp tree/file$size tree/sub/copy$size
        done
        for n in $(seq 1 60); do echo "small $n" > tree/sub/deeper/s$n; done
        ln -s file4096 tree/link; ln tree/file5000 tree/sub/hard; truncate -s 3M tree/sub/sparse
        cp tree/file700001 fattree/EFI/BOOT/BOOTX64.EFI; cp tree/file5000 fattree/a.txt

        ext() { truncate -s $2 $1; mke2fs -q -F -t ext4 -L "$3" -d tree $1; }
        fat() { truncate -s $2 $1; mkfs.fat -n "$3" $1 >/dev/null; mcopy -s -i $1 fattree/* ::/; }
        swp() { truncate -s $2 $1; mkswap -q -L "$3" $1; }
        put() { dd if=$1 of=$2 bs=512 seek=$3 conv=notrunc,sparse status=none; rm $1; }

        truncate -s 64M gpt.img
        sfdisk -q gpt.img <<'E'
        label: gpt
        start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name="grub"
        start=4096, size=16384, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp"
        start=20480, size=8192, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F, name="swap"
        start=28672, size=81920, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="root"
        E
        head -c 70000 tree/file131073 | dd of=gpt.img bs=512 seek=2048 conv=notrunc status=none
        fat p 8M ESP; put p gpt.img 4096
        swp p 4M swp; put p gpt.img 20480
        ext p 40M root; put p gpt.img 28672

        truncate -s 64M mbr.img
        sfdisk -q mbr.img <<'E'
        label: dos
        start=2048, size=32768, type=83, bootable
        start=34816, size=79872, type=5
        start=36864, size=16384, type=6
        start=55296, size=8192, type=82
        start=65536, size=49152, type=83
        E
        head -c 440 tree/file5000 | dd of=mbr.img conv=notrunc status=none
        head -c 30000 tree/file65536 | dd of=mbr.img bs=512 seek=1 conv=notrunc status=none
        ext p 16M boot; put p mbr.img 2048
        fat p 8M DATA; put p mbr.img 36864
        swp p 4M swp; put p mbr.img 55296
        ext p 24M home; put p mbr.img 65536

        ext wholeext.img 24M whole
        fat wholefat.img 12M WHOLE
        """#

    /// A copy of the set that a test may damage.
    func copyOfSet(in scratch: Scratch) throws -> String {
        try scratch.sh("cp -a \"$1\" set", [set])
        return "\(scratch.path)/set"
    }

    /// Has e2fsck and debugfs look at an ext4 filesystem in `image` (`start` and `size` in bytes): it is clean, and holds
    /// the files of `tree`.
    func expectTree(
        in image: String, at start: UInt64 = 0, size: UInt64, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let check = try Scratch()
        let verdict = try shell.run(
            [
                "-c",
                """
                set -e
                dd if="$1" of=part bs=1M iflag=skip_bytes,count_bytes skip=$2 count=$3 conv=sparse status=none
                e2fsck -fn part; mkdir out; debugfs -R "rdump / out" part; rmdir out/lost+found
                diff -r --no-dereference "$4/tree" out; test $(stat -c %s out/sub/sparse) = 3145728
                """, "sh", image, "\(start)", "\(size)", path,
            ], directory: check.path)
        #expect(
            verdict.status == 0, "\(verdict.standardOutput)\(verdict.standardError)", sourceLocation: sourceLocation)
    }

    /// Has fsck.fat and mtools look at a FAT filesystem: it is clean, and holds the files of `fattree`.
    func expectFAT(
        in image: String, at start: UInt64 = 0, size: UInt64, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let check = try Scratch()
        let verdict = try shell.run(
            [
                "-c",
                """
                set -e
                dd if="$1" of=part bs=1M iflag=skip_bytes,count_bytes skip=$2 count=$3 conv=sparse status=none
                fsck.fat -n part; mkdir out; mcopy -s -i part "::/*" out; diff -r "$4/fattree" out
                """, "sh", image, "\(start)", "\(size)", path,
            ], directory: check.path)
        #expect(
            verdict.status == 0, "\(verdict.standardOutput)\(verdict.standardError)", sourceLocation: sourceLocation)
    }
}

/// A loop device over a file, detached with the value.
final class Loop {
    let path: String
    private let hasPartitions: Bool

    init(_ file: String, _ options: String...) throws {
        hasPartitions = options.contains("--partscan")
        path = try Tool("losetup", package: "mount").check(["--find", "--show"] + options + [file]).lastLine
    }

    deinit {
        // The kernel keeps a partition that something has open at that moment; the next file at this device would have it.
        if hasPartitions { _ = try? Tool("partx", package: "util-linux").run(["--delete", path]) }
        _ = try? Tool("losetup", package: "mount").run(["--detach", path])
    }
}

/// A mount, undone with the value.
final class Mount {
    let path: String

    init(_ arguments: [String], at path: String) throws {
        self.path = path
        try Tool("mkdir", package: "coreutils").check(["-p", path])
        try Tool("mount", package: "mount").check(arguments + [path])
    }

    deinit { _ = try? Tool("umount", package: "mount").run([path]) }
}
