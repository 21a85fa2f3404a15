// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Glibc
public import MachineModel

/// Facts about the running machine.
public enum MachineProbe {
    /// How the firmware started this system.
    public static func firmware(_ files: KernelFiles = .live) -> FirmwareMode {
        files.exists("/sys/firmware/efi") ? .uefi : .bios
    }

    /// Firmware mode, product and serial number. `version` is the program's own.
    public static func facts(version: String, _ files: KernelFiles = .live) -> MachineFacts {
        let parts = ["sys_vendor", "product_name"].compactMap { files.word("/sys/class/dmi/id/\($0)", limit: 256) }
        return MachineFacts(
            firmware: firmware(files), product: parts.isEmpty ? nil : parts.joined(separator: " "),
            serial: files.word("/sys/class/dmi/id/product_serial", limit: 256), relight: version)
    }

    /// Folder the environment keeps its state in; its marker tells programs that they run in it.
    public static let stateFolder = "/run/relight"

    /// Whether this program runs in the booted environment (PID 1 wrote the marker).
    public static func isEnvironment(_ files: KernelFiles = .live) -> Bool {
        files.exists("\(stateFolder)/environment")
    }
}

extension DiskScan {
    /// The volume identifier every Relight medium carries.
    public static let mediumLabel = "RELIGHT"

    /// Kernel names of the disks and drives that hold a Relight medium: their ISO 9660 primary volume descriptor
    /// (ECMA-119, 8.4, sector 16) names it.
    public func bootMedia() -> Set<String> {
        var result: Set<String> = []
        for device in devices where device.kind == .disk || device.kind == .optical {
            if let sector = DiskScan.volumeDescriptor(files.root + device.path), DiskScan.isMedium(sector) {
                result.insert(device.name)
            }
        }
        return result
    }

    /// Whether the sector is a primary volume descriptor with our identifier.
    static func isMedium(_ sector: [UInt8]) -> Bool {
        guard sector.count >= 72, sector[0] == 1, sector[1..<6].elementsEqual("CD001".utf8) else { return false }
        return KernelFiles.clean(sector[40..<72]) == mediumLabel
    }

    private static func volumeDescriptor(_ path: String) -> [UInt8]? {
        let descriptor = unsafe relight_open(path, O_RDONLY | O_NONBLOCK, 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var sector = [UInt8](repeating: 0, count: 2048)
        let got = unsafe sector.withUnsafeMutableBytes { unsafe pread(descriptor, $0.baseAddress, $0.count, 32_768) }
        return got == sector.count ? sector : nil
    }
}
