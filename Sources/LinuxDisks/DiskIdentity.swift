// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Names a device gives itself, from where each driver shows them in sysfs.
enum DiskIdentity {
    /// Vendor and product; `ATA` is not a vendor but the kernel's word for one it does not know.
    static func model(_ files: KernelFiles, _ folder: String) -> String? {
        let model = files.word("\(folder)/device/model") ?? files.word("\(folder)/device/name", limit: 256)
        guard let model else { return files.word("\(folder)/dm/name") }
        guard let vendor = files.word("\(folder)/device/vendor"), vendor != "ATA", !vendor.hasPrefix("0x"),
            !model.hasPrefix(vendor)
        else { return model }
        return "\(vendor) \(model)"
    }

    /// The serial number. Sources in order: the block device's own (virtio), the controller's or card's (NVMe, MMC), the
    /// SCSI unit serial number page (SPC-5, 7.7.19), the end of a T10 name, the USB device's.
    static func serial(_ files: KernelFiles, _ folder: String, resolved: String) -> String? {
        if let own = files.word("\(folder)/serial", limit: 256) { return own }
        if let device = files.word("\(folder)/device/serial", limit: 256) { return device }
        if let page = files.bytes("\(folder)/device/vpd_pg80", limit: 512), let serial = unitSerial(page) {
            return serial
        }
        if let name = files.word("\(folder)/device/wwid", limit: 256), name.hasPrefix("t10.ATA"),
            let last = name.split(separator: " ").last, name.split(separator: " ").count >= 3
        {
            return String(last)
        }
        var place = resolved
        while let slash = place.lastIndex(of: "/"), slash != place.startIndex {
            place = String(place[..<slash])
            if files.exists("\(place)/idVendor") { return files.word("\(place)/serial", limit: 256) }
        }
        return nil
    }

    /// Unit serial number page: byte 1 is the page code 80h, bytes 2–3 the length, big-endian.
    static func unitSerial(_ page: [UInt8]) -> String? {
        guard page.count >= 4, page[1] == 0x80 else { return nil }
        let length = Int(page[2]) << 8 | Int(page[3])
        guard length > 0, page.count - 4 >= length else { return nil }
        return KernelFiles.clean(page[4..<(4 + length)])
    }

    /// The world wide name in the usual notation: an NAA name as `0x…`, others as the kernel prints them.
    static func worldWideName(_ files: KernelFiles, _ folder: String) -> String? {
        guard let name = files.word("\(folder)/wwid", limit: 256) ?? files.word("\(folder)/device/wwid", limit: 256)
        else { return nil }
        if name.hasPrefix("naa.") { return "0x" + name.dropFirst(4) }
        return ["eui.", "nvme.", "uuid."].contains { name.hasPrefix($0) } ? name : nil
    }

    /// How the device is attached, from its name and the devices above it in sysfs.
    static func bus(_ name: String, resolved: String, _ files: KernelFiles) -> String {
        for (prefix, bus) in [
            ("nvme", "nvme"), ("mmcblk", "mmc"), ("vd", "virtio"), ("xvd", "xen"), ("loop", "loop"), ("nbd", "nbd"),
            ("md", "md"), ("dm-", "dm"), ("pmem", "pmem"), ("dasd", "dasd"),
        ] where name.hasPrefix(prefix) { return bus }
        let parts = resolved.split(separator: "/").map(String.init)
        func numbered(_ prefix: String) -> Int? {
            parts.firstIndex { $0.hasPrefix(prefix) && $0.dropFirst(prefix.count).first?.isNumber == true }
        }
        if numbered("usb") != nil { return "usb" }
        if let ata = numbered("ata") {
            // The PCI class tells an IDE controller (01.01) from an AHCI one (01.06).
            let controller = "/" + parts[..<ata].joined(separator: "/")
            return files.word("\(controller)/class")?.hasPrefix("0x0101") == true ? "ide" : "sata"
        }
        if numbered("session") != nil { return "iscsi" }
        if parts.contains(where: { $0.hasPrefix("end_device") || $0.hasPrefix("sas_") }) { return "sas" }
        if numbered("rport-") != nil { return "fc" }
        if numbered("virtio") != nil { return "virtio-scsi" }
        if parts.contains(where: { $0.hasPrefix("vmbus") || $0.hasPrefix("VMBUS") }) { return "hyperv" }
        return numbered("host") != nil ? "scsi" : "unknown"
    }
}
