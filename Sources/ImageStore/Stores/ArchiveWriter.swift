// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
public import Geometry
import Glibc
import Threads

/// Writes a tar file (ustar) that ``ArchiveStore`` reads, whole or in parts FILE.001, FILE.002, … of equal size.
///
///     let archive = try ArchiveWriter("web01.tar", partSize: nil, folder: "web01", time: now)
///     try archive.add("set.a", bytes)
///     try archive.begin("packs/ab/….pack"); try archive.append(bytes); try archive.endMember()
///     try archive.finish()
///
/// The same members in the same order give the same bytes. Until ``finish()`` there are only files with temporary names
/// in the folder of FILE; a file of that name is never replaced. One thread.
public final class ArchiveWriter {
    /// The file, without the number of a part.
    public let path: String
    /// Bytes written so far.
    public var size: ByteCount { ByteCount(position) }
    private let partSize: UInt64?
    private let prefix: String
    private let time: UInt64
    private let temporary: String
    private var parts: [Int32] = []
    private var position: UInt64 = 0
    private var member: (name: String, header: UInt64)?
    private var failed: Fault?
    private var isOpen = true
    /// Called before each change with its number, for tests that let some fail.
    var hook: ((Int) throws(Fault) -> Void)?
    private var changes = 0

    /// Begins an archive.
    ///
    /// - Parameters:
    ///   - path: the file to make; with `partSize` the name before `.001`.
    ///   - partSize: the most bytes of a part, at least 512; rounded down to a multiple of 512.
    ///   - folder: the folder all members lie in, so that unpacking makes one; none when empty.
    ///   - time: seconds since 1970, the time of all members.
    /// - Throws: `target.forbidden` when a file of that name, or a part of such an archive, exists, `usage`, `store.failed`.
    public init(_ path: String, partSize: ByteCount? = nil, folder: String = "", time: UInt64) throws(Fault) {
        guard partSize.map({ $0.bytes >= 512 }) ?? true, !path.isEmpty, !path.hasSuffix("/") else {
            throw Fault(
                .usage, what: "An archive needs the name of a file, and parts of at least 512 bytes.", place: path,
                remedy: "Name a file; give the size of its parts as 4G or 650M.")
        }
        self.path = path
        self.partSize = partSize.map { $0.bytes / 512 * 512 }
        self.time = time
        prefix = folder.isEmpty ? "" : folder + "/"
        var generator = SystemRandomNumberGenerator()
        temporary = "\(path).\(String(generator.next() as UInt64, radix: 16)).unfinished"
        try finishNaming()
        try requireFree()
        removeStale()
    }

    deinit { abandon() }

    /// Throws `target.forbidden` when the file is there, or a part of an archive of this name: a reader takes all parts it
    /// finds for one archive.
    private func requireFree() throws(Fault) {
        if unsafe access(path, F_OK) == 0 { throw ArchiveWriter.taken(path) }
        let last = try ArchiveFile.lastPart(path)
        if last > 0 { throw ArchiveWriter.taken(ArchiveFile.partName(path, last)) }
    }

    private static func taken(_ name: String) -> Fault {
        Fault(
            .targetForbidden, what: "There is a file of this name already.", place: name,
            remedy: "Choose another name, or remove the file if it is not needed.")
    }

    /// Adds a member of which all is in memory.
    public func add(_ name: String, _ bytes: [UInt8]) throws(Fault) {
        try begin(name)
        try unsafe append(bytes.span.bytes)
        try endMember()
    }

    /// Adds a member that is copied from an object. Throws `interrupted` when the program is asked to stop.
    public func add(_ name: String, from object: any ObjectHandle) throws(Fault) {
        try begin(name)
        var buffer = [UInt8](repeating: 0, count: Int(min(object.size.bytes, 1 << 20)))
        var offset: UInt64 = 0
        while offset < object.size.bytes {
            try Interruption.check()
            let count = Int(min(object.size.bytes - offset, 1 << 20))
            if count < buffer.count { buffer.removeLast(buffer.count - count) }
            var span = buffer.mutableSpan
            var raw = unsafe span.mutableBytes
            try object.read(at: ByteCount(offset), into: &raw)
            try unsafe append(buffer.span.bytes)
            offset += UInt64(count)
        }
        try endMember()
    }

    /// Begins a member whose size is not known yet.
    public func begin(_ name: String) throws(Fault) {
        try check(member == nil)
        guard let header = TarHeader(name: prefix + name, size: 0).bytes(time: time) else {
            throw Fault(
                .usage, what: "The name \(prefix + name) is too long for a tar file.", place: path,
                remedy: "Choose a shorter name for the folder in the archive.")
        }
        member = (name, position)
        try unsafe put(header.span.bytes)
    }

    /// Adds to the member at hand.
    public func append(_ bytes: RawSpan) throws(Fault) {
        try check(member != nil)
        try put(bytes)
    }

    /// Where the content of the member at hand begins in the whole.
    var memberStart: UInt64? { member.map { $0.header + UInt64(TarHeader.block) } }

    /// Writes at byte `offset` of the member at hand. Where nothing was written are zeros.
    func write(inMember offset: UInt64, _ bytes: RawSpan) throws(Fault) {
        try check(memberStart != nil)
        guard let start = memberStart else { return }
        try write(at: start + offset, bytes)
        position = max(position, start + offset + UInt64(bytes.byteCount))
    }

    /// Fills `buffer` with what was written at byte `offset` of the whole.
    func read(at offset: UInt64, into buffer: inout MutableRawSpan) throws(Fault) {
        let count = buffer.byteCount
        guard offset <= position, UInt64(count) <= position - offset else {
            throw endsEarly(path, offset: ByteCount(offset), size: ByteCount(position))
        }
        let size = partSize ?? .max
        var done = 0
        while done < count {
            let place = offset + UInt64(done)
            let within = place % size
            let step = Int(min(UInt64(count - done), size - within))
            let index = Int(clamping: place / size)
            guard index < parts.count else { throw failure(EBADF, index) }
            var piece = buffer._mutatingExtracting(done..<done + step)
            let problem = FileBytes.read(parts[index], at: ByteCount(within), into: &piece)
            if problem < 0 { throw endsEarly(path, offset: ByteCount(place), size: ByteCount(position)) }
            if problem > 0 { throw FolderStore.failure(problem, "Reading", partName(index)) }
            done += step
        }
    }

    /// Ends the member at hand: its header gets the size.
    public func endMember() throws(Fault) {
        try check(member != nil)
        guard let (name, start) = member else { return }
        let size = position - start - UInt64(TarHeader.block)
        guard let header = TarHeader(name: prefix + name, size: size).bytes(time: time) else {
            throw Fault(
                .unsupported, what: "\(name) is larger than 4 GiB − 1.", place: path,
                remedy: "This is an error in the program: please report it.")
        }
        let rest = Int((UInt64(TarHeader.block) - size % UInt64(TarHeader.block)) % UInt64(TarHeader.block))
        try unsafe put([UInt8](repeating: 0, count: rest).span.bytes)
        try unsafe write(at: start, header.span.bytes)
        member = nil
    }

    /// Writes the end mark, makes everything durable, and gives the parts their names: the first one last.
    ///
    /// - Parameter look: called before that with the name by which ``ArchiveStore`` opens what was written. What it throws
    ///   ends the archive: nothing is kept.
    /// - Throws: after a fault none of the names exists.
    public func finish(_ look: (String) throws(Fault) -> Void = { _ in }) throws(Fault) {
        try check(member == nil)
        try unsafe put([UInt8](repeating: 0, count: 2 * TarHeader.block).span.bytes)
        isOpen = false
        var named: [String] = []
        do throws(Fault) {
            try change()
            try flush(partName)
            try look(partName(0))
            try requireFree()
            for index in parts.indices.reversed() {
                try change()
                let name = finalName(index)
                let problem = FolderStore.renameNew(partName(index), name)
                if problem == EEXIST { throw ArchiveWriter.taken(name) }
                if problem != 0 { throw FolderStore.failure(problem, "Renaming", name) }
                named.append(name)
            }
            // FAT writes size and place of a renamed file to its new entry only now.
            try flush(finalName)
            // One that fails to close is closed all the same, and its number may be another file's soon.
            while let part = parts.popLast() {
                if close(part) != 0, errno != EINTR { throw FolderStore.failure(errno, "Closing", path) }
            }
            let (folder, _) = ArchiveFile.split(path)
            let problem = FolderStore.flush(folder: folder)
            if problem != 0 { throw FolderStore.failure(problem, "Flushing the folder", folder) }
        } catch {
            for name in named { _ = unsafe unlink(name) }
            discard()
            throw error
        }
    }

    private func flush(_ name: (Int) -> String) throws(Fault) {
        for (index, part) in parts.enumerated() {
            while fsync(part) != 0 {
                if errno != EINTR { throw FolderStore.failure(errno, "Flushing", name(index)) }
            }
        }
    }

    /// Throws everything away. Does nothing after ``finish()``.
    public func abandon() {
        guard isOpen else { return }
        isOpen = false
        discard()
    }

    private func discard() {
        for (index, part) in parts.enumerated() {
            _ = unsafe unlink(partName(index))
            close(part)
        }
        parts = []
    }

    // MARK: - Parts

    private func check(_ right: Bool) throws(Fault) {
        if let failed { throw failed }
        guard right, isOpen else {
            throw Fault(
                .system, what: "Members of an archive were written out of order.", place: path,
                remedy: "This is an error in the program: please report it.")
        }
    }

    private func partName(_ index: Int) -> String { ArchiveFile.partName(temporary, index + 1) }

    private func finalName(_ index: Int) -> String {
        partSize == nil ? path : ArchiveFile.partName(path, index + 1)
    }

    private func change() throws(Fault) {
        defer { changes += 1 }
        try hook?(changes)
    }

    private func put(_ bytes: RawSpan) throws(Fault) {
        try write(at: position, bytes)
        position += UInt64(bytes.byteCount)
    }

    private func write(at offset: UInt64, _ bytes: RawSpan) throws(Fault) {
        do throws(Fault) {
            try change()
            var done = 0
            while done < bytes.byteCount {
                let place = offset + UInt64(done)
                let size = partSize ?? .max
                let index = Int(clamping: place / size)
                let within = place % size
                let step = Int(min(UInt64(bytes.byteCount - done), size - within))
                while parts.count <= index { try openPart() }
                let problem = FileBytes.write(
                    parts[index], at: ByteCount(within), bytes.extracting(done..<done + step))
                if problem != 0 { throw failure(problem, index) }
                _ = relight_start_writeback(parts[index], within, UInt64(step))
                done += step
            }
        } catch {
            failed = error
            throw error
        }
    }

    private func openPart() throws(Fault) {
        guard parts.count < ArchiveFile.maximumParts else {
            throw Fault(
                .unsupported, what: "The archive would have more than \(ArchiveFile.maximumParts) parts.", place: path,
                remedy: "Choose larger parts.")
        }
        if parts.isEmpty { relight_allow_many_files() }
        let name = partName(parts.count)
        for _ in 0..<16 {
            let opened = unsafe relight_open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644)
            guard opened >= 0 else { throw failure(-opened, parts.count) }
            // Tells a later run that this file's writer is alive. One that looked before may hold the lock for a moment, and
            // removes the file.
            var status = stat()
            if flock(opened, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK, unsafe fstat(opened, &status) == 0,
                status.st_nlink > 0
            {
                return parts.append(opened)
            }
            _ = unsafe unlink(name)
            close(opened)
        }
        throw failure(EBUSY, parts.count)
    }

    private func failure(_ problem: Int32, _ index: Int) -> Fault {
        switch problem {
        case ENOSPC, EDQUOT:
            Fault(
                .storeFull, what: "There is no room left for the archive.", place: finalName(index),
                remedy: "Make room there, or name another place. Nothing of the archive is kept.")
        case EFBIG:
            Fault(
                .storeFailed, what: "The filesystem does not take a file this large.", place: finalName(index),
                remedy: "Split the archive into parts: FAT32 takes files below 4 GiB.")
        default: FolderStore.failure(problem, "Writing", finalName(index))
        }
    }

    /// Goes on with a run that was killed while it gave the parts their names: all of them were written and read back
    /// before. The last part is named first, so the parts of its series that are missing have the names of this one.
    private func finishNaming() throws(Fault) {
        let (folder, file) = ArchiveFile.split(path)
        guard let names = try? FolderStore(path: folder).entries("", limit: 65_536) else { return }
        func exists(_ name: String) -> Bool { unsafe access(name, F_OK) == 0 }
        for name in names where name.hasPrefix(file + ".") && name.hasSuffix(".unfinished.001") {
            let series = "\(folder)/\(name.dropLast(4))"
            var parts: [String] = []
            while exists(ArchiveFile.partName(series, parts.count + 1)), parts.count < ArchiveFile.maximumParts {
                parts.append(ArchiveFile.partName(series, parts.count + 1))
            }
            let unnamed = parts.count
            while exists(ArchiveFile.partName(path, parts.count + 1)), parts.count < ArchiveFile.maximumParts {
                parts.append(ArchiveFile.partName(path, parts.count + 1))
            }
            guard unnamed > 0, parts.count > unnamed,
                !(1...unnamed).contains(where: { exists(ArchiveFile.partName(path, $0)) }),
                let whole = try? ArchiveFile(path, parts: parts), let first = whole.parts.first,
                flock(first.descriptor, LOCK_EX | LOCK_NB) == 0, ArchiveStore.isWhole(whole)
            else { continue }
            for number in (1...unnamed).reversed() {
                let problem = FolderStore.renameNew(parts[number - 1], ArchiveFile.partName(path, number))
                if problem != 0 { throw FolderStore.failure(problem, "Renaming", parts[number - 1]) }
            }
            let problem = FolderStore.flush(folder: folder)
            if problem != 0 { throw FolderStore.failure(problem, "Flushing the folder", folder) }
        }
    }

    /// Removes what a run for the same file left that was killed: its lock is free, and where locks of other machines may be
    /// invisible, nothing was written for an hour.
    private func removeStale() {
        let (folder, file) = ArchiveFile.split(path)
        let place = FolderStore(path: folder)
        guard let names = try? place.entries("", limit: 65_536) else { return }
        let isLocal = place.isLocal
        for name in names where name.hasPrefix(file + ".") && name.contains(".unfinished.") {
            let found = "\(folder)/\(name)"
            let opened = unsafe relight_open(found, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0)
            guard opened >= 0 else { continue }
            var status = stat()
            if flock(opened, LOCK_EX | LOCK_NB) == 0, unsafe fstat(opened, &status) == 0,
                status.st_mode & S_IFMT == S_IFREG, isLocal || Glibc.time(nil) - status.st_mtim.tv_sec > 3600
            {
                _ = unsafe unlink(found)
            }
            close(opened)
        }
    }
}
