// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Testing
import Tools

private let isPossible: Bool =
    Program.path != nil
    && ["sfdisk", "mke2fs", "e2fsck", "debugfs", "cryptsetup", "python3"].allSatisfy {
        Tool($0, package: "").path != nil
    }

/// Disks with layers between partitions and filesystems, from `relight disks` to a restore onto garbage.
@Suite(.enabled(if: isPossible, "needs the built program, e2fsprogs, cryptsetup and Python's cryptography"))
struct LayerTests {
    static let mark = "a-plaintext-nobody-may-find"

    /// Encrypts or decrypts a payload as dm-crypt does, without the kernel.
    private static let crypt = """
        import sys
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        mode, key, sector, payload, disk, plain = sys.argv[1:]
        key, sector, payload = bytes.fromhex(key), int(sector), int(payload)
        source, target = (plain, disk) if mode == "encrypt" else (disk, plain)
        with open(source, "rb") as s, open(target, "r+b") as t:
            (t if mode == "encrypt" else s).seek(payload)
            number = 0
            while True:
                block = s.read(sector)
                if len(block) < sector: break
                c = Cipher(algorithms.AES(key), modes.XTS(number.to_bytes(16, "little")))
                x = c.encryptor() if mode == "encrypt" else c.decryptor()
                t.write(x.update(block) + x.finalize())
                number += sector // 512

        """

    /// `disk.img`: a GPT with one LUKS2 partition at 1 MiB, in it ext4 with `tree`; `plain` is that filesystem.
    private func encryptedDisk(_ scratch: Scratch) throws {
        try scratch.sh(
            """
            mkdir -p tree/sub; for n in $(seq 1 40); do { echo "$1 $n"; head -c $((n * 5000)) /dev/urandom; } > tree/sub/f$n; done
            truncate -s 120M disk.img
            printf 'label: gpt\nstart=2048, size=235520, type=CA7D7CCB-63ED-4C53-861C-1742536059CC\n' | sfdisk -q disk.img
            truncate -s 115M part; printf 'open sesame\n' > withnewline; printf 'open sesame' > pass; chmod 600 pass withnewline
            cryptsetup luksFormat -q --type luks2 --sector-size 512 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 part pass
            truncate -s 99M plain; mke2fs -q -F -t ext4 -L inside -d tree plain
            cryptsetup luksDump -q --dump-volume-key --key-file pass part | sed -n '/MK dump/,$p' | sed 's/MK dump://' \
              | tr -d ' \\t\\n' > key
            python3 -c "$2" encrypt $(cat key) 512 16777216 part plain
            dd if=part of=disk.img bs=1M seek=1 conv=notrunc,sparse status=none
            """, [Self.mark, Self.crypt])
    }

    @Test func anEncryptedVolumeIsImagedByItsSectorsInUseAndNoPlaintextIsStored() throws {
        let scratch = try Scratch()
        try encryptedDisk(scratch)
        let image = "\(scratch.path)/disk.img"
        let before = try sha256(image)
        let locked = try Program.run("disks", image)
        #expect(locked.status == 0 && locked.out.contains("LUKS2") && locked.out.contains("--unlock"), "\(locked.out)")
        let shown = try Program.run("--json", "disks", image, "--unlock", "1=\(scratch.path)/withnewline")
        #expect(shown.status == 0, "\(shown.err)")
        for word in ["\"layers\"", "\"ext4\"", "\"inside\"", "\"memberOf\"", "\"crypt\""] {
            #expect(shown.out.contains(word), "\(shown.out)")
        }

        let backup = try Program.run(
            "--json", "backup", image, "--to", "\(scratch.path)/set", "--level", "off", "--unlock",
            "1=\(scratch.path)/pass")
        try #require(backup.status == 0, "\(backup.err)")
        let document = try backup.document()
        #expect(document.findings?.map(\.code) == ["luks.pattern-visible"])
        // Header and key slots have 16 MiB, the filesystem a dozen.
        #expect(try #require(document.stored) < 44 << 20)
        #expect(try sha256(image) == before, "the backup changed its source")
        try scratch.sh("grep -q -F -e \"$1\" plain; ! grep -r -q -a -F -e \"$1\" set", [Self.mark])
        let point = try Program.run("show", "\(scratch.path)/set")
        #expect(point.out.contains("inside"), "\(point.out)")

        try scratch.sh("head -c 120M /dev/zero | tr '\\0' '\\245' > target.img")
        let restore = try Program.run("restore", "\(scratch.path)/set", "--to", "\(scratch.path)/target.img", "--yes")
        #expect(restore.status == 0, "\(restore.err)")
        try scratch.sh(
            """
            dd if=target.img of=back bs=1M skip=1 count=115 status=none
            cryptsetup open --test-passphrase --key-file pass back
            truncate -s 99M out; python3 -c "$1" decrypt $(cat key) 512 16777216 back out
            e2fsck -f -n out; mkdir files; debugfs -R "rdump / files" out; diff -r -x lost+found tree files
            """, [Self.crypt])
    }

    @Test func aWrongPassphraseEndsTheBackupBeforeAnythingIsWritten() throws {
        let scratch = try Scratch()
        try encryptedDisk(scratch)
        try scratch.sh("printf wrong > bad")
        let image = "\(scratch.path)/disk.img"
        try Program.mustFail(
            ["backup", image, "--to", "\(scratch.path)/set", "--unlock", "1=\(scratch.path)/bad"], status: 6,
            code: "key.wrong", saying: ["does not open"])
        try Program.mustFail(
            ["backup", image, "--to", "\(scratch.path)/set", "--unlock", "7=\(scratch.path)/pass"], status: 1,
            code: "missing", saying: ["no encrypted volume"])
        try Program.mustFail(
            ["disks", image, "--unlock", "1"], status: 2, code: "usage", saying: ["VOLUME=FILE"])
        try scratch.sh("! grep -r -q RLRC set")
    }

    static let hasLVM = Samples.areLoopsAvailable && Tool("lvm", package: "lvm2").path != nil

    @Test(.enabled(if: hasLVM, "root, loop devices and lvm2 are needed"))
    func aVolumeGroupOverTwoDisksComesBack() throws {
        let scratch = try Scratch()
        try scratch.sh(
            """
            mkdir -p sys tree; for n in $(seq 1 40); do head -c $((n * 9000)) /dev/urandom > tree/f$n; done
            truncate -s 90M a.img; truncate -s 80M b.img
            a=$(losetup -f --show a.img); b=$(losetup -f --show b.img); trap 'losetup -d $a $b' EXIT
            export LVM_SYSTEM_DIR=$PWD/sys LVM_SUPPRESS_FD_WARNINGS=1
            config="backup{backup=0 archive=0} global{activation=0 use_lvmlockd=0 use_lvmpolld=0} devices{use_devicesfile=0
              obtain_device_list_from_udev=0 external_device_info_source=\\"none\\" hints=\\"none\\"
              filter=[\\"a|^$a\\$|\\",\\"a|^$b\\$|\\",\\"r|.*|\\"]}"
            v() { lvm "$@" --nolocking --config "$config" >> log 2>&1; }
            v pvcreate -ff -y $a $b; v vgcreate -s 1m vg $a $b; v lvcreate -an -Zn -Wn -n data -l 140 vg
            # Linear: all of the first disk's 89 extents, then 51 of the second's.
            truncate -s 140M fs; mke2fs -q -F -t ext4 -d tree fs
            dd if=fs of=a.img bs=1M seek=1 count=89 conv=notrunc status=none
            dd if=fs of=b.img bs=1M seek=1 skip=89 conv=notrunc status=none
            lvm pvs --segments -o pv_name,pvseg_start,pvseg_size,lv_name --noheadings --nolocking --config "$config" 2>>log \
              | grep -c data | grep -x 2
            """)
        let set = "\(scratch.path)/set"
        let shown = try Program.run("disks", "\(scratch.path)/a.img", "\(scratch.path)/b.img")
        #expect(shown.out.contains("vg/data  ext4"), "\(shown.out)")
        let backup = try Program.run(
            "--json", "backup", "\(scratch.path)/a.img", "\(scratch.path)/b.img", "--to", set, "--level", "off")
        try #require(backup.status == 0, "\(backup.err)")
        #expect(try #require(backup.document().stored) < 40 << 20)
        try scratch.sh(
            """
            head -c 90M /dev/zero | tr '\\0' '\\245' > ta.img; head -c 80M /dev/zero | tr '\\0' '\\245' > tb.img
            """)
        let restore = try Program.run(
            "restore", set, "--to", "\(scratch.path)/ta.img=1", "--to", "\(scratch.path)/tb.img=2", "--yes")
        #expect(restore.status == 0, "\(restore.err)")
        try scratch.sh(
            """
            dd if=ta.img of=back bs=1M skip=1 count=89 status=none
            dd if=tb.img of=back bs=1M skip=1 seek=89 count=51 conv=notrunc status=none
            e2fsck -f -n back; mkdir files; debugfs -R "rdump / files" back; diff -r -x lost+found tree files
            """)
    }
}
