// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemMaps
import Findings
import Geometry
import Glibc
import MachineModel
import Testing
import Tools

@testable import DiskSurvey

private let mkbtrfs = Tool("mkfs.btrfs", package: "btrfs-progs")

/// Whether Btrfs can be made and filled here.
private let canMount: Bool = {
    guard haveTools, haveLoop, mkbtrfs.path != nil, let disk = try? ScratchDisk(.mebibytes(128)) else { return false }
    let script =
        "m=$(mktemp -d) && mkfs.btrfs -q \"$1\" && mount -o loop \"$1\" $m && umount $m; s=$?; rmdir $m; exit $s"
    return (try? shell.check(["-c", script, "probe", disk.path])) != nil
}()

/// Btrfs on several disks, filled by the kernel; `btrfs check` judges.
@Suite(.serialized, .enabled(if: canMount, "btrfs-progs, loop devices, Btrfs in the kernel and root are needed"))
struct BtrfsSetTests {
    static let offset: UInt64 = 1 << 20
    static let size: UInt64 = 300 << 20

    /// A disk with one partition, and one that is a volume as a whole: the devices of one Btrfs with files and holes.
    private static func made(_ options: [String], in folder: ScratchFolder) throws -> [ScratchDisk] {
        let disks = [try ScratchDisk(.mebibytes(302)), try ScratchDisk(.mebibytes(300))]
        try disks[0].partition("label: gpt\nstart=2048, size=614400, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n")
        let tree = try Content.tree(folder, mark: "btrfs")
        let loops = try Self.loops(disks)
        try mkbtrfs.check(["-q", "-f", "-L", "pool"] + options + loops.map(\.path))
        try mounted(
            loops, in: folder,
            """
            cp -a \(tree)/. mnt/; for n in 1 2 3 4 5 6; do cp -a \(tree) mnt/more$n; done; sync
            rm -r mnt/more[1-5]; sync
            """)
        return disks
    }

    private static func loops(_ disks: [ScratchDisk]) throws -> [Loop] {
        [try Loop(disks[0], offset: offset, size: size), try Loop(disks[1])]
    }

    @discardableResult
    private static func mounted(_ loops: [Loop], in folder: ScratchFolder, _ script: String) throws -> String {
        try shell.check(
            [
                "-c",
                """
                set -e; cd "$1"; shift; mkdir -p mnt; btrfs device scan "$@" >/dev/null
                mount -t btrfs -o noatime "$1" mnt; ( set -e; \(script) ) || { umount mnt; exit 1; }
                umount mnt
                # Another process may hold a copy of the mount for a moment.
                for n in $(seq 1 60); do btrfs device scan -u "$@" >/dev/null 2>&1 && exit; sleep 0.25; done; exit 1
                """, "mounted", folder.path,
            ] + loops.map(\.path)
        ).standardOutput
    }

    /// Whether `btrfs check` is content with `disks` and the files in them are those of `folder`.
    private static func isWhole(_ disks: [ScratchDisk], _ folder: ScratchFolder) throws -> Bool {
        let loops = try Self.loops(disks)
        let check = try shell.run(
            [
                "-c",
                """
                btrfs device scan "$@" >/dev/null; btrfs check --readonly --check-data-csum "$1" 2>&1; status=$?
                btrfs device scan -u "$@" >/dev/null; exit $status
                """, "check",
            ] + loops.map(\.path))
        guard check.status == 0, !check.standardOutput.contains("ERROR") else {
            Issue.record("\(check.standardOutput)")
            return false
        }
        let difference = try mounted(
            loops, in: folder, "diff -r -x 'more*' tree-btrfs mnt || true; diff -r tree-btrfs mnt/more6 || true")
        if !difference.isEmpty { Issue.record("\(difference)") }
        return difference.isEmpty
    }

    private static func look(_ disks: [ScratchDisk]) throws -> [SurveyedDisk] {
        try DiskSurvey.look(
            at: disks.enumerated().map { DiskToSurvey(try FileSource(path: $1.path), path: "disk\($0)") })
    }

    @Test(arguments: ["raid1", "raid0", "single"])
    func allDevicesAreImagedByTheirUsedBlocks(profile: String) throws {
        let folder = try ScratchFolder()
        let disks = try Self.made(["-m", profile == "single" ? "raid1" : profile, "-d", profile], in: folder)
        let before = try disks.map { try $0.hash }
        let seen = try Self.look(disks)
        #expect(seen.flatMap(\.model.findings).isEmpty, "\(seen.flatMap(\.model.findings))")
        for disk in seen {
            let volume = try #require(disk.model.volumes.first)
            #expect(volume.kind.rawValue == "btrfs" && volume.wholeBecause == nil, "\(volume)")
            #expect(volume.states == [.clean] && volume.label == "pool")
            #expect(volume.used < .mebibytes(40))
            let member = try #require(volume.memberOf)
            #expect(member.format == "Btrfs" && member.name == "pool" && member.missing == 0 && member.isAssembled)
            #expect(member.members == ["disk0:1", "disk1"] && member.uuid == volume.uuid)
        }
        let copies = try zip(disks, seen).map { try $0.restored($1.used) }
        #expect(try Self.isWhole(copies, folder))
        #expect(try disks.map { try $0.hash } == before)
    }

    @Test func aMissingDeviceMakesTheOthersWhole() throws {
        let folder = try ScratchFolder()
        let disks = try Self.made(["-m", "raid1", "-d", "raid1"], in: folder)
        let seen = try Self.look([disks[1]])
        #expect(seen[0].used.byteCount == .mebibytes(300))
        #expect(seen[0].volumes[0].map.wholeBecause?.contains("on 2 devices") == true)
        let member = try #require(seen[0].model.volumes[0].memberOf)
        #expect(member.missing == 1 && member.members == ["disk0"] && !member.isAssembled)
        #expect(seen[0].model.findings.map(\.code) == ["btrfs.incomplete"])
        // A superblock that is damaged in all copies is a device that is not there.
        try disks[0].poke(Self.offset + 65536 + 72, [0x5A, 0x5A])
        try disks[0].poke(Self.offset + (64 << 20) + 72, [0x5A, 0x5A])
        let damaged = try Self.look(disks)
        #expect(damaged.map(\.used.byteCount)[1] == .mebibytes(300))
        #expect(damaged[0].volumes[0].map.used.byteCount == .mebibytes(300))
    }

    @Test func aCopyOfADeviceMakesAllWhole() throws {
        let folder = try ScratchFolder()
        let disks = try Self.made(["-m", "raid1", "-d", "raid1"], in: folder)
        let copy = try ScratchDisk(.mebibytes(300))
        try copy.copy(disks[1].path, at: 0, Self.size, to: 0)
        let seen = try Self.look(disks + [copy])
        for disk in seen { #expect(disk.volumes[0].map.wholeBecause?.contains("more than once") == true) }
        #expect(seen[1].used.byteCount == .mebibytes(300) && seen[2].used.byteCount == .mebibytes(300))
        #expect(seen.flatMap(\.model.findings).map(\.code) == ["btrfs.copied"])
    }

    @Test func devicesOfTwoTransactionsAreWhole() throws {
        let folder = try ScratchFolder()
        let disks = try Self.made(["-m", "raid1", "-d", "raid1"], in: folder)
        let old = try ScratchDisk(.mebibytes(300))
        try old.copy(disks[1].path, at: 0, Self.size, to: 0)
        try Self.mounted(try Self.loops(disks), in: folder, "touch mnt/later; sync")
        for disk in try Self.look([disks[0], old]) {
            #expect(disk.volumes[0].map.wholeBecause?.contains("transactions") == true)
            #expect(disk.volumes[0].map.states.contains(.dirty))
        }
    }

    @Test(.enabled(if: mdadm.path != nil, "mdadm is needed"))
    func aMirrorBelowWhoseCopiesDifferMakesAllWhole() throws {
        let folder = try ScratchFolder()
        let disks = try Self.made(["-m", "raid1", "-d", "raid1"], in: folder)
        let mirror = try [0, 1].map { role in
            let member = MDMember(role: role, size: Self.size / 512)
            let disk = try ScratchDisk(.mebibytes(302))
            try disk.copy(disks[1].path, at: 0, Self.size, to: member.dataOffset * 512)
            try member.write(to: disk)
            return disk
        }
        let same = try Self.look([disks[0]] + mirror)
        #expect(same.allSatisfy { $0.used.byteCount < .mebibytes(44) }, "\(same.map(\.used.byteCount))")
        #expect(same[0].model.volumes[0].memberOf?.members == ["disk0:1", "md/arr"])
        try mirror[1].poke(MDMember().dataOffset * 512 + 65536 + 72, [0x5A])
        let differ = try Self.look([disks[0]] + mirror)
        #expect(differ[0].volumes[0].map.used.byteCount == ByteCount(Self.size))
        #expect(differ[1].used.byteCount > ByteCount(Self.size) && differ[2].used.byteCount > ByteCount(Self.size))
    }
}
