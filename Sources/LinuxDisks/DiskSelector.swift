// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Glibc

/// How a user names a disk: a path, or what is known about it.
public enum DiskSelector: Hashable, Sendable, CustomStringConvertible {
    /// A device node or an image file.
    case path(String)
    /// `serial:X`: the whole serial number, letter case ignored.
    case serial(String)
    /// `wwn:X`: the world wide name; `0x`, `naa.` and letter case are ignored.
    case wwn(String)
    /// `size:BYTES`: the exact size; a number may end in K, M, G, T (× 1024).
    case size(ByteCount)
    /// `label:X`: the disk that holds the filesystem with this label.
    case label(String)
    /// `uuid:X`: the disk that holds the filesystem with this UUID, letter case ignored.
    case uuid(String)

    /// Reads what a user wrote. Throws `usage` when nothing follows the colon or a size is not a number.
    public init(_ text: String) throws(Fault) {
        func value(_ prefix: String) throws(Fault) -> String? {
            guard text.hasPrefix(prefix) else { return nil }
            let rest = String(text.dropFirst(prefix.count))
            guard !rest.isEmpty else {
                throw Fault(
                    .usage, what: "Nothing follows \"\(prefix)\".",
                    remedy: "Write for example \(prefix)\(prefix == "size:" ? "500107862016" : "NAME").")
            }
            return rest
        }
        if let serial = try value("serial:") {
            self = .serial(serial)
        } else if let wwn = try value("wwn:") {
            self = .wwn(wwn)
        } else if let size = try value("size:") {
            guard let count = DiskSelector.count(size) else {
                throw Fault(
                    .usage, what: "\"\(size)\" is not a size.",
                    remedy: "Write the exact number of bytes, or a whole number with K, M, G or T (× 1024).")
            }
            self = .size(count)
        } else if let label = try value("label:") {
            self = .label(label)
        } else if let uuid = try value("uuid:") {
            self = .uuid(uuid)
        } else if text.isEmpty || text.utf8.contains(0) {
            throw Fault(
                .usage, what: "A disk's name is empty.",
                remedy: "Name it by path, serial:, wwn:, size:, label: or uuid:; `relight disks` lists the disks.")
        } else {
            self = .path(text)
        }
    }

    /// A number of bytes with an optional K, M, G or T (× 1024).
    static func count(_ text: String) -> ByteCount? {
        let shifts: [Character: UInt64] = ["K": 10, "M": 20, "G": 30, "T": 40]
        guard let last = text.last else { return nil }
        if let shift = shifts[Character(last.uppercased())] {
            return UInt64(text.dropLast()).flatMap { ByteCount($0).multiplied(by: 1 << shift) }
        }
        return UInt64(text).map { ByteCount($0) }
    }

    /// The text it was read from, in its normal form.
    public var description: String {
        switch self {
        case .path(let path): return path
        case .serial(let serial): return "serial:\(serial)"
        case .wwn(let name): return "wwn:\(name)"
        case .size(let size): return "size:\(size.bytes)"
        case .label(let label): return "label:\(label)"
        case .uuid(let uuid): return "uuid:\(uuid)"
        }
    }

    /// Whether it names one device for good: by serial number, world wide name or exact size. What an unattended
    /// destructive step must use.
    public var isPinned: Bool {
        switch self {
        case .serial, .wwn, .size: return true
        case .path, .label, .uuid: return false
        }
    }

    /// Splits `DISK:N`, a part of a disk; the number is `nil` where the text names a whole disk.
    public static func splitPart(_ text: String) -> (disk: String, number: Int?) {
        guard let colon = text.lastIndex(of: ":"), let number = Int(text[text.index(after: colon)...]), number > 0
        else { return (text, nil) }
        let disk = String(text[..<colon])
        // "size:1000" names a whole disk.
        if ["serial", "wwn", "size", "label", "uuid", ""].contains(disk) { return (text, nil) }
        return (disk, number)
    }

    /// Finds the one disk that `text` names.
    ///
    /// - Parameters:
    ///   - scan: the machine's disks.
    ///   - identify: tells what a device holds; asked only for `label:` and `uuid:`.
    /// - Throws: `usage`; `missing` when nothing matches, with the disks there are; `disk.ambiguous` when several match.
    public static func resolve(
        _ text: String, in scan: DiskScan = DiskScan(),
        identify: VolumeIdentity.Identifier = VolumeIdentity.byProgram
    ) throws(Fault) -> SelectedDisk {
        let selector = try DiskSelector(text)
        if case .path(let path) = selector { return try scan.selected(path: path) }
        let matches = selector.matches(in: scan, identify)
        if let only = matches.first, matches.count == 1 {
            return SelectedDisk(path: only.path, disk: only, isWholeDisk: true)
        }
        let list = (matches.isEmpty ? scan.disks : matches).map { "  \($0.summary)" }
        if matches.isEmpty {
            throw Fault(
                .missing, what: "No disk is \(selector).",
                remedy: list.isEmpty
                    ? "This machine shows no disk: check cables, and the controller's mode in the firmware setup."
                    : "The disks are:\n" + list.joined(separator: "\n"))
        }
        throw Fault(
            .ambiguousDisk, what: "\(matches.count) disks are \(selector).",
            remedy: "Name one by serial: or by path:\n" + list.joined(separator: "\n"))
    }

    private func matches(in scan: DiskScan, _ identify: VolumeIdentity.Identifier) -> [AttachedDisk] {
        switch self {
        case .path: return []
        case .serial(let serial): return scan.disks.filter { $0.serial?.lowercased() == serial.lowercased() }
        case .wwn(let name):
            return scan.disks.filter { disk in disk.wwn.map(DiskSelector.plainName) == DiskSelector.plainName(name) }
        case .size(let size): return scan.disks.filter { $0.size == size }
        case .label(let label): return scan.holding(identify) { $0.label == label }
        case .uuid(let uuid): return scan.holding(identify) { $0.uuid?.lowercased() == uuid.lowercased() }
        }
    }

    private static func plainName(_ name: String) -> String {
        let lower = name.lowercased()
        for prefix in ["0x", "naa."] where lower.hasPrefix(prefix) { return String(lower.dropFirst(prefix.count)) }
        return lower
    }
}

extension FaultCode {
    /// Several disks or filesystems match a name that must name one.
    public static let ambiguousDisk = FaultCode("disk.ambiguous", exit: .refused)
}

/// A disk, part of a disk, or image file that a user named.
public struct SelectedDisk: Hashable, Sendable {
    /// What to open.
    public var path: String
    /// The whole disk it is, or lies on; `nil` for an image file and for a device made of several.
    public var disk: AttachedDisk?
    /// Whether `path` is a whole disk.
    public var isWholeDisk: Bool

    /// The whole disk `disk`.
    public init(whole disk: AttachedDisk) { self.init(path: disk.path, disk: disk, isWholeDisk: true) }

    init(path: String, disk: AttachedDisk?, isWholeDisk: Bool) {
        self.path = path
        self.disk = disk
        self.isWholeDisk = isWholeDisk
    }

    /// Whether it is an image file.
    public var isFile: Bool { disk == nil && !path.hasPrefix("/dev/") }
}

extension DiskScan {
    fileprivate func holding(
        _ identify: VolumeIdentity.Identifier, _ matches: (VolumeIdentity) -> Bool
    ) -> [AttachedDisk] {
        var names: Set<String> = []
        for volume in volumes(identify) where matches(volume.identity) { names.formUnion(volume.disks) }
        return disks.filter { names.contains($0.name) }
    }

    /// The disk, partition or image file at `path`, links such as `/dev/disk/by-id/…` followed.
    fileprivate func selected(path: String) throws(Fault) -> SelectedDisk {
        guard let real = files.resolved(path) else {
            throw Fault(
                .missing, what: "There is no such disk or file.", place: path,
                remedy: disks.isEmpty
                    ? "Check the name."
                    : "The disks are:\n" + disks.map { "  \($0.summary)" }.joined(separator: "\n"))
        }
        // Without udev a node may have any name (/dev/mapper/x, mknod): the number behind it tells what it is.
        let name = named(node: real)
        if let whole = devices.first(where: { $0.path == real || $0.name == name }) {
            return SelectedDisk(path: real, disk: whole, isWholeDisk: true)
        }
        if let whole = devices.first(where: { $0.partitions.contains { $0.path == real || $0.name == name } }) {
            return SelectedDisk(path: real, disk: whole, isWholeDisk: false)
        }
        return SelectedDisk(path: real, disk: nil, isWholeDisk: true)
    }
}
