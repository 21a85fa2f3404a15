// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry

/// A list of a set's objects, kept as the object `catalogue` in places that cannot list, such as a plain HTTP server.
///
/// ```
/// relight catalogue 1 <set oid>
/// <size> <name>            one line for each object, ordered by name (bytes)
/// sha256 <64 hexadecimal digits>      of everything before this line
/// ```
///
/// ASCII, lines end with one line feed, sizes are decimal without leading zeros. It may be removed and made again at
/// any time, and says nothing that a listing would not.
public struct Catalogue: Hashable, Sendable {
    /// The set's id: 32 hexadecimal digits.
    public var setID: String
    /// The objects, ordered by name.
    public var objects: [StoredObject]

    /// Name of the object that holds it.
    public static let name = "catalogue"
    /// Largest catalogue that is read: 256 MiB.
    public static let maximumSize = 256 << 20
    /// Folders and single objects that are listed; what is left out only serves while something runs.
    static let folders = ["keys", ObjectName.points, ObjectName.packs, ObjectName.copies, "moves", "gone"]
    static let singles = ObjectName.headers + [ObjectName.text]

    /// A catalogue of `objects`.
    public init(setID: String, objects: [StoredObject]) {
        self.setID = setID
        self.objects = objects.sorted { Array($0.name.utf8).lexicographicallyPrecedes(Array($1.name.utf8)) }
    }

    /// The catalogue of what `store` lists now. Throws `set.not-a-set` and what listing throws.
    public init(of store: any ObjectStore) throws(Fault) {
        guard let header = try SetAccess.require(store).header else {
            throw Fault(.notASet, what: "There is no image set here.", place: store.name, remedy: "Check the name.")
        }
        var objects: [StoredObject] = []
        for name in Catalogue.singles {
            if let handle = try store.open(name) { objects.append(StoredObject(name: name, size: handle.size)) }
        }
        for folder in Catalogue.folders {
            for object in try store.list(folder) where Catalogue.isName(object.name) {
                objects.append(StoredObject(name: object.name, size: object.size))
            }
        }
        self.init(setID: header.id.text, objects: objects)
    }

    /// The text.
    public func bytes() throws(Fault) -> [UInt8] {
        var text = Array("relight catalogue 1 \(setID)\n".utf8)
        for object in objects { text += Array("\(object.size.bytes) \(object.name)\n".utf8) }
        let hash = try Hasher256().hash(text)
        return text + Array("sha256 \(hash.text)\n".utf8)
    }

    /// Parses and checks a catalogue. Throws `set.damaged`, `set.version`.
    public init(parsing bytes: [UInt8]) throws(Fault) {
        // "sha256 ", 64 digits, line feed.
        let tail = 72
        guard bytes.count <= Catalogue.maximumSize, bytes.count > tail, bytes.last == 10 else {
            throw Catalogue.damaged("it is cut off or too large")
        }
        let body = Array(bytes[..<(bytes.count - tail)])
        guard let first = body.firstIndex(of: 10) else { throw Catalogue.damaged("it has no first line") }
        let head = String(decoding: body[..<first], as: UTF8.self).split(
            separator: " ", omittingEmptySubsequences: false)
        guard head.count >= 3, head[0] == "relight", head[1] == "catalogue" else {
            throw Catalogue.damaged("the first line is another")
        }
        guard head[2] == "1" else {
            throw Fault(
                .setVersion, what: "The catalogue has another version than 1.", place: Catalogue.name,
                remedy: "Use the version of Relight that made the set, or a newer one.")
        }
        guard head.count == 4, let id = ObjectID(head[3]) else { throw Catalogue.damaged("the set's id is no id") }
        let hash = try Hasher256().hash(body)
        guard Array(bytes[(bytes.count - tail)...]) == Array("sha256 \(hash.text)\n".utf8) else {
            throw Catalogue.damaged("its hash differs")
        }
        var objects: [StoredObject] = []
        for line in body[(first + 1)...].split(separator: 10, omittingEmptySubsequences: false).dropLast() {
            guard let space = line.firstIndex(of: 32), let size = Catalogue.decimal(line[..<space]) else {
                throw Catalogue.damaged("a line has no size")
            }
            let name = String(decoding: line[(space + 1)...], as: UTF8.self)
            guard Catalogue.isName(name) else { throw Catalogue.damaged("a name is none a set has") }
            if let last = objects.last,
                !Array(last.name.utf8).lexicographicallyPrecedes(Array(line[(space + 1)...]))
            {
                throw Catalogue.damaged("the names are not in order")
            }
            objects.append(StoredObject(name: name, size: ByteCount(size)))
        }
        guard body.last == 10 else { throw Catalogue.damaged("the last line does not end") }
        setID = id.text
        self.objects = objects
    }

    private static func decimal(_ digits: ArraySlice<UInt8>) -> UInt64? {
        guard (1...19).contains(digits.count), digits.allSatisfy({ (48...57).contains($0) }),
            digits.count == 1 || digits.first != 48
        else { return nil }
        return digits.reduce(0) { $0 * 10 + UInt64($1 - 48) }
    }

    /// Whether an object may have this name.
    static func isName(_ name: String) -> Bool {
        (1...255).contains(name.utf8.count) && name.utf8.allSatisfy { (33...126).contains($0) }
            && name.split(separator: "/", omittingEmptySubsequences: false)
                .allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }
    }

    private static func damaged(_ what: String) -> Fault {
        Fault(
            .setDamaged, what: "The catalogue is damaged: \(what).", place: Catalogue.name,
            remedy: "Make it again from a copy of the set that can be listed; nothing else is lost.")
    }

    /// Writes the catalogue of `store` anew where it has one.
    public static func refresh(_ store: any ObjectStore) throws(Fault) {
        if try store.open(Catalogue.name) != nil { try write(to: store) }
    }

    /// Writes the catalogue of `store` into it, in the place of an older one.
    public static func write(to store: any ObjectStore) throws(Fault) {
        try SetAccess.requireWritable(store)
        let bytes = try Catalogue(of: store).bytes()
        let upload = try store.upload()
        do throws(Fault) {
            try unsafe upload.write(at: .zero, bytes.span.bytes)
            try upload.seal(replacing: Catalogue.name)
        } catch {
            upload.abandon()
            throw error
        }
    }

    /// What is wrong with the catalogue in `place`, one of the places of the set in `store`: it is damaged, another set's, or
    /// lacks finished points. `nil` when nothing is, or there is none.
    static func problem(
        in place: any ObjectStore, of store: any ObjectStore, _ set: SetHeader
    ) throws(Fault) -> String? {
        // Points that come while this runs must not be missed in it.
        let points = store.listReadable(ObjectName.points).objects.map(\.name).filter {
            ObjectName.id($0, suffix: ".point") != nil
        }
        let catalogue: Catalogue
        do throws(Fault) {
            guard let handle = try place.open(name) else { return nil }
            guard let size = handle.size.int, size <= maximumSize else { return "The catalogue is too large." }
            catalogue = try Catalogue(parsing: handle.bytes(at: .zero, count: size))
        } catch {
            guard error.code != .interrupted else { throw error }
            return error.what
        }
        guard catalogue.setID == set.id.text else { return "The catalogue is of the set \(catalogue.setID)." }
        let listed = Set(catalogue.objects.map(\.name))
        let missing = points.filter { !listed.contains($0) }
        guard !missing.isEmpty else { return nil }
        return
            "The catalogue lacks \(missing.count) recovery \(missing.count == 1 ? "point" : "points"): where the place cannot "
            + "be listed, they are not seen."
    }
}
