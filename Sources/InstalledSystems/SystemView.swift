// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FileTrees
import Findings

/// A system's files as the system sees them: its root's folder, and over it what its fstab mounts.
final class SystemView: FileTree {
    private struct Mount {
        var point: [String]
        var tree: any FileTree
        /// What of the tree is mounted there.
        var base: [String]
        var volume: String
    }
    /// The one with the longest point first.
    private var mounts: [Mount]

    var isCaseSensitive: Bool { mounts.last?.tree.isCaseSensitive ?? true }

    /// The folder `root` of `tree`.
    init(_ tree: any FileTree, volume: String, root: String) {
        mounts = [Mount(point: [], tree: tree, base: TreePaths.clean(root), volume: volume)]
    }

    /// Puts `tree` where `point` is.
    func mount(_ tree: any FileTree, volume: String, at point: String) {
        mounts.append(Mount(point: TreePaths.clean(point), tree: tree, base: [], volume: volume))
        mounts.sort { $0.point.count > $1.point.count }
    }

    /// The volume that `path` of the system lies on, and the path there.
    func place(_ path: [String]) -> (volume: String, path: String) {
        guard let mount = mount(of: path) else { return ("", "/") }
        return (mount.volume, "/" + inside(mount, path).joined(separator: "/"))
    }

    func step(_ path: [String]) throws(Fault) -> TreeStep {
        guard let mount = mount(of: path) else { return .missing }
        switch try mount.tree.step(inside(mount, path)) {
        case .link(let depth, let target):
            // A link before the mounted folder itself is none that the system ever meets.
            let own = depth - mount.base.count + mount.point.count
            return own > mount.point.count ? .link(depth: own, target: target) : .missing
        case let other: return other
        }
    }

    func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry] {
        guard let mount = mount(of: path) else { return [] }
        return try mount.tree.list(inside(mount, path), most: most)
    }

    func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        guard let mount = mount(of: path) else { return [] }
        return try mount.tree.read(inside(mount, path), stream: stream, from: offset, count: count)
    }

    func streams(_ path: [String]) throws(Fault) -> [TreeStream] {
        guard let mount = mount(of: path) else { return [] }
        return try mount.tree.streams(inside(mount, path))
    }

    private func mount(of path: [String]) -> Mount? { mounts.first { path.starts(with: $0.point) } }

    private func inside(_ mount: Mount, _ path: [String]) -> [String] { mount.base + path.dropFirst(mount.point.count) }
}
