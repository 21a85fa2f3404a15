// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Geometry
import MachineModel

/// The entry array of a GPT. UEFI 2.10, section 5.3.3, table 5-6.
enum GPTEntries {
    /// The used entries, by number; those whose end lies before their start are returned apart.
    static func parse(
        _ bytes: [UInt8], count: UInt32, size: UInt32
    ) throws(FieldError) -> (partitions: [Partition], impossible: [Int]) {
        var partitions: [Partition] = []
        var impossible: [Int] = []
        let span = unsafe bytes.span.bytes
        for index in 0..<Int(count) {
            let base = index * Int(size)
            let type = try GUID(span, "PartitionTypeGUID", at: base)
            if type == .zero { continue }
            let first = try span.littleEndian(UInt64.self, "StartingLBA", at: base + 32)
            let last = try span.littleEndian(UInt64.self, "EndingLBA", at: base + 40)
            guard last >= first, last < UInt64.max else {
                impossible.append(index + 1)
                continue
            }
            partitions.append(
                Partition(
                    number: index + 1, first: LBA(first), sectors: last - first + 1, type: .gpt(type),
                    guid: try GUID(span, "UniquePartitionGUID", at: base + 16),
                    name: UTF16Text.decode(try span.bytes("PartitionName", at: base + 56, count: 72)),
                    attributes: try span.littleEndian(UInt64.self, "Attributes", at: base + 48)))
        }
        return (partitions, impossible)
    }

    /// The array of `count` entries of `size` bytes. The caller has checked numbers, types and ends.
    static func bytes(_ partitions: [Partition], count: UInt32, size: UInt32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(count) * Int(size))
        for partition in partitions {
            guard case .gpt(let type) = partition.type, let last = partition.last else { continue }
            var entry = type.bytes
            entry += (partition.guid ?? .zero).bytes
            entry.appendLittleEndian(partition.first.value)
            entry.appendLittleEndian(last.value)
            entry.appendLittleEndian(partition.attributes)
            entry += UTF16Text.encode(partition.name).prefix(72)
            let base = (partition.number - 1) * Int(size)
            bytes.replaceSubrange(base..<base + entry.count, with: entry)
        }
        return bytes
    }
}
