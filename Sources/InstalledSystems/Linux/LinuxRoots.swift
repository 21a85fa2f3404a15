// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FileTrees
import Findings

/// Where in a filesystem roots of Linux systems lie.
enum LinuxRoots {
    /// Files that only a system's root has. os-release(5) names the first two; the others are those of distributions from
    /// before it.
    static let signs = [
        "etc/os-release", "usr/lib/os-release", "etc/debian_version", "etc/redhat-release", "etc/SuSE-release",
        "etc/alpine-release", "etc/arch-release", "etc/gentoo-release", "etc/slackware-version", "etc/fstab",
    ]
    /// Where installers put the root's subvolume of Btrfs; subvolumes are folders of the filesystem's top.
    private static let subvolumes = ["@", "@rootfs", "root", "@root"]
    private static let most = 8

    /// The folders that are roots, without a `/` in front; the empty one is the filesystem's own.
    static func all(in tree: any FileTree) throws(Fault) -> [String] {
        var result: [String] = []
        for folder in [""] + subvolumes where try isRoot(folder, tree) { result.append(folder) }
        // openSUSE starts from a snapshot; the newest is told, for the others are its past.
        for base in ["@/.snapshots", ".snapshots"] where result.isEmpty {
            let numbers = try tree.names(in: base).compactMap { Int($0.name) }.sorted(by: >)
            for number in numbers.prefix(most) {
                let folder = "\(base)/\(number)/snapshot"
                if try isRoot(folder, tree) {
                    result.append(folder)
                    break
                }
            }
        }
        if result.isEmpty { result += try deployments(in: tree) }
        return Array(result.prefix(most))
    }

    /// What ostree started last of each system: the deployment whose folder `ostree/boot.*` would be asked for is not known
    /// without the loader's entry, so that all of them count.
    private static func deployments(in tree: any FileTree) throws(Fault) -> [String] {
        var result: [String] = []
        for system in try tree.names(in: "ostree/deploy", most: 16) where system.kind == .folder {
            let base = "ostree/deploy/\(system.name)/deploy"
            for entry in try tree.names(in: base, most: 16) where entry.kind == .folder {
                let folder = "\(base)/\(entry.name)"
                if try isRoot(folder, tree) { result.append(folder) }
            }
        }
        return result
    }

    private static func isRoot(_ folder: String, _ tree: any FileTree) throws(Fault) -> Bool {
        let rooted = SystemView(tree, volume: "", root: folder)
        guard try rooted.holdsFolder("etc") else { return false }
        for sign in signs {
            // The link of most systems leads from etc to usr, which may be a volume of its own.
            switch try rooted.step(TreePaths.clean(sign)) {
            case .found(let entry) where entry.kind == .file: return true
            case .link(let depth, _) where depth == 2: return true
            default: continue
            }
        }
        return false
    }
}
