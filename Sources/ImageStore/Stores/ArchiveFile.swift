// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import Geometry
import Glibc

/// The bytes of an archive: one file, or FILE.001, FILE.002, … one after the other.
final class ArchiveFile: Sendable {
    struct Part: Sendable {
        var path: String
        var descriptor: Int32
        /// Where it begins in the whole.
        var start: UInt64
        var size: UInt64
    }
    let parts: [Part]
    let size: UInt64
    /// What to call it in messages.
    let path: String

    /// Most parts an archive may have.
    static let maximumParts = 9999

    /// `FILE.001` for 1; more digits from 1,000 on.
    static func partName(_ path: String, _ number: Int) -> String {
        let digits = String(number)
        return path + "." + String(repeating: "0", count: max(0, 3 - digits.utf8.count)) + digits
    }

    /// Opens `path`, which is the whole file, its first part, or the name without the part's number.
    ///
    /// Throws `missing` when there is no such file, `set.damaged` when a part is missing or has another size than the
    /// first (all but the last have the same), `store.failed`.
    init(_ path: String) throws(Fault) {
        var status = stat()
        var base = path
        var isSplit = false
        if path.hasSuffix(".001") {
            base = String(path.dropLast(4))
            isSplit = true
        } else if unsafe stat(path, &status) != 0, errno == ENOENT {
            isSplit = try ArchiveFile.lastPart(path) > 0
        }
        self.path = base
        var parts: [Part] = []
        do throws(Fault) {
            if isSplit {
                let last = try ArchiveFile.lastPart(base)
                guard last <= ArchiveFile.maximumParts else {
                    throw Fault(
                        .unsupported, what: "The archive has more than \(ArchiveFile.maximumParts) parts.", place: base,
                        remedy: "Look whether the highest number belongs to it.")
                }
                relight_allow_many_files()
                for number in 1...max(1, last) {
                    let part = try ArchiveFile.open(ArchiveFile.partName(base, number), parts.last, number, last)
                    parts.append(part)
                }
                try ArchiveFile.checkSizes(parts)
            } else {
                parts.append(try ArchiveFile.open(path, nil, 1, 1))
            }
        } catch {
            for part in parts { close(part.descriptor) }
            throw error
        }
        self.parts = parts
        size = parts.last.map { $0.start + $0.size } ?? 0
    }

    /// The files `paths` one after the other, whatever their names.
    init(_ path: String, parts paths: [String]) throws(Fault) {
        var parts: [Part] = []
        do throws(Fault) {
            for (index, name) in paths.enumerated() {
                parts.append(try ArchiveFile.open(name, parts.last, index + 1, paths.count))
            }
            try ArchiveFile.checkSizes(parts)
        } catch {
            for part in parts { close(part.descriptor) }
            throw error
        }
        self.path = path
        self.parts = parts
        size = parts.last.map { $0.start + $0.size } ?? 0
    }

    deinit { for part in parts { close(part.descriptor) } }

    private static func open(_ path: String, _ before: Part?, _ number: Int, _ last: Int) throws(Fault) -> Part {
        let descriptor = unsafe relight_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0)
        guard descriptor >= 0 else {
            if descriptor == -ENOENT, last > 1 || number > 1 {
                throw Fault(
                    .setDamaged, what: "Part \(number) of the archive is missing; the last one found is \(last).",
                    place: path, remedy: "Put all parts of the archive into one folder.")
            }
            if descriptor == -ENOENT {
                throw Fault(
                    .missing, what: "There is no such archive.", place: path, remedy: "Check the name of the file.")
            }
            throw FolderStore.failure(-descriptor, "Opening", path)
        }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw Fault(
                .wrongKind, what: "This is not a file.", place: path, remedy: "Name the file of the archive.")
        }
        let (start, past) = (before?.start ?? 0).addingReportingOverflow(before?.size ?? 0)
        guard !past, start <= UInt64(Int64.max) else {
            close(descriptor)
            throw Fault(.setDamaged, what: "The parts together are too large.", place: path, remedy: "")
        }
        return Part(path: path, descriptor: descriptor, start: start, size: UInt64(max(0, status.st_size)))
    }

    /// The highest number of a part in the folder.
    static func lastPart(_ base: String) throws(Fault) -> Int {
        let (folder, file) = split(base)
        var last = 0
        for entry in try FolderStore(path: folder).entries("", limit: .max) where entry.hasPrefix(file + ".") {
            let digits = entry.dropFirst(file.count + 1)
            guard (3...9).contains(digits.utf8.count), digits.utf8.allSatisfy({ (48...57).contains($0) }),
                let number = Int(digits), entry == partName(file, number)
            else { continue }
            last = max(last, number)
        }
        return last
    }

    /// The names of the parts of `path` when there are as many as of `other`, its first part `other`.001.
    static func names(_ path: String, like other: String) throws(Fault) -> [String] {
        let count = try lastPart(other.hasSuffix(".001") ? String(other.dropLast(4)) : other)
        return (1...max(1, count)).map { partName(path, $0) }
    }

    /// Folder and file name of a path.
    static func split(_ path: String) -> (folder: String, file: String) {
        guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return (".", path) }
        let folder = String(path[..<slash])
        return (folder.isEmpty ? "/" : folder, String(path[path.utf8.index(after: slash)...]))
    }

    private static func checkSizes(_ parts: [Part]) throws(Fault) {
        guard let first = parts.first else { return }
        for (index, part) in parts.enumerated() {
            let isLast = index == parts.count - 1
            guard isLast ? part.size <= first.size : part.size == first.size else {
                throw Fault(
                    .setDamaged,
                    what: "The part has \(part.size) bytes, but the first one has \(first.size): it is cut off, or "
                        + "belongs to another archive.", place: part.path,
                    remedy: "Copy it again from where the archive was made.")
            }
        }
    }

    /// Fills `buffer` from byte `offset` of the whole. `place` names what is read in messages.
    func read(at offset: UInt64, into buffer: inout MutableRawSpan, place: String) throws(Fault) {
        let count = buffer.byteCount
        let (end, past) = offset.addingReportingOverflow(UInt64(count))
        guard !past, end <= size else { throw endsEarly(place, offset: ByteCount(offset), size: ByteCount(size)) }
        var done = 0
        var index = part(at: offset)
        while done < count {
            let part = parts[index]
            let within = offset + UInt64(done) - part.start
            let step = Int(min(UInt64(count - done), part.size - within))
            if step > 0 {
                var piece = buffer._mutatingExtracting(done..<done + step)
                let problem = FileBytes.read(part.descriptor, at: ByteCount(within), into: &piece)
                if problem < 0 { throw endsEarly(part.path, offset: ByteCount(within), size: ByteCount(part.size)) }
                if problem > 0 {
                    let reason = unsafe strerror(problem).map { unsafe String(cString: $0) } ?? "error \(problem)"
                    throw Fault(
                        .storeFailed, what: "Reading at byte \(within) failed: \(reason).", place: part.path,
                        remedy: "Check the medium, its cable or network, and the kernel log.",
                        extent: Extent(start: ByteCount(within), length: ByteCount(UInt64(step))))
                }
                done += step
            }
            index += 1
        }
    }

    /// The part that holds byte `offset`, which lies inside.
    private func part(at offset: UInt64) -> Int {
        var low = 0
        var high = parts.count - 1
        while low < high {
            let middle = (low + high + 1) / 2
            if parts[middle].start <= offset { low = middle } else { high = middle - 1 }
        }
        return max(0, low)
    }

    /// A copy of at most `count` bytes at `offset`: fewer at the end.
    func bytes(at offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        guard offset < size else { return [] }
        var result = [UInt8](repeating: 0, count: Int(min(UInt64(count), size - offset)))
        var span = result.mutableSpan
        var raw = unsafe span.mutableBytes
        try read(at: offset, into: &raw, place: path)
        return result
    }

    /// Forgets what is cached of some bytes.
    func dropCaches(at offset: UInt64, count: UInt64) {
        for part in parts where part.start < offset + count && part.start + part.size > offset {
            let from = offset > part.start ? offset - part.start : 0
            _ = posix_fadvise(
                part.descriptor, off_t(clamping: from), off_t(clamping: offset + count - part.start - from),
                POSIX_FADV_DONTNEED)
        }
    }
}
