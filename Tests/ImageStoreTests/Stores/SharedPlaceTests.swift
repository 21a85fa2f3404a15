// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Synchronization
import Testing

@testable import ImageStore

/// What a power cut in the middle of a rename leaves on FAT: two entries, one content.
@Suite(.enabled(if: SmallFilesystem.possible.contains(.vfat), "needs root, loop devices and FAT"))
struct SharedPlaceTests {
    /// A FAT filesystem whose `tmp/left.part` is a second entry of the first pack of frames.
    private final class TornStick {
        let folder = Sample.folder()
        var path: String { folder + "/mount" }
        var set: String { path + "/set" }
        let pack: String

        init(_ content: [UInt8]) throws {
            _ = unsafe mkdir(folder + "/mount", 0o755)
            try #require(Judge.run("truncate -s 8M \(folder)/image && mkfs.vfat \(folder)/image >/dev/null") == 0)
            try #require(Judge.run("mount -o loop \(folder)/image \(folder)/mount") == 0)
            let store = FolderStore(path: folder + "/mount/set")
            try Sample.backup([(content, nil)], to: store, name: "first")
            let object = try #require(try store.list("packs").max { $0.size < $1.size })
            pack = object.name
            try JudgeTests.write(
                [UInt8](repeating: 7, count: Int(object.size.bytes)), to: folder + "/mount/set/tmp/left.part")
            try #require(Judge.run("umount \(folder)/mount") == 0)
            // Entries of 32 bytes: a name of 11, the first cluster at 20 and 26, the size at 28.
            let id = try #require(ObjectName.id(pack, suffix: ".pack"))
            try #require(
                Judge.run(
                    """
                    python3 - \(folder)/image <<'END'
                    import sys
                    image = open(sys.argv[1], "r+b"); data = bytearray(image.read())
                    left = data.index(b"LEFT~1  PAR"); pack = data.index(b"\(id.text.prefix(6).uppercased())~1PAC")
                    for a, b in ((20, 22), (26, 32)): data[left + a:left + b] = data[pack + a:pack + b]
                    image.seek(0); image.write(data)
                    END
                    """) == 0)
            try #require(Judge.run("mount -o loop \(folder)/image \(folder)/mount") == 0)
        }

        deinit {
            _ = unsafe umount2(path, Int32(MNT_DETACH))
            Sample.remove(folder)
        }
    }

    private static let first = Sample.content(700_000, seed: 81)

    @Test func neitherOfTwoNamesIsRemovedOrBuiltUpon() throws {
        let stick = try TornStick(Self.first)
        let store = FolderStore(path: stick.set)
        do {
            let left = try store.leftovers()
            #expect(left.map(\.name) == ["tmp/left.part"])
            #expect(try left.first?.sharers() == [stick.pack])
        }
        let fault = #expect(throws: Fault.self) { try store.delete(stick.pack) }
        #expect(fault?.remedy.contains("fsck.fat") == true)
        // Random, so that it would take the clusters that were freed.
        let second = Self.first[..<300_000] + Sample.content(500_000, seed: 82)
        let findings = Mutex<[Finding]>([])
        let writer = try SetWriter(store) { event in
            if case .finding(let finding) = event { findings.withLock { $0.append(finding) } }
        }
        try Sample.fill(writer, [(Array(second), nil)])
        let point = try writer.commit(Sample.facts("second"))
        #expect(findings.withLock { $0 }.map(\.code) == ["set.shared-place"])
        #expect(writer.statistics.shared == .zero)
        let reader = try SetReader(FolderStore(path: stick.set))
        #expect(try !reader.point(point.id).file.packs.contains { ObjectName.pack($0.id) == stick.pack })
        #expect(try reader.verify(.full).isSound)
        #expect(try FolderStore(path: stick.set + "/tmp").topLevelNames(limit: 9) == ["left.part"])
    }

    @Test func aCopyThatOnlyLooksTheSameIsALeftoverLikeAnyOther() throws {
        let stick = try TornStick(Self.first)
        let store = FolderStore(path: stick.set)
        let bytes = try #require(try store.content(stick.pack))
        try JudgeTests.write(bytes, to: stick.set + "/tmp/copy.part")
        let left = try store.leftovers()
        #expect(try left.map { try $0.sharers() } == [[], [stick.pack]])
        try left.first?.remove()
        #expect(try store.list("tmp").map(\.name) == ["tmp/left.part"])
        #expect(try SetReader(store).verify(.full).isSound)
    }
}
