// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// What the data of a value are. Specification, "Data types".
///
/// Windows keeps other numbers too, device properties (0xFFFF0000 and above) for example; they come through as they are.
public struct HiveValueType: Hashable, Sendable, RawRepresentable {
    /// The number stored.
    public let rawValue: UInt32
    /// The type with the number `rawValue`.
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// REG_NONE.
    public static let none = HiveValueType(rawValue: 0)
    /// REG_SZ: UTF-16 text, ended by a NUL.
    public static let string = HiveValueType(rawValue: 1)
    /// REG_EXPAND_SZ: text with `%NAMES%` of environment variables in it.
    public static let expandString = HiveValueType(rawValue: 2)
    /// REG_BINARY.
    public static let binary = HiveValueType(rawValue: 3)
    /// REG_DWORD: a number of 32 bits, little-endian.
    public static let dword = HiveValueType(rawValue: 4)
    /// REG_DWORD_BIG_ENDIAN.
    public static let dwordBigEndian = HiveValueType(rawValue: 5)
    /// REG_LINK: where a symbolic link leads, UTF-16 without a NUL.
    public static let link = HiveValueType(rawValue: 6)
    /// REG_MULTI_SZ: texts, each ended by a NUL, and an empty one at the end.
    public static let multiString = HiveValueType(rawValue: 7)
    /// REG_RESOURCE_LIST.
    public static let resourceList = HiveValueType(rawValue: 8)
    /// REG_FULL_RESOURCE_DESCRIPTOR.
    public static let fullResourceDescriptor = HiveValueType(rawValue: 9)
    /// REG_RESOURCE_REQUIREMENTS_LIST.
    public static let resourceRequirementsList = HiveValueType(rawValue: 10)
    /// REG_QWORD: a number of 64 bits, little-endian.
    public static let qword = HiveValueType(rawValue: 11)

    private static let names = [
        "REG_NONE", "REG_SZ", "REG_EXPAND_SZ", "REG_BINARY", "REG_DWORD", "REG_DWORD_BIG_ENDIAN", "REG_LINK",
        "REG_MULTI_SZ", "REG_RESOURCE_LIST", "REG_FULL_RESOURCE_DESCRIPTOR", "REG_RESOURCE_REQUIREMENTS_LIST",
        "REG_QWORD",
    ]
}

extension HiveValueType: CustomStringConvertible {
    /// `REG_SZ`; `0xFFFF0012` where there is no name.
    public var description: String {
        guard let index = Int(exactly: rawValue), index < HiveValueType.names.count else {
            return "0x\(String(rawValue, radix: 16, uppercase: true))"
        }
        return HiveValueType.names[index]
    }
}
