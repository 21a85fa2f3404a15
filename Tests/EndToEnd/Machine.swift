// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

/// What starts the machine.
enum Firmware: String, CaseIterable, Sendable {
    case bios, uefi
    case secureBoot = "secureboot"

    /// For people.
    var title: String {
        switch self {
        case .bios: "BIOS"
        case .uefi: "UEFI"
        case .secureBoot: "UEFI with Secure Boot"
        }
    }
}

/// How a disk hangs on the machine.
enum Bus: String, CaseIterable, Sendable {
    case ide, ahci, virtioBlk, virtioScsi, nvme, usb
}

/// A disk of a machine: a raw image file.
struct Disk: Sendable {
    /// The image file.
    var path: String
    var bus: Bus
    /// Serial number the guest sees.
    var serial: String
    /// Logical and physical sector size, bytes; IDE and AHCI only know 512.
    var sectorSize = 512
    /// What the machine flushes is flushed to the image at once; else that is left to the host.
    var flushes = false
    /// Writes go to a throw-away layer.
    var isSnapshot = false
    /// Place in the firmware's order; `nil`: not started from.
    var bootIndex: Int?

    init(
        _ path: String, on bus: Bus, serial: String, sectorSize: Int = 512, snapshot: Bool = false,
        bootIndex: Int? = nil
    ) {
        self.path = path
        self.bus = bus
        self.serial = serial
        self.sectorSize = sectorSize
        self.isSnapshot = snapshot
        self.bootIndex = bootIndex
    }
}

/// What the machine is started from besides its disks.
enum Medium: Sendable {
    /// Nothing: its disks.
    case none
    /// An ISO in the CD drive.
    case cd(String)
    /// An ISO copied onto a USB stick.
    case usb(String)
    /// A kernel handed over directly, without firmware menus: for tests that are not about booting.
    case kernel(String, initramfs: String, words: String)
}

/// A virtual machine's description. QEMU, emulating the processor, so that results do not depend on the host's.
struct Machine: Sendable {
    var firmware: Firmware
    var medium: Medium
    var disks: [Disk] = []
    /// MiB.
    var memory = 1024
    /// One: emulated on several host threads, two have crashed Debian's kernel while it patched its own code.
    var processors = 1
    /// UEFI variables kept across starts of the same name in one scenario.
    var variables = "default"
    /// A restart ends the machine.
    var endsOnRestart = true
    /// More QEMU arguments.
    var extra: [String] = []

    init(_ firmware: Firmware, _ medium: Medium, disks: [Disk] = [], memory: Int = 1024) {
        self.firmware = firmware
        self.medium = medium
        self.disks = disks
        self.memory = memory
    }

    /// QEMU's arguments. `folder` holds the scenario's files; the UEFI variables are already there.
    func arguments(folder: String, index: Int) -> [String] {
        var words = [
            "-name", "relight-test", "-nodefaults", "-accel", "tcg", "-cpu", "max", "-m", "\(memory)",
            "-smp", "\(processors)", "-vga", "std", "-display", "none", "-serial", "stdio", "-monitor", "none",
            "-rtc", "base=utc", "-nic", "user,model=virtio-net-pci",
            "-chardev", "pipe,id=qmp,path=\(folder)/qmp-\(index)", "-mon", "chardev=qmp,mode=control",
        ]
        if endsOnRestart { words.append("-no-reboot") }
        switch firmware {
        case .bios: words += ["-machine", "pc"]
        case .uefi: words += ["-machine", "q35"] + flash("OVMF_CODE_4M.fd", folder)
        case .secureBoot:
            words += ["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
            words += flash("OVMF_CODE_4M.ms.fd", folder)
        }
        if case .kernel(let kernel, let initramfs, let line) = medium {
            words += ["-kernel", kernel, "-initrd", initramfs, "-append", line]
        }
        var usesUSB = disks.contains { $0.bus == .usb }
        if case .usb = medium { usesUSB = true }
        if usesUSB { words += ["-device", "qemu-xhci,id=xhci"] }
        if disks.contains(where: { $0.bus == .virtioScsi }) { words += ["-device", "virtio-scsi-pci,id=scsi"] }
        if disks.contains(where: { $0.bus == .ahci }) { words += ["-device", "ahci,id=ahci"] }
        if firmware != .bios, disks.contains(where: { $0.bus == .ide }) { words += ["-device", "piix3-ide,id=piix"] }
        switch medium {
        case .cd(let path):
            words += [
                "-drive", "if=none,id=medium,media=cdrom,readonly=on,format=raw,file=\(path)",
                "-device", "ide-cd,drive=medium,bus=ide.1,bootindex=0",
            ]
        case .usb(let path):
            words += [
                "-drive", "if=none,id=medium,format=raw,snapshot=on,file=\(path)",
                "-device", "usb-storage,id=medium-device,drive=medium,removable=on,bootindex=0",
            ]
        case .none, .kernel: break
        }
        for (number, disk) in disks.enumerated() { words += disk.arguments(number, firmware: firmware) }
        return words + extra
    }

    private func flash(_ code: String, _ folder: String) -> [String] {
        [
            "-drive", "if=pflash,format=raw,unit=0,readonly=on,file=\(VirtualMachine.firmwareFolder)/\(code)",
            "-drive", "if=pflash,format=raw,unit=1,file=\(folder)/variables-\(variables).fd",
        ]
    }
}

extension Disk {
    fileprivate func arguments(_ number: Int, firmware: Firmware) -> [String] {
        let drive =
            "if=none,id=disk\(number),format=raw,cache=\(flushes ? "writeback" : "unsafe"),file=\(path)"
            + (isSnapshot ? ",snapshot=on" : "")
        var device: String
        switch bus {
        case .ide:
            // The CD has the second channel of the PC machine's own controller.
            let channel = firmware == .bios ? "ide.0" : "piix.\(number / 2 % 2)"
            device = "ide-hd,bus=\(channel),unit=\(number % 2)"
        case .ahci: device = "ide-hd,bus=ahci.\(number)"
        case .virtioBlk: device = "virtio-blk-pci"
        case .virtioScsi: device = "scsi-hd,bus=scsi.0"
        case .nvme: device = "nvme"
        case .usb: device = "usb-storage,bus=xhci.0"
        }
        device += ",drive=disk\(number),serial=\(serial)"
        if sectorSize != 512 { device += ",logical_block_size=\(sectorSize),physical_block_size=\(sectorSize)" }
        if let bootIndex { device += ",bootindex=\(bootIndex)" }
        return ["-drive", drive, "-device", device]
    }
}
