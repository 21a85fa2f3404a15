// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Tools

/// Layers made by the kernel's own drivers: imaged on the host by their used blocks, restored onto garbage, opened again.
let layerScenarios: [Scenario] = [
    Scenario("layers", shows: "md, LVM and LUKS, in each other and over two disks, come back from their used blocks.") {
        stage in
        let names = ["one", "two", "three"]
        let sizes: [ByteCount] = [.mebibytes(700), .mebibytes(400), .mebibytes(200)]
        func machine(_ paths: [String]) -> Machine {
            Machine(
                .bios, stage.directBoot("relight.mode=shell"),
                disks: zip(paths, names).map { Disk($0, on: .virtioBlk, serial: $1.uppercased()) })
        }
        func prepare(_ vm: VirtualMachine) throws {
            try vm.openShell()
            try vm.expect(
                "modprobe -a virtio_blk ext4 xfs dm_mod dm_crypt dm_raid raid1; n=0; until test -b /dev/vdc; do "
                    + "n=$((n+1)); test $n -lt 30 || break; sleep 1; done; test -b /dev/vdc", within: 90)
        }
        let sources = try zip(names, sizes).map { try stage.emptyDisk($0, $1) }

        let making = try stage.start(machine(sources))
        try prepare(making)
        let steps = [
            "for d in vda vdb; do sgdisk -n 1:0:+120M -n 2:0:0 /dev/$d >/dev/null && partprobe /dev/$d; done; sleep 1",
            "mdadm --create /dev/md9 -q --run --level 1 --raid-devices 2 --metadata 1.2 --name kept /dev/vda1 /dev/vdb1",
            "lvm vgcreate -q -s 1m --devices /dev/vda2,/dev/vdb2 vg0 /dev/vda2 /dev/vdb2",
            "L='lvm lvcreate -q -y --devices /dev/vda2,/dev/vdb2'; $L -L 60m -n ext vg0 /dev/vdb2 && "
                + "$L -L 320m -n xfs vg0 && $L --type raid1 -m 1 -L 50m -n mirror vg0 && $L -L 90m -n crypt vg0",
            "P='--pbkdf pbkdf2 --pbkdf-force-iterations 1000'; printf secret > /tmp/key && "
                + "cryptsetup -q luksFormat $P --sector-size 4096 /dev/vg0/crypt /tmp/key && "
                + "cryptsetup open --key-file /tmp/key /dev/vg0/crypt inner && "
                + "cryptsetup -q luksFormat $P --sector-size 512 /dev/vdc /tmp/key && "
                + "cryptsetup open --key-file /tmp/key /dev/vdc outer",
            "lvm vgcreate -q --devices /dev/mapper/outer vg1 /dev/mapper/outer && "
                + "lvm lvcreate -q -y --devices /dev/mapper/outer -L 120m -n home vg1",
            "mkfs.ext4 -q /dev/md9 && mkfs.ext4 -q /dev/vg0/ext && mkfs.ext4 -q /dev/vg0/mirror && mkfs.xfs -q /dev/vg0/xfs "
                + "&& mkfs.ext4 -q -b 4096 /dev/mapper/inner && mkfs.ext4 -q /dev/vg1/home",
            "for d in md9 vg0/ext vg0/mirror vg0/xfs mapper/inner vg1/home; do mount /dev/$d /mnt && mkdir /mnt/d && "
                + "for n in 1 2 3 4 5 6 7 8; do (echo a-secret-in-plain-sight $n; head -c 2000000 /dev/urandom) > /mnt/d/f$n; "
                + "done && rm /mnt/d/f3 /mnt/d/f5 && (cd /mnt && sha256sum d/* > sums) && umount /mnt || echo FAILED $d; done",
            "lvm vgchange -q --devices /dev/mapper/outer -an vg1 && cryptsetup close outer && cryptsetup close inner && "
                + "lvm lvs -q --devices /dev/vda2,/dev/vdb2 -o copy_percent vg0/mirror && "
                + "lvm vgchange -q --devices /dev/vda2,/dev/vdb2 -an vg0 && mdadm -q --wait /dev/md9; mdadm -q --stop /dev/md9",
        ]
        for step in steps {
            let output = try making.expect(step, within: 240)
            try stage.require(!output.contains("FAILED"), "a filesystem could not be filled: \(output)")
        }
        try making.expect("sync; blockdev --flushbufs /dev/vda /dev/vdb /dev/vdc", within: 60)
        making.stop()

        let key = "\(stage.folder)/key"
        try writeText(key, "secret")
        let relight = Tool(stage.program, package: "relight")
        let set = "\(stage.folder)/set"
        let shown = try relight.check(
            ["disks"] + sources + ["--unlock", "vg0/crypt=\(key)", "--unlock", "\(sources[2])=\(key)"], seconds: 600)
        try writeText("\(stage.folder)/disks.txt", shown.standardOutput)
        try stage.require(
            !shown.standardOutput.contains("imaged whole"), "something is imaged whole: \(shown.standardOutput)")
        try relight.check(
            ["backup"] + sources + ["--to", set, "--level", "off", "--unlock", "vg0/crypt=\(key)"]
                + ["--unlock", "\(sources[2])=\(key)"], seconds: 1200)
        let du = try Tool("du", package: "coreutils").check(["-sm", set]).standardOutput
        let megabytes = Int(du.prefix { $0 != "\t" }) ?? .max
        stage.note("set", "\(megabytes) MiB of 1300")
        try stage.require(megabytes < 320, "the set has \(megabytes) MiB")
        var targets: [String] = []
        for (name, size) in zip(names, sizes) {
            let path = "\(stage.folder)/target-\(name).img"
            try Tool("sh", package: "dash").check(
                ["-c", "head -c \(size.bytes) /dev/zero | tr '\\0' '\\245' > \"$1\"", "sh", path], seconds: 300)
            targets.append(path)
        }
        try relight.check(
            ["restore", set, "--yes"] + targets.enumerated().flatMap { ["--to", "\($1)=\($0 + 1)"] }, seconds: 1200)

        let opening = try stage.start(machine(targets))
        try prepare(opening)
        let back = [
            "mdadm --assemble /dev/md9 -q /dev/vda1 /dev/vdb1 && printf secret > /tmp/key",
            "lvm vgchange -q --devices /dev/vda2,/dev/vdb2 -ay vg0",
            "cryptsetup open --key-file /tmp/key /dev/vg0/crypt inner && cryptsetup open --key-file /tmp/key /dev/vdc outer",
            "lvm vgchange -q --devices /dev/mapper/outer -ay vg1",
            "for d in md9 vg0/ext vg0/mirror mapper/inner vg1/home; do e2fsck -fn /dev/$d || echo FAILED $d; done",
            "xfs_repair -n /dev/vg0/xfs",
            "for d in md9 vg0/ext vg0/mirror vg0/xfs mapper/inner vg1/home; do mount -o ro /dev/$d /mnt && (cd /mnt && "
                + "sha256sum --check --quiet sums && test $(ls d | wc -l) = 6) && umount /mnt || echo FAILED $d; done",
        ]
        for step in back {
            let output = try opening.expect(step, within: 240)
            try stage.require(!output.contains("FAILED"), "a filesystem did not come back: \(output)")
        }
        opening.stop()
    }
]
