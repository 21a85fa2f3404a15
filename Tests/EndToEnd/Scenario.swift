// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Tools

/// One test on virtual machines: a name, what it shows, and what happens.
struct Scenario: Sendable {
    /// Sets a scenario can be in.
    enum Kind: String, Sendable, CaseIterable {
        /// Runs with `make test`.
        case quick
        /// Runs with `make test-full`.
        case full
    }
    /// Unique, lower case, words joined by `-`.
    var name: String
    /// One sentence: what it shows.
    var shows: String
    /// The smallest set it is in; the full set holds all.
    var kind: Kind
    /// What happens. Throws when something is not as it must be.
    var run: @Sendable (Stage) throws -> Void

    init(_ name: String, shows: String, in kind: Kind = .full, run: @escaping @Sendable (Stage) throws -> Void) {
        self.name = name
        self.shows = shows
        self.kind = kind
        self.run = run
    }
}

/// Where a scenario plays: its folder, the media, and what it notes.
final class Stage {
    /// Folder of this scenario, empty at its begin: logs, disks, pictures.
    let folder: String
    /// The ISO under test.
    let iso: String
    /// Folder with `vmlinuz` and `initrd` of the same build.
    let boot: String
    /// Folder whose content stays from run to run.
    let cache: String
    /// The program, for use on the host.
    let program: String
    private let patience: Double
    private var starts = 0
    /// Figures for the table, in the order they were noted.
    private(set) var figures: [(name: String, value: String)] = []

    init(folder: String, iso: String, boot: String, cache: String, program: String, patience: Double) {
        self.folder = folder
        self.iso = iso
        self.boot = boot
        self.cache = cache
        self.program = program
        self.patience = patience
    }

    /// Switches a machine on.
    func start(_ machine: Machine) throws(Fault) -> VirtualMachine {
        starts += 1
        return try VirtualMachine(machine, folder: folder, index: starts, patience: patience)
    }

    /// The medium without firmware and boot menu, for scenarios that are not about booting.
    func directBoot(_ words: String) -> Medium {
        .kernel(
            boot + "/vmlinuz", initramfs: boot + "/initrd",
            words: "console=tty0 console=ttyS0,115200 initramfs_options=size=75% panic=60 no_timer_check " + words)
    }

    /// Makes an empty disk image of `size`, sparse. Its path.
    func emptyDisk(_ name: String, _ size: ByteCount) throws(Fault) -> String {
        let path = "\(folder)/\(name).img"
        try Tool("truncate", package: "coreutils").check(["-s", "\(size.bytes)", path])
        return path
    }

    /// A copy of a disk image that this scenario may change; holes stay holes.
    func copy(of path: String, as name: String) throws(Fault) -> String {
        let target = "\(folder)/\(name).img"
        try Tool("cp", package: "coreutils").check(["--sparse=always", "--reflink=auto", path, target])
        return target
    }

    /// A file that is made once and kept: `make` gets a temporary path and writes there. `name` should hold a key of
    /// everything the file depends on.
    func cached(_ name: String, make: (String) throws -> Void) throws -> String {
        let path = "\(cache)/\(name)"
        if unsafe access(path, F_OK) == 0 { return path }
        try Tool("mkdir", package: "coreutils").check(["-p", cache])
        try make(path + ".part")
        try Tool("mv", package: "coreutils").check([path + ".part", path])
        return path
    }

    /// Notes a figure for the table.
    func note(_ name: String, _ value: String) { figures.append((name, value)) }

    /// Fails the scenario unless `condition` holds.
    func require(_ condition: Bool, _ what: String) throws(Fault) {
        guard condition else { throw Fault(.vm, what: what, place: folder, remedy: "See the logs there.") }
    }
}

extension VirtualMachine {
    /// An entry of the medium's boot menu, by its place.
    enum MenuEntry: Int {
        case wizard, job, shell
    }

    /// Starts an entry of the boot menu at once.
    func passBootMenu(entry: MenuEntry = .wizard) throws(Fault) {
        try console.wait("Relight: recover a machine", within: 120)
        // The menu is drawn line by line and the keyboard read only when it stands.
        try console.wait("Power off", within: 30)
        for _ in 0..<entry.rawValue { console.send("\u{1B}[B") }
        console.send("\r")
    }

    /// Waits for the environment's ready line; the seconds since power-on.
    @discardableResult
    func waitUntilReady(within seconds: Double = 240) throws(Fault) -> Double {
        try console.wait("RELIGHT-READY", within: seconds)
    }
}
