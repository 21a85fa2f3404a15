// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// A value of LVM's metadata text.
enum LVMValue: Sendable {
    case number(UInt64)
    case text(String)
    case list([LVMValue])
    case section([String: LVMValue])

    var number: UInt64? { if case .number(let value) = self { value } else { nil } }
    var text: String? { if case .text(let value) = self { value } else { nil } }
    var list: [LVMValue]? { if case .list(let value) = self { value } else { nil } }
    var section: [String: LVMValue]? { if case .section(let value) = self { value } else { nil } }
    /// The strings of a list; `nil` when it is none, or holds something else.
    var texts: [String]? {
        guard let list else { return nil }
        let texts = list.compactMap(\.text)
        return texts.count == list.count ? texts : nil
    }
}

/// The text LVM2 keeps its metadata in: nested sections of `key = value`, comments from `#` to the line's end
/// (lvm.conf(5) and LVM2's `libdm/libdm-config.c` describe the grammar).
struct LVMText {
    /// Deepest nesting, and the most values; real metadata has four levels, and some thirty values for each logical volume.
    private static let mostDepth = 12
    private static let mostValues = 400_000

    private let bytes: [UInt8]
    private var position = 0
    private var values = 0

    private init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Parses a whole text, which may end with a NUL.
    static func parse(_ bytes: [UInt8]) throws(LayerProblem) -> [String: LVMValue] {
        var parser = LVMText(bytes)
        let result = try parser.entries(depth: 0)
        guard parser.next() == nil else { throw .whole("LVM's metadata text goes on after its end.") }
        return result
    }

    private func damaged(_ what: String) -> LayerProblem {
        .whole("LVM's metadata text is damaged at byte \(position): \(what).")
    }

    /// The next byte that is neither blank nor in a comment; `nil` at the end.
    private mutating func next() -> UInt8? {
        while position < bytes.count {
            switch bytes[position] {
            case 0: return nil
            case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\r"): position += 1
            case UInt8(ascii: "#"):
                while position < bytes.count, bytes[position] != UInt8(ascii: "\n") { position += 1 }
            default: return bytes[position]
            }
        }
        return nil
    }

    private mutating func entries(depth: Int) throws(LayerProblem) -> [String: LVMValue] {
        guard depth <= LVMText.mostDepth else { throw damaged("sections nest too deeply") }
        var result: [String: LVMValue] = [:]
        while let byte = next(), byte != UInt8(ascii: "}") {
            let key = byte == UInt8(ascii: "\"") ? try string() : try word()
            let value: LVMValue
            switch next() {
            case UInt8(ascii: "{"):
                position += 1
                value = .section(try entries(depth: depth + 1))
                guard next() == UInt8(ascii: "}") else { throw damaged("a section does not end") }
                position += 1
            case UInt8(ascii: "="):
                position += 1
                value = try self.value(depth: depth + 1)
            default: throw damaged("nothing follows \(key.printable)")
            }
            guard result.updateValue(value, forKey: key) == nil else {
                throw damaged("\(key.printable) is there twice")
            }
        }
        return result
    }

    private mutating func value(depth: Int) throws(LayerProblem) -> LVMValue {
        guard depth <= LVMText.mostDepth else { throw damaged("lists nest too deeply") }
        values += 1
        guard values <= LVMText.mostValues else { throw damaged("there are more than \(LVMText.mostValues) values") }
        switch next() {
        case UInt8(ascii: "\""): return .text(try string())
        case UInt8(ascii: "["):
            position += 1
            var list: [LVMValue] = []
            while let byte = next(), byte != UInt8(ascii: "]") {
                if !list.isEmpty {
                    guard byte == UInt8(ascii: ",") else { throw damaged("a comma is missing") }
                    position += 1
                    // A comma may end a list.
                    if next() == UInt8(ascii: "]") { break }
                }
                list.append(try value(depth: depth + 1))
            }
            guard next() == UInt8(ascii: "]") else { throw damaged("a list does not end") }
            position += 1
            return .list(list)
        default:
            let word = try word()
            return UInt64(word).map { .number($0) } ?? .text(word)
        }
    }

    private mutating func word() throws(LayerProblem) -> String {
        let start = position
        while position < bytes.count {
            let byte = bytes[position]
            if byte <= UInt8(ascii: " ") || "={}[],\"#".utf8.contains(byte) { break }
            position += 1
        }
        guard position > start else { throw damaged("a name or value is missing") }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private mutating func string() throws(LayerProblem) -> String {
        position += 1
        var text: [UInt8] = []
        while position < bytes.count {
            var byte = bytes[position]
            position += 1
            if byte == UInt8(ascii: "\"") { return String(decoding: text, as: UTF8.self) }
            if byte == 0 { break }
            if byte == UInt8(ascii: "\\"), position < bytes.count {
                byte = bytes[position]
                position += 1
            }
            text.append(byte)
        }
        throw damaged("a string does not end")
    }
}

extension String {
    /// For messages: the beginning, without what terminals might obey.
    var printable: String {
        String(decoding: utf8.prefix(64).map { $0 > 0x20 && $0 < 0x7F ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
    }
}
