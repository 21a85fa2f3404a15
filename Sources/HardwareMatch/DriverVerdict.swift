// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Whether a kernel with its initramfs drives a device, and by what.
public enum DriverVerdict: Hashable, Sendable {
    /// A driver is inside the kernel.
    case builtIn(String)
    /// A module is in the initramfs, with all it needs.
    case inInitramfs(String)
    /// A module is in the initramfs, but not what it needs.
    case incomplete(String, missing: [String])
    /// A module is in the kernel's folder, not in the initramfs.
    case onDisk(String)
    /// Only modules that are kept from loading by themselves.
    case blacklisted([String])
    /// No module of this kernel names the device.
    case none

    /// Whether the device is driven when the kernel has only its initramfs.
    public var isReady: Bool {
        switch self {
        case .builtIn, .inInitramfs: true
        default: false
        }
    }

    /// The best of what drives `modalias`. `initramfs` has the names of the modules in the initramfs.
    public init(of modalias: String, _ index: ModuleIndex, initramfs: Set<String>, blacklist: Set<String> = []) {
        var best = DriverVerdict.none
        var barred: [String] = []
        for driver in index.drivers(of: modalias).sorted(by: { $0.name < $1.name }) {
            let verdict: DriverVerdict
            switch driver {
            case .builtIn(let name): verdict = .builtIn(name)
            case .module(let name) where index.builtIn.contains(name): verdict = .builtIn(name)
            case .module(let name) where blacklist.contains(name):
                barred.append(name)
                continue
            case .module(let name):
                let needed = index.closure(name, companions: false)
                if !initramfs.contains(name) {
                    verdict = .onDisk(name)
                } else {
                    let missing = needed.filter { !initramfs.contains($0) }
                    verdict = missing.isEmpty ? .inInitramfs(name) : .incomplete(name, missing: missing)
                }
            }
            if verdict.rank > best.rank { best = verdict }
        }
        self = best == .none && !barred.isEmpty ? .blacklisted(barred) : best
    }

    private var rank: Int {
        switch self {
        case .builtIn: 5
        case .inInitramfs: 4
        case .incomplete: 3
        case .onDisk: 2
        case .blacklisted: 1
        case .none: 0
        }
    }
}

extension InitramfsImage {
    /// The names of the modules in it that are for kernel `version`; all when no version is given.
    public func modules(of version: String? = nil) -> Set<String> {
        var result: Set<String> = []
        for (path, entry) in entries where entry.isFile || entry.isLink {
            // [usr/]lib/modules/VERSION/…/NAME.ko…
            let parts = path.split(separator: "/").drop { $0 == "usr" }
            guard parts.count > 3, parts.starts(with: ["lib", "modules"]), let file = parts.last, file.contains(".ko"),
                version == nil || parts.dropFirst(2).first.map(String.init) == version
            else { continue }
            result.insert(ModuleIndex.name(of: file))
        }
        return result
    }
}
