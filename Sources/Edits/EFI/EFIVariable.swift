// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import BinaryFields
public import MachineModel

/// The name of a firmware variable: a name and its vendor (UEFI Specification 2.10, section 8.2).
public struct EFIVariableName: Hashable, Sendable, Codable {
    /// Its name; case matters.
    public var name: String
    /// Whose name space it is in.
    public var vendor: GUID

    /// A name; that of UEFI itself unless another vendor is given.
    public init(_ name: String, _ vendor: GUID = EFIVariableName.global) {
        self.name = name
        self.vendor = vendor
    }

    /// The name of a file in efivarfs, `NAME-GUID`; `nil` where `file` is none.
    public init?(file: String) {
        guard file.utf8.count > 37, let vendor = GUID(String(file.suffix(36))), file.dropLast(36).last == "-" else {
            return nil
        }
        self.init(String(file.dropLast(37)), vendor)
    }

    /// The name of its file in efivarfs.
    public var file: String { "\(name)-\("\(vendor)".lowercased())" }

    /// `EFI_GLOBAL_VARIABLE`.
    public static let global = GUID("8be4df61-93ca-11d2-aa0d-00e098032b8c") ?? .zero

    /// `BootOrder`.
    public static let bootOrder = EFIVariableName("BootOrder")
    /// `BootNext`.
    public static let bootNext = EFIVariableName("BootNext")

    /// The name of boot entry `number`.
    public static func boot(_ number: UInt16) -> EFIVariableName { EFIVariableName("Boot" + BootNumber.text(number)) }
}

/// Four hexadecimal digits, as the firmware names its boot entries.
public enum BootNumber {
    /// `0007`, in capitals.
    public static func text(_ number: UInt16) -> String {
        let digits = String(number, radix: 16, uppercase: true)
        return String(repeating: "0", count: 4 - digits.count) + digits
    }

    /// Reads `0007`, `7` or `Boot0007`.
    public static func parse(_ text: some StringProtocol) -> UInt16? {
        let digits = text.hasPrefix("Boot") ? text.dropFirst(4) : text[...]
        guard (1...4).contains(digits.utf8.count), digits.utf8.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit })
        else { return nil }
        return UInt16(digits, radix: 16)
    }

    /// The number in a variable's name; only four digits in capitals are one.
    static func inName(_ name: String) -> UInt16? {
        guard name.utf8.count == 8, name.hasPrefix("Boot"), let number = parse(name.dropFirst(4)),
            "Boot" + text(number) == name
        else { return nil }
        return number
    }
}

/// What a firmware variable holds.
public struct EFIVariable: Hashable, Sendable, Codable {
    /// Its attributes (UEFI Specification 2.10, section 8.2.1).
    public var attributes: UInt32
    /// Its content.
    public var data: HexBytes

    /// A variable. Without attributes, one that outlives a restart and that the running system may see.
    public init(_ data: [UInt8], attributes: UInt32 = EFIVariable.usual) {
        self.attributes = attributes
        self.data = HexBytes(data)
    }

    /// `NON_VOLATILE | BOOTSERVICE_ACCESS | RUNTIME_ACCESS`.
    public static let usual: UInt32 = 7
    /// The attributes that say that only the owner of a key may write it: `AUTHENTICATED_WRITE_ACCESS`,
    /// `TIME_BASED_AUTHENTICATED_WRITE_ACCESS`, `ENHANCED_AUTHENTICATED_ACCESS`.
    static let keyed: UInt32 = 0x10 | 0x20 | 0x80
}
