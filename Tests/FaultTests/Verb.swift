// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Testing

/// A command that changes sets, and what must hold whenever it is interrupted. A new command is a new row.
struct Verb: Sendable, CustomTestStringConvertible {
    var name: String
    /// Makes the state before, in a folder that has `a.img`, `b.img` (of 1 MiB, partly the same) and the files `old` and
    /// `new` with passphrases.
    var prepare: String
    /// The program's arguments, in that folder.
    var command: [String]
    var sets: [SetState]
    /// The exit code when it is run again and finds its work done.
    var statusWhenDone: Int32 = 0
    /// What is run after that, before the folders for unfinished files must be empty.
    var afterwards: [[String]] = []
    /// The quick test takes every so many-th call.
    var step = 4

    var testDescription: String { name }

    /// What every state begins with.
    static let images = """
        random() { openssl enc -aes-128-ctr -K 0123456789abcdef0123456789abcdef -iv $(printf %032x $1) -in /dev/zero \
          2>/dev/null < /dev/null | head -c $2 || true; }
        random 1 700000 > a.img; truncate -s 1M a.img
        cp a.img b.img; random 2 300000 | dd of=b.img conv=notrunc bs=1k seek=100 status=none
        umask 077; echo "one passphrase" > old; echo "another passphrase" > new; umask 022

        """
    static let first = "\"$relight\" --quiet backup a.img --to set --name first"
    static let second = "\"$relight\" --quiet backup b.img --to set --name second"

    static let two = first + "; \"$relight\" --quiet backup b.img --to set --name second"
    static let both = ["first": "a.img", "second": "b.img"]

    static let all: [Verb] = [
        Verb(
            name: "backup", prepare: first, command: ["backup", "b.img", "--to", "set", "--name", "second"],
            sets: [SetState(path: "set", before: ["first": "a.img"], after: ["first": "a.img", "second": "b.img"])]),
        Verb(
            name: "backup that makes the set", prepare: "true",
            command: ["backup", "a.img", "--to", "set", "--name", "first"],
            sets: [SetState(path: "set", before: [:], after: ["first": "a.img"], isNew: true)], step: 6),
        Verb(
            name: "backup, encrypted, with parity",
            prepare: first + " --passphrase-file old --protect 10",
            command: ["backup", "b.img", "--to", "set", "--name", "second", "--passphrase-file", "old"],
            sets: [
                SetState(
                    path: "set", passphrases: ["old"], before: ["first": "a.img"],
                    after: ["first": "a.img", "second": "b.img"])
            ], step: 10),
        Verb(
            name: "copy that makes the set", prepare: two, command: ["copy", "set", "other"],
            sets: [
                SetState(path: "other", before: [:], after: both, isNew: true),
                SetState(path: "set", before: both, after: both),
            ], step: 12),
        Verb(
            name: "copy, encrypted anew",
            prepare: two + "; \"$relight\" --quiet copy set@latest other --to-passphrase-file old",
            command: ["copy", "set", "other", "--to-passphrase-file", "old"],
            sets: [
                SetState(path: "other", passphrases: ["old"], before: ["second": "b.img"], after: both),
                SetState(path: "set", before: both, after: both),
            ], step: 12),
        Verb(
            name: "copy that makes a replica", prepare: first + " --passphrase-file old",
            command: ["copy", "set", "other", "--like", "--passphrase-file", "old"],
            sets: [
                SetState(
                    path: "other", passphrases: ["old"], before: [:], after: ["first": "a.img"], isNew: true),
                SetState(path: "set", passphrases: ["old"], before: ["first": "a.img"], after: ["first": "a.img"]),
            ], step: 6),
        Verb(
            name: "archive in parts", prepare: two,
            command: ["archive", "set", "one.tar", "--split", "256K"],
            sets: [
                SetState(path: "one.tar", before: [:], after: ["second": "b.img"], isNew: true, isArchive: true),
                SetState(path: "set", before: both, after: both),
            ], statusWhenDone: 4, step: 6),
        Verb(
            name: "key change", prepare: first + " --passphrase-file old",
            command: ["key", "change", "set", "--passphrase-file", "old", "--new-passphrase-file", "new"],
            sets: [
                SetState(
                    path: "set", passphrases: ["new", "old"], before: ["first": "a.img"], after: ["first": "a.img"])
            ], statusWhenDone: 6,
            // Unfinished files may be packs: the next backup looks what is in them.
            afterwards: [["backup", "a.img", "--to", "set", "--name", "first", "--passphrase-file", "new"]], step: 3),
        Verb(
            name: "repair",
            prepare: first + """
                 --protect 20
                pack=$(find set/packs -name '*.pack' -size +100k); point=$(find set/points -name '*.point')
                printf damage | dd of="$pack" bs=1 seek=300000 conv=notrunc status=none
                printf damage | dd of="$point" bs=1 seek=200 conv=notrunc status=none; rm set/set.b

                """,
            command: ["repair", "set", "--yes"],
            sets: [
                SetState(
                    path: "set", before: ["first": "a.img"], after: ["first": "a.img"], isDamaged: true)
            ],
            afterwards: [["backup", "a.img", "--to", "set", "--name", "first"]], step: 3),
        Verb(
            name: "forget",
            prepare: first + "\n" + second + "\n\"$relight\" points set | awk '/second/ { printf $1 }' > second.id",
            command: ["forget", "set", "--point", "@second.id"],
            sets: [
                SetState(
                    path: "set", before: ["first": "a.img", "second": "b.img"], after: ["first": "a.img"])
            ], statusWhenDone: 1,
            afterwards: [["prune", "set"], ["backup", "a.img", "--to", "set", "--name", "first"]], step: 2),
        Verb(
            name: "prune", prepare: first + "\n" + second + "\n\"$relight\" --quiet forget set@latest",
            command: ["prune", "set", "--garbage", "1"],
            sets: [SetState(path: "set", before: ["first": "a.img"], after: ["first": "a.img"])],
            afterwards: [["backup", "a.img", "--to", "set", "--name", "first"]]),
        Verb(
            name: "prune that removes",
            prepare: second + "\n" + first + "\n\"$relight\" --quiet forget set@latest",
            command: ["prune", "set", "--garbage", "90"],
            sets: [SetState(path: "set", before: ["second": "b.img"], after: ["second": "b.img"])],
            afterwards: [["backup", "b.img", "--to", "set", "--name", "second"]]),
    ]
}

/// A folder in the state before a verb, of which each attempt gets a copy.
struct Stage {
    let verb: Verb
    private let scratch: Scratch

    init(_ verb: Verb) throws {
        scratch = try Scratch()
        try scratch.sh("mkdir before; cd before; " + Verb.images + verb.prepare)
        var verb = verb
        for (index, word) in verb.command.enumerated() where word.hasPrefix("@") {
            verb.command[index] = try scratch.sh("cat before/\(word.dropFirst())")
        }
        self.verb = verb
    }

    /// Calls `body` with a fresh copy's path.
    func attempt<R>(_ body: (String) throws -> R) throws -> R {
        try scratch.sh("rm -rf attempt; cp -a before attempt")
        return try body(scratch.path + "/attempt")
    }
}
