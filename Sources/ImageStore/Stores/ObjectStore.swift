// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Glibc
import Threads

/// A place that holds an image set: named, immutable objects and nothing else.
///
/// An object appears whole or not at all, never changes, and is read in ranges. Names are relative paths of
/// lower-case ASCII letters, digits, `.`, `-` and `/`. Every failure is a ``Fault``: `store.full` where there is no
/// room, `store.failed` for everything else. Safe to use from several threads at once.
///
/// Whoever asks how old something is compares ``StoredObject/modified`` with ``clock()``: both are told by the place,
/// so a machine whose own clock is wrong judges rightly.
public protocol ObjectStore: AnyObject, Sendable {
    /// What to call the place in messages: a path or an address.
    var name: String { get }
    /// The largest object the place can hold; `nil` where no limit is known.
    var maximumObjectSize: ByteCount? { get }
    /// Seconds in which an object that is finished, or removed, may be missing from, or still stand in,
    /// ``list(_:)`` and ``announcements()``. ``open(_:)`` is never late.
    var listingDelay: UInt64 { get }
    /// Returns when everything that was finished or removed before the call shows in lists: at once, or after
    /// ``listingDelay``. Throws `interrupted`.
    func awaitListings() throws(Fault)
    /// Makes the place ready to be written to (a folder: creates it).
    func prepare() throws(Fault)
    /// The place's clock: seconds since 1970.
    func clock() throws(Fault) -> UInt64
    /// Begins an object. Nothing is visible under its name until ``ObjectUpload/seal(as:)``.
    func upload() throws(Fault) -> any ObjectUpload
    /// Opens an object for reading; `nil` when there is none of that name. Never waits for anything but the medium.
    func open(_ name: String) throws(Fault) -> (any ObjectHandle)?
    /// All finished objects whose name begins with `folder` + "/", in no particular order.
    func list(_ folder: String) throws(Fault) -> [StoredObject]
    /// As ``list(_:)``, but what cannot be listed or looked at is left out, with a fault for each. For readers, who take what
    /// they can get; whoever removes something must know of everything.
    func listReadable(_ folder: String) -> PartialListing
    /// The places it consists of, each of them a store by itself: only itself, unless a set lies in several.
    var places: [any ObjectStore] { get }
    /// What was noticed when the place was opened: parts of it that are damaged and were passed over.
    var openingFindings: [Finding] { get }
    /// At most `limit` names at the top of the place, for messages about places that hold something else.
    /// Empty when the place does not exist.
    func topLevelNames(limit: Int) throws(Fault) -> [String]
    /// Removes an object; no fault when there is none. Works when there is no room left.
    func delete(_ name: String) throws(Fault)
    /// Unfinished objects left behind by writers that no longer run, opened for reading. What cannot even be opened is
    /// left out. A read from one that the medium refuses is the fault `source.unreadable`.
    func leftovers() throws(Fault) -> [any ObjectLeftover]
    /// Tells everyone who uses the set that a writer or pruner is at work, until the announcement ends. `id` is 32
    /// lower-case hexadecimal digits nobody used before. Needs no room for data.
    func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement
    /// Who is at work. One that ended without saying so is recognised, returned for the last time with
    /// ``Announced/isAlive`` false, and removed.
    func announcements() throws(Fault) -> [Announced]
}

/// A finished object.
public struct StoredObject: Hashable, Sendable {
    /// Its name.
    public var name: String
    /// Its size.
    public var size: ByteCount
    /// When its content was written, in seconds since 1970 by the clock of the place; 0 where that is not known.
    public var modified: UInt64

    /// A finished object.
    public init(name: String, size: ByteCount, modified: UInt64 = 0) {
        self.name = name
        self.size = size
        self.modified = modified
    }
}

/// What of a folder could be listed.
public struct PartialListing: Sendable {
    /// The objects that were found.
    public var objects: [StoredObject] = []
    /// Why others may be missing; empty when the list is whole.
    public var faults: [Fault] = []

    /// A list without anything.
    public init() {}
}

/// An object being written. Ranges may be written in any order and from several threads, but never twice.
public protocol ObjectUpload: AnyObject, Sendable {
    /// Writes `bytes` at `offset`. After `store.full` what was written before can still be read.
    func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault)
    /// Fills `buffer` with what was written at `offset`; a fault past the end of what was. Until the upload is sealed
    /// or abandoned, also after a fault.
    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault)
    /// Makes the object durable and visible as `name`, which must not exist yet. After a fault nothing is visible
    /// and the upload is of no more use but for reading.
    func seal(as name: String) throws(Fault)
    /// As ``seal(as:)``, but in the place of an object of that name, if there is one: readers see the old or the new
    /// one whole. Only for a damaged object whose content was made good, byte for byte.
    func seal(replacing name: String) throws(Fault)
    /// Throws the unfinished object away. Does nothing after it was sealed.
    func abandon()
}

/// An object open for reading.
public protocol ObjectHandle: AnyObject, Sendable {
    /// Its size.
    var size: ByteCount { get }
    /// Fills `buffer` from byte `offset`; a fault when the object ends before.
    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault)
    /// Forgets cached content, so that the next read comes from the medium where the place can do that.
    func dropCaches()
}

/// An unfinished object nobody writes any more.
public protocol ObjectLeftover: ObjectHandle {
    /// What to call it in messages.
    var name: String { get }
    /// Names of finished objects that may lie in the same place of the medium, as a power cut between the two halves of a
    /// rename leaves it on FAT: removing it would destroy them.
    func sharers() throws(Fault) -> [String]
    /// Removes it. Its room is free when this returns.
    func remove() throws(Fault)
}

extension ObjectLeftover {
    /// None, but where the store knows better.
    public func sharers() throws(Fault) -> [String] { [] }
}

extension ObjectHandle {
    /// A copy of `count` bytes at `offset`. `count` must have been bounded by the caller.
    func bytes(at offset: ByteCount, count: Int) throws(Fault) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: count)
        var span = result.mutableSpan
        var raw = unsafe span.mutableBytes
        try read(at: offset, into: &raw)
        return result
    }
}

extension ObjectStore {
    /// All of the folder or nothing.
    public func listReadable(_ folder: String) -> PartialListing {
        var result = PartialListing()
        do throws(Fault) { result.objects = try list(folder) } catch { result.faults = [error] }
        return result
    }

    /// Itself.
    public var places: [any ObjectStore] { [self] }

    /// Nothing.
    public var openingFindings: [Finding] { [] }

    /// Lets ``listingDelay`` pass.
    public func awaitListings() throws(Fault) {
        var left = listingDelay * 10
        while left > 0 {
            try Interruption.check()
            usleep(100_000)
            left -= 1
        }
    }

    /// Announces a writer or pruner under a random id.
    public func announce(_ kind: Announced.Kind) throws(Fault) -> any Announcement {
        try announce(kind, as: ObjectID.random().text)
    }

    /// Writes a small object in one go and reads it back with caches dropped.
    func put(_ name: String, _ bytes: [UInt8]) throws(Fault) {
        let upload = try self.upload()
        do {
            try unsafe upload.write(at: .zero, bytes.span.bytes)
            try upload.seal(as: name)
        } catch {
            upload.abandon()
            throw error
        }
        guard SafetyRules.keep(.readBack) else { return }
        do throws(Fault) {
            guard let handle = try open(name) else { throw notKept(name) }
            handle.dropCaches()
            guard handle.size.bytes == UInt64(bytes.count), try handle.bytes(at: .zero, count: bytes.count) == bytes
            else { throw notKept(name) }
        } catch {
            // What is not known to be right must not stay under a name that promises something.
            var fault = error
            do throws(Fault) {
                try delete(name)
            } catch {
                fault.what += " It could not be removed either, so \(name) may be there."
            }
            throw fault
        }
    }

    /// As ``put(_:_:)``, but no fault when the same object is there already: who mends a set may have been faster.
    func putCopy(_ name: String, _ bytes: [UInt8]) throws(Fault) {
        guard SafetyRules.keep(.secondCopies) else { return }
        try putSame(name, bytes)
    }

    /// As ``put(_:_:)``, but no fault when the same object is there already.
    func putSame(_ name: String, _ bytes: [UInt8]) throws(Fault) {
        do throws(Fault) {
            try put(name, bytes)
        } catch {
            guard error.code == .storeTaken, let there = try open(name), there.size.bytes == UInt64(bytes.count),
                try there.bytes(at: .zero, count: bytes.count) == bytes
            else { throw error }
        }
    }

    /// Seals the second copy `name` of an object, or gives it up when it is there with its size: who opened the set after the
    /// first copy was sealed, and missed the second, was faster to put it there.
    func sealCopy(_ upload: any ObjectUpload, as name: String, size: ByteCount) throws(Fault) {
        do throws(Fault) {
            try upload.seal(as: name)
        } catch {
            guard error.code == .storeTaken, let there = try? open(name), there.size == size else { throw error }
            upload.abandon()
        }
    }

    /// The fault for an object that reads back differently from what was written.
    func notKept(_ object: String) -> Fault {
        Fault(
            .storeFailed, what: "\(object) reads back differently from what was written.", place: name,
            remedy: "Do not trust this medium or its cable; test the memory too, then back up to another place.")
    }
}

/// The fault for a read past an object's end.
func endsEarly(_ place: String, offset: ByteCount, size: ByteCount) -> Fault {
    Fault(
        .setDamaged, what: "The file is cut off: bytes at \(offset.bytes) are needed, but it ends at \(size.bytes).",
        place: place,
        remedy: "Run `relight verify` to see what is lost, and copy the file again if you have another copy.")
}
