// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
public import Geometry
import Glibc

/// A set in a tar file (ustar), whole or in parts, read in place. Nothing in it ever changes.
///
/// The members are the set's objects, all of them in one folder or none. Regular files only; of several with one name the
/// first counts. What the file says is bounded before it is believed: at most 1,000,000 members, each header with its
/// checksum, each member inside of the file.
public final class ArchiveStore: ObjectStore {
    /// The file, without the number of a part.
    public let name: String
    /// What was passed over because it is damaged; empty unless that was allowed.
    public let findings: [Finding]
    /// As ``findings``.
    public var openingFindings: [Finding] { findings }
    private let file: ArchiveFile
    /// The files it consists of, in order.
    public var files: [String] { file.parts.map(\.path) }
    private let members: [String: Member]

    struct Member: Hashable {
        var offset: UInt64
        var size: UInt64
    }

    /// Most members of an archive, folders and others counted.
    static let maximumMembers = 1_000_000

    /// Opens the archive `path`: the file, its first part FILE.001, or FILE where there is only FILE.001.
    ///
    /// - Parameter allowDamage: go on past what is damaged or missing at the end, for taking out what can be had. Found
    ///   members are read as they are; the set's own hashes decide.
    /// - Throws: `missing`, `wrong-kind` for what is not a tar file, `set.damaged` for a damaged header, a missing or
    ///   short part, a cut-off end, `store.failed`.
    public convenience init(_ path: String, allowDamage: Bool = false) throws(Fault) {
        try self.init(path, allowDamage: allowDamage, maximumMembers: ArchiveStore.maximumMembers)
    }

    /// With another limit, for tests.
    init(_ path: String, allowDamage: Bool = false, maximumMembers: Int) throws(Fault) {
        file = try ArchiveFile(path)
        name = file.path
        let (found, findings) = try ArchiveStore.walk(file, allowDamage: allowDamage, maximumMembers)
        self.findings = findings
        members = ArchiveStore.withoutFolder(found)
    }

    /// Forgets all cached content, so that what is read next comes from the medium.
    public func dropCaches() { file.dropCaches(at: 0, count: file.size) }

    /// Whether `file` holds an archive from its first header to its end mark.
    static func isWhole(_ file: ArchiveFile) -> Bool {
        (try? walk(file, allowDamage: false, maximumMembers)) != nil
    }

    // MARK: - The list of members

    /// Walks the headers from the first to the end mark.
    private static func walk(
        _ file: ArchiveFile, allowDamage: Bool, _ maximumMembers: Int
    ) throws(Fault) -> (members: [String: Member], findings: [Finding]) {
        var result: [String: Member] = [:]
        var findings: [Finding] = []
        var count = 0
        var offset: UInt64 = 0
        let block = UInt64(TarHeader.block)
        func note(_ code: String, _ fault: Fault) {
            // A thousand say it all.
            if findings.count < 1000 { findings.append(Finding(.warning, code, what: fault.what, place: fault.place)) }
        }
        while true {
            let bytes = try file.bytes(at: offset, count: TarHeader.block)
            var isCut = bytes.count < TarHeader.block
            if !isCut, unsafe TarHeader.isZero(bytes.span.bytes) {
                let second = try file.bytes(at: offset + block, count: TarHeader.block)
                isCut = second.count < TarHeader.block
                if !isCut, unsafe TarHeader.isZero(second.span.bytes) { return (result, findings) }
            }
            if isCut {
                guard offset > 0 else { throw notTar(file, "it is too short") }
                let fault = cutOff(file, "it ends at byte \(file.size) without an end mark")
                guard allowDamage else { throw fault }
                note("set.archive-cut", fault)
                return (result, findings)
            }
            let header: TarHeader
            do throws(FieldError) {
                header = try unsafe TarHeader(bytes.span.bytes)
            } catch {
                guard offset > 0 || TarHeader.hasMagic(bytes) else { throw notTar(file, "\(error)") }
                let fault = Fault(
                    .setDamaged, what: "The header of a member at byte \(offset) is damaged (\(error)).",
                    place: file.path, remedy: "Copy the archive again if you have another copy.")
                guard allowDamage else { throw fault }
                note("set.archive-damaged", fault)
                guard let next = try resume(file, from: offset + block) else { return (result, findings) }
                offset = next
                continue
            }
            count += 1
            guard count <= maximumMembers else {
                throw Fault(
                    .unsupported, what: "The archive has more than \(maximumMembers) members.", place: file.path,
                    remedy: "This is not an archive of an image set.")
            }
            let start = offset + block
            let (end, past) = start.addingReportingOverflow(header.paddedSize)
            guard !past, header.size <= UInt64(Int64.max), end <= file.size else {
                let fault = cutOff(
                    file, "\(name(header)) needs \(header.size) bytes from byte \(start), but it ends at \(file.size)")
                guard allowDamage else { throw fault }
                note("set.archive-cut", fault)
                return (result, findings)
            }
            if header.kind == .file, let name = clean(header.name), result[name] == nil {
                result[name] = Member(offset: start, size: header.size)
            }
            offset = end
        }
    }

    private static func name(_ header: TarHeader) -> String { clean(header.name) ?? "a member" }

    private static func notTar(_ file: ArchiveFile, _ why: String) -> Fault {
        Fault(
            .wrongKind, what: "This is not a tar file (\(why)).", place: file.path,
            remedy: "Name the folder of a set, or an archive made by `relight archive`.")
    }

    private static func cutOff(_ file: ArchiveFile, _ what: String) -> Fault {
        Fault(
            .setDamaged,
            what: file.parts.count > 1
                ? "The archive is cut off: \(what). The last part found is \(file.parts.count): it is short, or more "
                    + "parts are missing."
                : "The archive is cut off: \(what).",
            place: file.path, remedy: "Copy the archive again, with all its parts, from where it was made.")
    }

    /// The next block that is a sound header of an object of a set, at `from` or later.
    private static func resume(_ file: ArchiveFile, from: UInt64) throws(Fault) -> UInt64? {
        var offset = from
        while offset < file.size {
            let bytes = try file.bytes(at: offset, count: 1 << 20)
            for start in stride(from: 0, to: bytes.count - TarHeader.block + 1, by: TarHeader.block)
            where bytes[start + 257] == UInt8(ascii: "u") && bytes[start + 258] == UInt8(ascii: "s") {
                let block = Array(bytes[start..<start + TarHeader.block])
                if let header = try? unsafe TarHeader(block.span.bytes), header.kind == .file,
                    let name = clean(header.name), isObject(name)
                {
                    return offset + UInt64(start)
                }
            }
            offset += UInt64(max(bytes.count, 1))
        }
        return nil
    }

    /// Whether a path ends like an object of a set.
    private static func isObject(_ name: String) -> Bool {
        [".pack", ".point", ".key", ".moves", "set.a", "set.b"].contains { name.hasSuffix($0) }
    }

    /// A name as the set writes it; `nil` for one that no object has.
    private static func clean(_ name: String) -> String? {
        var name = name[...]
        while name.hasPrefix("./") { name = name.dropFirst(2) }
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard (1...255).contains(name.utf8.count), name.utf8.allSatisfy({ (33...126).contains($0) || $0 == 32 }),
            parts.allSatisfy({ !$0.isEmpty && $0 != "." && $0 != ".." })
        else { return nil }
        return String(name)
    }

    /// The members by the names of the set: without the folder the set lies in, if it does.
    private static func withoutFolder(_ members: [String: Member]) -> [String: Member] {
        let tops = Set(ObjectName.headers)
        if members.keys.contains(where: tops.contains) { return members }
        let folders = members.keys.compactMap { name -> Substring? in
            let parts = name.split(separator: "/", maxSplits: 1)
            guard parts.count == 2 else { return nil }
            return tops.contains(String(parts[1])) ? parts[0] : nil
        }
        var folder = folders.min()
        if folder == nil {
            // Both headers are lost: everything in one folder that is not the set's own.
            let first = Set(members.keys.map { String($0.prefix { $0 != "/" }) })
            if first.count == 1, let only = first.first, only != ObjectName.points, only != ObjectName.packs {
                folder = only[...]
            }
        }
        guard let folder else { return members }
        var result: [String: Member] = [:]
        for (name, member) in members where name.hasPrefix(folder + "/") {
            result[String(name.dropFirst(folder.count + 1))] = member
        }
        return result
    }

    // MARK: - The store

    /// No limit.
    public var maximumObjectSize: ByteCount? { nil }
    /// Lists are right at once.
    public var listingDelay: UInt64 { 0 }
    /// Refused.
    public func prepare() throws(Fault) { throw readOnly(name) }
    /// This machine's clock: nothing here gets old.
    public func clock() throws(Fault) -> UInt64 { UInt64(max(0, time(nil))) }
    /// Refused.
    public func upload() throws(Fault) -> any ObjectUpload { throw readOnly(name) }
    /// Refused.
    public func delete(_ name: String) throws(Fault) { throw readOnly(self.name) }
    /// Refused.
    public func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
        throw readOnly(name)
    }
    /// None.
    public func announcements() throws(Fault) -> [Announced] { [] }
    /// None.
    public func leftovers() throws(Fault) -> [any ObjectLeftover] { [] }

    /// Opens a member.
    public func open(_ name: String) throws(Fault) -> (any ObjectHandle)? {
        members[name].map { Handle(file: file, name: "\(self.name)/\(name)", member: $0) }
    }

    /// Members below `folder`.
    public func list(_ folder: String) throws(Fault) -> [StoredObject] {
        members.filter { $0.key.hasPrefix(folder + "/") }.map {
            StoredObject(name: $0.key, size: ByteCount($0.value.size))
        }
    }

    /// Names up to the first slash.
    public func topLevelNames(limit: Int) throws(Fault) -> [String] {
        Array(Set(members.keys.map { String($0.prefix { $0 != "/" }) }).sorted().prefix(limit))
    }

    private final class Handle: ObjectHandle {
        let file: ArchiveFile
        let name: String
        let member: Member
        init(file: ArchiveFile, name: String, member: Member) {
            self.file = file
            self.name = name
            self.member = member
        }
        var size: ByteCount { ByteCount(member.size) }
        func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
            let count = UInt64(buffer.byteCount)
            guard count <= member.size, offset.bytes <= member.size - count else {
                throw endsEarly(name, offset: offset, size: size)
            }
            try file.read(at: member.offset + offset.bytes, into: &buffer, place: name)
        }
        func dropCaches() { file.dropCaches(at: member.offset, count: member.size) }
    }
}

/// The fault for a change of what never changes.
func readOnly(_ place: String) -> Fault {
    Fault(
        .unsupported, what: "This place can only be read.", place: place,
        remedy: "Copy it into the folder of a set first: `relight copy`.")
}
