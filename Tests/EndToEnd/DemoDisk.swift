// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import Glibc
import MediaBuilder
import Tools

/// A small real Debian 12, installed by mmdebstrap on a disk image that boots by BIOS and by UEFI: BIOS-boot partition,
/// EFI system partition, swap, ext4 root. Its initramfs has all drivers (`MODULES=most`), so it may move between
/// controllers. Made once and kept; tests work on copies.
struct DemoDisk {
    /// Where the root filesystem begins, in bytes.
    static let rootOffset = DemoDisk.rootStart * 512
    /// Size of the image.
    static let size: UInt64 = 1536 << 20

    private static let espStart: UInt64 = 2048
    private static let espSectors: UInt64 = 64 * 2048
    private static let swapStart = espStart + espSectors
    private static let swapSectors: UInt64 = 128 * 2048
    private static let rootStart = swapStart + swapSectors
    private static let rootSectors: UInt64 = 1200 * 2048
    private static let bootStart: UInt64 = 34

    private static let rootUUID = "7e117b00-5ee0-4d15-b007-0000000000a1"
    private static let swapUUID = "7e117b00-5ee0-4d15-b007-0000000000a2"
    private static let espSerial = "7E117B01"

    private static let packages = [
        "linux-image-cloud-amd64", "systemd-sysv", "udev", "initramfs-tools", "grub-pc-bin", "grub-efi-amd64-signed",
        "shim-signed", "e2fsprogs", "util-linux", "dbus", "login", "passwd",
    ]

    /// Runs inside mmdebstrap with the new system's root as `$1`: what an installer would have set up.
    private static let setUp = """
        #!/bin/sh
        set -eu
        root="$1"
        echo root:relight | chroot "$root" chpasswd
        echo demo > "$root/etc/hostname"
        printf '%s\\n' 'UUID=\(rootUUID) / ext4 errors=remount-ro 0 1' 'UUID=\(swapUUID) none swap sw 0 0' \\
            'UUID=7E11-7B01 /boot/efi vfat umask=0077,nofail 0 1' > "$root/etc/fstab"
        mkdir -p "$root/boot/efi" "$root/boot/grub/i386-pc" "$root/etc/issue.d"
        grep -q '^MODULES=most' "$root/etc/initramfs-tools/initramfs.conf"
        kernel=$(ls "$root/boot" | sed -n 's/^vmlinuz-//p')
        cat > "$root/boot/grub/grub.cfg" <<END
        serial --unit=0 --speed=115200
        terminal_output serial console
        set timeout=0
        search --no-floppy --fs-uuid --set=root \(rootUUID)
        linux /boot/vmlinuz-$kernel root=UUID=\(rootUUID) ro console=tty0 console=ttyS0 no_timer_check quiet
        initrd /boot/initrd.img-$kernel
        boot
        END
        chroot "$root" grub-mkimage -O i386-pc -p '(,gpt4)/boot/grub' -o /boot/grub/i386-pc/core.img biosdisk part_gpt \\
            ext2 normal configfile search search_fs_uuid linux serial terminal echo test boot
        cp "$root"/usr/lib/grub/i386-pc/*.img "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst \\
            "$root/boot/grub/i386-pc/" 2>/dev/null || true
        rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
        # The tree without the kernel's filesystems that are mounted in it now.
        cp -ax "$root" tree
        mke2fs -q -t ext4 -U \(rootUUID) -L demo-root -E hash_seed=\(rootUUID) -d tree root.img \(rootSectors / 2)k
        cp tree/boot/grub/i386-pc/boot.img tree/boot/grub/i386-pc/core.img .
        cp tree/usr/lib/shim/shimx64.efi.signed tree/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed .
        rm -rf tree
        """

    /// What is kept is used again only while the recipe is the same.
    private static var recipe: String {
        Hex.number(CRC32.castagnoli.checksum(Array((setUp + packages.joined()).utf8)))
    }

    /// Makes the image in the folder `cache` unless it is there, and returns its path.
    static func make(cache: String) throws(Fault) -> String {
        let image = "\(cache)/demo-disk-\(recipe).img"
        if unsafe access(image, R_OK) == 0 { return image }
        let work = "\(cache)/demo-disk.work"
        _ = try Tool("rm", package: "coreutils").check(["-rf", work])
        _ = try Tool("mkdir", package: "coreutils").check(["-p", work])
        try write(work + "/setup.sh", Array(setUp.utf8))
        // The same mirror as this machine's own apt.
        try write(work + "/sources.list", Array(try MediaBuilder.hostSources(suite: "bookworm").utf8))
        // Without root the hook runs as a user of a namespace, who needs a place to write.
        _ = try Tool("chmod", package: "coreutils").check(["777", work, work + "/setup.sh"])
        _ = try Tool("mmdebstrap", package: "mmdebstrap").check(
            [
                "--quiet", "--variant=minbase", "--mode=auto", "--format=null",
                "--include=\(packages.joined(separator: ","))", "--dpkgopt=path-exclude=/usr/share/man/*",
                "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
                "--customize-hook=cd '\(work)' && ./setup.sh \"$1\"", "bookworm", "-",
                "\(work)/sources.list",
            ], seconds: 1800)
        try assemble(work, "\(work)/disk.img")
        guard unsafe rename("\(work)/disk.img", image) == 0 else {
            throw Fault(
                .system, what: "It cannot be renamed: \(errorText(errno)).", place: image, remedy: "Check the disk.")
        }
        _ = try Tool("rm", package: "coreutils").check(["-rf", work])
        return image
    }

    /// A copy of the image at `path` whose login prompt shows `nonce`.
    static func copy(_ image: String, to path: String, nonce: String) throws(Fault) {
        _ = try Tool("cp", package: "coreutils").check(["--sparse=always", image, path])
        try write(path + ".nonce", Array("\(nonce)\n".utf8))
        defer { _ = unsafe unlink(path + ".nonce") }
        let result = try Tool("debugfs", package: "e2fsprogs").run(
            ["-w", "-R", "write \(path).nonce /etc/issue.d/relight.issue", "\(path)?offset=\(rootOffset)"])
        guard result.standardOutput.contains("Allocated inode") else {
            throw Fault(.toolFailed, what: "debugfs wrote no file: \(result.lastLine)", place: path, remedy: "")
        }
    }

    private static func assemble(_ work: String, _ image: String) throws(Fault) {
        try write(image, [], size: size)
        _ = try Tool("sfdisk", package: "fdisk").check(
            ["--quiet", image],
            input: Array(
                """
                label: gpt
                label-id: 7E117B00-5EE0-4D15-B007-000000000001
                first-lba: 34
                start=\(bootStart), size=\(espStart - bootStart), type=21686148-6449-6E6F-744E-656564454649, name="bios-boot"
                start=\(espStart), size=\(espSectors), type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp"
                start=\(swapStart), size=\(swapSectors), type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F, name="swap"
                start=\(rootStart), size=\(rootSectors), type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="root"

                """.utf8))
        let esp = "\(work)/esp.img"
        try write(esp, [], size: espSectors * 512)
        _ = try Tool("mkfs.fat", package: "dosfstools").check(["-F", "32", "-n", "DEMOESP", "-i", espSerial, esp])
        let stub = """
            search --no-floppy --fs-uuid --set=root \(rootUUID)
            set prefix=($root)/boot/grub
            configfile $prefix/grub.cfg

            """
        try write("\(work)/grub.cfg", Array(stub.utf8))
        _ = try Tool("mmd", package: "mtools").check(["-i", esp, "::/EFI", "::/EFI/BOOT", "::/EFI/debian"])
        for (file, place) in [
            ("shimx64.efi.signed", "BOOT/BOOTX64.EFI"), ("grubx64.efi.signed", "BOOT/grubx64.efi"),
            ("shimx64.efi.signed", "debian/shimx64.efi"), ("grubx64.efi.signed", "debian/grubx64.efi"),
            ("grub.cfg", "debian/grub.cfg"),
        ] {
            _ = try Tool("mcopy", package: "mtools").check(["-i", esp, "\(work)/\(file)", "::/EFI/\(place)"])
        }
        let swap = "\(work)/swap.img"
        try write(swap, [], size: swapSectors * 512)
        _ = try Tool("mkswap", package: "util-linux").check(["--quiet", "--uuid", swapUUID, swap])

        let disk = try WritableDisk(claiming: image)
        for (file, start) in [(esp, espStart), (swap, swapStart), ("\(work)/root.img", rootStart)] {
            try copy(try FileSource(path: file), to: disk.blocks, at: ByteCount(start * 512))
        }
        try installGrub(work, disk.blocks)
        try disk.finish()
    }

    /// GRUB for BIOS, as grub-install embeds it: core.img in the BIOS-boot partition, boot.img in sector 0.
    private static func installGrub(_ work: String, _ disk: FileTarget) throws(Fault) {
        var core = try read("\(work)/core.img")
        core += [UInt8](repeating: 0, count: (512 - core.count % 512) % 512)
        var boot = try read("\(work)/boot.img")
        let old = try disk.sector(LBA(0))
        boot.replaceSubrange(0x03..<0x5A, with: old[0x03..<0x5A])
        boot.replaceSubrange(0x1B8..<0x1FE, with: old[0x1B8..<0x1FE])
        put(bootStart, 8, at: 0x5C, in: &boot)
        boot.replaceSubrange(0x66..<0x68, with: [0x90, 0x90])
        put(bootStart + 1, 8, at: 0x1F4, in: &core)
        put(UInt64(core.count / 512 - 1), 2, at: 0x1FC, in: &core)
        put(0x820, 2, at: 0x1FE, in: &core)
        try unsafe disk.write(at: ByteCount(bootStart * 512), core.span.bytes)
        try unsafe disk.write(at: .zero, boot.span.bytes)
    }

    private static func put(_ value: UInt64, _ count: Int, at offset: Int, in bytes: inout [UInt8]) {
        for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index))) }
    }

    private static func copy(_ source: FileSource, to target: FileTarget, at start: ByteCount) throws(Fault) {
        var position = ByteCount.zero
        while position < source.length {
            let count = min(1 << 20, (source.length - position).int ?? 0)
            let piece = try source.bytes(at: position, count: count)
            if unsafe !piece.span.bytes.isAllZero { try unsafe target.write(at: start + position, piece.span.bytes) }
            position += ByteCount(UInt64(count))
        }
    }

    private static func read(_ path: String) throws(Fault) -> [UInt8] {
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Fault(.missing, what: "It is not there.", place: path, remedy: "") }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let got = unsafe Glibc.read(descriptor, &bytes, bytes.count)
        return Array(bytes[..<max(0, got)])
    }

    /// Writes a file; `size` makes it that long, with a hole behind the bytes.
    static func write(_ path: String, _ bytes: [UInt8], size: UInt64? = nil) throws(Fault) {
        let descriptor = unsafe open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw Fault(
                .noAccess, what: "It cannot be written: \(errorText(errno)).", place: path, remedy: "Check the folder.")
        }
        defer { close(descriptor) }
        let put = unsafe Glibc.write(descriptor, bytes, bytes.count)
        guard put == bytes.count, size.map({ ftruncate(descriptor, off_t($0)) == 0 }) ?? true else {
            throw Fault(
                .system, what: "It cannot be written: \(errorText(errno)).", place: path, remedy: "Check the disk.")
        }
    }
}
