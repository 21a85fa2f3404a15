// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// A module's pattern of device names, as depmod writes it: `*`, `?`, `[a-z]`, `[!a]`, and `\` before a character that
/// means itself (fnmatch(3) without flags, which is what modprobe uses).
struct AliasPattern: Hashable, Sendable {
    private enum Part: Hashable, Sendable {
        case one(UInt8)
        case any
        case run
        case among([ClosedRange<UInt8>], isNegated: Bool)
    }
    private let parts: [Part]
    /// The bytes every match begins with.
    let prefix: [UInt8]

    /// A pattern. A bracket that is never closed means itself.
    init(_ text: some StringProtocol) {
        var parts: [Part] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "*"): if parts.last != .run { parts.append(.run) }
            case UInt8(ascii: "?"): parts.append(.any)
            case UInt8(ascii: "\\"): parts.append(.one(rest.popFirst() ?? byte))
            case UInt8(ascii: "["):
                if let set = AliasPattern.set(&rest) { parts.append(set) } else { parts.append(.one(byte)) }
            default: parts.append(.one(byte))
            }
        }
        self.parts = parts
        var prefix: [UInt8] = []
        for case .one(let byte) in parts.prefix(while: { if case .one = $0 { true } else { false } }) {
            prefix.append(byte)
        }
        self.prefix = prefix
    }

    private static func set(_ rest: inout ArraySlice<UInt8>) -> Part? {
        var inside = rest
        var isNegated = false
        if let first = inside.first, first == UInt8(ascii: "!") || first == UInt8(ascii: "^") {
            isNegated = true
            inside.removeFirst()
        }
        var ranges: [ClosedRange<UInt8>] = []
        var isFirst = true
        while let byte = inside.popFirst() {
            if byte == UInt8(ascii: "]"), !isFirst {
                rest = inside
                return .among(ranges, isNegated: isNegated)
            }
            isFirst = false
            if inside.first == UInt8(ascii: "-"), inside.count >= 2, inside[inside.startIndex + 1] != UInt8(ascii: "]")
            {
                inside.removeFirst()
                let last = inside.removeFirst()
                if byte <= last { ranges.append(byte...last) }
            } else {
                ranges.append(byte...byte)
            }
        }
        return nil
    }

    /// Whether it matches all of `name`. Takes time that grows with the product of the lengths at most.
    func matches(_ name: [UInt8]) -> Bool {
        var part = 0
        var at = 0
        // Where to go on when what follows the last run does not match.
        var retry: (part: Int, at: Int)?
        while at < name.count || part < parts.count {
            if part < parts.count {
                switch parts[part] {
                case .run:
                    retry = (part, at + 1)
                    part += 1
                    continue
                case .any where at < name.count:
                    part += 1
                    at += 1
                    continue
                case .one(let byte) where at < name.count && name[at] == byte:
                    part += 1
                    at += 1
                    continue
                case .among(let ranges, let isNegated)
                where at < name.count && ranges.contains(where: { $0.contains(name[at]) }) != isNegated:
                    part += 1
                    at += 1
                    continue
                default: break
                }
            }
            guard let last = retry, last.at <= name.count else { return false }
            part = last.part
            at = last.at
        }
        return true
    }
}
