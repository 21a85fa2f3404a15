// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// The programs that Relight is compared with, as Debian ships them, each with the options that make it fast.
struct Peers {
    let places: Places

    func all() -> [Contender] {
        [Input.ext4, .xfs, .ntfs, .incompressible, .zeros, .tiny].map(partclone)
            + [e2image, qemu, fsarchiver(.ext4), fsarchiver(.xfs), ntfsclone, borg, borgEncrypted, restic]
    }

    private var zstd: String { "zstd -q -1 -T\(places.processors) -c > '\(places.set)'" }
    private var unpack: String { "zstd -q -dc '\(places.set)'" }

    /// Clonezilla's way, with zstd in place of gzip.
    private func partclone(_ input: Input) -> Contender {
        let log = "-L '\(places.work)/cache-partclone'"
        let buffer = "-z 10485760"
        var steps = [
            Step(
                jobs: [.backup(input)],
                command:
                    "partclone.\(input.filesystem.rawValue) \(buffer) \(log) -c -s '\(places.image(input))' -o - | \(zstd)",
                warm: [input], output: places.set)
        ]
        if input == .ext4 {
            steps.append(Step(jobs: [.verify], command: "\(unpack) | partclone.chkimg \(log) -s -"))
        }
        steps.append(
            Step(
                jobs: [.restore(input)], before: places.target(input),
                command: "\(unpack) | partclone.restore \(buffer) \(log) -s - -O '\(places.restored)'",
                restored: (places.restored, input)))
        return Contender(
            input: input, name: Name.partclone,
            tools: ["partclone.\(input.filesystem.rawValue)", "partclone.restore", "partclone.chkimg", "zstd"],
            steps: steps)
    }

    /// Used blocks, no checksums but zstd's own; a raw image when unpacked.
    private var e2image: Contender {
        Contender(
            input: .ext4, name: "e2image -ra | zstd -1", tools: ["e2image", "zstd"],
            steps: [
                Step(
                    jobs: [.backup(.ext4)], command: "e2image -ra '\(places.image(.ext4))' - | \(zstd)", warm: [.ext4],
                    output: places.set),
                Step(
                    jobs: [.restore(.ext4)], before: "rm -f '\(places.restored)'",
                    command: "zstd -q -d --sparse -o '\(places.restored)' '\(places.set)'",
                    restored: (places.restored, .ext4)),
            ])
    }

    private var ntfsclone: Contender {
        Contender(
            input: .ntfs, name: "ntfsclone | zstd -1", tools: ["ntfsclone", "zstd"],
            steps: [
                Step(
                    jobs: [.backup(.ntfs)],
                    command: "ntfsclone -q --save-image -o - -f '\(places.image(.ntfs))' | \(zstd)", warm: [.ntfs],
                    output: places.set),
                Step(
                    jobs: [.restore(.ntfs)], before: places.target(.ntfs),
                    command: "\(unpack) | ntfsclone -q --restore-image -O '\(places.restored)' -",
                    restored: (places.restored, .ntfs)),
            ])
    }

    /// Saves files, not blocks, and needs block devices.
    private func fsarchiver(_ input: Input) -> Contender {
        let file = "\(places.set).fsa"
        let device = "\(places.work)/cache-device"
        let detach =
            "for i in 1 2 3 4 5 6 7 8 9 10; do losetup -d $(cat '\(device)') && exit 0; sleep 0.3; done; exit 1"
        func attach(_ image: String, _ option: String = "") -> String {
            "losetup --find --show \(option) '\(image)' > '\(device)'"
        }
        return Contender(
            input: input, name: "fsarchiver -Z 1 (files)", tools: ["fsarchiver"],
            steps: [
                Step(
                    jobs: [.backup(input)], before: attach(places.image(input), "--read-only"),
                    command: "fsarchiver savefs -o -Z 1 -j\(places.processors) '\(file)' $(cat '\(device)')",
                    after: detach, warm: [input], output: file),
                Step(
                    jobs: [.restore(input)], before: "\(places.target(input)) && \(attach(places.restored))",
                    command: "fsarchiver restfs -j\(places.processors) '\(file)' id=0,dest=$(cat '\(device)')",
                    after: detach, restored: (places.restored, input)),
            ])
    }

    private var qemu: Contender {
        let options = "-m \(places.processors) -W"
        return Contender(
            input: .ext4, name: "qemu-img convert -c zstd", tools: ["qemu-img"],
            steps: [
                Step(
                    jobs: [.backup(.ext4)],
                    command:
                        "qemu-img convert \(options) -c -f raw -O qcow2 -o compression_type=zstd '\(places.image(.ext4))' '\(places.set)'",
                    warm: [.ext4], output: places.set),
                Step(
                    jobs: [.restore(.ext4)], before: "rm -f '\(places.restored)'",
                    command: "qemu-img convert \(options) -f qcow2 -O raw '\(places.set)' '\(places.restored)'",
                    restored: (places.restored, .ext4)),
            ])
    }

    private func borgCreate(_ archive: String) -> String {
        "cd '\(places.current)' && borg create --chunker-params fixed,1048576 -C zstd,1 '\(places.set)::\(archive)' disk.img"
    }

    private var borg: Contender {
        Contender(
            input: .ext4, name: "borg, fixed 1 MiB, zstd,1", tools: ["borg"],
            steps: [
                Step(
                    jobs: [.backup(.ext4)], before: "\(places.name(.ext4)) && borg init -e none '\(places.set)'",
                    command: borgCreate("base"), warm: [.ext4], output: places.set),
                Step(jobs: [.verify], command: "borg check --verify-data '\(places.set)'"),
                Step(
                    jobs: [.restore(.ext4)], before: "mkdir -p '\(places.folder)'",
                    command: "cd '\(places.folder)' && borg extract --sparse '\(places.set)::base'",
                    restored: ("\(places.folder)/disk.img", .ext4)),
                Step(
                    jobs: [.incremental], before: "rm -rf '\(places.folder)' && \(places.name(.changed))",
                    command: borgCreate("changed"), warm: [.changed], output: places.set),
            ])
    }

    private var borgEncrypted: Contender {
        Contender(
            input: .ext4, name: "borg, repokey", tools: ["borg"],
            steps: [
                Step(
                    jobs: [.encrypted], before: "\(places.name(.ext4)) && borg init -e repokey '\(places.set)'",
                    command: borgCreate("base"), warm: [.ext4], output: places.set)
            ])
    }

    /// Always encrypts; so it counts among the encrypted backups too.
    private var restic: Contender {
        let call = "restic -q -r '\(places.set)'"
        let backup = "\(call) backup --compression auto '\(places.current)/disk.img'"
        return Contender(
            input: .ext4, name: "restic, auto (encrypted)", tools: ["restic"],
            steps: [
                Step(
                    jobs: [.backup(.ext4), .encrypted],
                    before: "\(places.name(.ext4)) && \(call) init --repository-version 2", command: backup,
                    warm: [.ext4], output: places.set),
                Step(jobs: [.verify], command: "\(call) check --read-data"),
                Step(
                    jobs: [.restore(.ext4)], command: "\(call) restore latest --target '\(places.folder)'",
                    restored: ("\(places.folder)\(places.current)/disk.img", .ext4)),
                Step(
                    jobs: [.incremental], before: "rm -rf '\(places.folder)' && \(places.name(.changed))",
                    command: backup, warm: [.changed], output: places.set),
            ])
    }
}
