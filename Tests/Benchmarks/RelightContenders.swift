// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// Relight's ways through the jobs.
struct RelightContenders {
    let places: Places
    /// The binary, as an absolute path.
    let program: String
    /// Whether it takes a passphrase.
    let isEncrypting: Bool

    private var call: String { "'\(program)' --quiet" }

    private func backup(_ input: Input, _ options: String = "--no-verify") -> String {
        "\(call) backup '\(places.image(input))' --to '\(places.set)' \(options)"
    }

    private func restore(_ options: String = "--read-back off") -> String {
        "\(call) restore '\(places.set)' --to '\(places.restored)' --yes \(options)"
    }

    func all() -> [Contender] {
        Input.allCases.filter { $0 != .changed }.map(plain) + [encrypted, readBack]
    }

    private func plain(_ input: Input) -> Contender {
        var steps = [
            Step(jobs: [.backup(input)], command: backup(input), warm: [input], output: places.set)
        ]
        if input == .ext4 { steps.append(Step(jobs: [.verify], command: "\(call) verify '\(places.set)'")) }
        steps.append(
            Step(
                jobs: [.restore(input)], before: places.target(input), command: restore(),
                restored: (places.restored, input)))
        if input == .ext4 {
            steps.append(
                Step(
                    jobs: [.incremental], before: "rm -f '\(places.restored)'", command: backup(.changed),
                    warm: [.changed], output: places.set))
            steps.append(
                Step(
                    before: places.target(.changed), command: restore(), restored: (places.restored, .changed),
                    isOnce: true))
        }
        return Contender(input: input, name: Name.relight, steps: steps)
    }

    private var encrypted: Contender {
        let file = "\(places.work)/cache-passphrase"
        let option = "--passphrase-file '\(file)'"
        return Contender(
            input: .ext4, name: "\(Name.relight), encrypted",
            unavailable: isEncrypting ? nil : "this relight has no encryption",
            steps: [
                Step(
                    jobs: [.encrypted],
                    before: "echo 'correct horse battery staple' > '\(file)' && chmod 600 '\(file)'",
                    command: backup(.ext4, "--no-verify \(option)"), warm: [.ext4], output: places.set),
                Step(
                    before: places.target(.ext4), command: restore("--read-back off \(option)"),
                    restored: (places.restored, .ext4), isOnce: true),
            ])
    }

    private var readBack: Contender {
        Contender(
            input: .ext4, name: "\(Name.relight), read-back",
            steps: [
                Step(jobs: [.backupReadBack], command: backup(.ext4, ""), warm: [.ext4], output: places.set),
                Step(
                    jobs: [.restoreReadBack], before: places.target(.ext4), command: restore("--read-back full"),
                    restored: (places.restored, .ext4)),
            ])
    }
}
