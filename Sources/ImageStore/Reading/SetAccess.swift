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
            let opened: (any ObjectHandle)?
            do throws(Fault) {
                opened = try store.open(name)
            } catch {
                // A file that cannot be opened must not hide the other copy, nor one unreadable sector.
                guard error.code == .storeFailed || error.code == .setDamaged else { throw error }
                any = true
                found.lostCopies.append(name)
                continue
            }
            guard let handle = opened else {
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
                found.lostCopies.append(name)
                continue
            }
            let header: SetHeader?
            do throws(Fault) {
                header = try read(bytes, "\(store.name)/\(name)")
            } catch {
                // Beside a sound copy of this version, another number is damage.
                unknown = unknown ?? error
                found.lostCopies.append(name)
                continue
            }
            guard let header, exact else {
                found.lostCopies.append(name)
                continue
            }
            guard let first = found.header, first != header else {
                found.header = found.header ?? header
                found.readOnly = found.readOnly || header.forbidsWriting
                continue
            }
            // One of them belongs to another set. Points and packs know which.
            let known = try rescue(store)
            found.lostCopies.append(known == header ? ObjectName.headers[0] : name)
            if known == header {
                found.header = header
                found.readOnly = header.forbidsWriting
            }
        }
        if found.header != nil { return found }
        if let unknown { throw unknown }
        let names = try store.topLevelNames(limit: 64)
        // The headers come before everything else: what refers to a set, or holds its content, is not begun anew.
        var isSet = any
        for folder in [ObjectName.points, ObjectName.packs] where !isSet {
            for place in [folder, ObjectName.copy(of: folder)] where !isSet {
                isSet = !store.listReadable(place).objects.isEmpty
            }
        }
        if isSet {
            found.header = try rescue(store)
            found.readOnly = found.header?.forbidsWriting ?? false
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

    /// Every point, pack, key slot and moves object holds a copy of the header. Throws `set.damaged` when they tell of
    /// different sets: a file of another one may lie among them, and nobody knows which that is.
    private static func rescue(_ store: any ObjectStore) throws(Fault) -> SetHeader? {
        var found: (header: SetHeader, place: String)?
        var unknown: Fault?
        let first = [ObjectName.points, ObjectName.packs, ObjectName.keys, ObjectName.moves]
        for folder in first + first.map({ ObjectName.copy(of: $0) }) {
            let objects = store.listReadable(folder).objects
            for object in objects.sorted(by: { $0.name < $1.name }).prefix(100) {
                let offset =
                    object.name.hasSuffix(".pack")
                    ? 64 : object.name.hasSuffix(".key") ? 256 : PointFile.headerSize - SetHeader.size
                guard object.size.bytes >= UInt64(offset + SetHeader.size),
                    let handle = (try? store.open(object.name)) ?? nil,
                    let bytes = try? handle.bytes(at: ByteCount(UInt64(offset)), count: SetHeader.size)
                else { continue }
                let place = "\(store.name)/\(object.name)"
                let header: SetHeader?
                do throws(Fault) { header = try read(bytes, place) } catch {
                    unknown = unknown ?? error
                    continue
                }
                guard let header else { continue }
                guard let known = found else {
                    found = (header, place)
                    continue
                }
                guard known.header == header else {
                    throw Fault(
                        .setDamaged,
                        what: "The set's headers are damaged or missing, and its files belong to different sets: "
                            + "\(known.place) to \(known.header.id.text), \(place) to \(header.id.text).",
                        place: store.name,
                        remedy:
                            "Put \(ObjectName.headers[0]) back from another copy of the set, or take away the files that "
                            + "belong to another set.")
                }
            }
        }
        if found == nil, let unknown { throw unknown }
        return found?.header
    }

    /// Throws `set.version` when the set has features only newer writers know.
    static func requireWritable(_ store: any ObjectStore) throws(Fault) {
        guard try !look(at: store).readOnly else { throw mustNotBeWritten(store.name) }
    }

    static func mustNotBeWritten(_ place: String) -> Fault {
        Fault(
            .setVersion, what: "The set has features this program must not write to.", place: place,
            remedy: "Use a newer version of Relight for it; this one can read it.")
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
