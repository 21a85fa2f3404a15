// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields

/// What a boot entry says (`EFI_LOAD_OPTION`, UEFI Specification 2.10, section 3.1.3).
public struct EFILoadOption: Hashable, Sendable {
    /// Its attributes.
    public var attributes: UInt32
    /// What the firmware's menu calls it.
    public var label: String
    /// What it starts. Others may follow the first in the list; they are kept.
    public var path: EFIDevicePath
    /// Device paths behind the first, as they are stored.
    public var furtherPaths: [UInt8]
    /// What the loader is given.
    public var optionalData: [UInt8]

    /// An entry that is tried at start.
    public init(_ label: String, _ path: EFIDevicePath, optionalData: [UInt8] = []) {
        attributes = EFILoadOption.active
        self.label = label
        self.path = path
        furtherPaths = []
        self.optionalData = optionalData
    }

    /// `LOAD_OPTION_ACTIVE`: tried at start.
    public static let active: UInt32 = 1
    /// `LOAD_OPTION_HIDDEN`: not in the menu.
    public static let hidden: UInt32 = 8
    /// The longest label that all firmwares show, in characters.
    public static let longestLabel = 60

    /// Whether it is tried at start.
    public var isActive: Bool { attributes & EFILoadOption.active != 0 }

    /// Reads what a `Boot####` variable holds. Throws a sentence's part that says what is wrong.
    init(_ bytes: [UInt8]) throws(EFIFormatError) {
        guard bytes.count >= 8 else { throw EFIFormatError("it has \(bytes.count) bytes") }
        attributes = bytes[..<4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        let listLength = Int(bytes[4]) | Int(bytes[5]) << 8
        var at = 6
        while at + 1 < bytes.count, bytes[at] != 0 || bytes[at + 1] != 0 { at += 2 }
        guard at + 1 < bytes.count else { throw EFIFormatError("its label has no end") }
        label = UTF16Text.decode(bytes[6..<at])
        at += 2
        guard listLength <= bytes.count - at else {
            throw EFIFormatError("its device paths are said to have \(listLength) bytes, \(bytes.count - at) are left")
        }
        var length = 0
        path = try EFIDevicePath(bytes[at..<at + listLength], length: &length)
        furtherPaths = Array(bytes[at + length..<at + listLength])
        optionalData = Array(bytes[(at + listLength)...])
    }

    /// As it is stored. The label ends at its first zero.
    public var bytes: [UInt8] {
        var result: [UInt8] = []
        result.appendLittleEndian(attributes)
        let paths = path.bytes + furtherPaths
        result.appendLittleEndian(UInt16(clamping: paths.count))
        result += UTF16Text.encode(String(label.prefix { $0 != "\0" })) + [0, 0]
        return result + paths + optionalData
    }
}
