// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

extension EFIDevicePath: CustomStringConvertible {
    /// As people write it (UEFI Specification 2.10, section 10.6.1.2): `HD(1,GPT,…,0x800,0x100000)/\EFI\BOOT\BOOTX64.EFI`.
    public var description: String {
        var text = ""
        for node in nodes {
            if node.isEnd {
                // Another path follows.
                text += ","
                continue
            }
            if !text.isEmpty, !text.hasSuffix(",") { text += "/" }
            text += node.text
        }
        return text
    }
}

extension EFIDevicePath.Node {
    private func hex(_ offset: Int, _ count: Int) -> String { "0x\(String(number(offset, count), radix: 16))" }

    private var raw: String { "Path(\(type),\(subtype),\(Hex.text(data)))" }

    /// The node as people write it.
    var text: String {
        switch type {
        case 1: hardware
        case 2: acpi
        case 3: messaging
        case 4: media
        case 5 where subtype == 1:
            "BBS(\(number(0, 2)),\(String(decoding: data.dropFirst(4).prefix { $0 != 0 }, as: UTF8.self)))"
        default: raw
        }
    }

    private var hardware: String {
        switch (subtype, data.count) {
        case (1, 2): "Pci(\(hex(1, 1)),\(hex(0, 1)))"
        case (3, 20): "MemoryMapped(\(hex(0, 4)),\(hex(4, 8)),\(hex(12, 8)))"
        case (4, 16...): GUID(bytes: Array(data.prefix(16))).map { "VenHw(\($0)\(rest(16)))" } ?? raw
        default: raw
        }
    }

    private var acpi: String {
        guard subtype == 1, data.count == 8 else { return raw }
        return switch number(0, 4) {
        case 0x0A03_41D0: "PciRoot(\(hex(4, 4)))"
        case 0x0A08_41D0: "PcieRoot(\(hex(4, 4)))"
        case 0x0604_41D0: "Floppy(\(hex(4, 4)))"
        default: "Acpi(\(hex(0, 4)),\(hex(4, 4)))"
        }
    }

    private var messaging: String {
        switch (subtype, data.count) {
        case (1, 4): "Ata(\(number(0, 1)),\(number(1, 1)),\(number(2, 2)))"
        case (2, 4): "Scsi(\(number(0, 2)),\(number(2, 2)))"
        case (5, 2): "USB(\(number(0, 1)),\(number(1, 1)))"
        case (11, 33): "MAC(\(Hex.text(data.prefix(number(32, 1) <= 1 ? 6 : 32))),\(number(32, 1)))"
        case (12, 15...): "IPv4(\(data[4..<8].map { "\($0)" }.joined(separator: ".")))"
        case (13, 32...): "IPv6(\(Hex.text(data[16..<32])))"
        case (17, 4): "Unit(\(number(0, 1)))"
        case (18, 6): "Sata(\(number(0, 2)),\(number(2, 2)),\(number(4, 2)))"
        case (23, 12):
            "NVMe(\(hex(0, 4)),\(data[4..<12].reversed().map { Hex.text([$0]) }.joined(separator: "-")))"
        case (24, _): "Uri(\(String(decoding: data, as: UTF8.self)))"
        case (10, 16...): GUID(bytes: Array(data.prefix(16))).map { "VenMsg(\($0)\(rest(16)))" } ?? raw
        default: raw
        }
    }

    private var media: String {
        if let partition {
            let signature =
                switch partition.signature {
                case .gpt(let guid): "GPT,\(guid)"
                case .mbr(let signature): "MBR,0x\(padded(signature))"
                case .other(let table, let kind): "\(table),\(kind)"
                }
            return "HD(\(partition.number),\(signature),\(hex(4, 8)),\(hex(12, 8)))"
        }
        if let file { return file }
        switch (subtype, data.count) {
        case (2, 20): return "CDROM(\(hex(0, 4)),\(hex(4, 8)),\(hex(12, 8)))"
        case (3, 16...): return GUID(bytes: Array(data.prefix(16))).map { "VenMedia(\($0)\(rest(16)))" } ?? raw
        case (6, 16): return GUID(bytes: data).map { "FvFile(\($0))" } ?? raw
        case (7, 16): return GUID(bytes: data).map { "Fv(\($0))" } ?? raw
        default: return raw
        }
    }

    private func padded(_ number: UInt32) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 8 - digits.count) + digits
    }

    private func rest(_ offset: Int) -> String { data.count > offset ? ",\(Hex.text(data.dropFirst(offset)))" : "" }
}
