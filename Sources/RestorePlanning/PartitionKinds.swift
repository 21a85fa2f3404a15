// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import MachineModel

/// What a partition is for, as far as that decides how it is laid out.
enum PartitionRole: Equatable {
    /// Holds a filesystem that people put things into.
    case data
    /// EFI system partition.
    case esp
    /// BIOS boot partition: GRUB's code, found by its place.
    case biosBoot
    /// PReP boot partition.
    case prep
    /// Microsoft reserved partition.
    case msr
    /// Windows' recovery tools.
    case recovery
    /// Extended boot loader partition, mounted at /boot.
    case xbootldr
    /// Linux swap.
    case swap
    /// A maker's partition, hidden or marked as required by the platform.
    case vendor

    /// Why it is never scaled; `nil` for those that are.
    var reason: String? {
        switch self {
        case .data: nil
        case .esp: "EFI system partition"
        case .biosBoot: "boot loader code"
        case .prep: "PReP boot partition"
        case .msr: "Microsoft reserved"
        case .recovery: "recovery tools"
        case .xbootldr: "boot loader partition"
        case .swap: "swap"
        case .vendor: "the maker's"
        }
    }

    /// The role of `partition` with `content`.
    init(_ partition: Partition, content: ContentKind?) {
        switch partition.type {
        case .gpt(let type):
            if let known = PartitionRole.types[type] {
                self = known
            } else if partition.attributes & 1 != 0 {
                self = .vendor
            } else {
                self = content == .swap ? .swap : .data
            }
        case .mbr(let type):
            switch type {
            case 0xEF: self = .esp
            case 0x27: self = .recovery
            case 0x41: self = .prep
            case 0x12, 0xDE, 0x84, 0xA0, 0x11, 0x14, 0x16, 0x17, 0x1B, 0x1C, 0x1E, 0xBB, 0xBE, 0xFE: self = .vendor
            default: self = content == .swap ? .swap : .data
            }
        }
    }

    private static let types: [GUID: PartitionRole] = {
        var result: [GUID: PartitionRole] = [:]
        for (text, role) in [
            (PartitionTypes.esp, PartitionRole.esp), (PartitionTypes.biosBoot, .biosBoot),
            (PartitionTypes.prep, .prep), (PartitionTypes.msr, .msr), (PartitionTypes.recovery, .recovery),
            ("bc13c2ff-59e6-4262-a352-b275fd6f7172", .xbootldr), (PartitionTypes.swap, .swap),
            // LDM metadata and data; storage replica; fast flash; the boot partitions of Lenovo, Sony and Apple.
            ("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", .vendor), ("af9b60a0-1431-4f62-bc68-3311714a69ad", .vendor),
            ("558d43c5-a1ac-43c0-aac8-d1472b2923d1", .vendor), ("d3bfe2de-3daf-11df-ba40-e3a556d89593", .vendor),
            ("bfbfafe7-a34f-448a-9a5b-6213eb736c22", .vendor), ("f4019732-066e-4e12-8273-346c5641494f", .vendor),
            ("426f6f74-0000-11aa-aa11-00306543ecac", .vendor),
        ] {
            if let guid = GUID(text) { result[guid] = role }
        }
        return result
    }()
}

/// Partition types by name, and what a type is called in the other kind of table.
enum PartitionTypes {
    static let esp = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
    static let biosBoot = "21686148-6449-6e6f-744e-656564454649"
    static let prep = "9e1a2d38-c612-4316-aa26-8b49521e5a8b"
    static let msr = "e3c9e316-0b5c-4db8-817d-f92df00215ae"
    static let recovery = "de94bba4-06d1-4d4d-a16a-bfd50179d6ac"
    static let swap = "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"
    static let basicData = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
    static let linuxData = "0fc63daf-8483-4772-8e79-3d69d8477de4"
    static let lvm = "e6d6d379-f507-44c2-a23c-238f2a3df928"
    static let raid = "a19d880f-05fc-4d3b-a006-743f0f84911e"
    static let luks = "ca7d7ccb-63ed-4c53-861c-1742536059cc"
    static let hfs = "48465300-0000-11aa-aa11-00306543ecac"

    /// Both names of a type, where there are two.
    private static let pairs: [(mbr: UInt8, gpt: String)] = [
        (0x83, linuxData), (0x82, swap), (0x8E, lvm), (0xFD, raid), (0xE8, luks), (0xEF, esp), (0x41, prep),
        (0x27, recovery), (0xAF, hfs), (0xDA, linuxData), (0x07, basicData),
    ]
    private static let fat: Set<UInt8> = [0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E]

    /// Linux has put its filesystems into partitions of Windows' types and the other way round: for these content rules.
    private static func isLinux(_ content: ContentKind?) -> Bool {
        guard let content else { return false }
        return content.isExt || [.xfs, .btrfs, .f2fs].contains(content)
    }

    /// The GUID for an MBR type.
    static func gpt(_ type: UInt8, _ content: ContentKind?) -> GUID {
        if isLinux(content) { return GUID(linuxData) ?? .zero }
        let text = fat.contains(type & 0xEF) ? basicData : pairs.first { $0.mbr == type }?.gpt
        return GUID(text ?? linuxData) ?? .zero
    }

    /// The MBR type for a GUID.
    static func mbr(_ type: GUID, _ content: ContentKind?) -> UInt8 {
        let text = type.description
        if text == basicData { return content == .fat ? 0x0C : isLinux(content) ? 0x83 : 0x07 }
        return pairs.first { $0.gpt == text }?.mbr ?? 0x83
    }
}
