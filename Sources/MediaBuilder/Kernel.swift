// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// The kernel in the downloaded packages.
struct Kernel: Sendable {
    /// Its release, as `uname -r` will print it.
    let release: String
    /// Its image, on this machine.
    let image: String
    /// Its module folder inside the tree.
    var moduleFolder: String { "/usr/lib/modules/" + release }

    /// Finds the only kernel.
    init(root: DownloadedRoot) throws(Fault) {
        let found = try Files.names(in: root.folder + "/boot").filter { $0.hasPrefix("vmlinuz-") }
        guard let name = found.first, found.count == 1 else {
            throw Fault(
                .mediaContent, what: "The packages hold \(found.count) kernels instead of one.",
                place: root.folder + "/boot", remedy: "Check `kernel` in the layout file and the hooks' packages.")
        }
        release = String(name.dropFirst("vmlinuz-".count))
        image = root.folder + "/boot/" + name
    }

    /// The module index of the whole kernel.
    func modules(root: DownloadedRoot) throws(Fault) -> KernelModules {
        let folder = root.folder + moduleFolder
        func text(_ name: String) throws(Fault) -> String {
            Files.exists(folder + "/" + name) ? try Files.text(folder + "/" + name) : ""
        }
        return KernelModules(
            dependencies: try text("modules.dep"), soft: try text("modules.softdep"), weak: try text("modules.weakdep"),
            builtIn: try text("modules.builtin"))
    }
}
