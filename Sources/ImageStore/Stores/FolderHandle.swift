// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc

/// A file of a folder, open for reading.
final class FolderHandle: ObjectLeftover {
    let store: FolderStore
    let descriptor: Int32
    let name: String
    let size: ByteCount
    let isLeftover: Bool

    /// Takes over `descriptor`, which is a regular file.
    init(store: FolderStore, descriptor: Int32, name: String, size: ByteCount, isLeftover: Bool = false) {
        self.store = store
        self.descriptor = descriptor
        self.name = name
        self.size = size
        self.isLeftover = isLeftover
    }

    deinit { close(descriptor) }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        let problem = FileBytes.read(descriptor, at: offset, into: &buffer)
        if problem == 0 { return }
        let place = "\(store.path)/\(name)"
        if problem < 0 { throw endsEarly(place, offset: offset, size: size) }
        let reason = unsafe strerror(problem).map { unsafe String(cString: $0) } ?? "error \(problem)"
        throw Fault(
            isLeftover ? .unreadable : .storeFailed, what: "Reading at byte \(offset.bytes) failed: \(reason).",
            place: place,
            remedy:
                "Check the medium, its cable or network, and the kernel log; another copy of this file may be sound.",
            extent: Extent(start: offset, length: ByteCount(UInt64(buffer.byteCount))))
    }

    func dropCaches() { _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }

    func sharers() throws(Fault) -> [String] { try store.sharers(descriptor, size) }

    func remove() throws(Fault) {
        // The room of a file that is open is free only when it is closed.
        _ = ftruncate(descriptor, 0)
        try store.delete(name)
    }
}
