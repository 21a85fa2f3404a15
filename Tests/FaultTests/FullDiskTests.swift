// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import Testing
import Tools

/// A tmpfs, unmounted with the value.
final class SmallPlace {
    let path: String
    init(_ path: String, bytes: Int) throws {
        self.path = path
        try Tool("mkdir", package: "coreutils").check(["-p", path])
        try resize(bytes, "")
    }
    deinit { _ = unsafe umount2(path, Int32(MNT_DETACH)) }

    /// tmpfs counts whole pages.
    func resize(_ bytes: Int, _ how: String = "remount,") throws {
        try Tool("mount", package: "mount").check(
            ["-t", "tmpfs", "-o", "\(how)size=\((bytes + 4095) / 4096 * 4096)", "relight-test", path])
    }

    /// Whether one can be mounted here.
    static let canMount: Bool = {
        guard getuid() == 0, let scratch = try? Scratch() else { return false }
        return (try? SmallPlace(scratch.path + "/mount", bytes: 1 << 20)) != nil
    }()
}

/// A place that is full: at every 64 KiB a backup may end for want of room, and with not one byte free everything but
/// writing goes on.
@Suite(
    .enabled(if: SmallPlace.canMount && Program.beside != nil, "needs root to mount a small filesystem"), .serialized
)
struct FullDiskTests {
    private static let state = SetState(
        path: "mount/set", before: ["first": "a.img"], after: ["first": "a.img", "second": "c.img"])

    /// Bytes the state before takes on a tmpfs, and those after the backup.
    private static func sizes(_ scratch: Scratch) throws -> (before: Int, after: Int) {
        let text = try scratch.sh(
            """
            set() { find set -type f -printf '%s\\n' | awk '{ n += int(($1 + 4095) / 4096) * 4096 } END { print n }'; }
            set; cp -a set grown; mv set kept; mv grown set
            "$relight" --quiet backup c.img --to set --name second >/dev/null; set; rm -rf set; mv kept set
            """)
        let numbers = text.split(separator: "\n").compactMap { Int($0) }
        try #require(numbers.count == 2)
        return (numbers[0], numbers[1])
    }

    @Test func wheneverTheRoomEndsWhatWasFinishedIsThere() throws {
        let scratch = try Scratch()
        try scratch.sh(Verb.images + "random 3 1500000 > c.img; truncate -s 2M c.img; " + Verb.first)
        let (before, after) = try Self.sizes(scratch)
        let room = after - before
        try #require(room > 20 * 65_536)
        var tried = 0
        for free in stride(from: 0, through: room - 4096, by: 65_536) where Amount.isFull || free / 65_536 % 5 == 0 {
            let moment = "\(free) bytes free of the \(room) needed"
            tried += 1
            let place = try SmallPlace(scratch.path + "/mount", bytes: before + free)
            try scratch.sh("cp -a set mount/set")
            let run = try Program.run(["backup", "c.img", "--to", "mount/set", "--name", "second"], in: scratch.path)
            #expect(run.status == 7, "\(moment): \(run.status) \(run.standardOutput)\(run.standardError)")
            #expect(
                run.isCleanFailure && run.standardError.contains("No space left"), "\(moment): \(run.standardError)")
            // Not one byte more.
            try scratch.sh("cat /dev/zero > mount/filler 2>/dev/null || true; test $(stat -f -c %a mount) = 0")
            try Self.state.expectEarlierPoints(in: scratch.path, moment)
            try Self.expectReadingGoesOn(scratch, moment)
            // With room the same command finishes.
            try scratch.sh("rm mount/filler")
            try place.resize(before + room + (1 << 20))
            let rerun = try Program.run(["backup", "c.img", "--to", "mount/set", "--name", "second"], in: scratch.path)
            #expect(rerun.status == 0, "\(moment), run again: \(rerun.standardError)")
            try Self.state.expectDone(in: scratch.path, moment)
            try Self.state.expectSound(in: scratch.path, moment)
            try Self.state.expectTidy(in: scratch.path, moment)
        }
        print("full disk: a backup of \(room) bytes ended at \(tried) multiples of 64 KiB")
    }

    /// `points`, `show`, `verify` and `restore` of a set on a place with no byte free.
    private static func expectReadingGoesOn(_ scratch: Scratch, _ moment: String) throws {
        for command in [["points", "mount/set"], ["show", "mount/set"], ["verify", "mount/set"]] {
            let run = try Program.run(command, in: scratch.path)
            #expect(run.status == 0, "\(moment): \(command): \(run.standardOutput)\(run.standardError)")
        }
        try scratch.sh("rm -f restored.img; truncate -s 1M restored.img")
        let restore = try Program.run(
            ["restore", "mount/set", "--to", "restored.img", "--yes"], in: scratch.path)
        #expect(restore.status == 0, "\(moment): \(restore.standardError)")
        try scratch.sh("cmp restored.img a.img")
    }
}
