// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Tools

/// What the kernel remembers of a disk must not be taken for what is on it.
let sourceScenarios: [Scenario] = [
    Scenario(
        "stale-pages",
        shows: "A file overwritten between two backups is in the second one, though the kernel still holds the disk's "
            + "old pages because another partition is mounted."
    ) { stage in
        // Two partitions: one is held by a mount all the time, a file of the other is overwritten in place.
        let source = "\(stage.folder)/source.img"
        let store = "\(stage.folder)/store.img"
        try Tool("bash", package: "bash").check([
            "-euo", "pipefail", "-c",
            """
            truncate -s 130M "$1"
            printf 'label: gpt\\nstart=1MiB, size=64MiB\\nstart=65MiB, size=64MiB\\n' | sfdisk -q "$1"
            mkdir "$3"; head -c 3M /dev/zero | tr '\\0' A > "$3/file"
            mke2fs -q -t ext4 -E offset=$((1 << 20)) "$1" 64m
            mke2fs -q -t ext4 -d "$3" -E offset=$((65 << 20)) "$1" 64m
            mke2fs -q -t ext4 -L BACKUPS "$2" 256m
            """, "sh", source, store, "\(stage.folder)/files",
        ])
        let vm = try stage.start(
            Machine(
                .bios, stage.directBoot("relight.mode=shell"),
                disks: [
                    Disk(source, on: .virtioBlk, serial: "SOURCE"), Disk(store, on: .virtioBlk, serial: "STORE"),
                ]))
        try vm.openShell()
        try vm.expect(
            "modprobe -a virtio_blk ext4; n=0; until test -b /dev/vdb1 -o -b /dev/vda2; do n=$((n+1)); "
                + "test $n -lt 30 || break; sleep 1; done; d=; for b in /sys/class/block/vd?; do "
                + "test \"$(cat $b/serial)\" != SOURCE || d=/dev/${b##*/}; done; test -b ${d}2", within: 90)
        try vm.expect("mkdir -p /held /changed && mount -o ro ${d}1 /held", within: 60)
        let backup = "relight --quiet backup serial:SOURCE --to label:BACKUPS/set --name"
        try vm.expect("\(backup) before", within: 240)
        try vm.expect(
            "mount ${d}2 /changed && dd if=/dev/urandom of=/changed/file bs=1M count=3 conv=notrunc,fsync 2>/dev/null && "
                + "sum=$(sha256sum < /changed/file) && umount /changed", within: 60)
        let printed = try vm.expect("echo \"SUM $sum\"", within: 60)
        try vm.expect("\(backup) after", within: 240)
        try vm.expect("umount /held; sync", within: 60)
        vm.console.send("relight poweroff\r")
        try vm.waitForEnd(within: 60)

        // Judged on the host: the independent reader restores, debugfs takes the file.
        let sum = printed.split(whereSeparator: \.isNewline).last { $0.hasPrefix("SUM ") }
            .map { String($0.dropFirst(4).prefix(64)) }
        let reader = "/" + #filePath.split(separator: "/").dropLast(2).joined(separator: "/") + "/Judges/read_set.py"
        let found = try Tool("bash", package: "bash").check(
            [
                "-euo", "pipefail", "-c",
                """
                cd "$1"; mkdir set-of-guest out
                debugfs -R "rdump /set set-of-guest" store.img 2>/dev/null
                point=$(python3 "$2" list set-of-guest/set | awk '$3 == "after" { print $1 }')
                python3 "$2" restore set-of-guest/set "$point" out
                debugfs -R "dump /file out/file" "out/disk0.img?offset=$((65 << 20))" 2>/dev/null
                sha256sum < out/file
                """, "sh", stage.folder, reader,
            ], seconds: 300
        ).standardOutput
        try stage.require(
            sum?.count == 64 && found.hasPrefix(sum ?? "-"),
            "The file as it was after the change has \(sum ?? "?"), the one of the second point \(found).")
    }
]
