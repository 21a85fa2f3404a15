// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc
import Synchronization

/// Announcements in a folder: empty files in `writers/`, locked by their owners for as long as these run.
///
/// | lock | whose | at work |
/// |---|---|---|
/// | held | anyone's | yes |
/// | free | this system's, or the filesystem has no other users | no |
/// | free or unknown | another machine's, whose lock may be invisible here | for 24 hours after it was made or renewed |
extension FolderStore {
    /// Makes and locks an empty file.
    public func announce(_ kind: Announced.Kind, as id: String) throws(Fault) -> any Announcement {
        try makeFolders(AnnouncementName.folder)
        let name = AnnouncementName(kind: kind, id: id, host: host).text
        for _ in 0..<16 {
            let opened = unsafe relight_open("\(path)/\(name)", O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644)
            guard opened >= 0 else { throw failure(-opened, "Creating", name) }
            // Somebody who looks at the new file holds its lock for a moment, and may remove it, since it was free.
            for _ in 0..<1000 {
                guard flock(opened, LOCK_EX | LOCK_NB) != 0, errno == EWOULDBLOCK else { break }
                usleep(1000)
            }
            if isStill(opened, name) {
                let announcement = FolderAnnouncement(store: self, descriptor: opened, name: name, id: id)
                renewals.add(announcement)
                return announcement
            }
            close(opened)
        }
        throw failure(EBUSY, "Locking", name)
    }

    /// Looks at the files in `writers/` and their locks.
    public func announcements() throws(Fault) -> [Announced] { try seen().map(\.announced) }

    /// Hosts on which somebody announced is at work, besides this store's own announcements.
    func hostsAtWork() throws(Fault) -> Set<String> {
        let own = renewals.ids
        return Set(try seen().filter { $0.announced.isAlive && !own.contains($0.announced.id) }.map(\.host))
    }

    private func seen() throws(Fault) -> [(host: String, announced: Announced)] {
        var result: [(host: String, announced: Announced)] = []
        let entries = try entries(AnnouncementName.folder, limit: 65_536).compactMap { AnnouncementName($0) }
        guard !entries.isEmpty else { return [] }
        let now = try clock()
        let local = isLocal
        for entry in entries {
            let file = "\(path)/\(entry.text)"
            var status = stat()
            var opened = unsafe relight_open(file, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0)
            if opened < 0, opened != -ENOENT {
                opened = unsafe relight_open(file, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0)
            }
            defer { if opened >= 0 { close(opened) } }
            // A shared lock, so that two who look do not take each other for the owner.
            let lock = opened < 0 ? EIO : lock(opened, LOCK_SH)
            guard unsafe lstat(file, &status) == 0 else {
                if errno == ENOENT { continue }
                throw failure(errno, "Looking at", entry.text)
            }
            guard status.st_mode & S_IFMT == S_IFREG else { continue }
            let modified = UInt64(max(0, status.st_mtim.tv_sec))
            let age = now > modified ? now - modified : 0
            let alive: Bool
            if lock == EWOULDBLOCK {
                alive = true
            } else if lock == 0, local || entry.host == host {
                alive = false
            } else {
                alive = age < Announced.grace
            }
            if !alive { _ = unsafe unlink(file) }
            result.append((entry.host, Announced(kind: entry.kind, id: entry.id, age: age, isAlive: alive)))
        }
        return result
    }
}

/// An announcement of this process.
private final class FolderAnnouncement: Announcement {
    let store: FolderStore
    let id: String
    let name: String
    let descriptor: Mutex<Int32?>

    init(store: FolderStore, descriptor: Int32, name: String, id: String) {
        self.store = store
        self.descriptor = Mutex(descriptor)
        self.name = name
        self.id = id
    }

    deinit { end() }

    func renew() throws(Fault) {
        let problem: Int32 = descriptor.withLock { descriptor in
            guard let descriptor else { return 0 }
            var status = stat()
            // Gone, whoever removed it.
            if unsafe fstat(descriptor, &status) == 0, status.st_nlink == 0 { return ENOENT }
            if unsafe lstat("\(store.path)/\(name)", &status) != 0, errno == ENOENT { return ENOENT }
            return futimens(descriptor, nil) == 0 ? 0 : errno
        }
        if problem == ENOENT || problem == ESTALE { throw .leftForDead(store.name) }
        if problem != 0 { throw store.failure(problem, "Renewing", name) }
    }

    func end() {
        descriptor.withLock { open in
            guard let descriptor = open else { return }
            open = nil
            // Should this fail, the lock is free from now on, which says the same.
            _ = unsafe unlink("\(store.path)/\(name)")
            close(descriptor)
        }
    }
}
