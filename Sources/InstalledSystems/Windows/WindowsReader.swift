// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FileTrees
import Findings
import MachineModel
import Synchronization
import WindowsHives

/// What the registry of one Windows tells.
struct WindowsReader {
    private(set) var notes: Notes
    var system: InstalledSystem
    private let volume: SeenVolume
    private let folder: String
    private let tree: any FileTree
    private static let mostFolders = 256

    init(_ volume: SeenVolume, _ folder: String, _ tree: any FileTree) {
        self.volume = volume
        self.folder = folder
        self.tree = tree
        notes = Notes(volume.name)
        system = InstalledSystem(family: .windows, name: "Windows", volume: volume.name, root: "/\(folder)")
    }

    /// The folders of the root that a Windows is in.
    static func folders(in tree: any FileTree) throws(Fault) -> [String] {
        var result: [String] = []
        for entry in try tree.names(in: "", most: mostFolders) where entry.kind == .folder {
            let config = "\(entry.name)/System32/config"
            if try tree.holds("\(config)/SYSTEM") {
                result.append(entry.name)
            } else if try tree.holds("\(config)/SOFTWARE") {
                result.append(entry.name)
            }
        }
        return result
    }

    /// Reads it. Throws `interrupted` only.
    mutating func read() throws(Fault) {
        var facts = WindowsFacts()
        let systemHive = try hive("SYSTEM")
        let software = try hive("SOFTWARE")
        let identity = WindowsIdentity(system: systemHive, software: software)
        for finding in identity.findings {
            notes.add(Finding(finding.severity, finding.code, what: finding.what, place: finding.place))
        }
        if let name = identity.productName.flatMap({ PlainText.safe($0) }) {
            system.name = name.hasPrefix("Microsoft ") ? String(name.dropFirst(10)) : name
        } else if let version = identity.version.flatMap({ PlainText.safe($0, limit: 32) }) {
            system.name = "Windows \(version)"
        }
        system.version = identity.version.flatMap { PlainText.safe($0, limit: 32) }
        system.hostname = identity.computerName.flatMap { PlainText.safe($0, limit: 64) }
        system.architecture = identity.architecture.flatMap {
            WindowsReader.architectures[$0] ?? PlainText.safe($0, limit: 16)
        }
        facts.edition = identity.edition.flatMap { PlainText.safe($0, limit: 64) }
        facts.release = identity.displayVersion.flatMap { PlainText.safe($0, limit: 64) }
        facts.build = identity.build.map { build in
            identity.updateRevision.map { "\(build).\($0)" } ?? "\(build)"
        }
        facts.isServer = identity.isServer
        facts.systemRoot = identity.systemRoot.flatMap { PlainText.safe($0) }
        facts.controlSet = identity.controlSets?.currentName
        if let systemHive {
            let power = try notes.attempt { () throws(Fault) in
                try systemHive.currentControlSet()?.key("Control\\Session Manager\\Power")?.dword("HiberbootEnabled")
            }
            facts.hasFastStartup = power.map { $0 != 0 }
        }
        facts.isHibernated = try isHibernated()
        system.windows = facts
    }

    private static let architectures = [
        "amd64": "x86_64", "x86": "i686", "arm64": "aarch64", "arm": "armv7l", "ia64": "ia64",
    ]

    /// Whether `hiberfil.sys` says so. Its first bytes are `HIBR` while a session is in it; `RSTR`, `WAKE` or zeros afterwards.
    private mutating func isHibernated() throws(Fault) -> Bool? {
        if volume.states.contains(.hibernated) { return true }
        let tree = tree
        let head = try notes.attempt { () throws(Fault) -> [UInt8]? in
            try tree.find("hiberfil.sys") == nil ? [] : try tree.start(of: "hiberfil.sys", count: 4)
        }
        return head.map { $0.elementsEqual("hibr".utf8) || $0.elementsEqual("HIBR".utf8) }
    }

    /// A hive with its logs; `nil` where it cannot be read, which is noted.
    private mutating func hive(_ name: String) throws(Fault) -> Hive? {
        let (tree, folder, volume) = (tree, folder, volume.name)
        return try notes.attempt { () throws(Fault) -> Hive? in
            let locked = LockedTree(tree)
            func source(_ file: String) throws(Fault) -> HiveSource? {
                guard let place = try tree.find("\(folder)/System32/config/\(file)"), place.entry.kind == .file else {
                    return nil
                }
                let path = place.path
                return HiveSource(name: "\(volume): /\(path.joined(separator: "/"))", length: place.entry.size) {
                    (offset, count) throws(Fault) in try locked.read(path, offset, count)
                }
            }
            guard let own = try source(name) else {
                throw Fault(
                    .treeDamaged, what: "The registry hive \(name) is missing.",
                    place: "/\(folder)/System32/config/\(name)", remedy: "Restore it from a backup.")
            }
            var logs: [HiveSource] = []
            for suffix in ["LOG", "LOG1", "LOG2"] {
                if let log = try source("\(name).\(suffix)") { logs.append(log) }
            }
            return try Hive(own, logs: logs)
        }
    }
}

/// A tree that hives read from: they may be asked on any thread.
private final class LockedTree: @unchecked Sendable {
    private let tree: any FileTree
    private let turn = Mutex<Void>(())

    init(_ tree: any FileTree) { self.tree = tree }

    /// Exactly `count` bytes.
    func read(_ path: [String], _ offset: UInt64, _ count: Int) throws(Fault) -> [UInt8] {
        let result: Result<[UInt8], Fault> = turn.withLock { _ in
            do throws(Fault) {
                var bytes: [UInt8] = []
                while bytes.count < count {
                    let part = try tree.read(
                        path, stream: nil, from: offset + UInt64(bytes.count),
                        count: min(count - bytes.count, TreeLimits.read))
                    guard !part.isEmpty else {
                        throw Fault(
                            .treeDamaged, what: "It ends before its \(offset + UInt64(count)) bytes.",
                            place: path.joined(separator: "/"), remedy: "Check the filesystem, on a copy.")
                    }
                    bytes += part
                }
                return .success(bytes)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}
