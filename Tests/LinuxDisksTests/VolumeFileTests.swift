// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import LinuxDisks
import Synchronization
import Testing
import Tools

private let python = Tool("python3", package: "python3")
private let shell = Tool("sh", package: "dash")
private let canPresent = unsafe access("/dev/fuse", R_OK | W_OK) == 0 && geteuid() == 0

/// A disk that fails wherever a write touches a place.
private final class FailingDisk: BlockTarget {
    let base: MemoryDisk
    let place: ByteCount
    let fault: Fault
    init(_ base: MemoryDisk, at place: ByteCount, _ fault: Fault) {
        (self.base, self.place, self.fault) = (base, place, fault)
    }
    var name: String { base.name }
    var sectorSize: SectorSize { base.sectorSize }
    var length: ByteCount { base.length }
    var file: FileWindow? { nil }
    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try base.read(at: offset, into: &buffer)
    }
    func write(at offset: ByteCount, _ bytes: RawSpan) throws(Fault) {
        if offset <= place, place < offset + ByteCount(UInt64(bytes.byteCount)) { throw fault }
        try base.write(at: offset, bytes)
    }
    func zero(_ extent: Extent) throws(Fault) { try base.zero(extent) }
    func discard(_ extent: Extent) throws(Fault) { try base.discard(extent) }
    func flush() throws(Fault) { try base.flush() }
    func dropCaches() throws(Fault) { try base.dropCaches() }
}

/// Lines of the mounts everybody sees.
private func mounts() -> Int { KernelFiles.live.mounts().filter { $0.source == "relight" || $0.type == "fuse" }.count }

@Suite(
    .enabled(if: canPresent, "needs root and /dev/fuse"),
    .enabled(if: python.path != nil, "needs python3"))
struct VolumeFileTests {
    /// Presents `disk` and calls `body` with the file's path.
    private func present(
        _ disk: any BlockTarget, _ body: @escaping @Sendable (String) throws(Fault) -> Void
    ) throws -> Fault? {
        try PrivateMounts.run { () throws(Fault) -> Fault? in
            let file = try VolumeFile(disk)
            try body(file.path)
            return file.fault
        }
    }

    /// Three programs read, write, punch and sync at random, each in its own part, one of them past the cache.
    @Test func severalProgramsAgreeWithAModel() throws {
        let disk = MemoryDisk([UInt8](repeating: 0x5A, count: 12 << 20))
        let before = mounts()
        let fault = try present(disk) { (path) throws(Fault) in
            try shell.check(
                [
                    "-c",
                    """
                    for part in 0 1 2; do "$2" -c "$3" "$1" $part & eval p$part=$!; done
                    wait $p0 && wait $p1 && wait $p2
                    """, "sh", path, try python.requirePath(),
                    """
                    import ctypes, mmap, os, random, sys
                    path, part = sys.argv[1], int(sys.argv[2])
                    size = 4 << 20
                    base = part * size
                    random.seed(part)
                    direct = os.O_DIRECT if part == 2 else 0
                    fd = os.open(path, os.O_RDWR | direct)
                    assert os.fstat(fd).st_size == 12 << 20
                    libc = ctypes.CDLL(None, use_errno=True)
                    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
                    model = bytearray(b"\\x5a" * size)
                    page = mmap.mmap(-1, 1 << 20)
                    for step in range(400):
                        grain = 4096 if direct else 1
                        start = random.randrange(size) // grain * grain
                        count = min(random.randrange(1, 600000 if step % 10 == 0 else 9000), size - start)
                        count = max(grain, count // grain * grain)
                        kind = random.randrange(5)
                        if kind < 2:
                            if direct:
                                got = os.preadv(fd, [memoryview(page)[:count]], base + start)
                                assert got == count
                                seen = page[:count]
                            else:
                                seen = os.pread(fd, count, base + start)
                            assert seen == model[start:start + count], (part, step, start, count)
                        elif kind < 4:
                            data = random.randbytes(count)
                            if direct:
                                page[:count] = data
                                assert os.pwritev(fd, [memoryview(page)[:count]], base + start) == count
                            else:
                                assert os.pwrite(fd, data, base + start) == count
                            model[start:start + count] = data
                        else:
                            assert libc.fallocate(fd, 3, base + start, count) == 0, ctypes.get_errno()
                            model[start:start + count] = bytes(count)
                        if step % 37 == 0: os.fsync(fd)
                    if not direct: assert os.pread(fd, size, base) == model
                    """,
                ], seconds: 120)
        }
        #expect(fault == nil)
        #expect(mounts() == before, "a mount was left, or was seen by everybody")
        #expect(disk.bytes.contains(0))
    }

    @Test func aFileBehavesAsADiskOfItsSize() throws {
        let disk = MemoryDisk([UInt8](repeating: 1, count: 1 << 20))
        let fault = try present(disk) { (path) throws(Fault) in
            try python.check(
                [
                    "-c",
                    """
                    import errno, fcntl, os, sys, struct
                    path = sys.argv[1]
                    fd = os.open(path, os.O_RDWR)
                    # No block device: a program asks the file's size instead.
                    try: fcntl.ioctl(fd, 0x80081272, b"12345678"); assert False
                    except OSError as e: assert e.errno == errno.ENOTTY, e
                    assert os.lseek(fd, 0, os.SEEK_END) == 1 << 20
                    assert os.pread(fd, 100, (1 << 20) - 10) == b"\\x01" * 10
                    assert os.pread(fd, 100, 1 << 20) == b""
                    # There is no more room than that.
                    try: os.pwrite(fd, b"x", 1 << 20); assert False
                    except OSError as e: assert e.errno == errno.ENOSPC, e
                    # Cut short, and given back, as an image file.
                    os.ftruncate(fd, 4096)
                    assert os.fstat(fd).st_size == 4096
                    os.ftruncate(fd, 8192)
                    assert os.pread(fd, 8192, 0) == b"\\x01" * 4096 + bytes(4096)
                    try: os.ftruncate(fd, 2 << 20); assert False
                    except OSError as e: assert e.errno == errno.EFBIG, e
                    for name in ("listdir", "mkdir"):
                        try: getattr(os, name)(path); assert False
                        except OSError: pass
                    """, path,
                ], seconds: 60)
        }
        #expect(fault == nil)
        #expect(disk.bytes[4095] == 1 && disk.bytes[4096] == 0 && disk.bytes[8192] == 1)
    }

    @Test func aFaultIsKeptForWhoeverAsks() throws {
        let said = Fault(FaultCode("test.full", exit: .refused), what: "no room", remedy: "")
        let disk = FailingDisk(MemoryDisk([UInt8](repeating: 0, count: 1 << 20)), at: .kibibytes(512), said)
        let fault = try present(disk) { (path) throws(Fault) in
            let result = try Tool("dd", package: "coreutils").run(
                ["if=/dev/urandom", "of=\(path)", "bs=64k", "count=16", "conv=notrunc"], seconds: 60)
            guard result.status != 0, result.standardError.contains("No space left") else {
                throw Fault(.system, what: "dd was content: \(result.standardError)", remedy: "")
            }
        }
        #expect(fault == said)
    }

    @Test func itIsUnmountedWhenTheBodyFails() throws {
        let before = mounts()
        let path = Mutex("")
        #expect(throws: Fault.self) {
            try PrivateMounts.run { () throws(Fault) in
                let file = try VolumeFile(MemoryDisk([UInt8](repeating: 0, count: 4096)))
                path.withLock { $0 = file.path }
                throw Fault(.system, what: "test", remedy: "")
            }
        }
        let left = path.withLock { $0 }
        #expect(left.hasSuffix("/volume"))
        #expect(unsafe access(left, F_OK) != 0)
        #expect(mounts() == before)
    }

    /// A program that holds the file open cannot keep it: it is cut off.
    @Test func whoHoldsTheFileOpenIsCutOff() throws {
        var process: Int32 = 0
        let held = Mutex<Int32>(0)
        _ = try present(MemoryDisk([UInt8](repeating: 0, count: 4096))) { (path) throws(Fault) in
            let child = try Tool.spawn(
                try shell.requirePath(), ["sh", "-c", "exec 5<\"$1\"; while :; do sleep 0.1; done", "sh", path])
            held.withLock { $0 = child }
            usleep(300_000)
        }
        process = held.withLock { $0 }
        #expect(kill(process, SIGKILL) == 0)
        #expect(Tool.wait(process) == 128 + SIGKILL)
    }

    /// The mount is seen by the thread that made it and by the programs it starts, by nobody else.
    @Test func othersDoNotSeeIt() throws {
        let seen = Mutex((inside: false, outside: true))
        _ = try present(MemoryDisk([UInt8](repeating: 7, count: 4096))) { (path) throws(Fault) in
            let inside = try shell.run(["-c", "grep -c \" $1 \" /proc/self/mountinfo", "sh", path]).status == 0
            let mine = KernelFiles.live.mounts().contains { $0.point == path }
            seen.withLock { $0 = (inside, mine) }
        }
        let found = seen.withLock { $0 }
        #expect(found.inside)
        // /proc/self is the process, whose other threads have the mounts everybody sees.
        #expect(!found.outside)
    }
}
