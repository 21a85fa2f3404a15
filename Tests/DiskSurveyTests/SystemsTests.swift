// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FileTrees
import FilesystemMaps
import Findings
import Geometry
import MachineModel
import Testing
import Tools

@testable import DiskSurvey

private let debian = """
    mkdir -p "$1/etc" "$1/usr/lib/modules/6.1.0-28-amd64" "$1/boot/grub/i386-pc" "$1/boot/efi"; cd "$1"
    printf 'ID=debian\\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\\nVERSION_ID=12\\n' > usr/lib/os-release
    ln -s ../usr/lib/os-release etc/os-release; echo web01 > etc/hostname
    printf '%s / ext4 defaults 0 1\\nUUID=ABCD-1234 /boot/efi vfat umask=0077 0 1\\n' "$2" > etc/fstab
    echo kernel > boot/vmlinuz-6.1.0-28-amd64; echo cpio > boot/initrd.img-6.1.0-28-amd64
    : > boot/grub/grub.cfg; : > boot/grub/i386-pc/core.img
    """

/// A Debian's root in an ext4 of 64 MiB.
private func root(_ source: String) throws -> ScratchDisk {
    let folder = try ScratchFolder()
    try shell.check(["-c", debian, "debian", "\(folder.path)/root", source])
    let disk = try ScratchDisk(.mebibytes(64))
    try mke2fs.check([
        "-q", "-F", "-t", "ext4", "-U", "11111111-2222-3333-4444-555555555555", "-d", "\(folder.path)/root", disk.path,
    ])
    return disk
}

@Suite(.enabled(if: haveTools, "sfdisk, mke2fs and mkfs.fat are needed"))
struct SystemsTests {
    /// An EFI system partition and a root.
    private func machine() throws -> ScratchDisk {
        let disk = try ScratchDisk(.mebibytes(120))
        try disk.partition("label: gpt\nsize=81920, type=uefi\nsize=131072, type=linux\n")
        try disk.put(mkfat, ["-F", "32", "-s", "1", "-i", "ABCD1234"], at: .mebibytes(1), .mebibytes(40))
        let root = try root("UUID=11111111-2222-3333-4444-555555555555")
        try disk.copy(root.path, at: 0, 64 << 20, to: 41 << 20)
        return disk
    }

    private func look(_ disk: ScratchDisk, _ host: ProbeHost? = .inProcess) throws -> SurveyedDisk {
        try DiskSurvey.look(at: [DiskToSurvey(FileSource(path: disk.path), path: "disk")], systems: host)[0]
    }

    @Test func theSystemOfADiskIsInItsModel() throws {
        let disk = try machine()
        let before = try disk.hash
        let seen = try look(disk)
        #expect(
            seen.model.systems?.map(\.summary) == [
                "Debian GNU/Linux 12 (bookworm) on disk:2, host web01, kernel 6.1.0-28-amd64 (+ initramfs), GRUB for BIOS"
            ])
        #expect(seen.model.systems?.first?.linux?.mounts.map(\.volume) == ["disk:2", "disk:1"])
        #expect(seen.model.efiPrograms == [])
        #expect(seen.model.findings.isEmpty, "\(seen.model.findings)")
        #expect(try disk.hash == before)
    }

    @Test func nobodyLooksWhereNobodyReads() throws {
        let seen = try look(try machine(), nil)
        #expect(seen.model.systems == nil && seen.model.efiPrograms == nil)
    }

    @Test func whatCannotBeReadIsAFindingAndTheSurveyStands() throws {
        let disk = try machine()
        // The inode of the root folder, and then the whole first inode table.
        try disk.poke((41 << 20) + 1024 + 0x70, [0xFF])
        let host = ProbeHost.child(program: "/nonexistent")
        let seen = try look(disk, host)
        #expect(seen.model.systems == [])
        #expect(
            seen.model.findings.contains { $0.code == "tool.failed" && $0.place == "disk:2" }, "\(seen.model.findings)")
        #expect(seen.volumes.count == 2 && seen.volumes[1].map.identity.kind == .ext4)
    }

    @Test(.enabled(if: haveLVM, "root, loop devices and lvm2 are needed"))
    func aSystemInAVolumeGroupOverTwoDisksIsFound() throws {
        let disks = try LVMDisks()
        try disks.create("root", ["-l", "40"], on: [0])
        try disks.tools.run(["lvextend", "-q", "-l", "64", "vg0/root", disks.loops[1].path])
        try disks.fill("vg0/root", root("/dev/mapper/vg0-root"))
        let seen = try DiskSurvey.look(
            at: [
                DiskToSurvey(FileSource(path: disks.first.path), path: "one"),
                DiskToSurvey(FileSource(path: disks.second.path), path: "two"),
            ], systems: .inProcess)
        let system = try #require(seen[0].model.systems?.first)
        #expect(system.volume == "vg0/root" && system.name.hasPrefix("Debian"))
        #expect(system.linux?.mounts.first?.volume == "vg0/root")
        #expect(seen[1].model.systems == [])
        // Its EFI system partition is on no disk here.
        #expect(seen[0].model.findings.map(\.code) == ["system.volume-missing"], "\(seen[0].model.findings)")
    }
}
