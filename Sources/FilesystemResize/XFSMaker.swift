// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import MachineModel
import Tools

/// Makes an XFS with the identity, the features and the geometry class of another: never a feature that the old one
/// lacks, for the kernel or boot loader that read it may not know it.
struct XFSMaker: FilesystemMaker {
    let kinds: Set<ContentKind> = [.xfs]
    let maker = Tool("mkfs.xfs", package: "xfsprogs")
    let type = "xfs"
    /// The original with the same UUID may be mounted beside it.
    let mountOptions = ["nouuid"]
    private let info = Tool("xfs_info", package: "xfsprogs")
    private let admin = Tool("xfs_admin", package: "xfsprogs")

    func require() throws(Fault) {
        for tool in [maker, info, admin] { _ = try tool.requirePath() }
    }

    func make(_ path: String, as old: String, mountedAt folder: String, sectors: SectorSize) throws(Fault) {
        let shown = try info.check([folder], seconds: 300).standardOutput
        let identity = try admin.check(["-lu", old], seconds: 300).standardOutput
        var arguments = ["-q", "-f"] + (try XFSMaker.features(shown, sectors: sectors))
        for line in identity.split(separator: "\n") {
            if line.hasPrefix("UUID = ") { arguments += ["-m", "uuid=\(line.dropFirst(7))"] }
            if line.hasPrefix("label = \""), line.hasSuffix("\""), line.count > 10 {
                arguments += ["-L", String(line.dropFirst(9).dropLast())]
            }
        }
        let result = try maker.run(arguments + [path], seconds: 3600)
        guard result.status == 0 else {
            throw FilesystemTools.refused(
                maker.name, result.lastWords, "Restore it to a place as large as the original.")
        }
    }

    /// mkfs.xfs's options for what xfs_info shows of a filesystem. What it does not show stays as it is made by default
    /// only where it has no bearing on who can read it.
    ///
    /// Its sectors are no smaller than the disk's: the kernel mounts it nowhere else. Throws `unsupported` where its blocks
    /// are smaller than that.
    static func features(_ shown: String, sectors: SectorSize) throws(Fault) -> [String] {
        var values: [String: String] = [:]
        var section = ""
        for line in shown.split(separator: "\n") {
            if let name = line.split(separator: " ").first, line.first != " ", line.first != "=" {
                section = String(name.prefix { $0 != "=" })
            }
            for word in line.split(whereSeparator: { " ,".contains($0) }) {
                let parts = word.split(separator: "=", maxSplits: 1)
                guard parts.count == 2, !parts[0].isEmpty else { continue }
                values["\(section).\(parts[0])"] = String(parts[1])
            }
        }
        func value(_ name: String) -> String? { values["meta-data.\(name)"] }
        var options: [String] = []
        for name in ["crc", "finobt", "rmapbt", "reflink", "bigtime", "inobtcount"] {
            // Without checksums the others do not exist.
            if name != "crc", value("crc") == "0" { continue }
            if let flag = value(name), flag == "0" || flag == "1" { options += ["-m", "\(name)=\(flag)"] }
        }
        if let size = value("isize") { options += ["-i", "size=\(size)"] }
        if value("crc") == "1" {
            if let flag = value("sparse") { options += ["-i", "sparse=\(flag)"] }
            if let flag = value("nrext64") { options += ["-i", "nrext64=\(flag)"] }
        }
        if let blocks = values["data.bsize"].flatMap({ UInt32($0) }), blocks < sectors.bytes {
            throw Fault(
                .unsupported,
                what: "Its blocks have \(blocks) bytes, and cannot be kept on a disk of \(sectors.bytes)-byte sectors.",
                remedy: "Restore it to a disk of 512-byte sectors.")
        }
        if let size = value("sectsz").flatMap({ UInt32($0) }) {
            options += ["-s", "size=\(max(size, sectors.bytes))"]
        }
        if let size = values["data.bsize"] { options += ["-b", "size=\(size)"] }
        if let size = values["naming.bsize"] { options += ["-n", "size=\(size)"] }
        if let flag = values["naming.ftype"], value("crc") == "0" { options += ["-n", "ftype=\(flag)"] }
        return options
    }
}
