// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import Findings
import Geometry
import MachineModel

/// Linux swap: only the header page means anything once the system is down, unless it holds a hibernated system.
/// Linux, include/linux/swap.h (`union swap_header`); the magic ends the first page.
enum SwapReader {
    /// What replaces the magic while a hibernation image lies in the swap space.
    static let hibernation = [
        "S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001", "\u{ED}\u{C3}\u{02}\u{E9}\u{98}\u{56}\u{E5}\u{0C}",
    ]

    @Sendable static func map(_ volume: any BlockSource, _ identity: Identity) throws(Fault) -> VolumeMap {
        var result = VolumeMap(identity: identity, whole: volume.length)
        for shift in 12...16 as ClosedRange<UInt64> {
            let page = ByteCount(1 << shift)
            guard page <= volume.length else { break }
            let header = try volume.bytes(at: .zero, count: 1 << shift)
            let span = unsafe header.span.bytes
            let at = header.count - 10
            result.blockSize = page
            if span.matches("SWAPSPACE2".utf8, at: at) {
                do {
                    return try mapped(span, page: page, volume, result)
                } catch {
                    return result.whole(because: "Its header is damaged: \(error).", .damaged)
                }
            }
            if hibernation.contains(where: {
                span.matches($0.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) }, at: at)
            }) {
                return result.whole(
                    because: "It holds a hibernated system, which needs all of it to resume.", .hibernated)
            }
        }
        return result.whole(because: "It is swap of a form unknown here.", .unknownFeatures)
    }

    private static func mapped(
        _ header: RawSpan, page: ByteCount, _ volume: any BlockSource, _ empty: VolumeMap
    ) throws(FieldError) -> VolumeMap {
        var result = empty
        let version = try header.littleEndian(UInt32.self, "version", at: 1024)
        guard version == 1 else {
            throw .invalid(field: "version", at: 1024, seen: "\(version)", expected: "1")
        }
        let last = try header.littleEndian(UInt32.self, "last_page", at: 1028)
        guard last > 0, let size = page.multiplied(by: UInt64(last) + 1) else {
            throw .invalid(field: "last_page", at: 1028, seen: "\(last)", expected: "at least 1")
        }
        result.filesystemSize = size
        guard size <= volume.length else {
            return result.whole(
                because: "The swap space (\(size)) is larger than the volume (\(volume.length)): its end is missing.",
                .damaged)
        }
        result.used = ExtentList(Extent(from: .zero, to: page))
        result.states = [.clean]
        return result
    }
}
