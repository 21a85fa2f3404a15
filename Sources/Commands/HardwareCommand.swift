// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import HardwareMatch
import MachineModel
import Operations
import Synchronization

/// `relight hardware`.
struct HardwareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hardware", abstract: "Shows this machine's hardware as drivers see it.",
        discussion: """
            Lists what each disk and network interface hangs on, and the driver that has it. With -o the whole profile is \
            stored: every device's name for drivers to match, the firmware, Secure Boot. Nothing is written anywhere else.
            """)

    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("Store the profile.", valueName: "file")) var output:
        String?

    func run() throws {
        let console = Console.current.withLock { $0 }
        let profile = HardwareProfile()
        if let output { try StoredValue.write(profile, to: output, "The profile") }
        console.document("hardware", profile)
        for line in HardwareCommand.lines(profile) { console.line(line) }
        if let output { console.line("Stored in \(output).") }
    }

    static func lines(_ profile: HardwareProfile) -> [String] {
        var head = [profile.product ?? "unknown machine", profile.architecture]
        head += [profile.processor].compactMap { $0 }
        head.append(profile.firmware == .uefi ? "UEFI" : "BIOS")
        if let secureBoot = profile.secureBoot { head.append("Secure Boot \(secureBoot ? "on" : "off")") }
        head.append("kernel \(profile.kernel)")
        var lines = [head.joined(separator: ", ")]
        var table = TextTable(["", "hangs on", "driver", "calls itself"])
        func add(_ name: String, _ devices: [HardwareProfile.Device]) {
            for (index, device) in devices.enumerated() {
                let place = device.path.split(separator: "/").last.map(String.init) ?? device.path
                table.add([
                    index == 0 ? name : "", "\(device.bus) \(place)", device.driver ?? "none", device.modalias,
                ])
            }
            if devices.isEmpty { table.add([name, "-", "-", "-"]) }
        }
        let byPath = Dictionary(profile.devices.map { ($0.path, $0) }) { first, _ in first }
        for disk in profile.disks { add(disk.name, disk.chain.compactMap { byPath[$0] }) }
        for interface in profile.network { add(interface.name, [byPath[interface.device]].compactMap { $0 }) }
        if !profile.disks.isEmpty || !profile.network.isEmpty { lines += table.lines }
        let idle = profile.devices.filter { $0.driver == nil }.count
        lines.append("\(profile.devices.count) devices name themselves, \(idle) of them have no driver now.")
        return lines
    }
}
