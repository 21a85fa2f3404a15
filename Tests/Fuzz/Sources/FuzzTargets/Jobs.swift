// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import LinuxDisks

@testable import Operations

extension FuzzTarget {
    /// Job files.
    static let job = FuzzTarget(name: "job", longest: 8_000, isText: true, seeds: JobSeeds.make) { input in
        guard let job = try? JobFile(parsing: input, name: "relight.job") else { return }
        keep(job)
        promise(!job.steps.isEmpty, "a job has a step")
        for step in job.steps {
            promise(step.arguments.first?.isEmpty == false, "a step is a command")
            promise(!step.arguments.contains { $0.utf8.contains(0) }, "no word holds a zero byte")
            guard step.verb == .restore else { continue }
            promise(!step.targets.isEmpty, "a restore has a target")
            for target in step.targets {
                promise((try? DiskSelector(target))?.isPinned == true, "an unattended target is pinned: \(target)")
            }
        }
    }
}

enum JobSeeds {
    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        let all = """
            {
              relight: 1, // a comment
              steps: [
                {backup: {disks: ["serial:OLD1", '/dev/sda:2'], to: "label:BACKUPS/sets/web01", name: "web01", level: 19,
                  onReadError: 'skip', volume: [1, "vg/root"], noVerify: true, passphraseFile: '/run/p'}},
                {verify: {set: "label:BACKUPS/sets/web01@latest", quick: true}},
                {restore: {from: "uuid:12-34/sets@ab12", to: [{disk: "serial:NEW1", source: 'sda'}, 'size:500G=sdb'],
                  layout: "proportional", noRepair: true, noAdapt: true, onDamage: 'skip', confirm: true}},
                {run: {command: ["sync", "-f"], timeout: 60}},
                {run: 'echo done'},
              ],
              after: "poweroff",
            }
            """
        let faulty =
            "{relight:1,steps:[{restore:{from:'/s',to:'/dev/sdb'}},{clone:{}},{\"x\":[1.5e3,0x1F,null,+Infinity]}],after:1}"
        return [("all", Array(all.utf8)), ("faulty", Array(faulty.utf8))]
    }
}
