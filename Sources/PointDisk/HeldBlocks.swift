// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import Glibc

/// Blocks kept in memory, in slots of slabs, so that a slot given back is used again.
struct HeldBlocks: Sendable {
    private let blockSize: Int
    private let perSlab: UInt64
    private var slabs: [[UInt8]] = []
    private var unused: [UInt64] = []

    init(blockSize: Int) {
        self.blockSize = blockSize
        perSlab = UInt64(max(1, (256 << 10) / blockSize))
    }

    /// Bytes of memory taken.
    var memory: UInt64 {
        UInt64(slabs.count) * perSlab * UInt64(blockSize) + UInt64(unused.capacity + slabs.capacity) * 8
    }

    /// Bytes of blocks held.
    var held: UInt64 { (UInt64(slabs.count) * perSlab - UInt64(unused.count)) * UInt64(blockSize) }

    /// A free slot; `nil` when memory taken would pass `limit`.
    mutating func take(limit: UInt64) -> UInt64? {
        if let slot = unused.popLast() { return slot }
        guard memory + perSlab * (UInt64(blockSize) + 8) <= limit else { return nil }
        let first = UInt64(slabs.count) * perSlab
        slabs.append([UInt8](repeating: 0, count: Int(perSlab) * blockSize))
        for slot in (first..<first + perSlab).reversed() { unused.append(slot) }
        return unused.popLast()
    }

    mutating func give(back slot: UInt64) { unused.append(slot) }

    mutating func store(_ block: UnsafeRawBufferPointer, in slot: UInt64) {
        let start = Int(slot % perSlab) * blockSize
        unsafe slabs[Int(slot / perSlab)].withUnsafeMutableBytes { slab in
            unsafe UnsafeMutableRawBufferPointer(rebasing: slab[start..<start + blockSize]).copyMemory(from: block)
        }
    }

    /// Copies `count` bytes of a slot, beginning at its byte `inside`.
    func load(_ slot: UInt64, _ inside: Int, _ count: Int, to target: UnsafeMutableRawPointer) {
        let start = Int(slot % perSlab) * blockSize + inside
        unsafe slabs[Int(slot / perSlab)].withUnsafeBytes { slab in
            if let base = slab.baseAddress { unsafe target.copyMemory(from: base + start, byteCount: count) }
        }
    }
}

/// A temporary file of blocks. It has no name, so nothing is left of it however the program ends.
final class SpillFile: @unchecked Sendable {
    // Used under the lock of the overlay only.
    private let descriptor: Int32
    private let folder: String
    private let blockSize: Int
    private var unused: [UInt64] = []
    private var next: UInt64 = 0

    init(in folder: String, blockSize: Int) throws(Fault) {
        var opened = unsafe relight_open_unnamed(folder)
        if opened < 0 {
            // Not every filesystem has files without a name.
            var template = Array("\(folder)/relight-scratch-XXXXXX".utf8CString)
            opened = unsafe mkstemp(&template)
            if opened >= 0 { _ = unsafe unlink(template) } else { opened = -errno }
            if opened >= 0 { _ = fcntl(opened, F_SETFD, FD_CLOEXEC) }
        }
        guard opened >= 0 else {
            throw Fault(
                .noScratchRoom, what: "No temporary file can be made: \(unsafe String(cString: strerror(-opened))).",
                place: folder, remedy: "Name another folder with `--scratch FOLDER`.")
        }
        descriptor = opened
        self.folder = folder
        self.blockSize = blockSize
    }

    deinit { close(descriptor) }

    /// Bytes of blocks in it.
    var held: UInt64 { (next - UInt64(unused.count)) * UInt64(blockSize) }
    /// Bytes of memory taken.
    var memory: UInt64 { UInt64(unused.capacity) * 8 }

    func take() -> UInt64 {
        if let slot = unused.popLast() { return slot }
        next += 1
        return next - 1
    }

    func give(back slot: UInt64) { unused.append(slot) }

    func store(_ block: UnsafeRawBufferPointer, in slot: UInt64) throws(Fault) {
        var done = 0
        while done < blockSize, let base = block.baseAddress {
            let wrote = unsafe pwrite(
                descriptor, base + done, blockSize - done, off_t(slot) * off_t(blockSize) + off_t(done))
            if wrote > 0 {
                done += wrote
            } else if wrote == 0 || errno != EINTR {
                let problem = wrote == 0 ? ENOSPC : errno
                throw Fault(
                    .noScratchRoom,
                    what: "The temporary file cannot take more: \(unsafe String(cString: strerror(problem))).",
                    place: folder, remedy: "Name a folder with more room with `--scratch FOLDER`.")
            }
        }
    }

    func load(_ slot: UInt64, _ inside: Int, _ count: Int, to target: UnsafeMutableRawPointer) throws(Fault) {
        var done = 0
        while done < count {
            let got = unsafe pread(
                descriptor, target + done, count - done, off_t(slot) * off_t(blockSize) + off_t(inside + done))
            if got > 0 {
                done += got
            } else if got == 0 || errno != EINTR {
                let problem = got == 0 ? EIO : errno
                throw Fault(
                    .system, what: "The temporary file cannot be read: \(unsafe String(cString: strerror(problem))).",
                    place: folder, remedy: "Check the disk it lies on; name another folder with `--scratch FOLDER`.")
            }
        }
    }
}
