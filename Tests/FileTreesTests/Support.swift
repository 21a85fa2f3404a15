// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import Glibc
import Testing
import Tools

@testable import FileTrees

let shell = Tool("bash", package: "bash")
let mke2fs = Tool("mke2fs", package: "e2fsprogs")
let debugfs = Tool("debugfs", package: "e2fsprogs")
let mkfat = Tool("mkfs.fat", package: "dosfstools")
let mcopy = Tool("mcopy", package: "mtools")
let mkntfs = Tool("mkntfs", package: "ntfs-3g")
let ntfs3g = Tool("ntfs-3g", package: "ntfs-3g")
let python = Tool("python3", package: "python3")
let haveExt = [mke2fs, debugfs].allSatisfy { $0.path != nil }
let haveFAT = [mkfat, mcopy].allSatisfy { $0.path != nil }
/// Whether NTFS can be filled here.
let haveNTFS: Bool = {
    let device = unsafe access("/dev/fuse", R_OK | W_OK)
    return device == 0 && geteuid() == 0 && [mkntfs, ntfs3g, python].allSatisfy { $0.path != nil }
}()

/// The built program, which serves probes; `nil` where it was not built.
let program: String? = {
    guard let slash = CommandLine.arguments[0].lastIndex(of: "/") else { return nil }
    let beside = CommandLine.arguments[0][..<slash] + "/relight"
    return unsafe access(String(beside), X_OK) == 0 ? String(beside) : nil
}()

/// How much of the long tests is run.
let isFull = unsafe getenv("RELIGHT_TESTS").map { unsafe String(cString: $0) } == "full"

/// A folder that goes away with the value.
final class Scratch: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/relight-trees-XXXXXX".utf8CString)
        guard unsafe mkdtemp(&template) != nil else { throw Fault(.system, what: "no scratch folder", remedy: "") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = try? Tool("rm", package: "coreutils").run(["-rf", "--one-file-system", path]) }

    @discardableResult
    func sh(_ script: String, _ arguments: [String] = []) throws -> String {
        try shell.check(["-euo", "pipefail", "-c", script, "sh"] + arguments, directory: path).standardOutput
    }

    /// A folder of files: small, large, deep, many, sparse and, where `links` says so, links.
    func content(links: Bool) throws -> String {
        try sh(
            """
            mkdir -p tree/etc tree/usr/lib/deep/er tree/many; cd tree
            echo "name" > etc/hostname; printf 'ID=x\\n' > usr/lib/os-release; : > etc/empty
            seq 1 40000 > usr/lib/large; seq 1 70 > "usr/lib/deep/er/A Long Name of a File.txt"
            for n in $(seq 1 700); do echo $n > many/file-number-$n; done
            if [ "$1" = 1 ]; then
              ln -s ../usr/lib/os-release etc/os-release; ln -s /usr/lib usr/absolute; ln -s usr/lib lib
              ln -s ../../../../../../../etc/hostname usr/lib/out; ln -s loop2 loop1; ln -s loop1 loop2
              ln -s "/usr/lib/deep/er/../../$(printf 'x/../%.0s' $(seq 1 30))os-release" usr/lib/long
              mkdir -p usr/lib/x; truncate -s 5M sparse; echo end >> sparse; ln etc/hostname hard; mkfifo pipe
            fi
            """, [links ? "1" : "0"])
        return "\(path)/tree"
    }

    var hash: String {
        get throws { try sh("sha256sum image") }
    }

    var image: FileSource {
        get throws { try FileSource(path: "\(path)/image") }
    }

    /// Runs a script with `image` as NTFS mounted at `mnt`.
    func mounted(_ script: String, options: String = "") throws {
        try sh(
            """
            mkdir -p mnt
            ntfs-3g -o "no_detach$1" image mnt >ntfs-3g.log 2>&1 & mount=$!
            for n in $(seq 1 200); do mountpoint -q mnt && break; sleep 0.05; done
            mountpoint -q mnt
            ( \(script) ) || { umount mnt; exit 1; }
            umount mnt; wait $mount
            """, [options])
    }

    /// An NTFS with `content`, a compressed and a sparse file, and streams.
    func ntfs() throws {
        _ = try content(links: false)
        try sh("truncate -s 24M image; mkntfs -F -Q -q -c 4096 image 2>/dev/null")
        try mounted(
            """
            set -e; cp -r tree/. mnt/; mkdir mnt/Packed; truncate -s 3M mnt/sparse; echo end >> mnt/sparse
            python3 -c 'import os; os.setxattr("mnt/Packed", "system.ntfs_attrib_be", bytes([0,0,8,0]))'
            seq 1 60000 > mnt/Packed/numbers; cp mnt/Packed/numbers numbers
            printf 'in a stream' > mnt/etc/hostname:zone; printf 'second' > mnt/etc/hostname:Other
            python3 -c 'import os,struct; os.setxattr("mnt/usr/lib/os-release", "system.ntfs_reparse_data",
            struct.pack("<IHHIIII", 0x80000017, 16, 0, 1, 2, 1, 0))'
            """, options: ",compression,streams_interface=windows")
    }
}

extension FileTree {
    /// All of a file.
    func whole(_ path: String) throws(Fault) -> [UInt8] {
        guard let place = try find(path) else { return [] }
        var result: [UInt8] = []
        while true {
            let part = try read(place.path, stream: nil, from: UInt64(result.count), count: 70_001)
            if part.isEmpty { return result }
            result += part
        }
    }

    /// Everything reachable, as `path kind content's length`, read as far as it can be; for comparing two trees.
    func everything(most: Int = 4000) throws(Fault) -> [String] {
        var result: [String] = []
        var todo: [[String]] = [[]]
        while let folder = todo.popLast(), result.count < most {
            for entry in try list(folder, most: 2000).sorted(by: { $0.name < $1.name }) {
                let path = folder + [entry.name]
                if entry.kind == .folder, path.count < 20 { todo.append(path) }
                let bytes = entry.kind == .file ? ((try? read(path, stream: nil, from: 0, count: 300_000)) ?? []) : []
                let sum = bytes.reduce(UInt64(bytes.count)) { ($0 &* 31) &+ UInt64($1) }
                result.append("\(path.joined(separator: "/")) \(entry.kind.rawValue) \(sum)")
            }
        }
        return result
    }
}
