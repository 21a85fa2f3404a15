// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// The six ways a machine boots from the medium.
let bootMatrix: [Scenario] = Firmware.allCases.flatMap { firmware in
    ["cd", "usb"].map { carrier in
        let quick = (firmware == .bios && carrier == "cd") || (firmware == .secureBoot && carrier == "usb")
        return Scenario(
            "boot-\(firmware.rawValue)-\(carrier)",
            shows: "The ISO boots by \(firmware.title) from a \(carrier == "cd" ? "CD" : "USB stick").",
            in: quick ? .quick : .full
        ) { stage in
            let machine = Machine(firmware, carrier == "cd" ? .cd(stage.iso) : .usb(stage.iso))
            let vm = try stage.start(machine)
            try vm.passBootMenu()
            let kernel = try vm.console.wait("Linux version", within: 120)
            let ready = try vm.waitUntilReady()
            stage.note("kernel", Time.short(kernel) + " s")
            stage.note("ready", Time.short(ready) + " s")
            // The kernel itself says which firmware it was started by.
            try stage.require(
                vm.console.has("efi: EFI v2") == (firmware != .bios), "The kernel was started by other firmware.")
            if firmware == .secureBoot {
                try stage.require(
                    vm.console.has("Kernel is locked down from EFI Secure Boot"), "Secure Boot was not in force.")
            }
            try vm.screenshot("ready")
            vm.stop()
        }
    }
}

/// Less memory than is comfortable.
let memoryScenarios: [Scenario] = [
    Scenario("memory-512", shows: "512 MiB of memory are enough for the whole environment.") { stage in
        let vm = try stage.start(Machine(.bios, stage.directBoot("relight.mode=wizard"), memory: 512))
        stage.note("ready", Time.short(try vm.waitUntilReady()) + " s")
        vm.stop()
    },
    Scenario("memory-256", shows: "With 256 MiB PID 1 starts all the same and says how much is needed.") { stage in
        let vm = try stage.start(Machine(.bios, stage.directBoot("relight.mode=wizard"), memory: 256))
        try vm.console.wait("RELIGHT IS INCOMPLETE", within: 120)
        let time = try vm.console.wait("MB of memory; Relight needs", within: 10)
        stage.note("says so", Time.short(time) + " s")
        vm.stop()
    },
]
