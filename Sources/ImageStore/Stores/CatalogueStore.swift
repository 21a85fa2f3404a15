// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Synchronization

/// A place that cannot list, read with the help of its ``Catalogue``. Nothing can be written.
///
/// An object is listed only after the place itself said that it has one of that name: an old catalogue hides what came
/// later and never shows what is gone. The sizes listed are the place's.
public final class CatalogueStore: ObjectStore {
    private let base: any ObjectStore
    private let catalogue: Catalogue
    /// What the place said so far.
    private let confirmed = Mutex<[String: ByteCount]>([:])

    /// Reads the catalogue of `base`, which need only be able to open objects.
    ///
    /// Throws `missing` when there is none, `set.damaged`, `set.version`, and `set.different` when it is another set's.
    public init(_ base: any ObjectStore) throws(Fault) {
        guard let handle = try base.open(Catalogue.name) else {
            throw Fault(
                .missing, what: "This place cannot be listed and holds no catalogue.", place: base.name,
                remedy: "Make the catalogue where the set can be listed, and put it beside set.a.")
        }
        guard let size = handle.size.int, size <= Catalogue.maximumSize else {
            throw Fault(
                .setDamaged, what: "The catalogue is too large: \(handle.size).", place: base.name,
                remedy: "Make it again where the set can be listed.")
        }
        catalogue = try Catalogue(parsing: try handle.bytes(at: .zero, count: size))
        self.base = base
        for name in ObjectName.headers {
            guard let handle = try base.open(name), handle.size.bytes == UInt64(SetHeader.size),
                let bytes = try? handle.bytes(at: .zero, count: SetHeader.size),
                let header = try? unsafe SetHeader(bytes.span.bytes)
            else { continue }
            guard header.id.text == catalogue.setID else {
                throw Fault(
                    .differentSets,
                    what: "The catalogue is of the set \(catalogue.setID), but this is the set \(header.id.text).",
                    place: base.name, remedy: "Make the catalogue again where the set can be listed.")
            }
        }
    }

    /// The place's name.
    public var name: String { base.name }
    /// The place's limit.
    public var maximumObjectSize: ByteCount? { base.maximumObjectSize }
    /// The place's.
    public var listingDelay: UInt64 { base.listingDelay }
    /// The place's.
    public func clock() throws(Fault) -> UInt64 { try base.clock() }
    /// Opens an object in the place, listed or not.
    public func open(_ name: String) throws(Fault) -> (any ObjectHandle)? { try base.open(name) }

    /// Objects of the catalogue that the place has.
    public func list(_ folder: String) throws(Fault) -> [StoredObject] {
        var result: [StoredObject] = []
        for object in catalogue.objects where object.name.hasPrefix(folder + "/") {
            var size = confirmed.withLock { $0[object.name] }
            if size == nil, let there = try base.open(object.name)?.size {
                size = there
                confirmed.withLock { $0[object.name] = there }
            }
            if let size { result.append(StoredObject(name: object.name, size: size)) }
        }
        return result
    }

    /// Names up to the first slash.
    public func topLevelNames(limit: Int) throws(Fault) -> [String] {
        let names = Set(catalogue.objects.map { String($0.name.prefix { $0 != "/" }) })
        return Array(names.sorted().prefix(limit))
    }

    /// Refused.
    public func prepare() throws(Fault) { throw readOnly(name) }
    /// Refused.
    public func upload() throws(Fault) -> any ObjectUpload { throw readOnly(name) }
    /// Refused.
    public func delete(_ name: String) throws(Fault) { throw readOnly(self.name) }
    /// Refused.
    public func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
        throw readOnly(name)
    }
    /// None are listed.
    public func announcements() throws(Fault) -> [Announced] { [] }
    /// None.
    public func leftovers() throws(Fault) -> [any ObjectLeftover] { [] }
}
