// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import Geometry
import Glibc
import Tools

/// The power goes while the environment backs up to a disk whose write cache is volatile.
let powerCutScenarios: [Scenario] = [
    Scenario(
        "power-cut",
        shows: "A disk loses what it had not flushed, at several moments of a backup to ext4 and FAT32: the earlier "
            + "point is whole, the new one is absent or whole, and there once success was reported; also when the disk is "
            + "backed up to again as it is, without a check of its filesystem."
    ) { stage in
        let states = try CutDisk.makeState(stage)
        let disks = try CutMoment.allCases.enumerated().flatMap { number, moment in
            try ["ext4", "vfat"].enumerated().map { kind, filesystem in
                try CutDisk(stage, number: number * 2 + kind + 1, filesystem, moment, set: states.set)
            }
        }
        let vm = try stage.start(
            Machine(
                .bios, stage.directBoot("relight.mode=shell"),
                disks: [Disk(states.new, on: .virtioBlk, serial: "SOURCE", snapshot: true)] + disks.map(\.disk)))
        try vm.openShell()
        for disk in disks { try disk.backUpAndCut(vm) }
        vm.stop()
        for disk in disks { disk.cut() }
        // Plugged in again as they are: nobody checks a stick's filesystem first.
        let again = try stage.start(
            Machine(
                .bios, stage.directBoot("relight.mode=shell"),
                disks: [Disk(states.third, on: .virtioBlk, serial: "SOURCE", snapshot: true)] + disks.map(\.asItIs)))
        try again.openShell()
        for disk in disks { try disk.backUpAgain(stage, again) }
        again.stop()
        var reported = 0
        var kept = 0
        for disk in disks {
            if disk.wasReported { reported += 1 }
            if try disk.judge(stage, old: states.old, new: states.new) { kept += 1 }
        }
        try stage.require(
            reported >= 2 && reported < disks.count,
            "Of \(disks.count) backups, \(reported) were reported done: the cuts came at the wrong moments.")
        stage.note("cuts", "\(disks.count)")
        stage.note("reported done", "\(reported)")
        stage.note("new point there", "\(kept)")
    }
]

/// When the power goes: as soon as the program says this.
enum CutMoment: String, CaseIterable {
    case imaging = "imaging: "
    case sealing = "sealing the recovery point"
    case readingBack = "reading back: "
    case done = "Recovery point "
}

/// A disk that an NBD server with a volatile write cache gives to the machine. It holds a set with one point.
private final class CutDisk {
    let filesystem: String
    let moment: CutMoment
    private let name: String
    private let image: String
    private let socket: String
    private var server: Int32?
    /// Whether the program reported the new point.
    private(set) var wasReported = false

    var disk: Disk {
        var disk = Disk("nbd+unix:///?socket=\(socket)", on: .virtioBlk, serial: name)
        disk.flushes = true
        return disk
    }

    /// Three disks' content, and a set with a point of the first.
    static func makeState(_ stage: Stage) throws(Fault) -> (old: String, new: String, third: String, set: String) {
        let state = "\(stage.folder)/state"
        try shell(
            """
            mkdir "$1"; cd "$1"
            random() { openssl enc -aes-128-ctr -K 0123456789abcdef0123456789abcdef -iv $(printf %032x $1) \
              -in /dev/zero 2>/dev/null < /dev/null | head -c $2 || true; }
            random 1 9M > old.img; truncate -s 16M old.img; cp old.img new.img
            random 2 6M | dd of=new.img bs=1M seek=4 conv=notrunc status=none
            cp old.img third.img; random 3 7M | dd of=third.img bs=1M seek=6 conv=notrunc status=none
            mkdir stick; "$2" --quiet backup old.img --to stick/set --name first
            """, [state, stage.program])
        return (state + "/old.img", state + "/new.img", state + "/third.img", state + "/stick/set")
    }

    private static func shell(_ script: String, _ arguments: [String]) throws(Fault) {
        try Tool("bash", package: "bash").check(["-euo", "pipefail", "-c", script, "sh"] + arguments)
    }

    init(_ stage: Stage, number: Int, _ filesystem: String, _ moment: CutMoment, set: String) throws(Fault) {
        self.filesystem = filesystem
        self.moment = moment
        name = "CUT\(number)"
        image = "\(stage.folder)/\(name).img"
        socket = "\(stage.folder)/\(name).sock"
        if filesystem == "ext4" {
            try CutDisk.shell("mke2fs -q -t ext4 -d \"$2/..\" \"$1\" 96m", [image, set])
        } else {
            try CutDisk.shell(
                "truncate -s 96M \"$1\"; mkfs.fat -F 32 \"$1\" >/dev/null; mcopy -s -i \"$1\" \"$2\" ::/", [image, set])
        }
        let nbdkit = try Tool("nbdkit", package: "nbdkit").requirePath()
        server = try Tool.spawn(
            nbdkit,
            [
                "nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "--filter=cache", "file", image,
                "cache=writeback",
            ])
        for _ in 0..<100 where unsafe access(socket, F_OK) != 0 { usleep(100_000) }
        try stage.require(unsafe access(socket, F_OK) == 0, "nbdkit does not start.")
    }

    deinit { cut() }

    /// The power goes: what was not flushed is gone.
    func cut() {
        guard let process = server else { return }
        server = nil
        kill(process, SIGKILL)
        _ = Tool.wait(process)
    }

    /// The image after the cut, of which writes are thrown away.
    var asItIs: Disk { Disk(image, on: .virtioBlk, serial: name, snapshot: true) }

    private func mount() -> String {
        "d=; for b in /sys/class/block/vd*; do test \"$(cat $b/serial 2>/dev/null)\" != \(name) || d=/dev/${b##*/}; "
            + "done; mkdir -p /\(name) && mount -t \(filesystem) $d /\(name)"
    }

    /// Backs up to what the cut left, which must harm nothing that is there.
    func backUpAgain(_ stage: Stage, _ vm: VirtualMachine) throws(Fault) {
        try vm.expect(mount(), within: 60)
        try vm.expect("relight --quiet backup serial:SOURCE --to /\(name)/set --name third", within: 240)
        // From the medium, not from memory.
        try vm.expect("umount /\(name)", within: 60)
        try vm.expect(mount(), within: 60)
        let (output, status) = try vm.console.command("relight verify /\(name)/set 2>&1", within: 240)
        try stage.require(
            status == 0 || output.contains("no recovery point lost anything"),
            "\(name) (\(filesystem), cut at \"\(moment.rawValue)\", not checked): \(output.suffix(600))")
        let (points, _) = try vm.console.command("relight points /\(name)/set", within: 60)
        for point in ["first", "third"] + (wasReported ? ["second"] : []) {
            try stage.require(points.contains(point), "\(name) (\(filesystem)): the point \(point) is gone: \(points)")
        }
        try vm.expect("umount /\(name)", within: 60)
    }

    /// Backs up to the disk and cuts its power at its moment.
    func backUpAndCut(_ vm: VirtualMachine) throws(Fault) {
        try vm.expect(mount(), within: 60)
        let before = vm.console.text.utf8.count
        let end = "\(name)-ENDED"
        vm.console.send(
            "relight backup serial:SOURCE --to /\(name)/set --name second 2>&1 | cat; echo \(name)'-'ENDED\r")
        let (seen, _) = try vm.console.waitForAny([moment.rawValue, end], within: 240)
        cut()
        if seen != end { try vm.console.wait(end, within: 240) }
        let output = String(decoding: vm.console.text.utf8.dropFirst(before), as: UTF8.self)
        wasReported = output.contains("Recovery point ") && output.contains("written in")
        // The filesystem is without its disk now.
        _ = try vm.console.command("umount -l /\(name)", within: 60)
    }

    /// Mends the filesystem as a start would, and looks at the set. Whether the new point is there.
    func judge(_ stage: Stage, old: String, new: String) throws -> Bool {
        let where_ = "\(name) (\(filesystem), cut at \"\(moment.rawValue)\")"
        let folder = "\(stage.folder)/\(name)"
        let check =
            filesystem == "ext4"
            ? try Tool("e2fsck", package: "e2fsprogs").run(["-p", image])
            : try Tool("fsck.fat", package: "dosfstools").run(["-a", image])
        try stage.require(
            check.status <= 1, "\(where_): the filesystem is broken: \(check.standardOutput)\(check.standardError)")
        let take =
            filesystem == "ext4"
            ? "mkdir \"$1\"; debugfs -R \"rdump /set $1\" \"$2\" 2>/dev/null"
            : "mkdir \"$1\"; mcopy -s -i \"$2\" ::/set \"$1\""
        try CutDisk.shell(take, [folder, image])
        let set = folder + "/set"

        // The independent reader says what is there.
        let reader = "/" + #filePath.split(separator: "/").dropLast(2).joined(separator: "/") + "/Judges/read_set.py"
        let python = Tool("python3", package: "python3")
        var names: Set<Substring> = []
        for line in try python.check([reader, "list", set]).standardOutput.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 2 else { continue }
            names.insert(words[2])
            let out = "\(folder)/out-\(words[2])"
            try Tool("mkdir", package: "coreutils").check([out])
            try python.check([reader, "restore", set, String(words[0]), out])
            try Tool("cmp", package: "diffutils").check([words[2] == "first" ? old : new, out + "/disk0.img"])
        }
        try stage.require(names.contains("first"), "\(where_): the earlier point is gone.")
        let isThere = names.contains("second")
        try stage.require(isThere || !wasReported, "\(where_): the point was reported and is gone.")

        // So does the program, and it goes on from there.
        let program = Tool(stage.program, package: "relight")
        let found = try program.run(["verify", set])
        try stage.require(
            found.status == 0 || found.standardOutput.contains("no recovery point lost anything"),
            "\(where_): \(found.standardOutput)\(found.standardError)")
        try program.check(["--quiet", "backup", new, "--to", set, "--name", "second"])
        try program.check(["--quiet", "verify", set])
        return isThere
    }
}
