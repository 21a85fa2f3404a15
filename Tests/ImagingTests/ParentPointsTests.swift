// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import ImageStore
import Imaging
import MachineModel
import Testing

/// Which earlier stream a stream is compared with.
@Suite struct ParentPointsTests {
    static func disk(_ path: String, serial: String? = nil, wwn: String? = nil) -> DiskModel {
        DiskModel(path: path, model: "Example", serial: serial, wwn: wwn, size: .gibibytes(1), sectorSize: .s512)
    }

    static func stream(_ number: Int, at start: ByteCount = .mebibytes(1)) -> StreamDescription {
        StreamDescription(
            disk: 0, kind: .volume(number), extent: Extent(from: start, to: start + .mebibytes(1)), used: ExtentList())
    }

    /// A point that holds volume `number` of `disk`; its id.
    static func point(_ disk: DiskModel, _ number: Int, in store: MemoryStore) throws -> String {
        let writer = try SetWriter(store)
        _ = try writer.beginStream(stream(number))
        return try writer.commit(
            PointFacts(name: "", time: 0, tool: "test", machine: MachineFacts(relight: "test"), disks: [disk])
        ).id
    }

    @Test func theNewestPointWithTheSameVolumeOfTheSameDiskIsTaken() throws {
        let store = MemoryStore()
        let old = try Self.point(Self.disk("/dev/sda", serial: "A"), 1, in: store)
        let new = try Self.point(Self.disk("/dev/sdb", serial: "A"), 1, in: store)
        let second = try Self.point(Self.disk("/dev/sda", serial: "B"), 2, in: store)
        let parents = try ParentPoints(SetReader(store))
        func found(_ disk: DiskModel, _ description: StreamDescription) -> String? {
            parents.parent(of: description, on: disk)?.point.summary.id
        }
        // The serial number counts, the path does not.
        #expect(found(Self.disk("/dev/sdc", serial: "A"), Self.stream(1)) == new)
        #expect(found(Self.disk("/dev/sda", serial: "B"), Self.stream(2)) == second)
        #expect(found(Self.disk("/dev/sda", serial: "B"), Self.stream(1)) == nil)
        #expect(found(Self.disk("/dev/sda", serial: "C"), Self.stream(1)) == nil)
        #expect(found(Self.disk("/dev/sda", serial: "A"), Self.stream(1, at: .mebibytes(2))) == nil)
        // A disk that tells no serial number is known by its path.
        #expect(found(Self.disk("/dev/sdb"), Self.stream(1)) == new)
        #expect(found(Self.disk("/dev/sdz"), Self.stream(1)) == nil)
        // When the newest cannot be read, the one before it is taken.
        store.objects["points/\(new).point"]?[300] ^= 1
        store.objects["copies/points/\(new).point"]?[300] ^= 1
        let rest = try ParentPoints(SetReader(store))
        #expect(rest.parent(of: Self.stream(1), on: Self.disk("/dev/sdc", serial: "A"))?.point.summary.id == old)
    }
}
