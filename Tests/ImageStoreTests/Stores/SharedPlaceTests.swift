// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Synchronization
import Testing

@testable import ImageStore

/// What a power cut in the middle of a rename leaves on FAT: two entries, one content. Links stand for them here, and the
/// kernel is not asked; the end-to-end scenario of power cuts asks it.
@Suite struct SharedPlaceTests {
    private static let first = Sample.content(700_000, seed: 81)

    /// A set whose `tmp/left.part` is a second name of its pack of frames.
    private static func torn(_ body: (FolderStore, _ pack: String) throws -> Void) throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder, places: PowerCut.isSame)
        try Sample.backup([(first, nil)], to: store, name: "first")
        let pack = try #require(try store.list("packs").max { $0.size < $1.size }?.name)
        try #require(unsafe link("\(folder)/\(pack)", "\(folder)/tmp/left.part") == 0)
        try body(store, pack)
    }

    @Test func neitherOfTwoNamesIsRemovedOrBuiltUpon() throws {
        try Self.torn { store, pack in
            do {
                let left = try store.leftovers()
                #expect(left.map(\.name) == ["tmp/left.part"])
                #expect(try left.first?.sharers() == [pack])
            }
            let fault = #expect(throws: Fault.self) { try store.delete(pack) }
            #expect(fault?.remedy.contains("fsck.fat") == true)
            let replacing = try store.upload()
            #expect(throws: Fault.self) { try replacing.seal(replacing: pack) }
            replacing.abandon()
            let findings = Mutex<[Finding]>([])
            let writer = try SetWriter(store) { event in
                if case .finding(let finding) = event { findings.withLock { $0.append(finding) } }
            }
            try Sample.fill(writer, [(Self.first, nil)])
            let point = try writer.commit(Sample.facts("second"))
            #expect(findings.withLock { $0 }.map(\.code) == ["set.shared-place"])
            #expect(writer.statistics.shared == .zero)
            let reader = try SetReader(store)
            #expect(try !reader.point(point.id).file.packs.contains { ObjectName.pack($0.id) == pack })
            #expect(try reader.verify(.full).isSound)
            #expect(try store.list("tmp").map(\.name) == ["tmp/left.part"])
        }
    }

    @Test func aCopyThatOnlyLooksTheSameIsALeftoverLikeAnyOther() throws {
        try Self.torn { store, pack in
            let bytes = try #require(try store.content(pack))
            try JudgeTests.write(bytes, to: store.path + "/tmp/copy.part")
            try JudgeTests.write(Array(bytes.dropLast()), to: store.path + "/tmp/end.part")
            let left = try store.leftovers()
            let sharers = try left.map { leftover throws(Fault) in try leftover.sharers() }
            #expect(sharers == [[], [], [pack]])
            for file in left.dropLast() { try file.remove() }
            #expect(try store.list("tmp").map(\.name) == ["tmp/left.part"])
            #expect(try SetReader(store).verify(.full).isSound)
        }
    }

    @Test func whatAnUnfinishedFileIsToBecomeIsToldFromItsFirstBytes() throws {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        let store = FolderStore(path: folder)
        try Sample.backup(
            [(Self.first, nil)], to: store, options: EncryptionTests.options(), keys: EncryptionTests.ring("pass"))
        let objects = try store.list("packs") + store.list("points") + store.list("keys") + store.list("copies")
        #expect(objects.count >= 7)
        for name in objects.map(\.name) + ["set.a", "set.b", "RELIGHT.txt"] {
            let head = try #require(try store.content(name)).prefix(64)
            #expect(ObjectName.named(by: Array(head)).contains(name))
        }
        for count in [0, 7, 8, 31] {
            _ = ObjectName.named(
                by: Array(PackHeader.magic.prefix(count)) + [UInt8](repeating: 0, count: max(0, count - 8)))
        }
    }

    /// On a filesystem that renames in one step nothing is ever left alone for its name.
    @Test func whereRenamesAreWholeLeftoversGo() throws {
        try Self.torn { store, _ in
            let plain = FolderStore(path: store.path)
            let left = try #require(try plain.leftovers().first)
            #expect(try left.sharers().isEmpty)
        }
    }
}
