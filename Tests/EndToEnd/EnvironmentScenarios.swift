// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

/// What the environment's own files can do, asked in its shell.
let environmentScenarios: [Scenario] = [
    Scenario("environment-files", shows: "Every file is as the manifest says, and no program lacks a library.") {
        stage in
        let vm = try stage.start(Machine(.bios, stage.directBoot("relight.mode=shell")))
        try vm.openShell()
        try vm.expect(
            "sed 1d /etc/relight/manifest | awk '{print $1 \"  \" $3}' | sha256sum --check --quiet", within: 120)
        // The number guards the test itself: a loop that looks at nothing must not pass.
        try vm.expect(
            "n=0; for f in /usr/bin/* /usr/sbin/*; do test -L $f && continue; "
                + "l=$(/lib64/ld-linux-x86-64.so.2 --list $f 2>&1); case \"$l\" in *'not found'*|*'cannot open'*) "
                + "echo $f; n=-9999;; *'=> /usr/lib/'*|*'=> /lib/'*) n=$((n+1));; esac; done; "
                + "echo $n programs; test $n -gt 250", within: 240)
        vm.stop()
    },
    Scenario("environment-drivers", shows: "Drivers of every kind load under Secure Boot's lockdown.") { stage in
        let vm = try stage.start(Machine(.secureBoot, .usb(stage.iso)))
        try vm.passBootMenu(entry: .shell)
        try vm.openShell()
        for names in [
            "ahci nvme virtio_blk virtio_scsi mpt3sas megaraid_sas hpsa qla2xxx sym53c8xx uas sdhci_pci mmc_block",
            "ext4 xfs btrfs f2fs vfat exfat ntfs3 isofs udf squashfs overlay hfsplus nfs nfsv4 cifs fuse efivarfs",
            "dm_mod dm_crypt dm_thin_pool dm_raid raid1 raid456 bcache loop nbd iscsi_tcp",
            "e1000e igb ixgbe i40e ice r8169 tg3 bnx2x bnxt_en mlx5_core virtio_net vmxnet3 r8152 bonding",
            "usbhid hid_generic hid_multitouch i2c_hid_acpi psmouse atkbd",
        ] {
            try vm.expect("modprobe -a \(names)", within: 120)
        }
        // These refuse to start on a machine of another kind; that they are there must do.
        try vm.expect("modinfo -F filename hv_netvsc hv_storvsc hyperv_keyboard xen_blkfront xen_netfront", within: 30)
        try vm.expect("mount -t efivarfs efivarfs /mnt && efibootmgr -v | grep -q BootOrder; umount /mnt", within: 30)
        try vm.expect("mokutil --sb-state | grep -q enabled", within: 30)
        try vm.expect("dmesg | grep -q 'Kernel is locked down from EFI Secure Boot'", within: 30)
        vm.stop()
    },
    Scenario("environment-network", shows: "A wired card gets its address by DHCP, and the name server with it.") {
        stage in
        let vm = try stage.start(Machine(.bios, stage.directBoot("relight.mode=shell")))
        try vm.openShell()
        try vm.expect(
            "n=0; until ip -4 -br address | grep -q 10.0.2.15 && grep -q 10.0.2.3 /etc/resolv.conf; do "
                + "n=$((n+1)); test $n -lt 60 || break; sleep 1; done; ip -4 -br address; test $n -lt 60", within: 120)
        vm.stop()
    },
    Scenario("environment-in-memory", shows: "The stick can be pulled once the console is up.") { stage in
        let vm = try stage.start(Machine(.uefi, .usb(stage.iso)))
        try vm.passBootMenu(entry: .shell)
        try vm.openShell()
        try vm.expect("test -e /sys/class/block/sda", within: 30)
        try vm.command(#"{"execute":"device_del","arguments":{"id":"medium-device"}}"#)
        try vm.expect(
            "n=0; while test -e /sys/class/block/sda && test $n -lt 30; do n=$((n+1)); sleep 1; done; test $n -lt 30",
            within: 60)
        try vm.expect(
            "sha256sum --check --quiet < <(awk 'NR > 1 {print $1 \"  \" $3}' /etc/relight/manifest)", within: 120)
        vm.stop()
    },
    Scenario("environment-filesystems", shows: "File systems and layers are made, checked and mounted on a disk.") {
        stage in
        let disk = try stage.emptyDisk("scratch", .mebibytes(1024))
        let machine = Machine(
            .bios, stage.directBoot("relight.mode=shell"), disks: [Disk(disk, on: .virtioBlk, serial: "SCRATCH")])
        let vm = try stage.start(machine)
        try vm.openShell()
        try vm.expect(
            "modprobe -a virtio_blk ext4 xfs btrfs f2fs vfat exfat ntfs3 dm_mod dm_crypt raid1 loop", within: 60)
        try vm.expect(
            "for i in 1 2 3 4 5 6 7 8 9; do test -b /dev/vda && break; sleep 1; done; test -b /dev/vda", within: 30)
        for (make, kind, check) in [
            ("mkfs.ext4 -q -F", "ext4", "e2fsck -fn"), ("mkfs.xfs -q -f", "xfs", "xfs_repair -n"),
            ("mkfs.btrfs -q -f", "btrfs", "btrfs check --force"), ("mkfs.f2fs -q -f", "f2fs", "fsck.f2fs --dry-run"),
            ("mkfs.fat -F 32 -I", "vfat", "fsck.fat -n"), ("mkfs.exfat -q", "exfat", "fsck.exfat -n"),
            ("mkfs.ntfs -q -f -F", "ntfs3", "ntfsfix -n"),
        ] {
            try vm.expect(
                "\(make) /dev/vda >/tmp/out 2>&1 && mount -t \(kind) /dev/vda /mnt && cp /usr/bin/bash /mnt/ && "
                    + "umount /mnt && \(check) /dev/vda >>/tmp/out 2>&1 || (cat /tmp/out; false)", within: 120)
        }
        try vm.expect(
            "wipefs -qa /dev/vda && lvm pvcreate -q --devices /dev/vda /dev/vda && "
                + "vgcreate -q --devices /dev/vda vg /dev/vda && lvcreate -q --devices /dev/vda -L 200m -n lv vg && "
                + "mkfs.ext4 -q /dev/vg/lv && vgchange -q --devices /dev/vda -an vg", within: 120)
        try vm.expect(
            "wipefs -qa /dev/vda && printf secret | cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "
                + "/dev/vda - && printf secret | cryptsetup open /dev/vda clear && mkfs.ext4 -q /dev/mapper/clear && "
                + "cryptsetup close clear", within: 120)
        try vm.expect(
            "wipefs -qa /dev/vda && sgdisk -n 1:0:+200M -n 2:0:+200M /dev/vda >/dev/null && partprobe /dev/vda && "
                + "mdadm --create /dev/md9 -q --run --level 1 --raid-devices 2 --metadata 1.2 /dev/vda1 /dev/vda2 && "
                + "mkfs.ext4 -q /dev/md9 && mdadm -q --stop /dev/md9", within: 120)
        vm.stop()
    },
]

extension VirtualMachine {
    /// Waits for the environment and for its shell on the serial console.
    func openShell() throws(Fault) {
        try waitUntilReady()
        console.readFor(1)
        console.send("\r")
        // The prompt may hold colours; a command's answer is the sure sign.
        _ = try console.command("export PS1='# '; stty -echo 2>/dev/null", within: 60)
    }

    /// Types a command to the shell and fails unless it ends with 0.
    @discardableResult
    func expect(_ line: String, within seconds: Double) throws(Fault) -> String {
        let (output, status) = try console.command(line, within: seconds)
        guard status == 0 else {
            throw Fault(
                .vm, what: "`\(line)` ended with \(status): \(SerialConsole.printable(output.utf8.suffix(600)))",
                remedy: "See the console log.")
        }
        return output
    }
}
