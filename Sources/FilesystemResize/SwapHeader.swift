// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Blocks
public import Findings
public import Geometry

/// The header of Linux swap space, which is all there is to it once the system is down (Linux, `include/linux/swap.h`,
/// `union swap_header`). Written anew for another size: UUID and label stay, for `resume=` and `/etc/fstab` name them. A
/// hibernated system is dropped, and so is the list of bad pages, which belongs to the old disk.
public struct SwapHeader: Hashable, Sendable {
    /// Bytes of a page, and of the header.
    public let page: ByteCount
    private var bytes: [UInt8]
    /// Whether a hibernated system lay in it.
    public let isHibernated: Bool

    private static let magic = Array("SWAPSPACE2".utf8)
    /// What stands in the magic's place while a system is hibernated.
    private static let hibernated = ["S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"]

    /// Reads the header of the swap space in `volume`. Throws `disk.damaged` where there is none.
    public init(_ volume: any BlockSource) throws(Fault) {
        for shift in 12...16 {
            let count = 1 << shift
            guard volume.holds(count, at: .zero) else { break }
            let bytes = try volume.bytes(at: .zero, count: count)
            let span = unsafe bytes.span.bytes
            let isHibernated = SwapHeader.hibernated.contains { span.matches($0.utf8, at: count - 10) }
            guard isHibernated || span.matches(SwapHeader.magic, at: count - 10) else { continue }
            guard (try? span.littleEndian(UInt32.self, "version", at: 1024)) == 1 else { break }
            self.page = ByteCount(UInt64(count))
            self.bytes = bytes
            self.isHibernated = isHibernated
            return
        }
        throw Fault(
            .diskDamaged, what: "Its header is not that of swap space of version 1.", place: volume.name,
            remedy: "Restore it with its size kept, or make new swap space with `mkswap` and change /etc/fstab.")
    }

    /// The header for a volume of `size` bytes. Throws `unsupported` where that is too small.
    public func resized(to size: ByteCount) throws(Fault) -> [UInt8] {
        let pages = size.bytes / page.bytes
        // mkswap refuses less than ten pages.
        guard pages >= 10 else {
            throw Fault(
                .unsupported, what: "Swap space of \(size) is too small; the smallest is \(10 * page.bytes) bytes.",
                remedy: "Give it more room, or leave the partition out.")
        }
        var result = bytes
        var span = result.mutableSpan
        var raw = unsafe span.mutableBytes
        do {
            try raw.storeLittleEndian(UInt32(clamping: pages - 1), "last_page", at: 1028)
            try raw.storeLittleEndian(UInt32(0), "nr_badpages", at: 1032)
            try raw.store(SwapHeader.magic, "magic", at: bytes.count - 10)
        } catch {
            throw Fault(
                .system, what: "The header cannot be written: \(error).",
                remedy: "This is an error in the program: please report it.")
        }
        return result
    }
}
