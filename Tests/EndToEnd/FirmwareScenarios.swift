// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Tools

/// Boot entries that are written here, and what a firmware makes of them.
let firmwareScenarios: [Scenario] = [
    Scenario(
        "efi-entries",
        shows:
            "OVMF boots an entry written into its variable file, and one that the environment wrote into its variables."
    ) { stage in
        // The environment's kernel is a loader of its own kind: UEFI starts it, its words are the entry's data.
        let disk = "\(stage.folder)/disk.img"
        let variables = "\(stage.folder)/variables-default.fd"
        try Tool("bash", package: "bash").check(
            [
                "-euo", "pipefail", "-c",
                """
                truncate -s 400M "$1"
                printf 'label: gpt\\nstart=1MiB, size=390MiB, type=U\\n' | sfdisk -q "$1"
                mformat -i "$1@@1M" -F -T $((390 * 2048)) -h 64 -s 32 ::
                mmd -i "$1@@1M" ::/relight
                mcopy -i "$1@@1M" "$2/vmlinuz" "$2/initrd" ::/relight/
                for name in first second; do
                  printf '%s' "initrd=\\\\relight\\\\initrd console=ttyS0,115200 initramfs_options=size=75% panic=60 \\
                no_timer_check relight.mode=shell entry=$name" | iconv -t UTF-16LE > "$3/$name"
                  printf '\\0\\0' >> "$3/$name"
                done
                mcopy -i "$1@@1M" "$3/second" ::/relight/
                cp "$4/OVMF_VARS_4M.fd" "$5"
                "$6" --quiet efi add "$1:1" /relight/vmlinuz --label "Relight first" --data-file "$3/first" --vars "$5"
                """, "sh", disk, stage.boot, stage.folder, VirtualMachine.firmwareFolder, variables, stage.program,
            ], seconds: 300)
        let machine = Machine(.uefi, .none, disks: [Disk(disk, on: .virtioBlk, serial: "ESP")])

        let first = try stage.start(machine)
        try first.openShell()
        try first.expect("grep -q entry=first /proc/cmdline", within: 60)
        let shown = try first.expect("relight efi list", within: 60)
        try stage.require(
            shown.contains("started by Boot0000") && shown.contains("Relight first"), "efi list: \(shown)")
        try first.expect("relight --quiet efi add /dev/vda:1 /none --label gone --last --undo-to /undo", within: 60)
        try first.expect("relight efi undo /undo", within: 60)
        let undone = try first.expect("relight efi list", within: 60)
        try stage.require(!undone.contains("gone"), "efi undo: \(undone)")
        try first.expect(
            "modprobe vfat; mount -t vfat -o ro /dev/vda1 /mnt && relight efi add /dev/vda:1 '\\relight\\vmlinuz' "
                + "--label 'Relight second' --data-file /mnt/relight/second --last && umount /mnt", within: 60)
        let entries = try first.expect("relight efi list", within: 60)
        let number = entries.split(whereSeparator: \.isNewline).first { $0.contains("Relight second") }
            .flatMap { $0.split(separator: " ").first { $0.hasPrefix("Boot") } }
        guard let number else {
            throw Fault(.vm, what: "The second entry is not listed: \(entries)", place: stage.folder, remedy: "")
        }
        try first.expect("relight efi next \(number)", within: 60)
        first.console.send("relight reboot\r")
        try first.waitForEnd(within: 120)

        let second = try stage.start(machine)
        try second.openShell()
        try second.expect("grep -q entry=second /proc/cmdline", within: 60)
        let now = try second.expect("relight efi list", within: 60)
        try stage.require(now.contains("started by \(number)"), "efi list: \(now)")
        // Efivarfs marks entries as not to be changed; they are removed all the same.
        try second.expect("relight efi remove \(number) && ! relight efi list | grep 'Relight second'", within: 60)
        second.stop()
    }
]
