// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import Testing
import Tools

@testable import FileTrees

/// Programs that are no children anybody would want.
private func stub(_ scratch: Scratch, _ script: String) throws -> String {
    try scratch.sh("printf '#!/bin/bash\\n%s\\n' \"$1\" > stub; chmod 755 stub", [script])
    return "\(scratch.path)/stub"
}

private func limits(silence: Double) -> ProbeLimits {
    var result = ProbeLimits()
    result.silence = silence
    return result
}

@Suite struct BadChildTests {
    private func fault(_ script: String, silence: Double = 20) throws -> Fault? {
        let scratch = try Scratch()
        var host = ProbeHost.child(program: try stub(scratch, script))
        host.limits = limits(silence: silence)
        let disk = MemoryDisk([UInt8](repeating: 0, count: 1 << 20), name: "/dev/sdx:2")
        return #expect(throws: Fault.self) { _ = try host.tree(of: disk, kind: "ntfs") }
    }

    @Test func aCrashIsAFaultThatNamesTheVolume() throws {
        let fault = try fault("kill -SEGV $$")
        #expect(fault?.code == .probeFailed && fault?.place == "/dev/sdx:2")
        #expect(fault?.what.contains("crashed (signal 11)") == true, "\(String(describing: fault))")
    }

    @Test func aHangEndsWithTheLimit() throws {
        let begun = ProbeSocket.now()
        let fault = try fault("while :; do :; done", silence: 1)
        #expect(fault?.code == .probeFailed && fault?.what.contains("was stopped") == true)
        #expect(ProbeSocket.now() - begun < 10)
    }

    @Test func whatMakesNoSenseIsAFault() throws {
        // A frame of 4 GiB; a frame of an unknown kind; a read past all bounds, of 4 GiB and of a whole disk.
        for bytes in [
            "\\\\xff\\\\xff\\\\xff\\\\xff", "\\\\x01\\\\x00\\\\x00\\\\x00\\\\x09",
            "\\\\x0d\\\\x00\\\\x00\\\\x00\\\\x03\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\xff\\\\xff\\\\xff\\\\xff",
            "\\\\x02\\\\x00\\\\x00\\\\x00\\\\x03\\\\x00",
        ] {
            let fault = try fault("printf \"\(bytes)\"; sleep 5")
            #expect(fault?.what.contains("said what it never should") == true, "\(String(describing: fault))")
        }
    }

    @Test func anEndlessReaderIsStopped() throws {
        let fault = try fault(
            "while :; do printf \"\\\\x0d\\\\x00\\\\x00\\\\x00\\\\x03\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00\\\\x00"
                + "\\\\x00\\\\x00\\\\x10\\\\x00\"; head -c 1048582 >/dev/null; done", silence: 5)
        #expect(fault?.code == .probeFailed && fault?.what.contains("was stopped") == true)
    }

    @Test func aMissingProgramIsAFault() throws {
        let host = ProbeHost.child(program: "/nonexistent/relight")
        #expect(throws: Fault.self) {
            _ = try host.tree(of: MemoryDisk([UInt8](repeating: 0, count: 4096)), kind: "ext4")
        }
    }

    @Test func onlyTheEnvironmentMounts() throws {
        let disk = MemoryDisk([UInt8](repeating: 0, count: 1 << 20))
        for kind in ["xfs", "btrfs", "f2fs"] {
            let fault = #expect(throws: Fault.self) { _ = try ProbeHost.inProcess.tree(of: disk, kind: kind) }
            #expect(fault?.code == .unsupported)
        }
        var host = ProbeHost.child(program: "/bin/true")
        host.allowsMounting = true
        let fault = #expect(throws: Fault.self) { _ = try host.tree(of: disk, kind: "xfs") }
        #expect(fault?.what.contains("in a layer") == true)
    }
}

@Suite(.enabled(if: program != nil, "the program relight is needed")) struct ChildTests {
    private var host: ProbeHost { ProbeHost.child(program: program ?? "") }

    @Test(.enabled(if: haveExt)) func aChildReadsExtAsThisProcessDoes() throws {
        let scratch = try Scratch()
        _ = try scratch.content(links: true)
        try scratch.sh("truncate -s 64M image; mke2fs -q -t ext4 -d tree image")
        let before = try scratch.hash
        let image = try scratch.image
        let tree = try host.tree(of: image, kind: "ext4")
        #expect(tree is ProbedTree)
        let own = try ExtFileTree(image)
        #expect(try tree.everything() == own.everything())
        #expect(try tree.everything().count > 700)
        #expect(try tree.find("usr/absolute/out")?.path == ["etc", "hostname"])
        #expect(try scratch.hash == before)
    }

    @Test(.enabled(if: haveNTFS)) func aChildReadsNTFSAsThisProcessDoes() throws {
        let scratch = try Scratch()
        try scratch.ntfs()
        let before = try scratch.hash
        let image = try scratch.image
        let tree = try host.tree(of: image, kind: "ntfs")
        let own = try NTFSFileTree(image)
        #expect(try tree.everything() == own.everything())
        #expect(try tree.streams(["etc", "hostname"]) == own.streams(["etc", "hostname"]))
        #expect(try tree.find("etc/hostname")?.entry.attributes == own.find("etc/hostname")?.entry.attributes)
        let fault = #expect(throws: Fault.self) { try tree.file("usr/lib/os-release") }
        #expect(fault?.code == .unsupported)
        // A fault of a file is none of the child: it goes on.
        #expect(try tree.file("etc/hostname") == Array("name\n".utf8))
        #expect(try scratch.hash == before)
    }

    @Test(.enabled(if: haveExt)) func aBadSectorIsAFaultOfWhatLiesThere() throws {
        let scratch = try Scratch()
        _ = try scratch.content(links: false)
        try scratch.sh("truncate -s 64M image; mke2fs -q -t ext4 -b 4096 -d tree image")
        let block = try scratch.sh("debugfs -R 'blocks usr/lib/large' image 2>/dev/null").split(separator: " ").first
        let first = try #require(block.flatMap { UInt64($0) })
        let bad = Extent(from: ByteCount(first * 4096), to: ByteCount(first * 4096 + 512))
        let tree = try host.tree(of: Faulty(scratch.image, bad: ExtentList(bad)), kind: "ext4")
        let fault = #expect(throws: Fault.self) { try tree.whole("usr/lib/large") }
        #expect(fault?.code == .unreadable, "\(String(describing: fault))")
        #expect(try tree.file("etc/hostname") == Array("name\n".utf8))
    }

    @Test(.enabled(if: haveExt)) func aChildHasNoRightsAndNoDisk() throws {
        try #require(geteuid() == 0, "needs root")
        let scratch = try Scratch()
        _ = try scratch.content(links: false)
        try scratch.sh("truncate -s 16M image; mke2fs -q -t ext4 -d tree image")
        let tree = try host.tree(of: scratch.image, kind: "ext4")
        let children = try scratch.sh("cat /proc/$PPID/task/*/children").split(separator: " ").compactMap { Int($0) }
        var probes = 0
        for child in children {
            guard let words = try? scratch.sh("tr '\\0' ' ' < /proc/$1/cmdline", ["\(child)"]),
                words.contains(ProbeChild.verb)
            else { continue }
            let status = try scratch.sh("grep -E '^(Uid|Gid|CapEff|NoNewPrivs)' /proc/$1/status", ["\(child)"])
            let open = try scratch.sh("ls -l /proc/$1/fd", ["\(child)"])
            if open.contains(scratch.path) { Issue.record("the child has the disk open: \(open)") }
            // Other tests' children may not have come so far.
            if status.contains("Uid:\t65534\t65534\t65534\t65534") {
                #expect(status.contains("CapEff:\t0000000000000000") && status.contains("NoNewPrivs:\t1"), "\(status)")
                probes += 1
            }
        }
        #expect(probes >= 1)
        withExtendedLifetime(tree) {}
    }

    /// Changed file records, folders and boot sectors, read by children: this process lives, and each child ends.
    @Test(.enabled(if: haveNTFS)) func mutatedNTFSDoesThisProcessNoHarm() throws {
        let scratch = try Scratch()
        try scratch.ntfs()
        let sound = try scratch.image.bytes(at: .zero, count: 24 << 20)
        var places = [0, 0]
        for offset in stride(from: 0, to: sound.count - 1024, by: 1024)
        where sound[offset..<offset + 4].elementsEqual("FILE".utf8)
            || sound[offset..<offset + 4].elementsEqual("INDX".utf8)
        {
            places.append(offset)
        }
        #expect(places.count > 100)
        var random = Mutation(seed: 9)
        var (refused, failed) = (0, 0)
        var host = host
        host.limits = limits(silence: 3)
        for round in 0..<(isFull ? 1200 : 40) {
            let disk = MemoryDisk(
                random.changed(sound, below: 0, at: round % 4 == 0 ? Array(places.prefix(40)) : places))
            do throws(Fault) {
                let tree = try host.tree(of: disk, kind: "ntfs")
                _ = try tree.everything(most: 150)
            } catch {
                if error.code == .probeFailed { failed += 1 } else { refused += 1 }
            }
        }
        print("mutated NTFS: \(refused) refused, \(failed) children crashed or were stopped")
    }

    @Test(.enabled(if: haveExt)) func mutatedExtDoesThisProcessNoHarm() throws {
        let scratch = try Scratch()
        _ = try scratch.content(links: true)
        try scratch.sh("truncate -s 16M image; mke2fs -q -t ext4 -O ^metadata_csum -d tree image")
        let sound = try scratch.image.bytes(at: .zero, count: 16 << 20)
        var random = Mutation(seed: 2)
        var host = host
        host.limits = limits(silence: 3)
        for _ in 0..<(isFull ? 1200 : 40) {
            let disk = MemoryDisk(random.changed(sound, below: 2 << 20))
            do throws(Fault) {
                _ = try host.tree(of: disk, kind: "ext4").everything(most: 150)
            } catch {
                #expect([.treeDamaged, .probeFailed, .unreadable, .unsupported].contains(error.code), "\(error)")
            }
        }
    }
}
