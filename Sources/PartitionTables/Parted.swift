// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import CDeviceMapperStub
import CParted
public import Findings
public import Geometry
import Glibc
public import MachineModel
import Synchronization

/// What a device likes partitions to be aligned to.
public struct DeviceAlignment: Hashable, Sendable {
    /// The least that does not cost a read before each write.
    public var minimum: ByteCount
    /// What serves it best; 1 MiB for almost every device.
    public var optimum: ByteCount
    /// Where the first aligned place lies.
    public var offset: ByteCount
    /// The device's own sector size; at least the logical one.
    public var physicalSector: ByteCount
}

/// A table as libparted reads it.
public struct PartedTable: Hashable, Sendable {
    /// One partition.
    public struct Entry: Hashable, Sendable {
        /// Its number.
        public var number: Int
        /// First sector.
        public var first: LBA
        /// Number of sectors.
        public var sectors: UInt64
        /// Its name; empty in an MBR.
        public var name: String
        /// libparted's `boot` flag: active in an MBR, an EFI system partition in a GPT.
        public var boot: Bool
        /// Whether it is an extended container.
        public var isExtended: Bool
    }
    /// `gpt`, `msdos`, or another name of libparted's.
    public var kind: String
    /// Number of sectors of the disk.
    public var diskSectors: UInt64
    /// Logical sector size.
    public var sectorSize: UInt64
    /// The partitions, in the order of their numbers.
    public var entries: [Entry]
    /// What libparted complained about and went on.
    public var complaints: [String]
}

/// libparted: the second reader of what was written, what a device likes, and what tells the kernel.
///
/// It opens a disk read-write before it tries read-only, so it is used on targets only, never on a source. It keeps
/// global state, so its calls take turns. It never asks and never prints: what it would ask about ends as a fault or in
/// ``PartedTable/complaints``.
public enum Parted {
    /// Reads the table on `path` (a device or an image file). Throws `target.read-back` where there is none it can read.
    public static func read(path: String, fileSectorSize: SectorSize = .s512) throws(Fault) -> PartedTable {
        try unsafe withDevice(path, fileSectorSize) { device throws(Fault) in
            try unsafe withDisk(device, path) { disk throws(Fault) in unsafe table(disk, device) }
        }
    }

    /// Throws `target.read-back` unless libparted sees on `path` exactly `table`, and has nothing to complain about.
    public static func requireAgreement(path: String, with table: PartitionTable) throws(Fault) {
        let seen = try read(path: path, fileSectorSize: table.sectorSize)
        func disagree(_ what: String) -> Fault {
            Fault(
                .readBack, what: "libparted reads the new partition table differently: \(what)", place: path,
                remedy: "Do not use this disk as it stands; please report this with the restore plan.")
        }
        // libparted turns names into the locale's characters; in the C locale only ASCII survives.
        let others = table.partitions.contains { !Parted.isASCII($0.name) }
        let complaint = seen.complaints.first { !(others && $0.contains("translate partition name")) }
        if let complaint { throw disagree(complaint) }
        let kind = table.kind == .gpt ? "gpt" : "msdos"
        guard seen.kind == kind else { throw disagree("its kind is \(seen.kind), not \(kind).") }
        guard seen.diskSectors == table.diskSectors else {
            throw disagree("the disk has \(seen.diskSectors) sectors, not \(table.diskSectors).")
        }
        let wanted = table.partitions.sorted { $0.number < $1.number }
        guard seen.entries.map(\.number) == wanted.map(\.number) else {
            throw disagree("the partitions are numbered \(seen.entries.map(\.number)), not \(wanted.map(\.number)).")
        }
        for (entry, partition) in zip(seen.entries, wanted) {
            guard entry.first == partition.first, entry.sectors == partition.sectors else {
                throw disagree(
                    "partition \(partition.number) is \(entry.sectors) sectors from \(entry.first.value), not "
                        + "\(partition.sectors) from \(partition.first.value).")
            }
            guard entry.isExtended == partition.isExtendedContainer else {
                throw disagree("partition \(partition.number) is \(entry.isExtended ? "" : "not ")an extended one.")
            }
            if table.kind == .gpt, isASCII(partition.name), entry.name != partition.name {
                throw disagree("partition \(partition.number) is named “\(entry.name)”, not “\(partition.name)”.")
            }
            if table.kind == .mbr, partition.describedAt == nil, entry.boot != (partition.attributes == 0x80) {
                throw disagree("partition \(partition.number) is \(entry.boot ? "" : "not ")active.")
            }
        }
    }

    /// What the device at `path` likes. A plain file likes 1 MiB.
    public static func optimalAlignment(
        path: String, fileSectorSize: SectorSize = .s512
    ) throws(Fault) -> DeviceAlignment {
        try unsafe withDevice(path, fileSectorSize) { device throws(Fault) in
            let sector = ByteCount(UInt64(clamping: unsafe device.pointee.sector_size))
            func bytes(_ alignment: UnsafeMutablePointer<PedAlignment>?) -> (grain: ByteCount, offset: ByteCount)? {
                guard let alignment = unsafe alignment else { return nil }
                defer { unsafe ped_alignment_destroy(alignment) }
                guard let grain = unsafe sector.multiplied(by: UInt64(clamping: alignment.pointee.grain_size)),
                    let offset = unsafe sector.multiplied(by: UInt64(clamping: alignment.pointee.offset))
                else { return nil }
                return (max(grain, sector), offset)
            }
            let least = unsafe bytes(ped_device_get_minimum_alignment(device))
            let best = unsafe bytes(ped_device_get_optimum_alignment(device))
            return DeviceAlignment(
                minimum: least?.grain ?? sector, optimum: best?.grain ?? .mebibytes(1), offset: best?.offset ?? .zero,
                physicalSector: ByteCount(UInt64(clamping: unsafe device.pointee.phys_sector_size)))
        }
    }

    /// Has the kernel make its partition devices of `path` what the table on the disk says. Does nothing for a file.
    public static func commitToKernel(path: String) throws(Fault) {
        try unsafe withDevice(path, .s512) { device throws(Fault) in
            guard unsafe device.pointee.type != PED_DEVICE_FILE else { return }
            try unsafe withDisk(device, path) { disk throws(Fault) in
                // libparted also calls `udevadm settle` through the shell, whose complaint that there is none is not ours.
                let accepted = silently { unsafe ped_disk_commit_to_os(disk) != 0 }
                guard accepted else {
                    throw fault(path, "The kernel did not take over the new partition table")
                }
            }
        }
    }

    // MARK: - libparted's ways

    /// What libparted said since the last call began. Only touched by the one call that holds `turn`.
    private static let said = Mutex<[String]>([])
    /// libparted's lists of devices and of table types are global.
    private static let turn = Mutex<Void>(())

    private static func withDevice<R>(
        _ path: String, _ fileSectorSize: SectorSize,
        _ body: (UnsafeMutablePointer<PedDevice>) throws(Fault) -> R
    ) throws(Fault) -> R {
        let result: Result<R, Fault> = turn.withLock { _ in
            said.withLock { $0 = [] }
            unsafe ped_exception_set_handler { exception in
                guard let exception = unsafe exception else { return PED_EXCEPTION_UNHANDLED }
                let message = unsafe exception.pointee.message.map { unsafe String(cString: $0) } ?? "no message"
                Parted.said.withLock { if $0.count < 16 { $0.append(message) } }
                // Going on without mending is the only answer that changes nothing.
                let options = unsafe exception.pointee.options.rawValue
                for answer in [PED_EXCEPTION_IGNORE, PED_EXCEPTION_CANCEL, PED_EXCEPTION_NO, PED_EXCEPTION_OK]
                where options & answer.rawValue != 0 { return answer }
                return PED_EXCEPTION_UNHANDLED
            }
            defer { ped_exception_set_handler(nil) }
            // libparted takes the sector size of a plain file from the environment alone.
            unsafe setenv("PARTED_SECTOR_SIZE", "\(fileSectorSize.bytes)", 1)
            defer { unsafe unsetenv("PARTED_SECTOR_SIZE") }
            do throws(Fault) {
                // The reference keeps the symbols that libparted.a asks of libdevmapper in a static link.
                guard relight_device_mapper_stub_anchor == 1, let device = unsafe ped_device_get(path) else {
                    throw fault(path, "libparted cannot open it")
                }
                defer { unsafe ped_device_destroy(device) }
                return .success(try unsafe body(device))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private static func withDisk<R>(
        _ device: UnsafeMutablePointer<PedDevice>, _ path: String,
        _ body: (UnsafeMutablePointer<PedDisk>) throws(Fault) -> R
    ) throws(Fault) -> R {
        guard let disk = unsafe ped_disk_new(device) else {
            throw fault(path, "libparted reads no partition table on it")
        }
        defer { unsafe ped_disk_destroy(disk) }
        return try unsafe body(disk)
    }

    private static func table(
        _ disk: UnsafeMutablePointer<PedDisk>, _ device: UnsafeMutablePointer<PedDevice>
    ) -> PartedTable {
        var entries: [PartedTable.Entry] = []
        var next = unsafe ped_disk_next_partition(disk, nil)
        while let partition = unsafe next {
            defer { unsafe next = ped_disk_next_partition(disk, partition) }
            let number = unsafe partition.pointee.num
            guard number > 0 else { continue }
            let named = unsafe ped_disk_type_check_feature(disk.pointee.type, PED_DISK_TYPE_PARTITION_NAME) != 0
            let name = named ? unsafe ped_partition_get_name(partition) : nil
            entries.append(
                PartedTable.Entry(
                    number: Int(number), first: LBA(UInt64(clamping: unsafe partition.pointee.geom.start)),
                    sectors: UInt64(clamping: unsafe partition.pointee.geom.length),
                    name: unsafe name.map { unsafe String(cString: $0) } ?? "",
                    boot: unsafe ped_partition_is_flag_available(partition, PED_PARTITION_BOOT) != 0
                        && ped_partition_get_flag(partition, PED_PARTITION_BOOT) != 0,
                    isExtended: unsafe partition.pointee.type.rawValue & PED_PARTITION_EXTENDED.rawValue != 0))
        }
        return PartedTable(
            kind: unsafe disk.pointee.type.pointee.name.map { unsafe String(cString: $0) } ?? "",
            diskSectors: UInt64(clamping: unsafe device.pointee.length),
            sectorSize: UInt64(clamping: unsafe device.pointee.sector_size),
            entries: entries.sorted { $0.number < $1.number }, complaints: said.withLock { $0 })
    }

    private static func isASCII(_ text: String) -> Bool { text.utf8.allSatisfy { $0 < 0x80 } }

    /// Runs `body` with standard error pointing nowhere.
    private static func silently<R>(_ body: () -> R) -> R {
        let kept = fcntl(2, F_DUPFD_CLOEXEC, 3)
        let nowhere = unsafe open("/dev/null", O_WRONLY | O_CLOEXEC)
        if kept >= 0, nowhere >= 0 { dup2(nowhere, 2) }
        if nowhere >= 0 { close(nowhere) }
        defer {
            if kept >= 0 {
                dup2(kept, 2)
                close(kept)
            }
        }
        return body()
    }

    private static func fault(_ path: String, _ what: String) -> Fault {
        let reason = said.withLock { $0.last }
        return Fault(
            .readBack, what: what + (reason.map { ": \($0)" } ?? "."), place: path,
            remedy: "Check that nothing on the disk is in use, then try again; nothing was changed by this step.")
    }
}
