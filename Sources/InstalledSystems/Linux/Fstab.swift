// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import FilesystemMaps
import MachineModel

/// A system's fstab (fstab(5)) and crypttab (crypttab(5)), resolved over the volumes that were seen.
struct Fstab {
    /// Lines that are kept of either.
    private static let most = 256

    /// Its lines.
    private(set) var mounts: [LinuxMount] = []

    /// `fstab` resolved over `volumes`, with the names that `crypttab` gives to encrypted ones.
    init(_ fstab: [UInt8], crypttab: [UInt8], _ volumes: [SeenVolume]) {
        let names = Fstab.crypt(crypttab)
        for line in PlainText.lines(fstab) where mounts.count < Fstab.most {
            let words = line.split(whereSeparator: \.isWhitespace).map { Fstab.unescaped($0) }
            guard let first = words.first, !first.hasPrefix("#"), words.count >= 2 else { continue }
            let source = Fstab.unquoted(first)
            let found = Fstab.volume(source, names, volumes)
            func word(_ index: Int, _ none: String) -> String {
                index < words.count ? PlainText.safe(words[index]) ?? none : none
            }
            mounts.append(
                LinuxMount(
                    source: PlainText.safe(source) ?? "", point: word(1, "none"), type: word(2, "auto"),
                    options: word(3, "defaults"), volume: found.map { volumes[$0].name },
                    isMissing: found == nil && Fstab.isLasting(source)))
        }
    }

    /// Which of `volumes` what is written in fstab means; `nil` where it is none of them, or a name that differs from
    /// machine to machine.
    static func volume(_ source: String, _ crypt: [String: String], _ volumes: [SeenVolume]) -> Int? {
        if let (key, value) = tag(source) { return tagged(key, value, volumes) }
        guard source.hasPrefix("/dev/") else { return nil }
        // A name that the kernel gave on the machine looked at is that of our own list.
        if let index = volumes.firstIndex(where: { names($0).contains(source) }) { return index }
        if source.hasPrefix("/dev/mapper/"), let below = crypt[String(source.dropFirst(12))] {
            // What is inside is named after the encryption's own UUID.
            guard let (key, value) = tag(below), key == "UUID" else { return nil }
            return volumes.firstIndex { $0.name.lowercased() == "luks-\(value.lowercased())" }
        }
        return nil
    }

    /// Whether the name means the same volume on every machine, so that one not seen is missing.
    private static func isLasting(_ source: String) -> Bool {
        if let (key, _) = tag(source) { return ["UUID", "LABEL", "PARTUUID", "PARTLABEL"].contains(key) }
        return source.hasPrefix("/dev/mapper/") || source.hasPrefix("/dev/md/")
    }

    private static func tagged(_ key: String, _ value: String, _ volumes: [SeenVolume]) -> Int? {
        let lowered = value.lowercased()
        return volumes.firstIndex { volume in
            // What is a member of a layer bears the layer's id, and is never mounted.
            switch key {
            case "UUID": return volume.uuid?.lowercased() == lowered
            case "LABEL": return volume.label == value
            case "PARTUUID": return partitionUUID(volume) == lowered
            case "PARTLABEL": return volume.partition?.name == value && !value.isEmpty
            default: return false
            }
        }
    }

    /// As udev and the kernel form it: a GPT's own, or the MBR's signature and the partition's number.
    static func partitionUUID(_ volume: SeenVolume) -> String? {
        guard let partition = volume.partition else { return nil }
        if let guid = partition.guid { return guid.description.lowercased() }
        guard let signature = volume.signature else { return nil }
        func hex(_ value: UInt64, _ width: Int) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        return "\(hex(UInt64(signature), 8))-\(hex(UInt64(partition.number), 2))"
    }

    /// `UUID=…` and the links below /dev/disk as a tag and its value.
    private static func tag(_ source: String) -> (String, String)? {
        for (folder, key) in [
            ("/dev/disk/by-uuid/", "UUID"), ("/dev/disk/by-label/", "LABEL"), ("/dev/disk/by-partuuid/", "PARTUUID"),
            ("/dev/disk/by-partlabel/", "PARTLABEL"),
        ] where source.hasPrefix(folder) {
            return (key, hexUnescaped(String(source.dropFirst(folder.count))))
        }
        guard let sign = source.firstIndex(of: "=") else { return nil }
        let key = source[..<sign]
        guard ["UUID", "LABEL", "PARTUUID", "PARTLABEL"].contains(String(key)) else { return nil }
        return (String(key), unquoted(String(source[source.index(after: sign)...])))
    }

    /// Names under which the system itself knows a volume of a layer.
    private static func names(_ volume: SeenVolume) -> [String] {
        guard volume.partition == nil else { return [] }
        let name = volume.name
        if name.hasPrefix("luks-") { return ["/dev/mapper/\(name)"] }
        if name.hasPrefix("md/") {
            let own = name.dropFirst(3)
            return ["/dev/md/\(own)", "/dev/md\(own)", "/dev/disk/by-id/md-name-\(own)"]
        }
        let parts = name.split(separator: "/", maxSplits: 1)
        guard parts.count == 2, !name.hasPrefix("/") else { return [] }
        // Device mapper doubles hyphens, to tell them from the one between group and volume.
        func doubled(_ text: Substring) -> String { text.map { $0 == "-" ? "--" : String($0) }.joined() }
        return ["/dev/\(name)", "/dev/mapper/\(doubled(parts[0]))-\(doubled(parts[1]))"]
    }

    /// Names of opened volumes and what lies below them.
    private static func crypt(_ bytes: [UInt8]) -> [String: String] {
        var result: [String: String] = [:]
        for line in PlainText.lines(bytes) where result.count < most {
            let words = line.split(whereSeparator: \.isWhitespace)
            guard words.count >= 2, !words[0].hasPrefix("#") else { continue }
            result[String(words[0])] = String(words[1])
        }
        return result
    }

    private static func unquoted(_ text: String) -> String {
        guard text.count >= 2, let first = text.first, first == "\"" || first == "'", text.last == first else {
            return text
        }
        return String(text.dropFirst().dropLast())
    }

    /// Blanks are written as `\040`.
    private static func unescaped(_ text: Substring) -> String {
        let bytes = Array(text.utf8)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "\\"), index + 3 < bytes.count,
                let value = UInt8(String(decoding: bytes[index + 1...index + 3], as: UTF8.self), radix: 8)
            {
                result.append(value)
                index += 4
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// udev writes what may not stand in a name as `\x20`.
    private static func hexUnescaped(_ text: String) -> String {
        let bytes = Array(text.utf8)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "\\"), index + 3 < bytes.count, bytes[index + 1] == UInt8(ascii: "x"),
                let value = Hex.bytes(String(decoding: bytes[index + 2...index + 3], as: UTF8.self))?.first
            {
                result.append(value)
                index += 4
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}
