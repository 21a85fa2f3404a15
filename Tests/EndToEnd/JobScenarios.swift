// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Tools

/// Unattended work by a job file.
let jobScenarios: [Scenario] = [
    Scenario(
        "job-file",
        shows: "A job file on a stick images a disk, verifies the set, restores to another disk, powers off.",
        in: .quick
    ) { stage in
        let old = "\(stage.folder)/old.img"
        try DemoDisk.copy(try DemoDisk.make(cache: stage.cache), to: old, nonce: "unused")
        let before = try MainJob.sha256(old)
        let new = try stage.emptyDisk("new", .gibibytes(3))
        let store = "\(stage.folder)/store.img"
        try DemoDisk.write(store, [], size: 2 << 30)
        try Tool("mke2fs", package: "e2fsprogs").check(["-q", "-t", "ext4", "-L", "BACKUPS", store])
        let stick = try jobStick(
            stage,
            """
            {
              relight: 1, // comments and unquoted keys are allowed
              steps: [
                {backup: {disks: ["serial:OLD1"], to: "label:BACKUPS/sets/web01", name: "web01"}},
                {verify: {set: "label:BACKUPS/sets/web01"}},
                {restore: {from: "label:BACKUPS/sets/web01", to: [{disk: "serial:NEW1"}], layout: "fill", confirm: true}},
              ],
              after: "poweroff",
            }

            """)
        let vm = try stage.start(
            Machine(
                .bios, stage.directBoot("relight.mode=job relight.countdown=2"),
                disks: [
                    Disk(old, on: .virtioBlk, serial: "OLD1"), Disk(new, on: .nvme, serial: "NEW1"),
                    Disk(store, on: .virtioScsi, serial: "STORE1"), Disk(stick, on: .usb, serial: "STICK1"),
                ]))
        for (number, verb) in ["backup", "verify", "restore"].enumerated() {
            let line = "RELIGHT-STEP \(number + 1) ok 0 \(verb)"
            let (seen, time) = try vm.console.waitForAny([line, "RELIGHT-JOB"], within: 600)
            try stage.require(seen == line, "Step \(number + 1), \(verb), did not end well.")
            stage.note(verb, Time.short(time) + " s")
        }
        try vm.console.wait("RELIGHT-JOB ok", within: 60)
        try vm.waitForEnd(within: 60)
        try stage.require(try MainJob.sha256(old) == before, "The source disk changed.")
        try MainJob(from: .virtioBlk, to: .nvme).judge(stage, old: old, new: new)
    },
    Scenario(
        "job-unpinned",
        shows: "A job that would overwrite a disk named only by its path is refused before its first step.",
        in: .quick
    ) { stage in
        let new = try stage.emptyDisk("new", .gibibytes(1))
        let stick = try jobStick(
            stage,
            """
            {relight: 1, steps: [
              {run: {command: ["/bin/echo", "first step ran"]}},
              {restore: {from: "label:BACKUPS/x", to: [{disk: "/dev/vda"}], confirm: true}}], after: "shell"}

            """)
        let vm = try stage.start(
            Machine(
                .bios, stage.directBoot("relight.mode=job relight.countdown=2"),
                disks: [Disk(new, on: .virtioBlk, serial: "NEW1"), Disk(stick, on: .usb, serial: "STICK1")]))
        try vm.console.wait("RELIGHT-JOB failed", within: 240)
        try stage.require(!vm.console.has("first step ran"), "A step of a refused job ran.")
        vm.stop()
    },
]

/// A small FAT stick labelled for jobs that holds `relight.job`.
private func jobStick(_ stage: Stage, _ job: String) throws(Fault) -> String {
    let path = "\(stage.folder)/stick.img"
    try DemoDisk.write(path, [], size: 16 << 20)
    try Tool("mkfs.fat", package: "dosfstools").check(["-n", "RELIGHTJOB", path])
    try writeText("\(stage.folder)/relight.job", job)
    try Tool("mcopy", package: "mtools").check(["-i", path, "\(stage.folder)/relight.job", "::/relight.job"])
    return path
}
