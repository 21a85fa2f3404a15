// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import MachineModel
import Testing
import Tools

@testable import FilesystemMaps

/// The damaged filesystems and waiting journals that e2fsck is tested with: `tests/f_*` and `tests/j_*` of the source of
/// e2fsprogs. Nothing is fetched here: `apt-get source e2fsprogs` gives them; RELIGHT_E2FSPROGS_TESTS names the folder
/// `tests`, else it is looked for in ~/.cache/relight/e2fsprogs/tests.
@Suite(.enabled(if: ExtCorpus.folder != nil, "the tests folder of e2fsprogs' source is not there"))
struct ExtCorpusTests {
    /// None makes the reader fail, hang, or map bytes outside; where e2fsck finds nothing wrong, it finds nothing wrong in
    /// what only the used blocks make; where a journal is replayed, it is as e2fsck replays it.
    @Test func everyImageHasAMapOrAReason() throws {
        var mapped = 0
        var whole = 0
        var sound = 0
        var replayed = 0
        var mended = 0
        for (name, file) in try ExtCorpus.images() {
            let folder = try ScratchFolder()
            let image = "\(folder.path)/image"
            try shell.check(
                [
                    "-c",
                    """
                    case "$1" in *.gz) gzip -dc "$1";; *.bz2) python3 -c 'import bz2,sys; sys.stdout.buffer.write(bz2.open(sys.argv[1]).read())' "$1";; esac |
                      cp --sparse=always /dev/stdin "$2"
                    truncate -s %512 "$2"
                    """, "unpack", file, image,
                ])
            guard let source = try? FileSource(path: image) else { continue }
            let clock = ContinuousClock()
            var map = VolumeMap(identity: Identity(kind: .unknown), whole: source.length)
            let time = try clock.measure { map = try FilesystemMaps.map(source) }
            #expect(time < .seconds(10), "\(name) takes \(time)")
            #expect(map.used.end <= source.length, "\(name)")
            guard map.wholeBecause == nil else {
                #expect(map.used.byteCount == source.length, "\(name)")
                whole += 1
                continue
            }
            mapped += 1
            if map.states == [.journalToReplay] {
                if try ExtJournalTests.judge(image, in: folder, "\(name)") != nil { replayed += 1 }
                try ExtJournalTests.expectComplete(image, map, in: folder, "\(name)")
            }
            if map.damage != nil {
                try Self.expectSameAfterRepair(source, map, image, folder, "\(name)")
                mended += 1
            }
            // On one of them e2fsck counts for minutes; that says nothing of the map.
            guard (try? e2fsck.run(["-fn", image], seconds: 60))?.status == 0 else { continue }
            let copy = try folder.file("copy", source.length)
            try restored(source, map.used, to: copy)
            let verdict = try e2fsck.run(["-fn", copy])
            #expect(verdict.status == 0, "\(name): \(verdict.lastWords)")
            sound += 1
        }
        print(
            "e2fsprogs' images: \(mapped) mapped, \(whole) whole; \(sound) sound, \(replayed) replayed, "
                + "\(mended) by copies")
        #expect(mapped > 50 && whole > 50 && sound > 0 && replayed > 5)
    }
}

extension ExtCorpusTests {
    /// What e2fsck makes of what only the used blocks make has the same files as what it makes of the source.
    static func expectSameAfterRepair(
        _ source: any BlockSource, _ map: VolumeMap, _ image: String, _ folder: ScratchFolder, _ comment: Comment
    ) throws {
        let copy = try folder.file("mended", source.length)
        try restored(source, map.used, to: copy)
        try Tool("cp", package: "coreutils").check(["--sparse=always", image, "\(folder.path)/original"])
        var trees: [String] = []
        for path in [copy, "\(folder.path)/original"] {
            // One that it does not mend within a minute says nothing.
            guard let run = try? e2fsck.run(["-fy", path], seconds: 60), run.status <= 1 else { return }
            let out = try ExtTests.contents(path, folder, "files\(trees.count)")
            trees.append(out)
        }
        let difference = try Tool("diff", package: "diffutils").run(["-r", "--no-dereference"] + trees)
        #expect(difference.status == 0, "\(comment): \(difference.lastWords)")
    }
}

/// Where the images are.
enum ExtCorpus {
    static let folder: String? = {
        let named = unsafe getenv("RELIGHT_E2FSPROGS_TESTS").map { unsafe String(cString: $0) }
        let home = unsafe getenv("HOME").map { unsafe String(cString: $0) } ?? ""
        let path = named ?? "\(home)/.cache/relight/e2fsprogs/tests"
        return unsafe access("\(path)/f_zero_super/image.gz", R_OK) == 0 ? path : nil
    }()

    /// Names of the tests, and their images.
    static func images() throws -> [(name: String, file: String)] {
        let listed = try shell.check(
            ["-c", "cd \"$1\" && ls -d [fj]_*/image.gz [fj]_*/image.bz2 2>/dev/null || true", "list", folder ?? "/"]
        ).standardOutput
        return listed.split(separator: "\n").map { line in
            (String(line.prefix { $0 != "/" }), "\(folder ?? "")/\(line)")
        }
    }
}
