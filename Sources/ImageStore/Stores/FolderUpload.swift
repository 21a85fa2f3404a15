// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import Geometry
import Glibc
import Synchronization

/// An object being written to a file in `tmp/`.
final class FolderUpload: ObjectUpload {
    private let store: FolderStore
    private let temporary: String
    /// The open file; nil once sealed or abandoned.
    private let descriptor: Mutex<Int32?>
    private let raw: Int32

    init(store: FolderStore, descriptor: Int32, temporary: String) {
        self.store = store
        self.raw = descriptor
        self.descriptor = Mutex(descriptor)
        self.temporary = temporary
    }

    deinit { abandon() }

    func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
        let problem = FileBytes.write(raw, at: offset, bytes)
        if problem != 0 { throw store.failure(problem, "Writing \(bytes.byteCount) bytes", temporary) }
        FolderEvent.note(
            .wrote(
                file: "\(store.path)/\(temporary)", offset: offset.bytes,
                bytes: unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }))
        // Starts the transfer to the medium now, so that the flush at the end has little left to wait for.
        _ = relight_start_writeback(raw, offset.bytes, UInt64(bytes.byteCount))
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        guard descriptor.withLock({ $0 }) != nil else { throw store.failure(EBADF, "Reading back", temporary) }
        let problem = FileBytes.read(raw, at: offset, into: &buffer)
        if problem != 0 { throw store.failure(problem < 0 ? ENODATA : problem, "Reading back", temporary) }
    }

    func seal(as name: String) throws(Fault) { try seal(name, replacing: false) }

    func seal(replacing name: String) throws(Fault) { try seal(name, replacing: true) }

    private func seal(_ name: String, replacing: Bool) throws(Fault) {
        guard descriptor.withLock({ $0 }) != nil else { throw store.failure(EBADF, "Sealing", name) }
        try flush(temporary, .fileFlush)
        let folder = name.split(separator: "/").dropLast().joined(separator: "/")
        if !folder.isEmpty { try store.makeFolders(folder) }
        if replacing { try store.requireOwnPlace(name) }
        let from = "\(store.path)/\(temporary)"
        let to = "\(store.path)/\(name)"
        let problem =
            replacing ? (unsafe rename(from, to) == 0 ? 0 : errno) : store.renameNew(temporary, name)
        if problem != 0 { throw store.failure(problem, "Renaming to \(name)", temporary) }
        FolderEvent.note(.renamed(from: from, to: to))
        do throws(Fault) {
            // FAT keeps a file's size and place in the entry of its folder. The new entry has neither until the file,
            // not only the folder, is flushed again.
            try flush(name, .renameFlush)
            let closing: Int32 = descriptor.withLock { descriptor in
                descriptor = nil
                return Glibc.close(raw) == 0 ? 0 : errno
            }
            if closing != 0, closing != EINTR { throw store.failure(closing, "Closing", name) }
            try store.flushFolder(of: name)
            // FAT renames between folders by adding one entry and taking the other away, each when its folder is flushed.
            // With both on the medium after a power cut, removing either would free the content of the other.
            if SafetyRules.keep(.temporaryFlush) { try store.flushFolder(of: temporary) }
        } catch {
            // What is not known to be durable must not be found under its name. In the place of a damaged object it
            // is still the better one.
            if !replacing, unsafe unlink(to) == 0 {
                FolderEvent.note(.removed(file: to))
                try? store.flushFolder(of: name)
            }
            throw error
        }
    }

    /// Flushes the file, which is called `name` now. After a failure the kernel may have dropped the data: the file is of no
    /// more use.
    private func flush(_ name: String, _ rule: SafetyRule) throws(Fault) {
        guard SafetyRules.keep(rule) else { return }
        while fsync(raw) != 0 {
            if errno != EINTR { throw store.failure(errno, "Flushing", name) }
        }
        FolderEvent.note(.flushed(file: "\(store.path)/\(name)"))
    }

    func abandon() {
        let wasOpen = descriptor.withLock { descriptor in
            guard descriptor != nil else { return false }
            descriptor = nil
            _ = unsafe unlink("\(store.path)/\(temporary)")
            FolderEvent.note(.removed(file: "\(store.path)/\(temporary)"))
            Glibc.close(raw)
            return true
        }
        // Else the name might come back after a power cut, leading to what was written there since.
        if wasOpen, SafetyRules.keep(.temporaryFlush) { try? store.flushFolder(of: temporary) }
    }
}

/// Whole reads and writes of open files.
enum FileBytes {
    /// Writes all of `bytes` at `offset`; the errno, or 0.
    static func write(_ descriptor: Int32, at offset: ByteCount, _ bytes: RawSpan) -> Int32 {
        unsafe bytes.withUnsafeBytes { pointer in
            guard let base = pointer.baseAddress else { return 0 }
            var done = 0
            while done < pointer.count {
                let put = unsafe pwrite(
                    descriptor, base + done, pointer.count - done, off_t(truncatingIfNeeded: offset.bytes) + off_t(done)
                )
                if put > 0 {
                    done += put
                } else if put == 0 {
                    return ENOSPC
                } else if errno != EINTR {
                    return errno
                }
            }
            return 0
        }
    }

    /// Fills `buffer` from `offset`; the errno, 0, or −1 when the file ends before.
    static func read(_ descriptor: Int32, at offset: ByteCount, into buffer: inout MutableRawSpan) -> Int32 {
        guard let start = off_t(exactly: offset.bytes) else { return -1 }
        return unsafe buffer.withUnsafeMutableBytes { pointer in
            guard let base = pointer.baseAddress else { return 0 }
            var done = 0
            while done < pointer.count {
                let (place, past) = start.addingReportingOverflow(off_t(done))
                let got = past ? 0 : unsafe pread(descriptor, base + done, pointer.count - done, place)
                if got > 0 {
                    done += got
                } else if got == 0 {
                    return -1
                } else if errno != EINTR {
                    return errno
                }
            }
            return 0
        }
    }
}
