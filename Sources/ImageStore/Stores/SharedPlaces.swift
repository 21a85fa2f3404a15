// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import CLinux
import Findings
import Geometry
import Glibc

/// Two names of one file where there are no links.
///
/// FAT renames a file from `tmp/` to its name by adding an entry to one folder and taking one away from another. When the
/// power goes in between, both are on the medium, with the same content in the same clusters; removing either frees them
/// under the other, and what is written next lands there. So such a file in `tmp/` is left alone, and so is the object,
/// until the filesystem was checked.
extension FolderStore {
    /// Objects that may lie in the same place as the unfinished file open as `descriptor`: they have the name its content
    /// says and its size, and the kernel says that they begin where it begins, or cannot tell.
    func sharers(_ descriptor: Int32, _ size: ByteCount) throws(Fault) -> [String] {
        guard mayTear, SafetyRules.keep(.sharedPlaces), let count = Int(exactly: min(size.bytes, 64)) else { return [] }
        var head = [UInt8](repeating: 0, count: count)
        var span = head.mutableSpan
        var raw = unsafe span.mutableBytes
        guard FileBytes.read(descriptor, at: .zero, into: &raw) == 0 else { return [] }
        return ObjectName.named(by: head).filter { share(descriptor, size, $0) }
    }

    /// Refuses to let go of the object `name` while an unfinished file may lie in the same place.
    func requireOwnPlace(_ name: String) throws(Fault) {
        guard mayTear, SafetyRules.keep(.sharedPlaces), !name.hasPrefix("tmp/"), !FolderStore.mayBeEmpty(name) else {
            return
        }
        for entry in try entries("tmp", limit: 4096) where entry.hasSuffix(".part") {
            let opened = unsafe relight_open("\(path)/tmp/\(entry)", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0)
            guard opened >= 0 else { continue }
            defer { close(opened) }
            var status = stat()
            guard unsafe fstat(opened, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
            let size = ByteCount(UInt64(max(0, status.st_size)))
            guard try sharers(opened, size).contains(name) else { continue }
            throw Fault(
                .storeFailed, what: FolderStore.shared("tmp/\(entry)", [name]) + " Neither is removed.",
                place: "\(path)/\(name)", remedy: FolderStore.sharedRemedy)
        }
    }

    static func shared(_ leftover: String, _ names: [String]) -> String {
        "\(leftover) and \(names.joined(separator: ", ")) share their place on the medium: the power went in the middle "
            + "of a rename."
    }
    static let sharedRemedy =
        "Unmount the medium, check its filesystem (fsck.fat -a, fsck.exfat), then run this again and `relight verify`."

    private var mayTear: Bool {
        if places != nil { return true }
        guard let type = filesystem else { return false }
        return FilesystemType.tearing.contains(type) || type == FilesystemType.fuse && isOnDevice
    }

    private func share(_ descriptor: Int32, _ size: ByteCount, _ name: String) -> Bool {
        let object = unsafe relight_open("\(path)/\(name)", O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0)
        guard object >= 0 else { return false }
        defer { close(object) }
        var status = stat()
        guard unsafe fstat(object, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size > 0,
            UInt64(status.st_size) == size.bytes
        else { return false }
        if let places {
            return places("/proc/self/fd/\(descriptor)", "\(path)/\(name)")
        }
        var (first, second): (UInt32, UInt32) = (0, 0)
        guard unsafe relight_first_block(descriptor, &first) == 0, unsafe relight_first_block(object, &second) == 0
        else {
            return true
        }
        return first == second
    }
}

extension ObjectName {
    /// Names an object may have that begins with `head`, of which at most 64 bytes are looked at.
    static func named(by head: [UInt8]) -> [String] {
        func id(_ offset: Int) -> ObjectID? { try? unsafe ObjectID(head.span.bytes, "oid", at: offset) }
        func both(_ name: String?) -> [String] { name.map { [$0, copy(of: $0)] } ?? [] }
        switch Array(head.prefix(8)) {
        case PackHeader.magic: return both(id(16).map { pack($0) })
        case PointFile.magic: return both(id(32).map { point($0) })
        case KeySlot.magic: return both(id(16).map { key($0) })
        case MovesFile.magic: return both(id(32).map { moves($0) })
        case SetHeader.magic: return headers
        default: return [text, Catalogue.name]
        }
    }
}
