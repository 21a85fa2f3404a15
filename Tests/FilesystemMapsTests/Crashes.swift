// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import Testing
import Tools

@testable import FilesystemMaps

/// How much of the long tests is run: `RELIGHT_TESTS=full`, which `make test-full` sets, is everything; else samples.
let isFullRun = unsafe getenv("RELIGHT_TESTS").map { unsafe String(cString: $0) } == "full"

/// A filesystem that is worked on and loses its power, turn by turn.
struct CrashSeries {
    let folder: ScratchFolder
    let image: String
    let size: ByteCount
    /// Options for mounting it.
    var options = ""

    private static let script =
        "/" + #filePath.split(separator: "/").dropLast(2).joined(separator: "/") + "/Judges/crash_filesystem.py"

    /// Whether filesystems can be mounted and stopped here.
    static let isPossible = python.path != nil && geteuid() == 0

    /// Mounts `image`, which lies in `folder`, runs `script` with the mount point as `$mnt`, unmounts.
    private func mounted(_ image: String, _ options: String, _ script: String) throws -> ToolOutput {
        try shell.run(
            [
                "-c",
                """
                cd "$1"; mnt="$1/mnt"; mkdir -p "$mnt"
                mount -o "loop$3" "$2" "$mnt" || exit 99
                ( \(script) ); status=$?
                umount "$mnt" || { sleep 1; umount "$mnt"; } || exit 98
                exit $status
                """, "mounted", folder.path, image, options,
            ])
    }

    /// One turn of work and a power cut.
    func crash(seed: Int) throws {
        let run = try mounted(
            image, options, "python3 \(Self.script) work \"$mnt\" \"$1/manifest\" \(seed)")
        guard run.status == 0 else {
            throw Fault(.toolFailed, what: "turn \(seed): \(run.status) \(run.lastWords)", remedy: "")
        }
    }

    /// Mounts `copy`, so that the kernel replays its journal, and compares what was promised. `nil` when all is there.
    func problem(of copy: String, options: String = "") throws -> String? {
        var run: ToolOutput
        var tries = 3
        repeat {
            run = try mounted(copy, options, "python3 \(Self.script) check \"$mnt\" \"$1/manifest\"")
            tries -= 1
        } while run.status == 3 && tries > 0
        return run.status == 0 ? nil : "\(run.status) \(run.lastWords)"
    }

    /// Mounts copies of both images, so that the kernel replays both journals, and compares all files. `nil` when they are
    /// the same.
    func difference(_ one: String, _ other: String, options: String = "") throws -> String? {
        let run = try shell.run(
            [
                "-c",
                """
                cd "$1"; mkdir -p one other
                cp --sparse=always "$2" one.img && mount -o "loop$4" one.img one || exit 97
                cp --sparse=always "$3" other.img && mount -o "loop$4" other.img other || { umount one; exit 96; }
                diff -r --no-dereference one other; status=$?
                umount one; umount other
                rm one.img other.img
                exit $status
                """, "difference", folder.path, one, other, options,
            ])
        return run.status == 0 ? nil : "\(run.status) \(run.lastWords)"
    }

    /// Number of files that must be there.
    func promised() throws -> Int {
        try shell.check(
            ["-c", "python3 -c 'import json,sys; print(len(json.load(open(sys.argv[1]))))' \"$1\"", "count", manifest]
        ).lastLine.split(separator: " ").last.flatMap { Int($0) } ?? 0
    }

    private var manifest: String { "\(folder.path)/manifest" }

    /// Copies the image to `name` beside it.
    func copy(_ name: String) throws -> String {
        try Tool("cp", package: "coreutils").check(["--sparse=always", image, "\(folder.path)/\(name)"])
        return "\(folder.path)/\(name)"
    }

    /// A file of the same size full of garbage but for what `used` names.
    func restored(_ used: ExtentList, _ name: String) throws -> String {
        let copy = try folder.file(name, size)
        try FilesystemMapsTests.restored(try FileSource(path: image), used, to: copy)
        return copy
    }
}
