// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings
import Glibc

/// The few file operations the builder needs, with faults that name the path.
enum Files {
    /// The names in a folder, sorted by their bytes so that no locale changes an image.
    static func names(in folder: String) throws(Fault) -> [String] {
        do {
            return try FileManager.default.contentsOfDirectory(atPath: folder).sorted {
                $0.utf8.lexicographicallyPrecedes($1.utf8)
            }
        } catch {
            throw Fault(
                .missing, what: "The folder cannot be listed: \(reason(error)).", place: folder,
                remedy: "Check that it exists and can be read.")
        }
    }

    /// A file's bytes.
    static func bytes(_ path: String) throws(Fault) -> Data {
        do {
            return try Data(contentsOf: URL(filePath: path))
        } catch {
            throw Fault(
                .missing, what: "The file cannot be read: \(reason(error)).", place: path,
                remedy: "Check that it exists and can be read.")
        }
    }

    /// A file's first bytes, at most `count`; none when it cannot be read.
    static func head(_ path: String, _ count: Int) -> Data {
        guard let handle = unsafe fopen(path, "rb") else { return Data() }
        defer { unsafe fclose(handle) }
        var bytes = [UInt8](repeating: 0, count: count)
        let got = unsafe fread(&bytes, 1, count, handle)
        return Data(bytes.prefix(got))
    }

    /// A file's text; bytes that are not UTF-8 become replacement characters.
    static func text(_ path: String) throws(Fault) -> String { String(decoding: try bytes(path), as: UTF8.self) }

    /// Writes a file under a temporary name beside it, then renames it: readers see the old content or the new.
    static func write(_ data: Data, to path: String) throws(Fault) {
        try makeFolder(parent(of: path))
        do {
            try data.write(to: URL(filePath: path), options: .atomic)
        } catch {
            throw Fault(
                .mediaUnwritable, what: "The file cannot be written: \(reason(error)).", place: path,
                remedy: "Check the free space and the folder's permissions.")
        }
    }

    /// Makes a folder and those above it.
    static func makeFolder(_ path: String) throws(Fault) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw Fault(
                .mediaUnwritable, what: "The folder cannot be made: \(reason(error)).", place: path,
                remedy: "Check the permissions of the folder above it.")
        }
    }

    /// Removes a file or a whole folder; nothing happens when it does not exist.
    static func remove(_ path: String) throws(Fault) {
        guard kind(path) != nil else { return }
        do {
            try FileManager.default.removeItem(atPath: path)
        } catch {
            throw Fault(
                .mediaUnwritable, what: "It cannot be removed: \(reason(error)).", place: path,
                remedy: "Remove it by hand, with the rights of whoever made it.")
        }
    }

    /// A second name for a file's content; a copy where the file system has no hard links or it lies elsewhere.
    static func link(_ source: String, to path: String) throws(Fault) {
        try makeFolder(parent(of: path))
        if unsafe Glibc.link(source, path) == 0 { return }
        try write(try bytes(source), to: path)
    }

    /// A symbolic link.
    static func makeLink(_ path: String, to target: String) throws(Fault) {
        try makeFolder(parent(of: path))
        guard unsafe symlink(target, path) == 0 else {
            throw Fault(
                .mediaUnwritable, what: "The link cannot be made (error \(errno)).", place: path,
                remedy: "Check the folder's permissions.")
        }
    }

    /// A fresh, empty folder at `path`; an old one is removed.
    static func freshFolder(_ path: String) throws(Fault) {
        try remove(path)
        try makeFolder(path)
    }

    /// Moves a file or folder, replacing an old file.
    static func move(_ source: String, to path: String) throws(Fault) {
        try makeFolder(parent(of: path))
        guard unsafe rename(source, path) == 0 else {
            throw Fault(
                .mediaUnwritable, what: "It cannot be renamed to \(path) (error \(errno)).", place: source,
                remedy: "Check the permissions of the folder.")
        }
    }

    /// What a path is, without following a link at its end; `nil` when there is nothing.
    enum Kind: Hashable, Sendable {
        case file(size: UInt64, mode: UInt32)
        case folder(mode: UInt32)
        case link(target: String)
        case other
    }
    static func kind(_ path: String) -> Kind? {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return nil }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return .file(size: UInt64(max(0, status.st_size)), mode: status.st_mode & 0o7777)
        case S_IFDIR: return .folder(mode: status.st_mode & 0o7777)
        case S_IFLNK:
            guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: path) else { return .other }
            return .link(target: target)
        default: return .other
        }
    }

    /// Whether something is there; a link that leads nowhere counts.
    static func exists(_ path: String) -> Bool { kind(path) != nil }

    /// Sets a file's or link's time of change, in seconds since 1970.
    static func setTime(_ path: String, _ seconds: Int) throws(Fault) {
        let time = timespec(tv_sec: seconds, tv_nsec: 0)
        let times = [time, time]
        guard unsafe utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW) == 0 else {
            throw Fault(
                .mediaUnwritable, what: "Its time cannot be set (error \(errno)).", place: path,
                remedy: "Check that you own the file.")
        }
    }

    /// The path without its last part.
    static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// The path's last part.
    static func name(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return path }
        return String(path[path.index(after: slash)...])
    }

    /// Whether `path` matches a shell glob; `*` does not cross a `/`.
    static func matches(_ path: String, glob: String) -> Bool { unsafe fnmatch(glob, path, FNM_PATHNAME) == 0 }

    /// An error's own words.
    private static func reason(_ error: any Error) -> String {
        if let error = error as? CocoaError {
            switch error.code {
            case .fileNoSuchFile, .fileReadNoSuchFile: return "it does not exist"
            case .fileReadNoPermission, .fileWriteNoPermission: return "permission denied"
            case .fileWriteOutOfSpace: return "no space left on the device"
            default: break
            }
        }
        return "\(error)"
    }
}

/// A folder only one build uses at a time; released with this value, or by the kernel when the program ends.
final class FolderLock {
    private let descriptor: Int32

    /// Takes the lock. Throws when another build has it.
    init(_ folder: String) throws(Fault) {
        try Files.makeFolder(folder)
        descriptor = unsafe open(folder + "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw Fault(
                .mediaUnwritable, what: "The lock cannot be made (error \(errno)).", place: folder + "/lock",
                remedy: "Check the folder's permissions.")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            throw Fault(
                .mediaUnwritable, what: "Another build uses this folder.", place: folder,
                remedy: "Wait for it, or name another folder with --cache.")
        }
    }
    deinit { if descriptor >= 0 { close(descriptor) } }
}
