// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemMaps
import Findings
import Geometry
import MachineModel
import TestSupport
import Testing
import Tools

@testable import DiskSurvey
@testable import VolumeStacks

/// Two disks with a volume group over both: one has a partition for it, the other one is a physical volume as a whole.
final class LVMDisks {
    let first: ScratchDisk
    let second: ScratchDisk
    let loops: [Loop]
    let tools: LVMTools
    static let partition = UInt64(2) << 20

    init() throws {
        first = try ScratchDisk(.mebibytes(160))
        second = try ScratchDisk(.mebibytes(120))
        try first.partition("label: gpt\n1 : start=4096, size=307200, type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n")
        loops = [try Loop(first, offset: LVMDisks.partition, size: 150 << 20), try Loop(second)]
        tools = try LVMTools(loops)
        try tools.run(["pvcreate", "-q", "-ff", "-y"] + loops.map(\.path))
        try tools.run(["vgcreate", "-q", "-s", "1m", "vg0"] + loops.map(\.path))
    }

    func create(_ name: String, _ options: [String], on devices: [Int] = []) throws {
        try tools.run(
            ["lvcreate", "-q", "-an", "-Zn", "-Wn", "-n", name] + options + ["vg0"] + devices.map { loops[$0].path })
    }

    /// Changes the group's metadata text and writes it back, for what LVM makes with device mapper only.
    func edit(_ change: (inout String) -> Void) throws {
        let file = "\(tools.folder.path)/group"
        try tools.run(["vgcfgbackup", "-q", "-f", file, "vg0"])
        let source = try Tool("cat", package: "coreutils").check([file])
        var text = source.standardOutput
        change(&text)
        let edited = try tools.folder.write("edited", text)
        try tools.run(["vgcfgrestore", "-q", "--force", "-f", edited, "vg0"])
    }

    private func place(_ piece: LVMTools.Piece) -> (disk: ScratchDisk, offset: UInt64) {
        piece.device == loops[0].path ? (first, LVMDisks.partition + piece.place) : (second, piece.place)
    }

    /// Writes the content of a logical volume to where LVM's tools say that it lies.
    func fill(_ volume: String, _ content: ScratchDisk) throws {
        for piece in try tools.pieces(volume) {
            let (disk, offset) = place(piece)
            try disk.copy(content.path, at: piece.offset, piece.count, to: offset)
        }
    }

    /// The content of a logical volume on copies of the two disks.
    func content(_ volume: String, _ disks: [ScratchDisk], _ size: ByteCount) throws -> ScratchDisk {
        let result = try ScratchDisk(size)
        for piece in try tools.pieces(volume) {
            let (disk, offset) = place(piece)
            try result.copy(disks[disk === first ? 0 : 1].path, at: offset, piece.count, to: piece.offset)
        }
        return result
    }

    func look(_ unlocking: Unlocking = .none) throws -> [SurveyedDisk] {
        try DiskSurvey.look(
            at: [
                DiskToSurvey(try FileSource(path: first.path), path: "one"),
                DiskToSurvey(try FileSource(path: second.path), path: "two"),
            ], unlocking: unlocking)
    }

    func restored(_ seen: [SurveyedDisk]) throws -> [ScratchDisk] {
        [try first.restored(seen[0].used), try second.restored(seen[1].used)]
    }
}

extension SurveyedDisk {
    /// All volumes inside others, by name.
    var nested: [String: NestedVolume] {
        var result: [String: NestedVolume] = [:]
        var open = volumes.flatMap(\.layers)
        while let next = open.popLast() {
            result[next.name] = next
            open += next.layers ?? []
        }
        return result
    }
}

@Suite(.enabled(if: haveLVM, "root, loop devices and lvm2 are needed"))
struct LVMLayerTests {
    @Test func linearAndStripedVolumesOverTwoDisksAreImagedByTheirUsedBlocks() throws {
        let disks = try LVMDisks()
        let folder = try ScratchFolder()
        // In two segments, the second on the other disk; striped over both; XFS; swap; and one that is removed again.
        try disks.create("gone", ["-l", "3"], on: [0])
        try disks.create("root", ["-l", "40"], on: [0])
        try disks.create("xfs", ["-l", "50"], on: [1])
        try disks.tools.run(["lvextend", "-q", "-l", "+9", "vg0/root", disks.loops[1].path])
        try disks.create("striped", ["-l", "24", "-i", "2", "-I", "64k"])
        try disks.create("swap", ["-l", "16"], on: [0])
        try disks.tools.run(["lvremove", "-q", "-f", "vg0/gone"])
        let tree = try Content.tree(folder, mark: "root")
        let other = try Content.tree(folder, mark: "striped")
        try disks.fill("vg0/root", Content.ext4(.mebibytes(49), tree))
        try disks.fill("vg0/striped", Content.ext4(.mebibytes(24), other))
        let swap = try ScratchDisk(.mebibytes(16))
        try mkswap.check(["-q", "-L", "swapped", swap.path])
        try disks.fill("vg0/swap", swap)
        let before = [try disks.first.hash, try disks.second.hash]

        let seen = try disks.look()
        #expect(seen.flatMap(\.model.findings).isEmpty, "\(seen.flatMap(\.model.findings))")
        let nested = seen[0].nested.merging(seen[1].nested) { left, _ in left }
        #expect(Set(nested.keys) == ["vg0/root", "vg0/xfs", "vg0/striped", "vg0/swap"])
        #expect(nested["vg0/root"]?.kind == .ext4)
        #expect(nested["vg0/striped"]?.kind == .ext4, "\(nested["vg0/striped"]?.wholeBecause ?? "")")
        #expect(nested["vg0/root"]?.states == [.clean])
        #expect(nested["vg0/striped"]?.layout == "striped")
        #expect(nested["vg0/swap"]?.label == "swapped")
        #expect(nested["vg0/xfs"]?.kind == .empty && nested["vg0/xfs"]?.used == .mebibytes(50))
        #expect(seen[0].volume(1)?.map.wholeBecause == nil && seen[1].volume(0)?.map.wholeBecause == nil)
        #expect(seen[0].model.volumes[0].memberOf?.members == ["one:1", "two"])
        #expect(seen[0].model.volumes[0].memberOf?.name == "vg0")
        let group = try disks.tools.lines(["vgs", "-o", "vg_uuid", "vg0"])[0][0]
        #expect(seen[1].model.volumes[0].memberOf?.uuid == group)
        // The empty volume is whole; of the others a few MiB are in use.
        #expect(seen[0].volumes[0].map.used.byteCount < .mebibytes(20))
        #expect(seen[1].volumes[0].map.used.byteCount < .mebibytes(50 + 16))

        let copies = try disks.restored(seen)
        #expect(try Content.isWhole(disks.content("vg0/root", copies, .mebibytes(49)), tree, folder))
        #expect(try Content.isWhole(disks.content("vg0/striped", copies, .mebibytes(24)), other, folder))
        #expect(try disks.content("vg0/swap", copies, .mebibytes(16)).look().volumes[0].map.identity.kind == .swap)
        // LVM reads the copies as it reads the originals.
        let loops = [try Loop(copies[0], offset: LVMDisks.partition, size: 150 << 20), try Loop(copies[1])]
        let tools = try LVMTools(loops)
        #expect(
            try tools.lines(["lvs", "-o", "lv_name,lv_uuid", "vg0"])
                == disks.tools.lines(["lvs", "-o", "lv_name,lv_uuid", "vg0"]))
        #expect(try [disks.first.hash, disks.second.hash] == before)
    }

    @Test(.enabled(if: mkxfs.path != nil, "xfsprogs is needed"))
    func anXFSInALogicalVolumeStaysWhole() throws {
        let disks = try LVMDisks()
        try disks.create("data", ["-l", "200"])
        let content = try ScratchDisk(.mebibytes(200))
        try mkxfs.check(["-q", "--unsupported", content.path])
        try disks.fill("vg0/data", content)
        let seen = try disks.look()
        #expect(seen[0].nested["vg0/data"]?.kind == .xfs)
        #expect(seen[0].nested["vg0/data"]?.wholeBecause == nil)
        #expect(seen[0].used.byteCount + seen[1].used.byteCount < .mebibytes(120))
        let back = try disks.content("vg0/data", disks.restored(seen), .mebibytes(200))
        #expect(try xfsrepair.run(["-n", back.path]).status == 0)
    }

    @Test func withOneOfTwoDisksOnlyWhatLiesWhollyOnItIsMapped() throws {
        let disks = try LVMDisks()
        let folder = try ScratchFolder()
        try disks.create("here", ["-l", "30"], on: [0])
        try disks.create("both", ["-l", "20", "-i", "2", "-I", "64k"])
        let tree = try Content.tree(folder, mark: "here")
        try disks.fill("vg0/here", Content.ext4(.mebibytes(30), tree))
        try disks.fill("vg0/both", Content.ext4(.mebibytes(20), tree))
        let seen = try DiskSurvey.look(at: try FileSource(path: disks.first.path), path: "one")
        #expect(seen.model.volumes[0].memberOf?.missing == 1)
        #expect(seen.model.findings.map(\.code) == ["lvm.incomplete"])
        #expect(seen.nested["vg0/here"]?.wholeBecause == nil)
        #expect(seen.nested["vg0/both"]?.wholeBecause?.contains("missing") == true)
        let copy = try disks.first.restored(seen.used)
        #expect(try Content.isWhole(disks.content("vg0/here", [copy, disks.second], .mebibytes(30)), tree, folder))
        #expect(try Content.isWhole(disks.content("vg0/both", [copy, disks.second], .mebibytes(20)), tree, folder))
    }

    /// The text of a hidden logical volume on `extents` of a physical volume.
    static func hidden(_ name: String, _ volume: String, _ first: Int, _ count: Int, status: String = "") -> String {
        """
        \(name) {
        id = "\(name.filter { $0 != "_" }.prefix(6).padded)-aaaa-bbbb-cccc-dddd-eeee-\(name.filter { $0 != "_" }.suffix(6).padded)"
        status = ["READ", "WRITE"\(status)]
        flags = []
        segment_count = 1
        segment1 {
        start_extent = 0
        extent_count = \(count)
        type = "striped"
        stripe_count = 1
        stripes = ["\(volume)", \(first)]
        }
        }

        """
    }

    /// Adds a RAID1 volume of 20 extents, with its hidden volumes.
    static func addRAID1(_ text: inout String) {
        let parts =
            hidden("m_rmeta_0", "pv0", 0, 1) + hidden("m_rimage_0", "pv0", 1, 20) + hidden("m_rmeta_1", "pv1", 0, 1)
            + hidden("m_rimage_1", "pv1", 1, 20) + """
                m {
                id = "mmmmmm-aaaa-bbbb-cccc-dddd-eeee-mmmmmm"
                status = ["READ", "WRITE", "VISIBLE"]
                flags = []
                segment_count = 1
                segment1 {
                start_extent = 0
                extent_count = 20
                type = "raid1"
                device_count = 2
                region_size = 4096
                raids = ["m_rmeta_0", "m_rimage_0", "m_rmeta_1", "m_rimage_1"]
                }
                }

                """
        text = LVMLayerTests.inserting(parts, text)
    }

    /// Puts logical volumes into the metadata text.
    static func inserting(_ parts: String, _ text: String) -> String {
        guard text.contains("logical_volumes {") else {
            return text.replacing("\n\t}\n\n}", with: "\n\t}\nlogical_volumes {\n\(parts)\n}\n}")
        }
        return text.replacing("logical_volumes {", with: "logical_volumes {\n\(parts)")
    }

    @Test func bothCopiesOfARAID1VolumeAreUsedAlike() throws {
        let disks = try LVMDisks()
        let folder = try ScratchFolder()
        try disks.create("first", ["-l", "1"], on: [0])
        try disks.tools.run(["lvremove", "-q", "-f", "vg0/first"])
        try disks.create("tail", ["-l", "10"], on: [0])
        try disks.edit { text in
            text = text.replacing("\"pv0\", 0", with: "\"pv0\", 30")
            Self.addRAID1(&text)
        }
        let tree = try Content.tree(folder, mark: "mirror")
        let content = try Content.ext4(.mebibytes(20), tree)
        for image in ["vg0/m_rimage_0", "vg0/m_rimage_1"] { try disks.fill(image, content) }

        let seen = try disks.look()
        let volume = try #require(seen[0].nested["vg0/m"])
        #expect(volume.kind == .ext4 && volume.layout == "raid1" && volume.wholeBecause == nil)
        #expect(seen[1].used.byteCount < .mebibytes(10))
        let copies = try disks.restored(seen)
        for image in ["vg0/m_rimage_0", "vg0/m_rimage_1"] {
            #expect(try Content.isWhole(disks.content(image, copies, .mebibytes(20)), tree, folder))
        }

        // A filesystem that is another one in the second copy: nothing can be proved, so both are whole.
        let elder = try Content.ext4(.mebibytes(20), try Content.tree(folder, mark: "elder"))
        try disks.fill("vg0/m_rimage_1", elder)
        let doubtful = try disks.look()
        #expect(doubtful[0].nested["vg0/m"]?.wholeBecause?.contains("copies") == true)
        for disk in doubtful { #expect(disk.used.byteCount >= .mebibytes(21)) }
    }

    @Test func copiesOfOneFilesystemThatDifferGetTheUnionOfTheirMaps() throws {
        let disks = try LVMDisks()
        let folder = try ScratchFolder()
        try disks.create("tail", ["-l", "10"], on: [0])
        try disks.edit { text in
            text = text.replacing("\"pv0\", 0", with: "\"pv0\", 30")
            Self.addRAID1(&text)
        }
        let tree = try Content.tree(folder, mark: "mirror")
        let content = try Content.ext4(.mebibytes(20), tree)
        try disks.fill("vg0/m_rimage_0", content)
        // The other copy has one file less, and its bitmap less blocks.
        try debugfs.check(["-w", "-R", "rm /file700001", content.path])
        _ = try e2fsck.run(["-f", "-y", content.path])
        try disks.fill("vg0/m_rimage_1", content)
        let seen = try disks.look()
        #expect(seen[0].nested["vg0/m"]?.wholeBecause == nil)
        let copies = try disks.restored(seen)
        #expect(try Content.isWhole(disks.content("vg0/m_rimage_0", copies, .mebibytes(20)), tree, folder))
        let other = try disks.content("vg0/m_rimage_1", copies, .mebibytes(20))
        let check = try e2fsck.run(["-f", "-n", other.path])
        #expect(check.status == 0, "\(check.standardOutput) \(check.standardError)")
    }

    @Test func thinPoolsAndSnapshotsAreWhole() throws {
        let disks = try LVMDisks()
        try disks.create("plain", ["-l", "10"], on: [0])
        try disks.create("origin", ["-l", "10"], on: [0])
        try disks.create("snap", ["-l", "5"], on: [0])
        try disks.edit { text in
            let parts =
                Self.hidden("pool_tdata", "pv1", 0, 40) + Self.hidden("pool_tmeta", "pv1", 40, 2) + """
                    pool {
                    id = "pppppp-aaaa-bbbb-cccc-dddd-eeee-pppppp"
                    status = ["READ", "WRITE", "VISIBLE"]
                    flags = []
                    segment_count = 1
                    segment1 {
                    start_extent = 0
                    extent_count = 40
                    type = "thin-pool"
                    metadata = "pool_tmeta"
                    pool = "pool_tdata"
                    transaction_id = 1
                    chunk_size = 128
                    discards = "passdown"
                    zero_new_blocks = 1
                    }
                    }
                    thin {
                    id = "tttttt-aaaa-bbbb-cccc-dddd-eeee-tttttt"
                    status = ["READ", "WRITE", "VISIBLE"]
                    flags = []
                    segment_count = 1
                    segment1 {
                    start_extent = 0
                    extent_count = 400
                    type = "thin"
                    thin_pool = "pool"
                    transaction_id = 0
                    device_id = 1
                    }
                    }
                    snapshot0 {
                    id = "ssssss-aaaa-bbbb-cccc-dddd-eeee-ssssss"
                    status = ["READ", "WRITE", "VISIBLE"]
                    flags = []
                    segment_count = 1
                    segment1 {
                    start_extent = 0
                    extent_count = 10
                    type = "snapshot"
                    chunk_size = 8
                    origin = "origin"
                    cow_store = "snap"
                    }
                    }

                    """
            text = Self.inserting(parts, text)
        }
        // LVM takes it.
        let known = try disks.tools.lines(["lvs", "-a", "-o", "lv_name,segtype"]).map { $0.joined(separator: ";") }
        #expect(
            known.contains("[pool_tdata];linear") && known.contains("pool;thin-pool") && known.contains("thin;thin"))
        try disks.fill("vg0/plain", Content.ext4(.mebibytes(10)))
        let seen = try disks.look()
        let nested = seen[0].nested.merging(seen[1].nested) { left, _ in left }
        #expect(nested["vg0/plain"]?.wholeBecause == nil)
        #expect(nested["vg0/thin"]?.wholeBecause?.contains("thin") == true)
        #expect(nested["vg0/origin"]?.wholeBecause?.contains("snapshot") == true)
        #expect(nested["vg0/snap"]?.wholeBecause?.contains("snapshot") == true)
        let extents = { (from: UInt64, to: UInt64) in
            Extent(from: ByteCount((1 + from) << 20), to: ByteCount((1 + to) << 20))
        }
        let first = try #require(seen[0].volume(1)?.map.used)
        #expect(first.covers(extents(10, 25)))
        #expect(!first.covers(extents(0, 10)))
        #expect(first.intersection(extents(25, 140)).isEmpty)
        let second = try #require(seen[1].volume(0)?.map.used)
        #expect(second.covers(extents(0, 42)))
        #expect(second.intersection(extents(42, 110)).isEmpty)
    }

    @Test func aPhysicalVolumeThatIsThereTwiceIsRefused() throws {
        let disks = try LVMDisks()
        try disks.create("root", ["-l", "20"], on: [0])
        try disks.fill("vg0/root", Content.ext4(.mebibytes(20)))
        let twin = try ScratchDisk(disks.second.size)
        try twin.copy(disks.second.path, at: 0, disks.second.size.bytes, to: 0)
        let seen = try DiskSurvey.look(
            at: [disks.first, disks.second, twin].enumerated().map {
                DiskToSurvey(try FileSource(path: $1.path), path: "disk\($0)")
            })
        for disk in seen {
            #expect(disk.volumes[0].map.wholeBecause?.contains("more than once (disk1, disk2)") == true)
            #expect(disk.volumes[0].map.used.byteCount == disk.volumes[0].extent.length)
        }
        #expect(seen.flatMap { $0.nested.keys }.isEmpty)
    }

    @Test func theNewestMetadataCountsAndAMissingPhysicalVolumeIsWhole() throws {
        let disks = try LVMDisks()
        try disks.create("root", ["-l", "20"], on: [0])
        try disks.fill("vg0/root", Content.ext4(.mebibytes(20)))
        let old = try ScratchDisk(disks.second.size)
        try old.copy(disks.second.path, at: 0, disks.second.size.bytes, to: 0)
        // While the second disk is away, a volume is made: its metadata are older from then on.
        let alone = try LVMTools([disks.loops[0]])
        try alone.run(["vgreduce", "-q", "--removemissing", "vg0"])
        try alone.run(["lvcreate", "-q", "-an", "-Zn", "-Wn", "-n", "later", "-l", "5", "vg0"])
        let seen = try disks.look()
        #expect(seen[0].nested["vg0/later"] != nil)
        #expect(seen[0].volumes[0].map.wholeBecause == nil)
        #expect(seen[1].volumes[0].map.wholeBecause?.contains("no longer counts it") == true)
    }

    @Test func aLogicalVolumeThatHoldsItsOwnPhysicalVolumeEndsTheSearch() throws {
        let disks = try LVMDisks()
        try disks.create("self", ["-l", "10"], on: [1])
        let copy = try ScratchDisk(.mebibytes(10))
        try copy.copy(disks.second.path, at: 0, 10 << 20, to: 0)
        try disks.fill("vg0/self", copy)
        let seen = try disks.look()
        #expect(seen[1].nested["vg0/self"]?.wholeBecause?.contains("copy") == true)
        #expect(seen[1].nested.count == 1)
        #expect(seen[1].volumes[0].map.wholeBecause == nil)
        #expect(seen[1].used.covers(mebibytes(1, 11)))
    }

    @Test func aVolumeBeingMovedIsWhole() throws {
        let disks = try LVMDisks()
        try disks.create("moving", ["-l", "10"], on: [0])
        try disks.create("still", ["-l", "10"], on: [1])
        try disks.fill("vg0/still", Content.ext4(.mebibytes(10)))
        // What pvmove leaves when the machine stops half-way.
        try disks.edit { text in
            text = text.replacing("\"pv0\", 0", with: "\"pvmove0\", 0")
            text.replace("\"VISIBLE\"]", with: "\"VISIBLE\", \"LOCKED\"]", maxReplacements: 1)
            let move = """
                pvmove0 {
                id = "vvvvvv-aaaa-bbbb-cccc-dddd-eeee-vvvvvv"
                status = ["READ", "WRITE", "PVMOVE", "LOCKED"]
                flags = []
                allocation_policy = "contiguous"
                segment_count = 1
                segment1 {
                start_extent = 0
                extent_count = 10
                type = "mirror"
                mirror_count = 2
                region_size = 1024
                extents_moved = 5
                mirrors = ["pv0", 0, "pv1", 40]
                }
                }

                """
            text = Self.inserting(move, text)
        }
        let seen = try disks.look()
        for disk in seen {
            #expect(disk.volumes[0].map.used.byteCount == disk.volumes[0].extent.length)
            #expect(disk.volumes[0].map.wholeBecause?.contains("moved") == true)
        }
        #expect(seen[1].nested["vg0/still"]?.wholeBecause == nil)
        #expect(seen[0].nested["vg0/moving"]?.wholeBecause != nil)
    }

    @Test func aChangeThatWasUnderWayMakesTheGroupWhole() throws {
        let disks = try LVMDisks()
        try disks.create("root", ["-l", "10"], on: [1])
        try disks.fill("vg0/root", Content.ext4(.mebibytes(10)))
        let source = try FileSource(path: disks.second.path)
        var head = try source.bytes(at: ByteCount(4096), count: 512)
        // The place of a text that was written but is not in force.
        for (offset, value) in [(65, 2), (73, 2)] as [(Int, UInt8)] { head[offset] = value }
        let check = unsafe LVMPhysicalVolume.crc(head.span.bytes.extracting(4..<512))
        for index in 0..<4 { head[index] = UInt8(truncatingIfNeeded: check >> UInt32(8 * index)) }
        try disks.second.poke(4096, head)
        let seen = try disks.look()
        for disk in seen { #expect(disk.volumes[0].map.wholeBecause?.contains("under way") == true) }
        #expect(seen[1].used.byteCount == disks.second.size)
    }

    @Test func aDiskOfAVirtualMachineInALogicalVolumeIsLookedInto() throws {
        let disks = try LVMDisks()
        let folder = try ScratchFolder()
        try disks.create("guest", ["-l", "60"], on: [0])
        let guest = try ScratchDisk(.mebibytes(60))
        try guest.partition("label: dos\n1 : start=2048, size=102400, type=83\n")
        let tree = try Content.tree(folder, mark: "guest")
        let content = try Content.ext4(.mebibytes(50), tree)
        try guest.copy(content.path, at: 0, 50 << 20, to: 1 << 20)
        try disks.fill("vg0/guest", guest)
        let seen = try disks.look()
        #expect(seen[0].nested["vg0/guest"]?.wholeBecause == nil)
        #expect(seen[0].nested["vg0/guest:1"]?.kind == .ext4)
        #expect(seen[0].used.byteCount < .mebibytes(20))
        let back = try disks.content("vg0/guest", disks.restored(seen), .mebibytes(60))
        let part = try ScratchDisk(.mebibytes(50))
        try part.copy(back.path, at: 1 << 20, 50 << 20, to: 0)
        #expect(try Content.isWhole(part, tree, folder))
        #expect(try back.look().model.table?.partitions.count == 1)
    }
}

extension Substring {
    /// Six characters, for the ends of LVM's UUIDs.
    var padded: String { String(self) + String(repeating: "x", count: Swift.max(0, 6 - count)) }
}
