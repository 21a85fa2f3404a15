// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import Testing
import Tools

@testable import DiskSurvey

let lvmTool = Tool("lvm", package: "lvm2")
let mdadm = Tool("mdadm", package: "mdadm")
let cryptsetup = Tool("cryptsetup", package: "cryptsetup-bin")
let python = Tool("python3", package: "python3")
let losetup = Tool("losetup", package: "mount")
let e2fsck = Tool("e2fsck", package: "e2fsprogs")
let debugfs = Tool("debugfs", package: "e2fsprogs")
let mkxfs = Tool("mkfs.xfs", package: "xfsprogs")
let xfsrepair = Tool("xfs_repair", package: "xfsprogs")
let shell = Tool("sh", package: "dash")
let haveLVM = haveLoop && haveTools && lvmTool.path != nil
let haveLUKS = haveTools && [cryptsetup, python].allSatisfy { $0.path != nil }

extension ScratchDisk {
    /// Copies `count` bytes of the file `from` at byte `offset` of it to byte `to` of this disk.
    func copy(_ from: String, at offset: UInt64, _ count: UInt64, to place: UInt64) throws {
        let source = try FileSource(path: from)
        let disk = try WritableDisk(claiming: path)
        var done: UInt64 = 0
        while done < count {
            let bytes = try source.bytes(at: ByteCount(offset + done), count: Int(min(1 << 20, count - done)))
            try disk.blocks.write(at: ByteCount(place + done), unsafe bytes.span.bytes)
            done += UInt64(bytes.count)
        }
        try disk.finish()
    }

    var hash: String {
        get throws { try Tool("sha256sum", package: "coreutils").check([path]).standardOutput.prefix(64).description }
    }

    /// A disk with what `used` names of this one, and bytes of 0xA5 everywhere else.
    func restored(_ used: ExtentList) throws -> ScratchDisk {
        let result = try ScratchDisk(size)
        let source = try FileSource(path: path)
        let disk = try WritableDisk(claiming: result.path)
        let garbage = [UInt8](repeating: 0xA5, count: 1 << 20)
        for gap in used.complement(in: Extent(from: .zero, to: size)).extents {
            var position = gap.start
            while position < gap.end {
                let count = min((gap.end - position).int ?? 0, garbage.count)
                try disk.blocks.write(at: position, unsafe garbage.span.bytes.extracting(0..<count))
                position += ByteCount(UInt64(count))
            }
        }
        for extent in used.extents {
            var position = extent.start
            while position < extent.end {
                let bytes = try source.bytes(at: position, count: min((extent.end - position).int ?? 0, 1 << 20))
                try disk.blocks.write(at: position, unsafe bytes.span.bytes)
                position += ByteCount(UInt64(bytes.count))
            }
        }
        try disk.finish()
        return result
    }
}

/// A folder that goes away with the value.
final class ScratchFolder {
    let path: String

    init() throws {
        var template = Array("/tmp/relight-layers-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw Fault(.system, what: "no scratch folder", remedy: "") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = try? Tool("rm", package: "coreutils").run(["-rf", path]) }

    func write(_ name: String, _ text: String) throws -> String {
        let file = "\(path)/\(name)"
        try Tool("tee", package: "coreutils").check([file], input: Array(text.utf8))
        return file
    }
}

/// Files of many sizes, and an ext4 filesystem with them.
enum Content {
    /// Makes the tree below `folder`; `mark` is the beginning of every file.
    static func tree(_ folder: ScratchFolder, mark: String) throws -> String {
        let root = "\(folder.path)/tree-\(mark)"
        try shell.check([
            "-c",
            """
            set -e; mkdir -p "$1/sub/deeper"; cd "$1"
            for size in 0 1 511 4096 5000 65536 131073 700001; do
              { echo "$2 $size"; head -c $size /dev/urandom; } > file$size; cp file$size sub/copy$size
            done
            for n in $(seq 1 60); do echo "$2 small $n" > sub/deeper/s$n; done
            """, "tree", root, mark,
        ])
        return root
    }

    /// An ext4 filesystem of `size` with the tree, or an empty one.
    static func ext4(_ size: ByteCount, _ tree: String? = nil) throws -> ScratchDisk {
        let disk = try ScratchDisk(size)
        try mke2fs.check(["-q", "-F", "-t", "ext4", "-b", "4096"] + (tree.map { ["-d", $0] } ?? []) + [disk.path])
        return disk
    }

    /// Whether e2fsck is content and every file of `tree` is there with its bytes.
    static func isWhole(_ disk: ScratchDisk, _ tree: String, _ folder: ScratchFolder) throws -> Bool {
        let check = try e2fsck.run(["-f", "-n", disk.path])
        guard check.status == 0 else {
            Issue.record("\(check.standardOutput) \(check.standardError)")
            return false
        }
        let out = "\(folder.path)/out-\(UInt64.random(in: 0...UInt64.max))"
        try Tool("mkdir", package: "coreutils").check([out])
        try debugfs.check(["-R", "rdump / \(out)", disk.path])
        let difference = try Tool("diff", package: "diffutils").run(["-r", "-x", "lost+found", tree, out])
        if difference.status != 0 { Issue.record("\(difference.standardOutput) \(difference.standardError)") }
        return difference.status == 0
    }
}

/// A loop device over part of a disk.
final class Loop {
    let path: String

    init(_ disk: ScratchDisk, offset: UInt64 = 0, size: UInt64? = nil) throws {
        var arguments = ["--find", "--show", "--offset", "\(offset)"]
        if let size { arguments += ["--sizelimit", "\(size)"] }
        let text = try losetup.check(arguments + [disk.path]).standardOutput
        guard let line = text.split(separator: "\n").first else {
            throw Fault(.system, what: "no loop device", remedy: "")
        }
        path = String(line)
    }

    deinit { _ = try? losetup.run(["--detach", path]) }
}

/// LVM's own tools, without device mapper: they write and read metadata only.
final class LVMTools {
    let folder: ScratchFolder
    private let devices: [String]

    init(_ loops: [Loop]) throws {
        folder = try ScratchFolder()
        devices = loops.map(\.path)
    }

    @discardableResult
    func run(_ arguments: [String]) throws -> String {
        let filter = devices.map { "\"a|^\($0)$|\"" }.joined(separator: ",")
        let config =
            "backup{backup=0 archive=0} global{activation=0 use_lvmlockd=0 use_lvmpolld=0 event_activation=0} "
            + "devices{obtain_device_list_from_udev=0 external_device_info_source=\"none\" use_devicesfile=0 hints=\"none\" "
            + "filter=[\(filter),\"r|.*|\"] multipath_component_detection=0 md_component_detection=0}"
        let output = try lvmTool.run(
            arguments + ["--nolocking", "--config", config],
            environment: ["LVM_SYSTEM_DIR": folder.path, "LVM_SUPPRESS_FD_WARNINGS": "1"])
        guard output.status == 0 else {
            throw Fault(.toolFailed, what: "\(arguments): \(output.standardError)", remedy: "Read what lvm says.")
        }
        return output.standardOutput
    }

    func lines(_ arguments: [String]) throws -> [[String]] {
        try run(arguments + ["--noheadings", "--separator", ";", "--units", "b", "--nosuffix"])
            .split(separator: "\n").map { line in
                line.trimmingSpaces.split(separator: ";", omittingEmptySubsequences: false).map(String.init)
            }
    }

    /// Where each piece of a logical volume lies, as LVM's own tools say.
    struct Piece {
        var offset: UInt64
        var device: String
        var place: UInt64
        var count: UInt64
    }

    func pieces(_ volume: String) throws -> [Piece] {
        let group = String(volume.prefix { $0 != "/" })
        let extent = UInt64(try lines(["vgs", "-o", "vg_extent_size", group])[0][0]) ?? 0
        var starts: [String: UInt64] = [:]
        for line in try lines(["pvs", "-o", "pv_name,pe_start"]) { starts[line[0]] = UInt64(line[1]) }
        // `lvs` sorts its lists, and so loses the order of stripes; `lvdisplay` does not.
        var segments: [(first: UInt64, chunk: UInt64, areas: [(device: String, start: UInt64, count: UInt64)])] = []
        var device = ""
        for line in try run(["lvdisplay", "-a", "-m", "--units", "b", volume]).split(separator: "\n") {
            let words = line.split(whereSeparator: \.isWhitespace)
            if words.starts(with: ["Logical", "extents"]), words.count > 2 {
                segments.append((UInt64(words[2]) ?? 0, 0, []))
            } else if words.starts(with: ["Stripe", "size"]), words.count > 2 {
                segments[segments.count - 1].chunk = UInt64(words[2].prefix { $0 != "." }) ?? 0
            } else if words.starts(with: ["Physical", "volume"]), words.count == 3 {
                device = String(words[2])
            } else if words.starts(with: ["Physical", "extents"]), words.count == 5 {
                let (from, to) = (UInt64(words[2]) ?? 0, UInt64(words[4]) ?? 0)
                segments[segments.count - 1].areas.append(
                    (device, (starts[device] ?? 0) + from * extent, (to - from + 1) * extent))
            }
        }
        var result: [Piece] = []
        for (first, chunk, areas) in segments {
            if areas.count == 1 {
                result.append(
                    Piece(offset: first * extent, device: areas[0].device, place: areas[0].start, count: areas[0].count)
                )
            } else {
                var offset = first * extent
                for row in 0..<(areas[0].count / chunk) {
                    for area in areas {
                        result.append(
                            Piece(offset: offset, device: area.device, place: area.start + row * chunk, count: chunk))
                        offset += chunk
                    }
                }
            }
        }
        return result
    }
}

extension Substring {
    var trimmingSpaces: Substring {
        var text = drop { $0 == " " }
        while text.last == " " { text.removeLast() }
        return text
    }
}
