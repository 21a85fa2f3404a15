// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
public import Geometry
import Glibc
import Synchronization

/// A plain file or block device, opened read-only. Never writes, never takes a lock, never changes the access time's
/// meaning for anyone: `O_RDONLY` and nothing else.
///
/// What is read from a device is what lies on it when it is opened, not what the kernel read from it earlier.
public final class FileSource: BlockSource {
    /// The path it was opened by.
    public let name: String
    /// Logical sector size: the device's own, or the one named for a file.
    public let sectorSize: SectorSize
    /// Size in bytes.
    public let length: ByteCount
    private let handle: FileHandle

    /// Opens `path`. `fileSectorSize` is the sector size of a plain file; a device knows its own.
    /// Throws `missing`, `no-access`, `wrong-kind`.
    public init(path: String, fileSectorSize: SectorSize = .s512) throws(Fault) {
        let handle = try FileHandle(path: path, writable: false)
        (self.length, self.sectorSize) = try handle.geometry(fileSectorSize: fileSectorSize)
        self.handle = handle
        self.name = path
    }

    /// The file itself.
    public var file: FileWindow? {
        FileWindow(descriptor: handle.descriptor, offset: .zero, path: name, isDevice: handle.isDevice)
    }

    /// Fills `buffer` from byte `offset`.
    public func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        try handle.read(at: offset, into: &buffer)
    }
}

/// An open file or block device, closed when released.
final class FileHandle: Sendable {
    let descriptor: Int32
    let path: String
    let isDevice: Bool

    init(path: String, writable: Bool, exclusive: Bool = false) throws(Fault) {
        // O_EXCL without O_CREAT on a block device: refused while the kernel or another program holds it.
        let flags = (writable ? O_RDWR : O_RDONLY) | O_NONBLOCK
        let opened = unsafe relight_open(path, flags, 0)
        guard opened >= 0 else { throw FileHandle.cannotOpen(path, errno: -opened, writable: writable) }
        var status = stat()
        guard unsafe fstat(opened, &status) == 0 else {
            let problem = errno
            close(opened)
            throw FileHandle.cannotOpen(path, errno: problem)
        }
        switch status.st_mode & S_IFMT {
        case S_IFBLK: isDevice = true
        case S_IFREG: isDevice = false
        default:
            close(opened)
            throw Fault(
                .wrongKind, what: "This is neither a block device nor an image file.", place: path,
                remedy: "Name a disk such as /dev/sda, or a raw image file of one; `relight disks` lists the disks.")
        }
        if exclusive, isDevice {
            let again = unsafe relight_open(path, flags | O_EXCL, 0)
            close(opened)
            guard again >= 0 else {
                throw Fault(
                    .targetInUse, what: "The disk is in use: \(errorText(-again)).", place: path,
                    remedy: "Unmount its partitions and stop what lies on it (swap, LVM, RAID), then try again.")
            }
            descriptor = again
        } else {
            descriptor = opened
        }
        self.path = path
        if isDevice, !writable { forgetCachedPages() }
    }

    /// Has the kernel forget what it read from the device before.
    ///
    /// A disk and each of its partitions have page caches of their own, and a disk's is kept as long as anybody has any part
    /// of it open: what was written through a partition in the meantime would not be seen through the disk. The ioctl
    /// needs CAP_SYS_ADMIN. It also writes back dirty pages of this node: those are what another program wrote already and
    /// the kernel had yet to bring to the device, so that nothing of ours is written to a source. Where it is refused, the
    /// advice drops all pages but those in use at this moment.
    private func forgetCachedPages() {
        guard relight_flush_buffers(descriptor) != 0 else { return }
        _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
    }

    deinit {
        close(descriptor)
        direct.withLock { if let opened = $0, opened >= 0 { close(opened) } }
    }

    /// What a disk says of sectors it cannot read.
    private static let mediumErrors = [EIO, EILSEQ, ENODATA, EREMOTEIO]
    /// The device opened past the page cache; -1 where that is not possible.
    private let direct = Mutex<Int32?>(nil)

    /// Reads a few sectors past the page cache: through it one bad sector makes its whole page unreadable.
    private func readDirectly(at offset: ByteCount, into buffer: inout MutableRawSpan) -> Bool {
        let count = buffer.byteCount
        guard isDevice, count > 0, count <= 4096, count % 512 == 0, offset.isMultiple(of: ByteCount(512)) else {
            return false
        }
        let descriptor = direct.withLock { direct in
            if let known = direct { return known }
            let opened = relight_open_again_direct(self.descriptor)
            direct = max(opened, -1)
            return max(opened, -1)
        }
        guard descriptor >= 0 else { return false }
        return unsafe buffer.withUnsafeMutableBytes { pointer in
            let page = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
            defer { unsafe page.deallocate() }
            guard let base = pointer.baseAddress,
                unsafe pread(descriptor, page, count, off_t(truncatingIfNeeded: offset.bytes)) == count
            else { return false }
            unsafe base.copyMemory(from: page, byteCount: count)
            return true
        }
    }

    static func cannotOpen(_ path: String, errno problem: Int32, writable: Bool = false) -> Fault {
        switch problem {
        case ENOENT, ENXIO, ENODEV, ENOMEDIUM:
            return Fault(
                .missing, what: "There is no such disk or file.", place: path,
                remedy: "Check the name; `relight disks` lists the disks this machine has.")
        case EACCES, EPERM:
            if geteuid() != 0 {
                return Fault(.noAccess, what: "Access was refused.", place: path, remedy: "Run relight as root.")
            }
            return Fault(
                .noAccess, what: "Access was refused even to root.", place: path,
                remedy: (writable
                    ? "It may be write-protected by its attributes (`lsattr`), or this system" : "This system")
                    + ", perhaps a container, does not let programs open it: run relight on the machine itself or in the "
                    + "Relight environment.")
        case EROFS:
            return Fault(
                .noAccess, what: "It is write-protected.", place: path,
                remedy:
                    "Look for a write-protect switch, mount the filesystem it lies on writable, or use another disk.")
        case EBUSY:
            return Fault(
                .targetInUse, what: "The disk is in use.", place: path,
                remedy: "Unmount its partitions and stop what lies on it, then try again.")
        default:
            return Fault(
                .system, what: "It cannot be opened: \(errorText(problem)).", place: path,
                remedy: "Check the cable and the kernel log.")
        }
    }

    func geometry(fileSectorSize: SectorSize) throws(Fault) -> (ByteCount, SectorSize) {
        if isDevice {
            var bytes: UInt64 = 0
            var sector: UInt32 = 0
            let sized = unsafe relight_block_size(descriptor, &bytes)
            let sectored = unsafe relight_logical_sector_size(descriptor, &sector)
            guard sized == 0, sectored == 0, let size = SectorSize(sector) else {
                throw Fault(
                    .system, what: "The kernel does not tell the size of this device.", place: path,
                    remedy: "Check the cable and the kernel log.")
            }
            return (ByteCount(bytes), size)
        }
        var status = stat()
        guard unsafe fstat(descriptor, &status) == 0, let bytes = UInt64(exactly: status.st_size) else {
            throw FileHandle.cannotOpen(path, errno: errno)
        }
        guard bytes % UInt64(fileSectorSize.bytes) == 0, bytes > 0 else {
            throw Fault(
                .wrongKind,
                what:
                    "The file has \(bytes) bytes, which is not a whole number of \(fileSectorSize.bytes)-byte sectors.",
                place: path, remedy: "Name a raw disk image; convert other formats with `qemu-img convert -O raw`.")
        }
        return (ByteCount(bytes), fileSectorSize)
    }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        let descriptor = self.descriptor
        let path = self.path
        let failure: (Int32, Int)? = unsafe buffer.withUnsafeMutableBytes { pointer in
            guard let base = pointer.baseAddress else { return nil }
            var done = 0
            while done < pointer.count {
                let got = unsafe pread(
                    descriptor, base + done, pointer.count - done, off_t(truncatingIfNeeded: offset.bytes) + off_t(done)
                )
                if got > 0 {
                    done += got
                } else if got == 0 {
                    return (0, done)
                } else if errno != EINTR {
                    return (errno, done)
                }
            }
            return nil
        }
        guard let (problem, done) = failure else { return }
        if FileHandle.mediumErrors.contains(problem), readDirectly(at: offset, into: &buffer) { return }
        let place = offset + ByteCount(UInt64(done))
        // Only what a medium says of its sectors may be skipped. A disk that has gone, or a file that has become shorter,
        // is no bad sector.
        guard FileHandle.mediumErrors.contains(problem) else {
            throw Fault(
                .system,
                what: problem == 0
                    ? "It ends at byte \(place.bytes), earlier than its size says."
                    : "Reading at byte \(place.bytes) failed: \(errorText(problem)).",
                place: path, remedy: "Check whether the disk is still attached, its cable, and the kernel log.")
        }
        throw Fault(
            .unreadable, what: "Reading at byte \(place.bytes) failed: \(errorText(problem)).", place: path,
            remedy: "The disk may be failing: image it now with `--on-read-error skip`, then replace it.",
            extent: Extent(from: place, to: offset + ByteCount(UInt64(buffer.byteCount))))
    }

    func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
        let descriptor = self.descriptor
        let failure: (Int32, Int)? = unsafe bytes.withUnsafeBytes { pointer in
            guard let base = pointer.baseAddress else { return nil }
            var done = 0
            while done < pointer.count {
                let put = unsafe pwrite(
                    descriptor, base + done, pointer.count - done, off_t(truncatingIfNeeded: offset.bytes) + off_t(done)
                )
                if put > 0 {
                    done += put
                } else if put == 0 {
                    return (ENOSPC, done)
                } else if errno != EINTR {
                    return (errno, done)
                }
            }
            return nil
        }
        guard let (problem, done) = failure else { return }
        throw unwritable(
            problem, Extent(from: offset + ByteCount(UInt64(done)), to: offset + ByteCount(UInt64(bytes.byteCount))))
    }

    func unwritable(_ problem: Int32, _ extent: Extent) -> Fault {
        Fault(
            .unwritable, what: "Writing at byte \(extent.start.bytes) failed: \(errorText(problem)).", place: path,
            remedy: "The target is not usable as it stands: check its cable and the kernel log, or use another disk.",
            extent: extent)
    }
}

/// The system's text for an error number.
public func errorText(_ number: Int32) -> String {
    // strerrordesc_np needs no locale and no buffer; glibc's strerror does.
    guard let text = unsafe strerror(number) else { return "error \(number)" }
    return unsafe String(cString: text)
}
