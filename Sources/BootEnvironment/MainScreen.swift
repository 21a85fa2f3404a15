// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Geometry
import Glibc
public import LinuxDisks
import MachineModel

/// What a main console shows above its shell: the machine at a glance and the commands to type. Pure text, at most 80
/// columns.
public struct MainScreen: Hashable, Sendable {
    var version: String
    var time: String
    var machine: String
    var firmware: FirmwareMode
    var memory: UInt64
    var disks: [AttachedDisk]
    var media: Set<String>
    var interfaces: [Network.Interface]
    var missingFirmware: [String]
    var isSerial: Bool

    /// The machine as it is now.
    public init(version: String, isSerial: Bool, _ files: KernelFiles = .live) {
        let scan = DiskScan(files)
        let facts = MachineProbe.facts(version: version, files)
        self.version = version
        time = MainScreen.clock()
        machine = facts.product ?? "unnamed machine"
        firmware = facts.firmware ?? .bios
        memory = UnpackedManifest.memory(files)
        disks = scan.disks
        media = scan.bootMedia()
        interfaces = Network.interfaces(files)
        missingFirmware = Drivers.missingFirmware(log: KernelLog.text())
        self.isSerial = isSerial
    }

    init(
        version: String, time: String, machine: String, firmware: FirmwareMode, memory: UInt64, disks: [AttachedDisk],
        media: Set<String>, interfaces: [Network.Interface], missingFirmware: [String], isSerial: Bool
    ) {
        (self.version, self.time, self.machine, self.firmware) = (version, time, machine, firmware)
        (self.memory, self.disks, self.media, self.interfaces) = (memory, disks, media, interfaces)
        (self.missingFirmware, self.isSerial) = (missingFirmware, isSerial)
    }

    /// The screen's text, lines ended by `\n`. Where the terminal has few `rows`, blank lines and then disks go, so that
    /// the prompt still fits below.
    public func text(rows: Int = 25) -> String {
        var lines = lines(disks: 12)
        if lines.count + 1 > rows { lines.removeAll { $0.isEmpty } }
        if lines.count + 1 > rows, disks.count > 4 {
            lines = self.lines(disks: max(4, min(12, disks.count) - (lines.count + 2 - rows))).filter { !$0.isEmpty }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private func lines(disks limit: Int) -> [String] {
        var lines = [
            MainScreen.rule, MainScreen.pair("Relight \(version)", time),
            "  \(MainScreen.cut(machine, 50)), \(firmware == .uefi ? "UEFI" : "BIOS"), \(memory) MiB of memory",
            MainScreen.rule,
        ]
        lines += diskLines(limit) + networkLines
        if !missingFirmware.isEmpty {
            lines.append("  Firmware files that drivers asked for and that are not on this medium:")
            lines += missingFirmware.prefix(4).map { "    " + MainScreen.cut($0, 74) }
        }
        lines += [
            "", "  The guided wizard is not part of this version. Type commands at the prompt:", "",
            "    relight disks                         what each disk holds",
            "    relight backup DISK --to SET          image a disk into an image set",
            "    relight points|show|verify|repair SET list, describe, check and mend a set",
            "    relight plan SET --to DISK            what a restore would do; it only looks",
            "    relight restore SET --to DISK         bring a disk back (all on it is lost)",
            "    relight job run FILE                  carry out a job file",
            "    relight poweroff|reboot|help          leave; learn about the other commands", "",
            "    DISK: a path above, serial:X, wwn:X, size:BYTES, label:X",
            "    SET:  a folder, or label:NAME/folder on the filesystem with that label", "",
            isSerial
                ? "  `relight screen` shows this again."
                : "  Alt+F2: a second shell, Alt+F1: back here. `relight screen` shows this again.",
            "",
        ]
        return lines
    }

    private func diskLines(_ limit: Int) -> [String] {
        if disks.isEmpty {
            return [
                "  No disk was found. Check cables; RAID or VMD mode in the firmware setup may hide",
                "  disks; `dmesg` has what the drivers say.",
            ]
        }
        let width = disks.map(\.path.count).max() ?? 0
        return ["  Disks"]
            + disks.prefix(limit).map { disk in
                var line =
                    "    " + MainScreen.pad(disk.path, width) + "  " + MainScreen.padLeft(disk.size.description, 9)
                line += "  " + MainScreen.pad(disk.bus, 6)
                line += media.contains(disk.name) ? "  this medium" : disk.model.map { "  \($0.prefix(22))" } ?? ""
                if let serial = disk.serial { line += "  serial \(serial)" }
                return MainScreen.cut(line, 80)
            } + (disks.count > limit ? ["    and \(disks.count - limit) more: `relight disks`"] : [])
    }

    private var networkLines: [String] {
        if interfaces.isEmpty { return ["  No wired network was found."] }
        return ["  Network"]
            + interfaces.prefix(6).map { interface in
                let state =
                    interface.addresses.isEmpty
                    ? (interface.hasLink ? "asking for an address" : interface.isUp ? "no cable" : "starting")
                    : interface.addresses.prefix(2).joined(separator: "  ")
                return MainScreen.cut(
                    "    \(MainScreen.pad(interface.name, 10))  \(MainScreen.pad(interface.hardwareAddress, 17))  \(state)",
                    80)
            }
    }

    static let rule = String(repeating: "-", count: 80)

    private static func pair(_ left: String, _ right: String) -> String {
        "  " + left + String(repeating: " ", count: max(1, 76 - left.count - right.count)) + right
    }
    private static func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }
    private static func padLeft(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }
    private static func cut(_ text: String, _ width: Int) -> String {
        text.count <= width ? text : String(text.prefix(width - 3)) + "..."
    }

    /// The time for people, `2026-11-21 03:04 UTC`, or with seconds for names of files, `2026-11-21T03:04:05Z`.
    static func clock(seconds: Bool = false) -> String {
        var now = Glibc.time(nil)
        var parts = unsafe tm()
        guard unsafe gmtime_r(&now, &parts) != nil else { return "" }
        let (year, month, day) = unsafe (parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday)
        let (hour, minute, second) = unsafe (parts.tm_hour, parts.tm_min, parts.tm_sec)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let date = "\(year)-\(two(month))-\(two(day))"
        let time = "\(two(hour)):\(two(minute))"
        return seconds ? "\(date)T\(time):\(two(second))Z" : "\(date) \(time) UTC"
    }
}

/// The kernel's log.
enum KernelLog {
    /// What the log's buffer holds, at most 1 MiB; empty without permission.
    static func text() -> String {
        var buffer = [CChar](repeating: 0, count: 1 << 20)
        let got = unsafe relight_kernel_log(&buffer, Int32(buffer.count))
        guard got > 0 else { return "" }
        return String(decoding: buffer[0..<Int(got)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
