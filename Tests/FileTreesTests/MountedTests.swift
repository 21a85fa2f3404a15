// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import Testing
import Tools

@testable import FileTrees

/// Whether this kernel mounts what `mkfs` makes, from a file.
private func canMount(_ mkfs: String) -> Bool {
    guard geteuid() == 0, program != nil, Tool(mkfs, package: "").path != nil, let scratch = try? Scratch() else {
        return false
    }
    let script =
        "truncate -s 320M image; $1 -q image; mkdir mnt; unshare -m --propagation slave mount -o loop image mnt"
    return (try? scratch.sh(script, [mkfs])) != nil
}

private let haveXFS = canMount("mkfs.xfs")
private let haveBtrfs = canMount("mkfs.btrfs")

/// What only the kernel reads, as it is read in the booted environment.
@Suite struct MountedTests {
    private func look(_ scratch: Scratch, _ kind: String, _ body: (any FileTree) throws -> Void) throws {
        var host = ProbeHost.child(program: program ?? "")
        host.allowsMounting = true
        let before = try scratch.hash
        do {
            // Behind a MiB of something else, as a partition lies.
            try scratch.sh("truncate -s 1M disk; cat image >> disk")
            let whole = try FileSource(path: "\(scratch.path)/disk")
            let window = try Window(
                whole, Extent(from: .mebibytes(1), to: whole.length), name: "disk:1")
            let tree = try host.tree(of: window, kind: kind)
            try body(tree)
            #expect(try scratch.sh("cat /proc/$PPID/mounts").contains("\(scratch.path)") == false)
            withExtendedLifetime(tree) {}
        }
        #expect(try scratch.sh("losetup --list --noheadings --output BACK-FILE").contains(scratch.path) == false)
        #expect(try scratch.sh("tail -c +1048577 disk | sha256sum").prefix(64) == before.prefix(64))
    }

    private func check(_ tree: any FileTree, _ scratch: Scratch, below: String = "") throws {
        for file in ["etc/hostname", "usr/lib/large", "etc/os-release"] {
            let expected = try Tool("cat", package: "coreutils").check(["\(scratch.path)/tree/\(file)"]).standardOutput
            #expect(try tree.whole(below + file) == Array(expected.utf8), "\(file)")
        }
        #expect(try tree.find("\(below)loop1") == nil && tree.find("\(below)nothing") == nil)
        #expect(try tree.names(in: "\(below)many").count == 700)
    }

    @Test(.enabled(if: haveXFS, "mkfs.xfs, root and a kernel with XFS are needed")) func anXFSIsRead() throws {
        let scratch = try Scratch()
        _ = try scratch.content(links: true)
        try scratch.sh(
            """
            truncate -s 320M image; mkfs.xfs -q image; mkdir mnt
            unshare -m --propagation slave bash -euc 'mount -o loop image mnt; cp -a tree/. mnt/; umount mnt'
            """)
        try look(scratch, "xfs") { tree in
            try check(tree, scratch)
            #expect(try tree.find("lib/out")?.path == ["etc", "hostname"])
        }
    }

    @Test(.enabled(if: haveBtrfs, "mkfs.btrfs, root and a kernel with Btrfs are needed")) func subvolumesAreFolders()
        throws
    {
        let scratch = try Scratch()
        _ = try scratch.content(links: true)
        try scratch.sh(
            """
            truncate -s 320M image; mkfs.btrfs -q image; mkdir mnt
            unshare -m --propagation slave bash -euc 'mount -o loop image mnt; btrfs subvolume create mnt/@ >/dev/null; cp -a tree/. mnt/@/
              btrfs subvolume set-default $(btrfs subvolume list mnt | cut -d" " -f2) mnt; umount mnt'
            """)
        try look(scratch, "btrfs") { tree in try check(tree, scratch, below: "@/") }
    }

    @Test(.enabled(if: haveXFS, "mkfs.xfs, root and a kernel with XFS are needed")) func damageIsAFault() throws {
        let scratch = try Scratch()
        try scratch.sh(
            "truncate -s 320M image; mkfs.xfs -q image; printf 'XXXX' | dd of=image bs=1 conv=notrunc status=none")
        var host = ProbeHost.child(program: program ?? "")
        host.allowsMounting = true
        let fault = #expect(throws: Fault.self) { _ = try host.tree(of: scratch.image, kind: "xfs") }
        #expect(fault?.code == .treeDamaged, "\(String(describing: fault))")
    }
}
