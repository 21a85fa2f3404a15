// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

package import Blocks
package import CExt2Glue
package import Findings
package import Geometry
import Glibc
import Threads

/// An ext2, ext3 or ext4 filesystem opened by libext2fs through a channel that can only read one volume: its groups,
/// inodes and the blocks of each. One thread at a time.
@safe package final class ExtVolume {
    /// What the superblock says.
    package let facts: relight_ext_facts
    /// Bytes in a block.
    package let blockSize: ByteCount
    private let handle: OpaquePointer
    private let channel: Channel

    /// A place libext2fs could not read or does not accept.
    package struct Problem: Error {
        /// libext2fs' own number.
        package var code: Int
        /// The text for it.
        package var text: String {
            unsafe relight_ext_error(code).map { unsafe String(cString: $0) } ?? "error \(code)"
        }
    }

    /// A run of blocks of an inode, in bytes of the volume.
    package struct Piece: Hashable {
        /// What it is: content, allocated space that reads as zeros, or a block of the tree itself.
        package enum Kind { case data, unwritten, tree }
        package var kind: Kind
        package var extent: Extent
        /// First block's place in the file, in blocks.
        package var logical: UInt64
    }

    /// Opens what lies in `volume`. Reads fail from the moment on that `stop` is true.
    ///
    /// Throws a `Problem` where libext2fs refuses; a disk that cannot be read shows as one too.
    package init(_ volume: any BlockSource, stop: @escaping () -> Bool = { false }) throws(Problem) {
        channel = Channel(volume, stop)
        var opened: OpaquePointer?
        var facts = relight_ext_facts()
        let status = unsafe relight_ext_open(
            { context, offset, buffer, length in
                guard let context = unsafe context, let buffer = unsafe buffer else { return EINVAL }
                return unsafe Unmanaged<Channel>.fromOpaque(context).takeUnretainedValue()
                    .read(offset, buffer, length)
            }, Unmanaged.passUnretained(channel).toOpaque(), &opened, &facts)
        guard status == 0, let opened = unsafe opened else { throw Problem(code: status) }
        unsafe handle = opened
        self.facts = facts
        blockSize = ByteCount(UInt64(facts.block_size))
    }

    deinit { unsafe relight_ext_close(handle) }

    /// Throws `interrupted` where a read was refused because the program is to stop.
    package func checkInterruption() throws(Fault) { if let fault = channel.interrupted { throw fault } }

    /// Where group `number` keeps its metadata.
    func group(_ number: UInt32) -> relight_ext_group? {
        var result = relight_ext_group()
        return unsafe relight_ext_group(handle, number, &result) == 0 ? nil : result
    }

    /// Inode `number`.
    package func inode(_ number: UInt32) throws(Problem) -> relight_ext_inode {
        var result = relight_ext_inode()
        let status = unsafe relight_ext_inode(handle, number, &result)
        guard status == 0 else { throw Problem(code: status) }
        return result
    }

    /// Hands the blocks of the inode read last to `body` until that returns false. Where part of its tree cannot be read
    /// the rest is handed out all the same and the problem is returned.
    package func pieces(most: UInt64, _ body: @escaping (Piece) -> Bool) -> Problem? {
        let receiver = Receiver(blockSize, body)
        let status = withExtendedLifetime(receiver) {
            unsafe relight_ext_blocks(
                handle, most,
                { context, kind, first, count, logical in
                    guard let context = unsafe context else { return 1 }
                    return unsafe Unmanaged<Receiver>.fromOpaque(context).takeUnretainedValue()
                        .receive(kind, first, count, logical)
                }, Unmanaged.passUnretained(receiver).toOpaque())
        }
        return status == 0 ? nil : Problem(code: status)
    }

    /// The data inode `number` keeps in itself.
    package func inlineData(_ number: UInt32) throws(Problem) -> [UInt8] {
        // An inode is at most a block of 64 KiB.
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        var length = UInt64(buffer.count)
        let status = unsafe buffer.withUnsafeMutableBytes {
            unsafe relight_ext_inline_data(handle, number, $0.baseAddress, &length)
        }
        guard status == 0 else { throw Problem(code: status) }
        return Array(buffer.prefix(Int(min(length, UInt64(buffer.count)))))
    }

    /// Whether blocks are in use can be told from now on.
    func loadBitmap() throws(Problem) {
        let status = unsafe relight_ext_load_bitmap(handle)
        guard status == 0 else { throw Problem(code: status) }
    }

    /// Whether the block at byte `offset` is in use by the bitmap that was loaded.
    func isUsed(at offset: ByteCount) -> Bool {
        unsafe relight_ext_is_used(handle, offset.bytes / blockSize.bytes) != 0
    }

    /// `count` blocks from block `first` on as bytes; `nil` past 2^64.
    func extent(_ first: UInt64, _ count: UInt64) -> Extent? {
        guard let start = blockSize.multiplied(by: first), let length = blockSize.multiplied(by: count) else {
            return nil
        }
        return Extent(start: start, length: length)
    }

    /// `count` bytes from byte `offset` of the volume on.
    package func bytes(at offset: ByteCount, count: Int) throws(Fault) -> [UInt8] {
        try channel.volume.bytes(at: offset, count: count)
    }

    /// A block's bytes.
    package func block(at offset: ByteCount) -> [UInt8]? {
        guard !channel.stop(), let count = blockSize.int else { return nil }
        return try? channel.volume.bytes(at: offset, count: count)
    }

    /// What libext2fs is given instead of a file.
    private final class Channel {
        let volume: any BlockSource
        let stop: () -> Bool
        var interrupted: Fault?

        init(_ volume: any BlockSource, _ stop: @escaping () -> Bool) {
            self.volume = volume
            self.stop = stop
        }

        func read(_ offset: UInt64, _ buffer: UnsafeMutableRawPointer, _ length: UInt64) -> Int32 {
            guard let count = Int(exactly: length), volume.holds(count, at: ByteCount(offset)), !stop() else {
                return EIO
            }
            do throws(Fault) {
                try Interruption.check()
            } catch {
                interrupted = error
                return EIO
            }
            do throws(Fault) {
                var span = unsafe MutableRawSpan(_unsafeStart: buffer, byteCount: count)
                try volume.read(at: ByteCount(offset), into: &span)
                return 0
            } catch {
                return EIO
            }
        }
    }

    private final class Receiver {
        let blockSize: ByteCount
        let body: (Piece) -> Bool

        init(_ blockSize: ByteCount, _ body: @escaping (Piece) -> Bool) {
            self.blockSize = blockSize
            self.body = body
        }

        func receive(_ kind: Int32, _ first: UInt64, _ count: UInt64, _ logical: UInt64) -> Int32 {
            guard let start = blockSize.multiplied(by: first), let length = blockSize.multiplied(by: count),
                let extent = Extent(start: start, length: length)
            else { return 0 }
            let kind: Piece.Kind =
                switch UInt32(bitPattern: kind) {
                case RELIGHT_EXT_TREE.rawValue: .tree
                case RELIGHT_EXT_UNWRITTEN.rawValue: .unwritten
                default: .data
                }
            return body(Piece(kind: kind, extent: extent, logical: logical)) ? 0 : 1
        }
    }
}

extension relight_ext_inode {
    /// Whether it is in use; what was deleted keeps its old fields.
    package var isLive: Bool { links > 0 && mode != 0 && deleted == 0 }
    package var isDirectory: Bool { mode & 0o170000 == 0o040000 }
    package var isRegular: Bool { mode & 0o170000 == 0o100000 }
    package var isSymbolicLink: Bool { mode & 0o170000 == 0o120000 }
    /// INLINE_DATA: the data lie in the inode.
    package var isInline: Bool { flags & 0x1000_0000 != 0 }
    /// ENCRYPT: its content, or the names in it, are encrypted.
    package var isEncrypted: Bool { flags & 0x0000_0800 != 0 }
    /// EA_INODE: it holds the value of an extended attribute.
    var isAttributeValue: Bool { flags & 0x0020_0000 != 0 }
}
