// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Blocks
import FilesystemMaps
import Findings
import Geometry
import MachineModel
import PartitionTables
import VolumeStacks

/// A disk that is one volume: without a table, or with one that does not tell the whole of what is on it.
struct WholeDisk {
    /// What lies on it.
    var map: VolumeMap
    /// Why it is taken as one volume though there is (or was) a table; `nil` where there is none.
    var because: String?
    /// Whether the whole disk may be a member of a layer.
    var mayBeMember = true
    /// What it is a member of, where libblkid does not know.
    var layer: ContentKind?

    /// A disk whose table cannot be read: no part of it may be left out, whatever seems to lie on it.
    init(_ source: any BlockSource, because reason: String) {
        let identity = (try? Identification.identify(source)) ?? Identity(kind: .unknown)
        self.map = FilesystemMaps.whole(identity, length: source.length, because: reason)
        self.map.states = [.damaged]
        self.because = reason
        mayBeMember = false
    }

    /// `nil` where the table tells all: the disk is then looked at by its partitions.
    init?(_ source: any BlockSource, _ reading: TableReading) throws(Fault) {
        guard let table = reading.table else {
            self.map = try FilesystemMaps.map(source)
            if map.identity.kind == .unknown, try WindowsLayers.isDynamic(source) { layer = WindowsLayers.dynamicDisk }
            return
        }
        guard let reason = try WholeDisk.reason(source, table, reading.findings) else { return nil }
        let identity = try Identification.identify(source)
        self.map = FilesystemMaps.whole(identity, length: source.length, because: reason)
        self.because = reason
        if reason == WholeDisk.dynamic { layer = WindowsLayers.dynamicDisk }
        mayBeMember = layer != nil || identity.usage == .container && reason == WholeDisk.inContainer(identity)
    }

    /// Why the partitions are not all there is on the disk.
    private static func reason(
        _ source: any BlockSource, _ table: PartitionTable, _ findings: [Finding]
    ) throws(Fault) -> String? {
        // Logical partitions behind a broken link are named by nothing; their data must not be left out.
        let broken = findings.contains { $0.code.hasPrefix("extended.") && $0.code != "extended.outside" }
        if broken { return "Its chain of logical partitions is damaged, so not all of them are known." }
        // Logical disk manager: the volumes are described by a database in the last MiB, not by the table.
        let isDynamic = table.partitions.contains { partition in
            switch partition.type {
            case .mbr(let byte): byte == 0x42
            case .gpt(let guid):
                ["5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "af9b60a0-1431-4f62-bc68-3311714a69ad"]
                    .contains(guid.description)
            }
        }
        if isDynamic { return dynamic }
        guard let identity = try? Identification.identify(source) else { return nil }
        if table.partitions.isEmpty, identity.kind != .unknown, identity.kind != .empty {
            return "Its partition table is empty, but it holds \(identity.kind.rawValue)."
        }
        switch identity.usage {
        case .container:
            return inContainer(identity)
        case .filesystem where ["iso9660", "udf"].contains(identity.kind.rawValue) && coversISO(table):
            return "It holds a hybrid \(identity.kind.rawValue) image, whose partitions are parts of it."
        default: return nil
        }
    }

    private static let dynamic =
        "It is a Windows dynamic disk, whose volumes are not described by its partition table."

    private static func inContainer(_ identity: Identity) -> String {
        "It is as a whole part of a container (\(identity.kind.rawValue)), which keeps its metadata outside the partitions."
    }

    /// Whether the table is that of a hybrid image: an entry from the disk's first sectors on, or one of type 0.
    private static func coversISO(_ table: PartitionTable) -> Bool {
        if table.partitions.contains(where: { $0.first.value <= 64 }) { return true }
        let sector = table.sector0.bytes
        guard sector.count >= 512 else { return false }
        return (0..<4).contains { index in
            let base = 446 + index * 16
            let sectors = sector[base + 12..<base + 16]
            return sector[base + 4] == 0 && sectors.contains { $0 != 0 }
        }
    }
}
