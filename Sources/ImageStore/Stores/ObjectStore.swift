// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry

/// A place that holds an image set: named, immutable objects and nothing else.
///
/// An object appears whole or not at all, never changes, and is read in ranges. Names are relative paths of
/// lower-case ASCII letters, digits, `.`, `-` and `/`. Every failure is a ``Fault``: `store.full` where there is no
/// room, `store.failed` for everything else. Safe to use from several threads at once.
public protocol ObjectStore: AnyObject, Sendable {
    /// What to call the place in messages: a path or an address.
    var name: String { get }
    /// The largest object the place can hold; `nil` where no limit is known.
    var maximumObjectSize: ByteCount? { get }
    /// Makes the place ready to be written to (a folder: creates it).
    func prepare() throws(Fault)
    /// Begins an object. Nothing is visible under its name until ``ObjectUpload/seal(as:)``.
    func upload() throws(Fault) -> any ObjectUpload
    /// Opens an object for reading; `nil` when there is none of that name.
    func open(_ name: String) throws(Fault) -> (any ObjectHandle)?
    /// All finished objects whose name begins with `folder` + "/", in no particular order.
    func list(_ folder: String) throws(Fault) -> [StoredObject]
    /// At most `limit` names at the top of the place, for messages about places that hold something else.
    /// Empty when the place does not exist.
    func topLevelNames(limit: Int) throws(Fault) -> [String]
    /// Removes an object; no fault when there is none.
    func delete(_ name: String) throws(Fault)
    /// Unfinished objects left behind by writers that no longer run, opened for reading.
    func leftovers() throws(Fault) -> [any ObjectLeftover]
}

/// A finished object.
public struct StoredObject: Hashable, Sendable {
    /// Its name.
    public var name: String
    /// Its size.
    public var size: ByteCount

    /// A finished object.
    public init(name: String, size: ByteCount) {
        self.name = name
        self.size = size
    }
}

/// An object being written. Ranges may be written in any order and from several threads, but never twice.
public protocol ObjectUpload: AnyObject, Sendable {
    /// Writes `bytes` at `offset`.
    func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault)
    /// Makes the object durable and visible as `name`, which must not exist yet. After a fault nothing is visible
    /// and the upload is of no more use.
    func seal(as name: String) throws(Fault)
    /// Throws the unfinished object away. Does nothing after ``seal(as:)``.
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
    /// Removes it.
    func remove() throws(Fault)
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
        guard let handle = try open(name) else { throw notKept(name) }
        handle.dropCaches()
        guard handle.size.bytes == UInt64(bytes.count), try handle.bytes(at: .zero, count: bytes.count) == bytes else {
            // What is known to be wrong must not stay under a name that promises something.
            try? delete(name)
            throw notKept(name)
        }
    }

    /// The fault for an object that reads back differently from what was written.
    func notKept(_ object: String) -> Fault {
        Fault(
            .storeFailed, what: "\(object) reads back differently from what was written.", place: name,
            remedy: "Do not trust this medium or its cable; test the memory too, then back up to another place.")
    }
}
