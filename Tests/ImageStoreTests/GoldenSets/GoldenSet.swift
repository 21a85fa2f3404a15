// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry
import Glibc
import ImageStore
import Testing

/// A set that was made once with format 1 and is kept for ever, in `Tests/Golden`.
struct GoldenSet: CustomTestStringConvertible, Sendable {
    struct Point: Sendable {
        var name: String
        var machine: UInt64
        var round: UInt64
        var disk: GoldenDisk { GoldenDisk(machine: machine, round: round) }
    }

    /// How the set lies in its tar file.
    enum Form: Sendable {
        /// One folder, `set`.
        case folder
        /// Two folders, `a` and `b`: a set in two places.
        case places
        /// `archive.001` and so on: an archive in parts.
        case archive
    }

    var name: String
    var form = Form.folder
    var passphrase: String?
    var hasKeyFile = false
    /// The points it must hold, oldest first.
    var points: [Point]
    /// Unreadable areas each point must tell of, in volume 2.
    var unreadable: [Extent] = []

    var testDescription: String { name }

    /// 64 bytes, for sets that can be opened with a key file.
    static let keyFile = (0..<64).map { UInt8(truncatingIfNeeded: $0 * 37 + 11) }

    private static let one = [Point(name: "first", machine: 1, round: 0), Point(name: "second", machine: 1, round: 1)]

    /// All of them.
    static let all = [
        GoldenSet(name: "plain-64k", points: one),
        GoldenSet(name: "plain-16k", points: one),
        GoldenSet(name: "aes256", passphrase: "Schlüssel mit Umlaut", hasKeyFile: true, points: one),
        GoldenSet(name: "aes128", passphrase: "another passphrase", points: one),
        GoldenSet(name: "protected", points: one),
        GoldenSet(
            name: "pruned",
            points: [Point(name: "left", machine: 2, round: 0), Point(name: "right", machine: 3, round: 1)]),
        GoldenSet(name: "spanned", form: .places, points: one),
        GoldenSet(name: "archive", form: .archive, points: [Point(name: "second", machine: 1, round: 1)]),
        GoldenSet(
            name: "unreadable", points: [Point(name: "first", machine: 1, round: 0)],
            unreadable: [
                Extent(from: ByteCount(4096), to: ByteCount(4608)),
                Extent(from: ByteCount(300_000), to: ByteCount(300_512)),
            ]),
    ]

    /// `Tests/Golden` of the source tree this was built from.
    static let folder = "\(#filePath)".split(separator: "/").dropLast(3).map { "/" + $0 }.joined() + "/Golden"
    var file: String { "\(GoldenSet.folder)/\(name).tar" }

    static let canUnpack = Judge.run("tar --version >/dev/null 2>&1") == 0

    /// What the disk must restore to: what could not be read was stored as zeros.
    func expected(_ point: Point) -> [UInt8] {
        var result = point.disk.expected
        for extent in unreadable {
            let start = Int((GoldenDisk.streams[2].extent.start + extent.start).bytes)
            for place in start..<start + Int(extent.length.bytes) { result[place] = 0 }
        }
        return result
    }

    /// The secrets that open the set, each alone.
    var rings: [KeyRing] {
        guard let passphrase else { return [.none] }
        return [KeyRing(.passphrase(Secret(Array(passphrase.utf8))))]
            + (hasKeyFile ? [KeyRing(.keyFile(Secret(GoldenSet.keyFile)))] : [])
    }

    /// The set unpacked below `scratch`, opened.
    func unpack(_ scratch: String) throws -> any ObjectStore {
        try #require(Judge.run("tar -C '\(scratch)' -xf '\(file)'") == 0)
        return switch form {
        case .folder: FolderStore(path: scratch + "/set")
        case .places: try SpanStore([FolderStore(path: scratch + "/a"), FolderStore(path: scratch + "/b")])
        case .archive: try ArchiveStore(scratch + "/archive")
        }
    }
}
