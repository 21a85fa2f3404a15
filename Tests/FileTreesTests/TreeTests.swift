// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Testing
import Tools

@testable import FileTrees

/// What is in a folder of this machine, to compare with.
private func expected(_ scratch: Scratch, _ path: String) throws -> [UInt8] {
    let file = try Tool("cat", package: "coreutils").check(["\(scratch.path)/\(path)"], limit: 8 << 20)
    return Array(file.standardOutput.utf8)
}

private let textFiles = ["etc/hostname", "etc/empty", "usr/lib/os-release", "usr/lib/large", "many/file-number-699"]

@Suite(.enabled(if: haveExt, "e2fsprogs are needed")) struct ExtTreeTests {
    static let shapes = [
        "-t ext4", "-t ext2 -b 1024", "-t ext3", "-t ext4 -O inline_data -I 256", "-t ext4 -O bigalloc -C 16384",
        "-t ext4 -O meta_bg,64bit,^resize_inode -b 2048",
    ]

    @Test(arguments: shapes) func filesAndLinksAreRead(_ options: String) throws {
        let scratch = try Scratch()
        _ = try scratch.content(links: true)
        try scratch.sh("truncate -s 64M image; mke2fs -q $1 -d tree image", [options])
        let before = try scratch.hash
        let tree = try ExtFileTree(scratch.image)
        for file in textFiles + ["usr/lib/deep/er/A Long Name of a File.txt"] {
            #expect(try tree.whole(file) == expected(scratch, "tree/\(file)"), "\(file)")
        }
        #expect(try tree.whole("sparse") == [UInt8](repeating: 0, count: 5 << 20) + Array("end\n".utf8))
        for (link, target) in [
            ("etc/os-release", "usr/lib/os-release"), ("usr/absolute/os-release", "usr/lib/os-release"),
            ("lib/out", "etc/hostname"), ("lib/long", "usr/lib/os-release"),
        ] {
            let place = try #require(try tree.find(link))
            #expect(place.path.joined(separator: "/") == target)
            #expect(try tree.file(link) == expected(scratch, "tree/\(target)"))
        }
        #expect(
            try tree.find("loop1") == nil && tree.find("nothing/there") == nil && tree.find("etc/hostname/x") == nil)
        #expect(try tree.find("ETC/hostname") == nil)
        #expect(try tree.names(in: "many").count == 700)
        #expect(try tree.list(["many"], most: 5).count == 5)
        #expect(try tree.find("pipe")?.entry.kind == .other)
        #expect(try scratch.hash == before)
    }

    @Test func whatWaitsInTheJournalIsRead() throws {
        let scratch = try Scratch()
        _ = try scratch.content(links: false)
        try scratch.sh(
            """
            truncate -s 64M image; mke2fs -q -t ext4 -b 4096 -d tree image
            head -c 4096 /dev/zero > new; printf 'after' | dd of=new conv=notrunc status=none
            block=$(debugfs -R 'blocks etc/hostname' image 2>/dev/null | tr -d ' ')
            printf 'jo\\njw -b %s new\\njc\\n' "$block" > script; debugfs -w -f script image >/dev/null 2>&1
            dumpe2fs -h image 2>/dev/null | grep -q needs_recovery
            """)
        #expect(try ExtFileTree(scratch.image).file("etc/hostname") == Array("after".utf8))
    }

    @Test func aFolderThatIsTornNamesItself() throws {
        let scratch = try Scratch()
        _ = try scratch.content(links: false)
        try scratch.sh(
            """
            truncate -s 32M image; mke2fs -q -t ext4 -d tree image
            printf 'sif etc size 0\\nsif usr/lib/large block[0] 0\\n' > script
            debugfs -w -f script image >/dev/null 2>&1
            """)
        let tree = try ExtFileTree(scratch.image)
        let fault = #expect(throws: Fault.self) { try tree.whole("usr/lib/large") }
        #expect(fault?.code == .treeDamaged)
    }

    @Test func whatIsNoExtIsRefused() throws {
        let fault = #expect(throws: Fault.self) { try ExtFileTree(MemoryDisk([UInt8](repeating: 0, count: 1 << 20))) }
        #expect(fault?.code == .treeDamaged && fault?.place == "memory")
    }
}

@Suite(.enabled(if: haveFAT, "dosfstools and mtools are needed")) struct FATTreeTests {
    @Test(arguments: [
        "-F 12 -C image 12000", "-F 16 -C image 60000", "-F 32 -C image 70000", "-F 32 -s 1 -S 4096 -C image 400000",
    ])
    func filesAreReadInAnyCase(_ options: String) throws {
        let scratch = try Scratch()
        _ = try scratch.content(links: false)
        try scratch.sh("mkfs.fat $1 >/dev/null; mcopy -s -i image tree/etc tree/usr tree/many ::", [options])
        let before = try scratch.hash
        let tree = try FATFileTree(scratch.image)
        for file in textFiles { #expect(try tree.whole(file) == expected(scratch, "tree/\(file)"), "\(file)") }
        let long = "usr/lib/deep/er/A Long Name of a File.txt"
        #expect(try tree.whole(long.uppercased()) == expected(scratch, "tree/\(long)"))
        #expect(try tree.names(in: "MANY").count == 700)
        #expect(Set(try tree.names(in: "").map(\.name)) == ["etc", "usr", "many"])
        #expect(try tree.find("usr/lib/../../etc/hostname")?.entry.kind == .file)
        #expect(try tree.find("nothing") == nil)
        #expect(try scratch.hash == before)
    }

    @Test func mutationsDoNoHarm() throws {
        let scratch = try Scratch()
        _ = try scratch.content(links: false)
        try scratch.sh("mkfs.fat -F 12 -C image 4000 >/dev/null; mcopy -s -i image tree/etc tree/usr ::")
        let sound = try scratch.image.bytes(at: .zero, count: 4_096_000)
        var random = Mutation(seed: 5)
        for _ in 0..<(isFull ? 4000 : 150) {
            guard let tree = try? FATFileTree(MemoryDisk(random.changed(sound, below: 40_000))) else { continue }
            _ = try? tree.everything(most: 200)
        }
    }
}

@Suite(.enabled(if: haveNTFS, "ntfs-3g, FUSE, python3 and root are needed")) struct NTFSTreeTests {
    @Test func plainCompressedAndSparseFilesAreReadThroughLibntfs3g() throws {
        let scratch = try Scratch()
        try scratch.ntfs()
        let before = try scratch.hash
        let tree = try NTFSFileTree(scratch.image)
        for file in textFiles where file != "usr/lib/os-release" {
            #expect(try tree.whole(file) == expected(scratch, "tree/\(file)"), "\(file)")
        }
        let packed = try #require(try tree.find("packed/NUMBERS"))
        #expect((packed.entry.attributes ?? 0) & 0x800 != 0, "the file is compressed")
        #expect(try tree.whole("Packed/numbers") == expected(scratch, "numbers"))
        #expect(try tree.whole("sparse") == [UInt8](repeating: 0, count: 3 << 20) + Array("end\n".utf8))
        #expect(try tree.names(in: "many").count == 700)
        // Names as they are stored, and no file of the filesystem itself.
        #expect(Set(try tree.names(in: "").map(\.name)) == ["etc", "usr", "many", "Packed", "sparse"])
        #expect(try tree.find("nothing") == nil && tree.find("etc/hostname/x") == nil)
        #expect(try scratch.hash == before)
    }

    @Test func streamsAreReadByName() throws {
        let scratch = try Scratch()
        try scratch.ntfs()
        let tree = try NTFSFileTree(scratch.image)
        let path = ["etc", "HOSTNAME"]
        #expect(
            Set(try tree.streams(path)) == [TreeStream(name: "zone", size: 11), TreeStream(name: "Other", size: 6)])
        #expect(try tree.read(path, stream: "zone", from: 3, count: 100) == Array("a stream".utf8))
        #expect(try tree.read(path, stream: "none", from: 0, count: 100) == [])
        #expect(try tree.file("etc/hostname") == Array("name\n".utf8))
    }

    @Test func aFileThatLiesElsewhereIsNamedAndNotRead() throws {
        let scratch = try Scratch()
        try scratch.ntfs()
        let tree = try NTFSFileTree(scratch.image)
        let place = try #require(try tree.find("usr/lib/os-release"))
        #expect(place.entry.reparseTag == 0x8000_0017)
        let fault = #expect(throws: Fault.self) { try tree.read(place.path, stream: nil, from: 0, count: 10) }
        #expect(fault?.code == .unsupported && fault?.what.contains("WOF") == true)
    }

    @Test func whatIsNoNTFSIsRefused() throws {
        let fault = #expect(throws: Fault.self) { try NTFSFileTree(MemoryDisk([UInt8](repeating: 0, count: 1 << 20))) }
        #expect(fault?.code == .treeDamaged)
    }
}

/// Changes to a volume's bytes that depend on the seed alone.
struct Mutation {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next(below bound: Int) -> Int {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return Int(state >> 33) % max(1, bound)
    }

    /// A copy with a few bytes below `bound`, or at the places given, changed.
    mutating func changed(_ bytes: [UInt8], below bound: Int, at places: [Int] = []) -> [UInt8] {
        var result = bytes
        for _ in 0...next(below: 6) {
            let place = places.isEmpty ? next(below: bound) : places[next(below: places.count)] + next(below: 1024)
            guard place < result.count else { continue }
            switch next(below: 3) {
            case 0: result[place] = UInt8(next(below: 256))
            case 1: result[place] = 0xFF
            default: result[place] ^= 1 << UInt8(next(below: 8))
            }
        }
        return result
    }
}
