// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemMaps
import FilesystemResize
import Findings
import Geometry
import Glibc
import MachineModel
import Testing
import Tools

let shell = Tool("bash", package: "bash")

/// Whether filesystems can be mounted and presented here.
let canMount = unsafe access("/dev/fuse", R_OK | W_OK) == 0 && geteuid() == 0

/// A folder that goes away with the value.
final class ScratchFolder: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/relight-resize-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw Fault(.system, what: "no scratch folder", remedy: "") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = try? Tool("rm", package: "coreutils").run(["-rf", path]) }
}

/// An image of a filesystem full of real files, and the hashes of those files.
struct FilledImage {
    let folder: ScratchFolder
    let path: String
    let source: FileSource
    /// `sha256  path` lines, sorted.
    let hashes: String

    static func sha256(_ path: String) throws -> String {
        try Tool("sha256sum", package: "coreutils").check([path], seconds: 300).standardOutput
    }

    /// Mounts `image` where nobody else sees it, read-only unless `writing`, and runs `script` in its folder.
    @discardableResult
    static func mounted(_ image: String, _ kind: String, writing: Bool = false, _ script: String) throws -> String {
        let mount =
            kind == "ntfs"
            ? "ntfs-3g -o \(writing ? "rw" : "ro"),streams_interface=windows"
            : "mount -t \(kind) -o loop,\(writing ? "rw" : kind == "xfs" ? "ro,norecovery,nouuid" : "ro")"
        return try Tool("unshare", package: "util-linux").check(
            [
                "-m", "--propagation", "slave", "bash", "-c",
                """
                set -e; mkdir "$1.mnt"; \(mount) "$1" "$1.mnt"
                trap 'cd /; umount "$1.mnt"; rmdir "$1.mnt"' EXIT
                cd "$1.mnt"; \(script)
                """, "bash", image,
            ], seconds: 600, limit: 64 << 20
        ).standardOutput
    }

    static let listing = "find . -type f -print0 | sort -z | xargs -0r sha256sum"

    /// Fills an image of `size` with files of this system until it is full, and takes every second one away again until
    /// `percent` of it are in use: what is left lies everywhere.
    init(_ kind: String, size: ByteCount, percent: Int, make: String) throws {
        folder = try ScratchFolder()
        path = "\(folder.path)/source.img"
        try shell.check(
            ["-c", "set -e; truncate -s \(size.bytes) \"$1\"; \(make) \"$1\" >/dev/null", "sh", path], seconds: 120)
        hashes = try FilledImage.mounted(
            path, kind, writing: true,
            """
            python3 - \(percent) <<'EOF'
            import os, random, sys
            def used():
                s = os.statvfs(".")
                return 100 - 100 * s.f_bfree // s.f_blocks
            names = []
            for top in ("/usr/lib", "/usr/share"):
                for folder, _, files in os.walk(top):
                    names += [os.path.join(folder, f) for f in files]
            names.sort()
            random.seed(1)
            made = []
            for n, name in enumerate(names):
                try:
                    if os.path.islink(name) or os.path.getsize(name) > 4 << 20: continue
                    content = open(name, "rb").read()
                except OSError: continue
                os.makedirs("d%d" % (n % 40), exist_ok=True)
                made.append("d%d/%d" % (n % 40, n))
                try:
                    with open(made[-1], "wb") as f: f.write(content)
                except OSError:
                    name = made.pop()
                    if os.path.exists(name): os.remove(name)
                    break
            os.sync()
            full = used()
            os.link(made[0], "hardlink")
            victims = made[1:]
            random.shuffle(victims)
            while used() > int(sys.argv[1]) and victims:
                for name in victims[:50]: os.remove(name)
                del victims[:50]
                os.sync()
            if full < 50: sys.exit("only %d %% full" % full)
            EOF
            sync; \(FilledImage.listing)
            """)
        source = try FileSource(path: path)
    }

    /// Writes the used bytes of `content` to a file of its length that holds garbage else.
    func write(_ content: any BlockSource, _ used: ExtentList, to name: String) throws -> String {
        let target = "\(folder.path)/\(name)"
        try shell.check([
            "-c", "head -c \(content.length.bytes) /dev/zero | tr '\\0' '\\245' > \"$1\"", "sh", target,
        ])
        let disk = try WritableDisk(claiming: target)
        for extent in used.extents {
            var position = extent.start
            while position < extent.end {
                let count = min(Int((extent.end - position).bytes), 1 << 20)
                let bytes = try content.bytes(at: position, count: count)
                try disk.blocks.write(at: position, unsafe bytes.span.bytes)
                position += ByteCount(UInt64(count))
            }
        }
        try disk.finish()
        return target
    }

    /// The share of used bytes that lie beyond `cut`, percent.
    func beyond(_ cut: ByteCount) throws -> UInt64 {
        let used = try FilesystemMaps.map(source).used
        let far = used.intersection(Extent(from: cut, to: source.length)).byteCount
        return far.bytes * 100 / used.byteCount.bytes
    }
}

/// The peak of the process's memory, bytes.
func peakMemory() -> UInt64 {
    let lines = (try? Tool("cat", package: "coreutils").run(["/proc/\(getpid())/status"]).standardOutput) ?? ""
    let line = lines.split(separator: "\n").first { $0.hasPrefix("VmHWM:") } ?? ""
    return (UInt64(line.filter(\.isNumber)) ?? 0) * 1024
}

extension FilledImage {
    /// Bytes in use.
    func used() throws -> ByteCount { try FilesystemMaps.map(source).used.byteCount }
}
