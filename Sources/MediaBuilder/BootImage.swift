// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings

/// Lays kernel, initramfs and loaders out as one hybrid ISO: El Torito for BIOS and UEFI, a GPT with an EFI system
/// partition and GRUB's hybrid boot sector for sticks. `iso-builder/README.md` draws it.
struct BootImage {
    let root: DownloadedRoot
    let layout: Layout
    /// `bootenv/` of the source folder.
    let bootFolder: String
    let time: Int
    /// Kernel and initramfs, on this machine.
    let kernel: String
    let initramfs: String

    /// Builds the ISO at `output`, using `work` (a folder that may be emptied) for its pieces. The build id.
    func build(work: String, output: String) throws(Fault) -> String {
        try Files.freshFolder(work)
        let tree = work + "/tree"
        let id = String(
            try SHA256.hex(Data((try SHA256.hex(Files.bytes(kernel)) + SHA256.hex(Files.bytes(initramfs))).utf8))
                .prefix(16))
        let marker = "/.disk/relight-\(id)"
        try Files.write(Data("Relight recovery medium \(id)\n".utf8), to: tree + marker)
        try Files.link(kernel, to: tree + "/boot/vmlinuz")
        try Files.link(initramfs, to: tree + "/boot/initrd.img")
        try Files.write(try Files.bytes(bootFolder + "/grub.cfg"), to: tree + "/boot/grub/grub.cfg")
        try Files.write(try Files.bytes(bootFolder + "/medium.txt"), to: tree + "/README.TXT")

        let search = "search --no-floppy --file --set=root \(marker)\nset prefix=($root)/boot/grub\n"
        try Files.write(Data(search.utf8), to: work + "/bios.cfg")
        let menu = Data((search + "configfile $prefix/grub.cfg\n").utf8)
        try Files.write(menu, to: work + "/efi.cfg")
        // Started from a CD, the signed GRUB takes the whole disc, not the image in it, for its own volume.
        try Files.write(menu, to: tree + "/EFI/debian/grub.cfg")
        let bios = root.folder + "/usr/lib/grub/i386-pc"
        try root.run(
            "grub-mkimage",
            [
                "-d", bios, "-O", "i386-pc-eltorito", "-c", work + "/bios.cfg", "-p", "/boot/grub",
                "-o", tree + "/boot/grub/eltorito.img",
            ] + layout.biosModules)
        try buildEFIImage(work + "/efi.img", configuration: work + "/efi.cfg", work: work)
        try setTimes(tree)
        try Files.remove(output + ".part")
        try root.run(
            "xorriso",
            [
                "-no_rc", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-r", "-J", "-joliet-long",
                "-V", layout.volumeName, "--modification-date=" + Self.isoTime(time),
                "--set_all_file_dates", "set_to_mtime", "-o", output + ".part",
                "--grub2-mbr", bios + "/boot_hybrid.img", "-partition_offset", "16", "--mbr-force-bootable",
                "-append_partition", "2", "0xEF", work + "/efi.img", "-appended_part_as_gpt",
                "-c", "boot/boot.cat", "-b", "boot/grub/eltorito.img", "-no-emul-boot", "-boot-load-size", "4",
                "-boot-info-table", "--grub2-boot-info", "-eltorito-alt-boot",
                "-e", "--interval:appended_partition_2:all::", "-no-emul-boot", tree,
            ],
            environment: ["SOURCE_DATE_EPOCH": "\(time)"])
        guard case .file(let size, _)? = Files.kind(output + ".part") else {
            throw Fault(
                .mediaTool, what: "xorriso left no image.", place: output,
                remedy: "Check the free space in its folder.")
        }
        guard size <= layout.sizeLimit else {
            throw Fault(
                .mediaTooLarge, what: "The image has \(size) bytes; the layout allows \(layout.sizeLimit).",
                place: output + ".part", remedy: "Take packages, modules or firmware out of the hooks.")
        }
        try Files.move(output + ".part", to: output)
        return id
    }

    /// The EFI system partition: Debian's signed shim and GRUB, and GRUB's first configuration.
    ///
    /// The signed GRUB looks for its configuration in /EFI/debian on the volume it was loaded from; without that file
    /// it stops at its prompt when started from a stick.
    private func buildEFIImage(_ image: String, configuration: String, work: String) throws(Fault) {
        let surroundings = ["SOURCE_DATE_EPOCH": "\(time)"]
        try root.run(
            "mkfs.fat",
            ["-C", image, "-n", layout.efiVolumeName, "-i", layout.efiSerial, "--invariant", "\(layout.efiImageKiB)"],
            environment: surroundings)
        try root.run("mmd", ["-i", image, "::/EFI", "::/EFI/BOOT", "::/EFI/debian"], environment: surroundings)
        let signed = root.folder + "/usr/lib"
        for (source, target) in [
            (signed + "/shim/shimx64.efi.signed", "BOOT/BOOTX64.EFI"),
            (signed + "/shim/mmx64.efi.signed", "BOOT/mmx64.efi"),
            (signed + "/grub/x86_64-efi-signed/grubx64.efi.signed", "BOOT/grubx64.efi"),
            (configuration, "debian/grub.cfg"),
        ] {
            // A copy with the medium's time: mcopy -m keeps it.
            let copy = work + "/efi-copy"
            try Files.write(try Files.bytes(source), to: copy)
            try Files.setTime(copy, time)
            try root.run("mcopy", ["-m", "-i", image, copy, "::/EFI/" + target], environment: surroundings)
        }
    }

    private func setTimes(_ path: String) throws(Fault) {
        if case .folder? = Files.kind(path) {
            for name in try Files.names(in: path) { try setTimes(path + "/" + name) }
        }
        try Files.setTime(path, time)
    }

    /// `YYYYMMDDhhmmsscc` in UTC.
    static func isoTime(_ seconds: Int) -> String {
        let date = Date(timeIntervalSince1970: Double(seconds)).formatted(.iso8601)
        return date.filter(\.isNumber) + "00"
    }
}
