// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
@testable import Operations
import TestSupport
import Testing

@Suite struct JobFileTests {
    static let example = """
        {
          relight: 1, // a comment
          steps: [
            {backup: {disks: ["serial:OLD1"], to: "label:BACKUPS/sets/web01", name: "web01"}},
            {verify: {set: "label:BACKUPS/sets/web01", quick: true}},
            {restore: {from: "label:BACKUPS/sets/web01", to: [{disk: "serial:NEW1"}], layout: "proportional", confirm: true}},
            {run: ["sync"]},
          ],
          after: "poweroff",
        }
        """

    static func job(_ text: String) throws(Fault) -> JobFile {
        try JobFile(parsing: Array(text.utf8), name: "relight.job")
    }
    static func one(_ step: String) throws(Fault) -> JobStep { try job("{relight: 1, steps: [\(step)]}").steps[0] }
    static func fault(_ step: String) throws -> Fault { try #require(throws: Fault.self) { try one(step) } }

    @Test func exampleBecomesCommands() throws {
        let job = try Self.job(Self.example)
        #expect(job.after == .poweroff)
        #expect(job.steps.map(\.number) == [1, 2, 3, 4])
        #expect(
            job.steps.map(\.arguments) == [
                ["backup", "--to=label:BACKUPS/sets/web01", "--name=web01", "--", "serial:OLD1"],
                ["verify", "--quick", "--", "label:BACKUPS/sets/web01"],
                [
                    "restore", "--to=serial:NEW1", "--layout=proportional", "--ids=keep", "--yes", "--",
                    "label:BACKUPS/sets/web01",
                ],
                ["sync"],
            ])
        #expect(job.disks == ["serial:OLD1", "serial:NEW1"])
        #expect(job.steps[2].targets == ["serial:NEW1"])
        #expect(job.steps[0].set == "label:BACKUPS/sets/web01")
    }

    @Test(arguments: [
        (
            "{backup: {disks: '/dev/sda', to: '/s', volume: [1, '2'], level: 19, onReadError: 'skip', noVerify: true, passphraseFile: '/run/p'}}",
            [
                "backup", "--to=/s", "--level=19", "--no-verify", "--on-read-error=skip", "--passphrase-file=/run/p",
                "--volume=1", "--volume=2", "--", "/dev/sda",
            ]
        ),
        (
            "{backup: {disks: ['a.img'], to: '/s', level: 'off', noVerify: false, whole: [2, 'a.img:3']}}",
            ["backup", "--to=/s", "--level=off", "--whole=2", "--whole=a.img:3", "--", "a.img"]
        ),
        ("{verify: {from: '/s@ab12'}}", ["verify", "--", "/s@ab12"]),
        (
            "{restore: {from: '/s@latest', to: [{disk: 'wwn:0x5', source: 'sda'}, 'size:1000=sdb'], noRepair: true, noAdapt: true, confirm: true}}",
            [
                "restore", "--to=wwn:0x5=sda", "--to=size:1000=sdb", "--no-adapt", "--no-repair", "--ids=keep", "--yes",
                "--",
                "/s@latest",
            ]
        ),
        (
            "{copy: {from: '/s@latest', to: 'label:B/s', like: true, also: '/m', toAlso: ['/a', '/b']}}",
            ["copy", "--also=/m", "--like", "--to-also=/a", "--to-also=/b", "--", "/s@latest", "label:B/s"]
        ),
        (
            "{archive: {from: '/s', to: 'label:B/x.tar', split: '4000M'}}",
            ["archive", "--split=4000M", "--", "/s", "label:B/x.tar"]
        ),
        ("{run: 'echo a; echo b'}", ["/bin/sh", "-c", "echo a; echo b"]),
        ("{run: {command: ['ls', '-l'], timeout: 5}}", ["ls", "-l"]),
    ])
    func keysBecomeOptions(step: String, words: [String]) throws {
        #expect(try Self.one(step).arguments == words)
    }

    @Test(arguments: [
        ("{backup: {disks: ['/dev/sda'], to: '/s', nmae: 'x'}}", "\"nmae\""),
        ("{backup: {disks: ['/dev/sda'], to: '/s', confirm: true}}", "\"confirm\""),
        ("{backup: {disks: ['/dev/sda'], to: '/s', passphrase: 'geheim'}}", "passphraseFile"),
        ("{verify: {set: '/s', name: 'x'}}", "\"name\""), ("{copy: {from: '/s'}}", "\"to\" is missing"),
        ("{archive: {to: '/s'}}", "\"from\" is missing"), ("{copy: {from: '/s', to: '/t', name: 'x'}}", "\"name\""),
        ("{restore: {from: '/s', to: [{disk: 'serial:A', size: 5}], confirm: true}}", "\"size\""),
        ("{restore: {from: '/s', to: ['serial:A'], plan: 'p.json', confirm: true}}", "\"plan\""),
        ("{run: {command: ['a'], shell: true}}", "\"shell\""), ("{bakcup: {}}", "\"bakcup\""),
        ("{backup: {disks: ['/dev/sda']}}", "\"to\" is missing"), ("{backup: {disks: [], to: '/s'}}", "\"disks\""),
        ("{backup: {disks: ['/dev/sda'], to: '/s', level: 20}}", "\"level\""),
        ("{backup: {disks: ['/dev/sda'], to: '/s', onReadError: 'ignore'}}", "\"onReadError\""),
        ("{backup: {disks: ['/dev/sda'], to: '/s', noVerify: 'yes'}}", "\"noVerify\""),
        ("{backup: {disks: ['--help'], to: '/s'}}", "\"disks\""), ("{backup: {disks: ['a'], to: '-x'}}", "\"to\""),
        ("{backup: {disks: ['a\\nb'], to: '/s'}}", "\"disks\""), ("{backup: ['/dev/sda']}", "not an object"),
        ("{restore: {from: '/s', to: [], confirm: true}}", "no target"),
        ("{restore: {from: '/s', to: [5.5], confirm: true}}", "\"to\""),
        ("{restore: {from: '/s', to: ['serial:A'], confirm: 'yes'}}", "\"confirm\""), ("{run: []}", "command"),
        ("{run: ''}", "command"), ("{run: {command: ['a'], timeout: 0}}", "\"timeout\""),
        ("{verify: {set: '/s'}, run: ['a']}", "one verb"), ("5", "one verb"),
    ])
    func mistakesAreNamed(step: String, named: String) throws {
        let fault = try Self.fault(step)
        #expect(fault.code == .job)
        #expect(fault.code.exit == .usage)
        #expect(fault.what.contains(named), "\(fault.what)")
        #expect(fault.what.contains("Step 1"))
    }

    @Test func aPassphraseIsNeverRepeated() throws {
        let fault = try Self.fault("{backup: {disks: ['/dev/sda'], to: '/s', passphrase: 'geheim'}}")
        #expect(!"\(fault)".contains("geheim"))
    }

    @Test(arguments: ["clone", "extract", "boot-check", "boot-repair", "boot-undo", "adapt"])
    func laterVerbsSaySo(verb: String) throws {
        let fault = try Self.fault("{'\(verb)': {disks: ['serial:A']}}")
        #expect(fault.code == .unsupported)
        #expect(fault.what.contains("\"\(verb)\" is not in this version"))
    }

    @Test(arguments: [
        ("size: {'2': '10G', '1:3': 5}", ["--size=1:3=5", "--size=2=10G"]), ("sizes: {'2': '10G'}", ["--size=2=10G"]),
        ("size: ['2=10G']", ["--size=2=10G"]), ("drop: [3, '4']", ["--drop=3", "--drop=4"]),
        ("recreate: 'all'", ["--recreate=all"]), ("table: 'gpt'", ["--table=gpt"]),
        ("firmware: 'uefi'", ["--firmware=uefi"]), ("ids: 'new'", ["--ids=new"]),
        ("layout: 'proportional'", ["--layout=proportional"]),
    ])
    func keysOfTheLayoutAreOptions(key: String, words: [String]) throws {
        let text = "{relight: 1, steps: [{restore: {from: '/s', to: ['serial:A'], \(key), confirm: true}}]}"
        let job = try JobFile(parsing: Array(text.utf8), name: "job")
        let ids = key.hasPrefix("ids") ? [] : ["--ids=keep"]
        #expect(job.steps.first?.arguments == ["restore", "--to=serial:A"] + words + ids + ["--yes", "--", "/s"])
    }

    @Test(arguments: ["table: 'apm'", "ids: 'other'", "firmware: 'u-boot'", "size: {'2': true}", "drop: [true]"])
    func wrongValuesOfTheLayoutAreRefused(key: String) throws {
        #expect(try Self.fault("{restore: {from: '/s', to: ['serial:A'], \(key), confirm: true}}").code == .job)
    }

    @Test(arguments: ["resume: true"])
    func laterKeysSaySo(key: String) throws {
        let fault = try Self.fault("{restore: {from: '/s', to: ['serial:A'], \(key), confirm: true}}")
        #expect(fault.code == .unsupported)
        #expect(fault.what.contains("is not in this version") && !fault.what.contains("Did you mean"), "\(fault.what)")
    }

    @Test func allReasonsAreSaidAtOnce() throws {
        let text = """
            {relight: 1, steps: [{backup: {disks: ['a'], to: '/s', nmae: 'x'}}, {clone: {}},
             {restore: {from: '/s', to: ['/dev/sda']}}, {verify: {set: '/s', seed: 'x'}}]}
            """
        let fault = try #require(throws: Fault.self) {
            try JobFile(parsing: Array(text.utf8), name: "x") { $0.first == "verify" ? "The seed is odd." : nil }
        }
        #expect(fault.code == .job)
        for part in ["\"nmae\"", "\"clone\"", "not pinned", "confirm: true", "Step 4 (verify): The seed is odd."] {
            #expect(fault.what.contains(part), "\(fault.what)")
        }
    }

    @Test(arguments: [
        ("{relight: 1,\n steps: [\n  {run: 'a'}\n  {run: 'b'}]}", 4, 3, "a comma or ]"),
        ("{relight: 1, steps: [", 1, 22, "the file ends"), ("{relight: 1, steps: [{run: 'a]}", 1, 28, "closing quote"),
        ("{relight 1}", 1, 10, "a colon"), ("/* x", 1, 1, "no end"), ("{a: b}", 1, 5, "is no value"),
        ("{ä: 'ö', }\n x", 2, 2, "the end of the file"), ("{,}", 1, 2, "the name of a key"),
    ])
    func aMistakeHasItsPlace(text: String, line: Int, column: Int, word: String) throws {
        let mistake = try #require(JSON5Syntax.mistake(in: Array(text.utf8)))
        #expect(mistake.line == line && mistake.column == column && mistake.what.contains(word), "\(mistake)")
        let fault = try #require(throws: Fault.self) { try Self.job(text) }
        #expect(fault.what.contains("line \(line), column \(column)"), "\(fault.what)")
    }

    @Test(arguments: [
        "{a: +.5, 'b': 0xFf, \"c\": [-Infinity, NaN, 1e-5, 5., null, true,], /* x */ d: 'a\\\nb', // y\n}", "5",
        "[[],{}]",
        "{$_ä1: 'it\\'s'}",
    ])
    func whatIsJSON5HasNone(text: String) { #expect(JSON5Syntax.mistake(in: Array(text.utf8)) == nil) }

    @Test func mutatedTextsEndTheSearchForMistakes() {
        var numbers = Seeded(11)
        let sound = Array(Self.example.utf8)
        for _ in 0..<5000 {
            var bytes = sound
            for _ in 0..<Int.random(in: 1...4, using: &numbers) {
                bytes[Int.random(in: bytes.indices, using: &numbers)] = UInt8.random(in: 0...255, using: &numbers)
            }
            bytes.removeLast(Int.random(in: 0..<bytes.count, using: &numbers))
            if let mistake = JSON5Syntax.mistake(in: bytes) { #expect(mistake.line > 0 && mistake.column > 0) }
        }
        #expect(JSON5Syntax.mistake(in: Array(repeating: UInt8(ascii: "["), count: 100_000)) != nil)
    }

    @Test func forgettingAndPruningAreSteps() throws {
        let forget = try Self.one(
            "{forget: {set: 'label:B/sets', keepDaily: 7, keepLast: '2', point: ['ab12'], prune: true}}")
        #expect(
            forget.arguments == [
                "forget", "--keep-daily=7", "--keep-last=2", "--point=ab12", "--prune", "--", "label:B/sets",
            ])
        #expect(forget.set == "label:B/sets" && forget.disks.isEmpty)
        let prune = try Self.one("{prune: {set: '/s', dryRun: true, grace: 1}}")
        #expect(prune.arguments == ["prune", "--dry-run", "--grace=1", "--", "/s"])
        #expect(try Self.fault("{prune: {set: '/s', keepLast: 1}}").what.contains("keepLast"))
    }

    @Test(arguments: ["/dev/sda", "disk.img", "label:ROOT", "uuid:12", "serial:", "size:big", "/dev/sda:2"])
    func targetsThatAreNotPinnedAreRefused(target: String) throws {
        let fault = try Self.fault("{restore: {from: '/s', to: ['\(target)'], confirm: true}}")
        #expect(fault.code == .notConfirmed)
        #expect(fault.code.exit == .refused)
        #expect(fault.what.contains(target))
    }

    @Test(arguments: ["serial:A", "wwn:0x1", "size:500107862016", "serial:A:2"])
    func pinnedTargetsNeedConfirmation(target: String) throws {
        #expect(try Self.one("{restore: {from: '/s', to: ['\(target)'], confirm: true}}").targets.count == 1)
        for confirm in ["", ", confirm: false"] {
            let fault = try Self.fault("{restore: {from: '/s', to: ['\(target)']\(confirm)}}")
            #expect(fault.code == .notConfirmed)
            #expect(fault.what.contains("confirm: true"))
        }
    }

    @Test func aLaterStepIsRefusedBeforeTheFirst() throws {
        let text = """
            {relight: 1, steps: [{run: ['true']}, {restore: {from: '/s', to: ['/dev/sda'], confirm: true}}]}
            """
        let fault = try #require(throws: Fault.self) { try Self.job(text) }
        #expect(fault.what.contains("Step 2 (restore)"))
    }

    @Test(arguments: [
        "", "[]", "{", "{relight: 1}", "{relight: 2, steps: [{run: ['a']}]}", "{steps: [{run: ['a']}]}",
        "{relight: 1, steps: []}", "{relight: 1, steps: {run: ['a']}}",
        "{relight: 1, steps: [{run: ['a']}], after: 'sleep'}",
        "{relight: 1, steps: [{run: ['a']}], color: 1}", "nonsense",
    ])
    func whatIsNoJobIsRefused(text: String) throws {
        let fault = try #require(throws: Fault.self) { try Self.job(text) }
        #expect(fault.code == .job)
        #expect(fault.remedy.contains("relight job check"))
    }

    @Test func whatTheCommandLineRefusesIsRefusedFirst() throws {
        let job = try Self.job(
            "{relight: 1, steps: [{run: ['a']}, {verify: {set: '/a', quick: true}}, {verify: {set: '/b'}}]}")
        try job.check { _ in nil }
        let fault = try #require(throws: Fault.self) {
            try job.check { words in words.contains("--quick") ? "Unknown option '--quick'." : nil }
        }
        #expect(fault.code == .unsupported)
        #expect(fault.what == "Step 2 (verify): Unknown option '--quick'.")
    }

    @Test func hugeFilesAreRefusedUnread() throws {
        let bytes = [UInt8](repeating: UInt8(ascii: " "), count: JobFile.limit + 1)
        #expect(throws: Fault.self) { try JobFile(parsing: bytes, name: "x") }
    }

    @Test func theSetHasNoPoint() throws {
        #expect(try Self.one("{verify: {set: '/a@b/c@12'}}").set == "/a@b/c")
        #expect(try Self.one("{verify: {set: '/a@b/c'}}").set == "/a@b/c")
    }

    @Test func mutatedJobsNeverTrap() {
        let seed = Array(Self.example.utf8)
        var random = Seeded(11)
        var accepted = 0
        for _ in 0..<6000 {
            var bytes = seed
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                let place = Int.random(in: 0..<max(1, bytes.count), using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0 where !bytes.isEmpty: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1 where !bytes.isEmpty: bytes.remove(at: place)
                case 2 where !bytes.isEmpty: bytes.removeSubrange(place..<min(bytes.count, place + 9))
                default:
                    let some = [UInt8]("{}[]:,'\"\\1e9-".utf8).randomElement(using: &random) ?? 0
                    bytes.insert(some, at: min(place, bytes.count))
                }
            }
            if (try? JobFile(parsing: bytes, name: "x")) != nil { accepted += 1 }
        }
        // Mutations in comments and names leave some jobs valid; most must be refused.
        #expect(accepted < 1000)
    }

    @Test func deepNestingIsRefused() {
        let text = "{relight: 1, steps: " + String(repeating: "[", count: 100_000)
        #expect(throws: Fault.self) { try Self.job(text) }
    }
}
