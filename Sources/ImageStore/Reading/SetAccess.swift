// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

/// Finding out whether a place holds an image set, and its constants.
enum SetAccess {
    /// What was found at a place.
    struct Found {
        /// The constants; `nil` when the place is empty or does not exist.
        var header: SetHeader?
        /// Copies of the header that are missing or damaged.
        var lostCopies: [String]
        /// Whether only readers may use the set, because it has features a writer must know.
        var readOnly: Bool
    }

    /// Names that may lie in a folder that is otherwise empty.
    private static let harmless: Set<String> = [
        ObjectName.text, "tmp", AnnouncementName.folder, ObjectName.tombstones, ObjectName.keys, ObjectName.copies,
        "lost+found", "System Volume Information", "$RECYCLE.BIN", ".Trash-0", ".Trash-1000",
        ".Trashes", ".fseventsd", ".Spotlight-V100", "FOUND.000",
    ]

    /// Reads the set header: from `set.a`, `set.b`, else from a recovery point or pack.
    /// Throws `set.not-a-set`, `set.version`, `set.damaged`, `store.failed`.
    static func look(at store: any ObjectStore) throws(Fault) -> Found {
        var found = Found(header: nil, lostCopies: [], readOnly: false)
        var any = false
        var unknown: Fault?
        for name in ObjectName.headers {
            guard let handle = try store.open(name) else {
                found.lostCopies.append(name)
                continue
            }
            any = true
            guard handle.size.bytes >= UInt64(SetHeader.magic.count + 2) else {
                found.lostCopies.append(name)
                continue
            }
            let exact = handle.size.bytes == UInt64(SetHeader.size)
            let bytes: [UInt8]
            do throws(Fault) {
                bytes = try handle.bytes(at: .zero, count: Int(min(handle.size.bytes, UInt64(SetHeader.size))))
            } catch {
                // One unreadable sector must not hide the other copy.
                found.lostCopies.append(name)
                continue
            }
            do throws(Fault) {
                if let header = try read(bytes, "\(store.name)/\(name)"), exact {
                    if let first = found.header, first != header {
                        // One of them belongs to another set. Points and packs know which.
                        let known = try? rescue(store)
                        found.lostCopies.append(known == header ? ObjectName.headers[0] : name)
                        if known == header {
                            found.header = header
                            unsafe found.readOnly = SetHeader.forbidsWriting(bytes.span.bytes)
                        }
                        continue
                    }
                    found.header = found.header ?? header
                    unsafe found.readOnly = found.readOnly || SetHeader.forbidsWriting(bytes.span.bytes)
                    continue
                }
            } catch {
                // Beside a sound copy of this version, another number is damage.
                unknown = unknown ?? error
            }
            found.lostCopies.append(name)
        }
        if found.header != nil { return found }
        if let unknown { throw unknown }
        let names = try store.topLevelNames(limit: 64)
        // The headers come before everything else: what refers to a set, or holds its content, is not begun anew.
        var isSet = any
        for folder in [ObjectName.points, ObjectName.packs] where !isSet {
            for place in [folder, ObjectName.copy(of: folder)] where !isSet { isSet = try !store.list(place).isEmpty }
        }
        if isSet {
            found.header = try rescue(store)
            guard found.header != nil else {
                throw Fault(
                    .setDamaged,
                    what: "The set's headers \(ObjectName.headers.joined(separator: " and ")) are damaged or "
                        + "missing, and no recovery point or pack holds a sound copy.", place: store.name,
                    remedy: "Put one of them back from another copy of the set.")
            }
            return found
        }
        let foreign = names.filter { !harmless.contains($0) }
        guard foreign.isEmpty else {
            let shown = foreign.prefix(5).joined(separator: ", ") + (foreign.count > 5 ? ", …" : "")
            throw Fault(
                .notASet, what: "This is not an image set: it holds \(shown), but no \(ObjectName.headers[0]).",
                place: store.name,
                remedy: "Name the folder of a set, or a new or empty folder to begin one with a backup.")
        }
        return found
    }

    /// A header that claims to be one; `nil` when it is damaged.
    private static func read(_ bytes: [UInt8], _ place: String) throws(Fault) -> SetHeader? {
        switch unsafe SetHeader.claim(bytes.span.bytes) {
        case .known: return try? unsafe SetHeader(bytes.span.bytes)
        case .foreign, .damaged: return nil
        case .unknown(let what):
            throw Fault(
                .setVersion,
                what: "The set has \(what) of the format; this program reads version \(SetHeader.version).",
                place: place,
                remedy: what == "version 0"
                    ? "Version 0 was provisional: only Relight 0.1 reads it. Restore with that, and begin a new set."
                    : "Use the version of Relight that made the set, or a newer one.")
        }
    }

    /// Every recovery point and pack begins with a copy of the header.
    private static func rescue(_ store: any ObjectStore) throws(Fault) -> SetHeader? {
        let folders = [
            ObjectName.points, ObjectName.copy(of: ObjectName.points), ObjectName.packs, ObjectName.keys,
        ]
        for folder in folders {
            for object in try store.list(folder).sorted(by: { $0.name < $1.name }).prefix(100) {
                let offset =
                    object.name.hasSuffix(".pack")
                    ? 64 : object.name.hasSuffix(".key") ? 256 : PointFile.headerSize - 128
                guard object.size.bytes >= UInt64(offset + SetHeader.size), let handle = try store.open(object.name),
                    let bytes = try? handle.bytes(at: ByteCount(UInt64(offset)), count: SetHeader.size)
                else { continue }
                if let header = try read(bytes, "\(store.name)/\(object.name)") { return header }
            }
        }
        return nil
    }

    /// The header of a set to be read.
    static func require(_ store: any ObjectStore) throws(Fault) -> Found {
        let found = try look(at: store)
        guard found.header != nil else {
            let exists = try !store.topLevelNames(limit: 1).isEmpty
            throw Fault(
                .notASet,
                what: exists ? "There is no image set here yet." : "There is no image set here: nothing was found.",
                place: store.name,
                remedy: "Check the name; `relight backup DISK --to \(store.name)` would make a set there.")
        }
        return found
    }
}
