// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Geometry
import Glibc
import Testing

@testable import ImageStore

/// Sets with right checks and hashes whose makers meant no good.
enum EvilSets {
    /// A name, and what makes the objects of the set; `shape` then changes the folder in ways objects cannot.
    struct Evil: CustomTestStringConvertible, Sendable {
        var name: String
        var objects: @Sendable () throws -> [String: [UInt8]]
        /// A script run in the set's folder.
        var shape = ""
        var testDescription: String { name }
    }

    /// A small set with one point of two volumes.
    static func base(parity: Int = 0, encrypted: Bool = false) throws -> [String: [UInt8]] {
        let store = MemoryStore()
        try Sample.backup(
            [(Sample.content(300_000, seed: 3), nil), (Array("small".utf8), nil)], to: store,
            options: .init(
                unitSize: .kibibytes(16), encryption: encrypted ? NewEncryption(cost: 10) : nil, parity: parity),
            keys: encrypted ? EncryptionTests.ring("secret") : .none)
        return store.objects.filter { !$0.key.hasPrefix("writers/") }
    }

    private static func pointName(_ objects: [String: [UInt8]]) throws -> String {
        try #require(objects.keys.first { $0.hasPrefix("points/") })
    }

    /// The set with `body` as what its only point says.
    static func point(_ change: (inout [UInt8]) throws -> Void) throws -> [String: [UInt8]] {
        var objects = try base()
        let old = try #require(objects[pointName(objects)])
        var body = try HostileTests.body(old)
        try change(&body)
        let (name, bytes) = try HostileTests.pointFile(body, like: old)
        for name in objects.keys where name.contains("points/") { objects[name] = nil }
        objects[name] = bytes
        objects["copies/" + name] = bytes
        return objects
    }

    /// Where the sections of a body lie: type and range with the head.
    private static func sections(_ body: [UInt8]) -> [(type: UInt32, range: Range<Int>)] {
        var result: [(UInt32, Range<Int>)] = []
        var at = 0
        while at <= body.count - 16 {
            let number = { (start: Int, count: Int) in
                body[start..<start + count].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            }
            let end = at + 16 + Int(clamping: number(at + 8, 8))
            guard end <= body.count else { break }
            result.append((UInt32(truncatingIfNeeded: number(at, 4)), at..<end))
            at = end
        }
        return result
    }

    private static func section(_ type: UInt32, _ content: [UInt8], flags: UInt32 = 0) -> [UInt8] {
        var result: [UInt8] = []
        result.appendLittleEndian(type)
        result.appendLittleEndian(flags)
        result.appendLittleEndian(UInt64(content.count))
        return result + content
    }

    /// Another content for the first section of `type`.
    static func replacing(_ type: UInt32, _ change: @escaping @Sendable ([UInt8]) -> [UInt8]) throws -> [String:
        [UInt8]]
    {
        try point { body in
            let found = try #require(sections(body).first { $0.type == type }).range
            body.replaceSubrange(found, with: section(type, change(Array(body[found].dropFirst(16)))))
        }
    }

    private static func stream(start: UInt64, length: UInt64, runs: [UInt8], rest: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        for number in [0, 1, 1, 16_384] as [UInt32] { result.appendLittleEndian(number) }
        result.appendLittleEndian(start)
        result.appendLittleEndian(length)
        return result + runs + rest
    }

    private static func varints(_ numbers: [UInt64]) -> [UInt8] {
        var result: [UInt8] = []
        for number in numbers { result.appendVarint(number) }
        return result
    }

    /// A point whose body is `count` bytes of zeros in a section nobody knows, compressed to almost nothing.
    static func bomb(_ count: Int) throws -> [String: [UInt8]] {
        try point { body in body += section(0x7777, [UInt8](repeating: 0, count: count - body.count - 16)) }
            .mapValues { try compressed($0) }
    }

    /// A point's file with its body compressed.
    private static func compressed(_ file: [UInt8]) throws -> [UInt8] {
        guard file.starts(with: Array("RLGTPOIN".utf8)) else { return file }
        let plain = Array(file[256...])
        let path = Sample.folder()
        defer { Sample.remove(path) }
        try JudgeTests.write(plain, to: path + "/plain")
        try #require(Judge.run("zstd -q -19 --no-check --single-thread '\(path)/plain' -o '\(path)/packed'") == 0)
        let packed = try JudgeTests.file(path + "/packed")
        var header = Array(file[..<256])
        header[10] = StoredID.zstandard
        var length: [UInt8] = []
        length.appendLittleEndian(UInt64(packed.count))
        header.replaceSubrange(24..<32, with: length)
        header.replaceSubrange(64..<96, with: try Hasher256().hash(packed).bytes)
        return HostileTests.sealed(Array(header[..<128]), checkAt: 124) + header[128...] + packed
    }

    static let all: [Evil] = [
        Evil(
            name: "a stream of 2^60 bytes",
            objects: {
                try replacing(3) { _ in
                    stream(start: 0, length: 1 << 60, runs: varints([1, 0, 1 << 60, 0]), rest: varints([0]))
                }
            }),
        Evil(
            name: "a stream past 2^60",
            objects: {
                try replacing(3) { _ in
                    stream(start: 1 << 63, length: .max, runs: varints([1, 0, .max, 0]), rest: varints([0]))
                }
            }),
        Evil(
            name: "four million runs",
            objects: {
                try replacing(3) { _ in
                    stream(start: 0, length: 1 << 30, runs: varints([4_194_304, 0, 1]), rest: varints([0, 0]))
                }
            }),
        Evil(
            name: "a count of 2^62 pages",
            objects: {
                try replacing(3) { _ in
                    stream(start: 0, length: 1 << 60, runs: varints([1, 0, 1 << 60, 0]), rest: varints([1 << 62]))
                }
            }),
        Evil(name: "a count of 2^32 packs", objects: { try replacing(2) { _ in [0xFF, 0xFF, 0xFF, 0xFF] } }),
        Evil(
            name: "volumes on top of each other",
            objects: {
                try point { body in
                    let found = try #require(sections(body).first { $0.type == 3 }).range
                    body += (0..<200).flatMap { _ in Array(body[found]) }
                }
            }),
        Evil(
            name: "facts that are nested for ever",
            objects: {
                try replacing(1) { _ in [UInt8](repeating: UInt8(ascii: "["), count: 8 << 20) }
            }),
        Evil(
            name: "facts nested within an unknown member",
            objects: {
                try replacing(1) { facts in
                    Array("{\"x\":".utf8) + [UInt8](repeating: UInt8(ascii: "["), count: 100_000)
                        + [UInt8](repeating: UInt8(ascii: "]"), count: 100_000) + Array(",".utf8) + facts.dropFirst()
                }
            }),
        Evil(
            name: "a name that talks to the terminal",
            objects: {
                try replacing(1) { facts in
                    Array(
                        String(decoding: facts, as: UTF8.self).replacing(
                            "\"sample\"", with: "\"\\u001b[2J\\u0007../../x\""
                        ).utf8)
                }
            }),
        Evil(name: "a body of 128 MiB from a few kilobytes", objects: { try bomb(128 << 20) }),
        Evil(
            name: "a body one byte too long",
            objects: {
                try point { $0 += section(0x7777, []) }.mapValues { file in
                    guard file.starts(with: Array("RLGTPOIN".utf8)) else { return file }
                    var header = Array(file[..<128])
                    header.replaceSubrange(16..<24, with: [1, 0, 0, 8, 0, 0, 0, 0])
                    return HostileTests.sealed(header, checkAt: 124) + file[128...]
                }
            }),
        Evil(
            name: "key slots that ask for 64 GiB",
            objects: {
                try base(encrypted: true).mapValues { file in
                    guard file.starts(with: KeySlot.magic) else { return file }
                    var slot = file
                    slot[40] = 24
                    slot[44] = 32
                    return HostileTests.sealed(Array(slot[..<256]), checkAt: 252) + slot[256...]
                }
            }),
        Evil(
            name: "ten thousand key slots", objects: { try base(encrypted: true) },
            shape: """
                f=$(ls keys/*.key | head -1)
                for i in $(seq 10000 20000); do ln "$f" keys/000000000000000000000000000$i.key; done
                """),
        Evil(
            name: "marks on everything",
            objects: {
                var objects = try base()
                for name in objects.keys where name.hasPrefix("packs/") {
                    objects["gone/\(name.dropFirst(9).prefix(32)).gone"] = []
                }
                return objects
            }),
        Evil(
            name: "moves in a circle",
            objects: {
                var objects = try base()
                let header = try #require(objects["set.a"])
                let set = try unsafe SetHeader(header.span.bytes)
                let packs = objects.keys.filter { $0.hasPrefix("packs/") }.compactMap {
                    ObjectID($0.dropFirst(9).prefix(32))
                }
                let names = packs + [ObjectID.random()]
                // Everything leads to the missing pack and back.
                let away = UInt32(names.count - 1)
                var moves: [MovesFile.Move] = []
                for number in packs.indices {
                    for place in 12..<4000 as Range<UInt32> {
                        moves.append(MovesFile.Move(oldPack: UInt32(number), old: place, newPack: away, new: place))
                    }
                }
                for place in 12..<4000 as Range<UInt32> {
                    moves.append(MovesFile.Move(oldPack: away, old: place, newPack: 0, new: place))
                }
                let id = ObjectID.random()
                let bytes = try MovesFile(moves[...], names: names).bytes(set, id: id)
                objects["moves/\(id.text).moves"] = bytes
                objects["copies/moves/\(id.text).moves"] = bytes
                for name in objects.keys where name.contains("packs/") { objects[name] = nil }
                return objects
            }),
        Evil(
            name: "footers that promise everything",
            objects: {
                try base().mapValues { file in
                    guard file.starts(with: Array("RLGTPACK".utf8)) else { return file }
                    let trailer = try HostileTests.trailer(file)
                    var footer = Array(file[trailer.offset..<trailer.offset + trailer.length])
                    footer.replaceSubrange(8..<16, with: [UInt8](repeating: 0xFF, count: 8))
                    return Array(file[..<trailer.offset]) + footer
                        + PackFooter.trailer(
                            offset: trailer.offset, length: footer.count, digest: try Hasher256().hash(footer))
                }
            }),
        Evil(
            name: "a parity section that promises everything",
            objects: {
                try base(parity: 5).mapValues { file in
                    guard file.starts(with: Array("RLGTPACK".utf8)) else { return file }
                    var result = file
                    for at in stride(from: 0, to: file.count - 128, by: 16)
                    where file[at...].starts(with: ParityHeader.magic) {
                        var header = Array(file[at..<at + 128])
                        for place in 32..<52 { header[place] = 0xFE }
                        result.replaceSubrange(at..<at + 128, with: HostileTests.sealed(header, checkAt: 124))
                    }
                    return result
                }
            }),
        Evil(
            name: "pipes, folders and links where objects should be", objects: { try base() },
            shape: """
                mkfifo points/00000000000000000000000000000001.point
                mkdir points/00000000000000000000000000000002.point
                ln -s /dev/zero points/00000000000000000000000000000003.point
                mkdir -p packs/00 copies/packs/00
                mkfifo packs/00/00000000000000000000000000000001.pack
                ln -s /dev/zero packs/00/00000000000000000000000000000002.pack
                ln -s ../../../.. packs/up
                ln -s . packs/loop
                mkfifo catalogue
                touch 'points/..%2f..%2fetc.point' 'points/ABCDEF00000000000000000000000000.point' "$(printf 'points/\\033[2J.point')"
                """),
        Evil(name: "a header that is a pipe", objects: { try base() }, shape: "rm set.a set.b; mkfifo set.a set.b"),
        Evil(
            name: "endless files", objects: { try base() },
            shape: """
                for f in points/*.point packs/*/*.pack set.b; do truncate -s 8E "$f" || truncate -s 15T "$f"; done
                """),
    ]
}
