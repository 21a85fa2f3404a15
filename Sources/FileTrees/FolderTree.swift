// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import FilesystemMaps
import Findings
import Glibc

/// The files of a filesystem that the kernel has mounted. Links are never followed by the kernel: every part of a path is
/// opened by itself.
final class FolderTree: FileTree {
    private let name: String
    private let root: Int32

    var isCaseSensitive: Bool { true }

    /// Mounts the filesystem `kind` of `device` read-only in a namespace of this process's own, which must have no other
    /// threads. Throws `unsupported`, `tree.damaged`.
    init(device: String, kind: String, name: String) throws(Fault) {
        self.name = name
        let flags = UInt(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        // Mounted over a folder that exists: what lay there is hidden from this process only.
        guard let point = ["/mnt", "/tmp", "/run"].first(where: { (path: String) in unsafe access(path, F_OK) == 0 }),
            relight_private_mounts() == 0
        else {
            throw Fault(
                .unsupported, what: "A mount namespace cannot be had.", place: name, remedy: "Run relight as root.")
        }
        var status: Int32 = -EINVAL
        for options in MountOptions.known[kind] ?? [] {
            status = unsafe relight_mount(device, point, kind, flags, options)
            if status == 0 { break }
        }
        guard status == 0 else {
            let text = unsafe strerror(-status).map { unsafe String(cString: $0) } ?? "error \(-status)"
            throw status == -ENODEV
                ? Fault(
                    .unsupported, what: "This kernel does not read \(kind).", place: name,
                    remedy: "Use a kernel with the module \(kind).")
                : Fault.damagedTree("The kernel does not mount it: \(text).", place: name)
        }
        root = unsafe relight_open(point, O_RDONLY | O_DIRECTORY, 0)
        guard root >= 0 else { throw .damagedTree("Its root cannot be opened.", place: name) }
    }

    deinit { close(root) }

    func step(_ path: [String]) throws(Fault) -> TreeStep {
        var folder = dup(root)
        defer { if folder >= 0 { close(folder) } }
        guard folder >= 0 else { throw .damagedTree("Its root cannot be opened.", place: name) }
        var entry = TreeEntry(name: "", kind: .folder)
        for (depth, part) in path.enumerated() {
            guard entry.kind == .folder, depth < TreeLimits.parts else { return .missing }
            var status = stat()
            guard unsafe fstatat(folder, part, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
                try check(errno, path)
                return .missing
            }
            entry = FolderTree.entry(part, status)
            if entry.kind == .link {
                var target = [UInt8](repeating: 0, count: 4096)
                let length = unsafe target.withUnsafeMutableBytes {
                    unsafe relight_read_link_at(folder, part, $0.baseAddress, UInt64($0.count))
                }
                guard length > 0 else { return .missing }
                return .link(depth: depth + 1, target: String(decoding: target.prefix(Int(length)), as: UTF8.self))
            }
            if entry.kind == .folder {
                let next = unsafe relight_open_at(folder, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
                guard next >= 0 else {
                    try check(-next, path)
                    return .missing
                }
                close(folder)
                folder = next
            }
        }
        return .found(entry)
    }

    func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry] {
        let folder = try open(path, O_DIRECTORY)
        guard folder >= 0 else { return [] }
        guard let stream = unsafe fdopendir(folder) else {
            close(folder)
            return []
        }
        defer { unsafe closedir(stream) }
        var result: [TreeEntry] = []
        while result.count < most, let next = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &next.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            var status = stat()
            guard ![".", ".."].contains(name), unsafe fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
                continue
            }
            result.append(FolderTree.entry(SafeText.name(name), status))
        }
        return result
    }

    func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        guard stream == nil, case .found(let entry) = try step(path), entry.kind == .file else { return [] }
        let file = try open(path, O_NONBLOCK)
        guard file >= 0, let start = off_t(exactly: offset) else { return [] }
        defer { close(file) }
        var result = [UInt8](repeating: 0, count: max(0, min(count, TreeLimits.read)))
        var done = 0
        while done < result.count {
            let got = unsafe result.withUnsafeMutableBytes { bytes in
                guard let base = bytes.baseAddress else { return 0 }
                return unsafe pread(file, base + done, bytes.count - done, start + off_t(done))
            }
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else {
                throw .damagedTree("A file cannot be read.", place: "\(name): \(path.joined(separator: "/"))")
            }
            if got == 0 { break }
            done += got
        }
        return Array(result.prefix(done))
    }

    func streams(_ path: [String]) throws(Fault) -> [TreeStream] { [] }

    /// Opens what `path` leads to without a link; −1 where nothing is there.
    private func open(_ path: [String], _ flags: Int32) throws(Fault) -> Int32 {
        var current = dup(root)
        for (depth, part) in path.enumerated() where current >= 0 {
            let last = depth == path.count - 1
            let next = unsafe relight_open_at(current, part, O_RDONLY | O_NOFOLLOW | (last ? flags : O_DIRECTORY))
            close(current)
            current = next
        }
        if current < 0 { try check(-current, path) }
        return max(current, -1)
    }

    private func check(_ problem: Int32, _ path: [String]) throws(Fault) {
        guard ![ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG].contains(problem) else { return }
        let text = unsafe strerror(problem).map { unsafe String(cString: $0) } ?? "error \(problem)"
        throw .damagedTree("It cannot be read: \(text).", place: "\(name): /\(path.joined(separator: "/"))")
    }

    private static func entry(_ name: String, _ status: stat) -> TreeEntry {
        let kind: TreeEntry.Kind =
            switch status.st_mode & S_IFMT {
            case S_IFREG: .file
            case S_IFDIR: .folder
            case S_IFLNK: .link
            default: .other
            }
        return TreeEntry(name: name, kind: kind, size: kind == .file ? UInt64(clamping: status.st_size) : 0)
    }
}
