// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Tools

/// The main job: image an installed system cold, restore it to a larger blank disk behind another controller, boot it.
struct MainJob: Sendable {
    /// How the installed disk hangs on the old machine.
    var from: Bus
    /// How the blank disk hangs on the new machine.
    var to: Bus
    /// Size of the blank disk.
    var targetSize = ByteCount.gibibytes(3)
    /// What the restored disk is booted by.
    var boots: [Firmware] = [.bios, .uefi]
    /// Whether the medium is booted as a CD through its own menu; else its kernel is handed over directly.
    var throughMedium = false
    /// Told each step before it begins.
    var tell: @Sendable (String) -> Void = { _ in }

    private static let serials = (old: "OLD1", new: "NEW1", store: "STORE1")

    func run(_ stage: Stage) throws {
        let nonce = "RELIGHT-NONCE-\(UInt64.random(in: 1 << 60 ... .max))"
        tell("Preparing a small real Debian disk (kept for the next time)")
        let installed = try DemoDisk.make(cache: stage.cache)
        let old = "\(stage.folder)/old.img"
        try DemoDisk.copy(installed, to: old, nonce: nonce)
        let store = "\(stage.folder)/store.img"
        try DemoDisk.write(store, [], size: 2 << 30)
        try Tool("mke2fs", package: "e2fsprogs").check(["-q", "-t", "ext4", "-L", "BACKUPS", store])
        let new = try stage.emptyDisk("new", targetSize)
        let before = try Self.sha256(old)

        tell("Booting the old machine from the medium; its disk is on \(from.title)")
        var vm = try start(stage, Disk(old, on: from, serial: Self.serials.old), store)
        stage.note("ready", Time.short(try vm.waitUntilReady()) + " s")
        if throughMedium {
            vm.console.readFor(3)
            try vm.screenshot("screen")
        }
        tell("Imaging its disk: relight backup serial:\(Self.serials.old) --to label:BACKUPS/sets/demo")
        try command(
            vm, "relight backup serial:\(Self.serials.old) --to label:BACKUPS/sets/demo --name demo", stage, "backup")
        try powerOff(vm)
        try stage.require(try Self.sha256(old) == before, "The source disk changed while it was imaged.")

        tell("Booting the new machine from the medium; its disk is blank, \(targetSize), on \(to.title)")
        vm = try start(stage, Disk(new, on: to, serial: Self.serials.new), store)
        try vm.waitUntilReady()
        tell("Restoring to it, the root filesystem grown: relight restore … --layout fill")
        try command(
            vm, "relight restore label:BACKUPS/sets/demo --to serial:\(Self.serials.new) --layout fill --yes", stage,
            "restore")
        try powerOff(vm)

        tell("Judging the restored disk with other people's tools")
        try judge(stage, old: old, new: new)
        for firmware in boots {
            tell("Booting the restored disk by \(firmware.title), without the medium")
            let vm = try stage.start(
                Machine(
                    firmware, .none, disks: [Disk(new, on: to, serial: Self.serials.new, snapshot: true, bootIndex: 0)])
            )
            try vm.console.wait(nonce, within: 240)
            let prompt = try vm.console.wait("login:", within: 60)
            stage.note("login by \(firmware.title)", Time.short(prompt) + " s")
            vm.stop()
        }
    }

    private func start(_ stage: Stage, _ disk: Disk, _ store: String) throws(Fault) -> VirtualMachine {
        let medium = throughMedium ? Medium.cd(stage.iso) : stage.directBoot("relight.mode=shell")
        let vm = try stage.start(
            Machine(.bios, medium, disks: [disk, Disk(store, on: .virtioBlk, serial: Self.serials.store)]))
        if throughMedium { try vm.passBootMenu() }
        return vm
    }

    private func command(_ vm: VirtualMachine, _ line: String, _ stage: Stage, _ name: String) throws(Fault) {
        let began = Time.now()
        let (output, status) = try vm.console.command(line, within: 900)
        stage.note(name, Time.short(Time.now() - began) + " s")
        guard status == 0 else {
            throw Fault(
                .vm, what: "`\(line)` ended with \(status): \(output.suffix(400))", place: stage.folder, remedy: "")
        }
        // Progress is drawn over itself; what stays is the report.
        let lines = output.split(whereSeparator: \.isNewline).filter { !$0.contains("\u{1B}[K") && !$0.contains("[K") }
        for text in lines.suffix(6) { tell("  | \(text)") }
    }

    private func powerOff(_ vm: VirtualMachine) throws(Fault) {
        vm.console.send("relight poweroff\r")
        try vm.waitForEnd(within: 60)
    }

    static func sha256(_ path: String) throws(Fault) -> String {
        String(try Tool("sha256sum", package: "coreutils").check([path]).standardOutput.prefix(64))
    }

    /// sgdisk, e2fsck and a comparison of all files.
    func judge(_ stage: Stage, old: String, new: String) throws(Fault) {
        let table = try Tool("sgdisk", package: "gdisk").check(["-v", new]).standardOutput
        try stage.require(table.contains("No problems found"), "sgdisk -v: \(table)")
        let check = try Tool("e2fsck", package: "e2fsprogs").run(["-fn", "\(new)?offset=\(DemoDisk.rootOffset)"])
        try stage.require(check.status == 0, "e2fsck -fn: \(check.standardOutput)\(check.standardError)")
        let size = try Tool("dumpe2fs", package: "e2fsprogs").run(["-h", "\(new)?offset=\(DemoDisk.rootOffset)"])
        let blocks =
            size.standardOutput.split(separator: "\n").first { $0.hasPrefix("Block count:") }
            .flatMap { UInt64($0.split(separator: " ").last ?? "") } ?? 0
        try stage.require(
            blocks * 4096 > targetSize.bytes - DemoDisk.rootOffset - (4 << 20), "The root filesystem was not grown.")
        for (name, image) in [("old", old), ("new", new)] {
            let tree = "\(stage.folder)/tree-\(name)"
            try Tool("mkdir", package: "coreutils").check(["-p", tree])
            try Tool("debugfs", package: "e2fsprogs").check(
                ["-R", "rdump / \(tree)", "\(image)?offset=\(DemoDisk.rootOffset)"], seconds: 600)
        }
        let difference = try Tool("diff", package: "diffutils").run(
            ["-r", "--no-dereference", "--brief", "\(stage.folder)/tree-old", "\(stage.folder)/tree-new"], seconds: 600)
        // diff ends with 1 for differences; device nodes and the like are compared by kind.
        try stage.require(difference.status == 0, "Files differ: \(difference.standardOutput.prefix(600))")
        try Tool("rm", package: "coreutils").check(["-rf", "\(stage.folder)/tree-old", "\(stage.folder)/tree-new"])
    }
}

extension Bus {
    /// For people.
    var title: String {
        switch self {
        case .ide: "IDE"
        case .ahci: "AHCI"
        case .virtioBlk: "virtio-blk"
        case .virtioScsi: "virtio-scsi"
        case .nvme: "NVMe"
        case .usb: "USB"
        }
    }
}

/// The main job between pairs of controllers. The demo system's kernel is Debian's cloud kernel: virtio and NVMe.
let mainJobScenarios: [Scenario] = [
    (Bus.virtioBlk, Bus.nvme, Scenario.Kind.quick), (.virtioScsi, .virtioBlk, .full), (.nvme, .virtioScsi, .full),
].map { from, to, kind in
    Scenario(
        "main-\(from.rawValue.lowercased())-to-\(to.rawValue.lowercased())",
        shows:
            "An installed Debian on \(from.title) is imaged, restored larger to \(to.title), and boots by BIOS and UEFI.",
        in: kind
    ) { stage in try MainJob(from: from, to: to).run(stage) }
}
