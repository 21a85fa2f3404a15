// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks

import Findings
import Geometry
import MachineModel
import PointDisk
import Testing
import Tools

@testable import FilesystemResize

private let hasXFS = (try? shell.run(["-c", "grep -qw xfs /proc/filesystems"]).status) == 0

@Suite(.enabled(if: canMount, "needs root and /dev/fuse"), .serialized)
struct RecreateTests {
    /// A smaller XFS with the files, the attributes, the identity and no newer feature.
    @Test(.enabled(if: hasXFS, "needs the kernel's xfs")) func xfsByFiles() throws {
        let id = "0f8a2d2c-8a5e-4c5e-9d0e-3b6f4a7c1d22"
        let image = try FilledImage(
            "xfs", size: .mebibytes(560), percent: 45,
            make: "mkfs.xfs -q -m uuid=\(id),rmapbt=0,reflink=0,bigtime=0,inobtcount=0 -i size=1024 -L data")
        let extras = """
            python3 - <<'EOF'
            import os
            os.truncate(os.open("holes", os.O_CREAT | os.O_WRONLY), 50 << 20)
            with open("holes", "r+b") as f: f.seek(20 << 20); f.write(b"x" * 5000)
            open("able", "w").write("x"); os.chmod("able", 0o4751)
            os.setxattr("able", "user.colour", b"blue"); os.setxattr("able", "trusted.t", b"1")
            os.setxattr("able", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
            os.symlink("nowhere", "dangling"); os.mkfifo("pipe"); os.mknod("null", 0o20666, os.makedev(1, 3))
            os.chown("able", 1234, 5678, follow_symlinks=False)
            os.setxattr("able", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
            os.utime("able", ns=(10**18 + 1, 10**18 + 7))
            EOF
            """
        try FilledImage.mounted(image.path, "xfs", writing: true, extras)
        let listing = """
            \(FilledImage.listing)
            find . ! -type d -printf '%P %y %m %U %G %s %n %T@ %l %b\\n' | sort
            stat -c %i d0/0 hardlink | uniq | wc -l
            python3 -c 'import os
            for f, ds, fs in sorted(os.walk(".")):
                for n in sorted(fs):
                    p = os.path.join(f, n)
                    for a in sorted(os.listxattr(p, follow_symlinks=False)):
                        print(p, a, os.getxattr(p, a, follow_symlinks=False).hex())'
            """
        let before = try FilledImage.mounted(image.path, "xfs", listing)
        let hash = try FilledImage.sha256(image.path)
        let recreator = try Recreator(.xfs, room: ScratchRoom(memory: .mebibytes(64)), events: { _ in })
        let made = try recreator.recreate(try FileSource(path: image.path), size: .mebibytes(336), sectors: .s512)
        let figures = made.figures
        print(
            """
            FIGURES XFS by files, 560 to 336 MiB: written \(figures.written), copied as references \(figures.moved), kept \
            \(figures.kept), memory \(figures.memory), used afterwards \(made.used.byteCount)
            """)
        #expect(figures.memory.bytes <= figures.moved.bytes / 4)
        let target = try image.write(made.content, made.used, to: "target.img")
        let judged = try shell.run(["-c", "xfs_repair -n \"$1\"", "sh", target], seconds: 300)
        #expect(judged.status == 0, "\(judged.lastWords)")
        #expect(try FilledImage.mounted(target, "xfs", listing) == before)
        #expect(try FilledImage.sha256(image.path) == hash, "the source was changed")
        let seen = try shell.check([
            "-c", "blkid -p \"$1\"; xfs_db -r -c version -c 'sb 0' -c 'p inodesize' \"$1\"", "sh", target,
        ])
        .standardOutput
        #expect(seen.contains(id) && seen.contains("LABEL=\"data\"") && seen.contains("inodesize = 1024"), "\(seen)")
        for feature in ["REFLINK", "RMAPBT", "BIGTIME", "INOBTCNT"] { #expect(!seen.contains(feature), "\(seen)") }
    }

    @Test func othersAreNotMadeAnew() {
        #expect {
            try Recreator(.ntfs, room: ScratchRoom(memory: .zero), events: { _ in })
        } throws: {
            ($0 as? Fault)?.code == .unsupported
        }
    }

    @Test func sectorsAreNoSmallerThanTheDisks() throws {
        let shown = """
            meta-data=/dev/loop0  isize=512    agcount=4, agsize=32768 blks
                     =            sectsz=512   attr=2, projid32bit=1
                     =            crc=1        finobt=1, sparse=1, rmapbt=0
            data     =            bsize=4096   blocks=131072, imaxpct=25
            """
        func size(_ sectors: SectorSize) throws -> String? {
            let options = try XFSMaker.features(shown, sectors: sectors)
            return options.firstIndex(of: "-s").map { options[$0 + 1] }
        }
        #expect(try size(.s512) == "size=512" && size(.s4096) == "size=4096")
        let small = shown.replacing("bsize=4096", with: "bsize=1024")
        #expect(throws: Fault.self) { try XFSMaker.features(small, sectors: .s4096) }
        #expect(throws: Never.self) { try XFSMaker.features(small, sectors: .s512) }
    }
}
