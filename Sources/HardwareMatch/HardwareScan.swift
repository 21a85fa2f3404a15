// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc
public import LinuxDisks
import MachineModel

extension HardwareProfile {
    /// The machine that `files` show, from `/sys` and `/proc`.
    public init(of files: KernelFiles = .live) {
        let facts = MachineProbe.facts(version: "", files)
        product = facts.product
        chassis = files.number("/sys/class/dmi/id/chassis_type").flatMap { Int(exactly: $0) }
        firmware = MachineProbe.firmware(files)
        // Four bytes of attributes, then one of content (UEFI Specification 2.10, section 3.3).
        secureBoot = files.bytes(
            "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", limit: 16
        ).flatMap { $0.count == 5 ? $0[4] == 1 : nil }
        processor = files.lines("/proc/cpuinfo", limit: 65_536).first { $0.hasPrefix("vendor_id") }
            .flatMap { $0.split(separator: ":").last }.map { $0.filter { !$0.isWhitespace } }
        kernel = files.word("/proc/sys/kernel/osrelease", limit: 256) ?? ""
        architecture = files.word("/proc/sys/kernel/arch", limit: 64) ?? HardwareProfile.ownArchitecture()
        devices = HardwareProfile.devices(files)
        let places = Set(devices.map(\.path))
        disks = HardwareProfile.disks(files, places)
        network = HardwareProfile.network(files)
    }

    private static func ownArchitecture() -> String {
        var names = utsname()
        guard unsafe uname(&names) == 0 else { return "" }
        return unsafe withUnsafeBytes(of: names.machine) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    private static let root = "/sys/devices/"

    /// Where a link in `/sys` leads, below `/sys/devices`.
    private static func place(_ path: String, _ files: KernelFiles) -> String? {
        guard let found = files.resolved(path), found.hasPrefix(root) else { return nil }
        return String(found.dropFirst(root.count))
    }

    private static func devices(_ files: KernelFiles) -> [Device] {
        var result: [String: Device] = [:]
        for bus in files.names("/sys/bus") {
            for name in files.names("/sys/bus/\(bus)/devices") {
                let link = "/sys/bus/\(bus)/devices/\(name)"
                guard let modalias = files.word("\(link)/modalias", limit: 2048), let place = place(link, files) else {
                    continue
                }
                let driver = files.resolved("\(link)/driver").flatMap { $0.split(separator: "/").last.map(String.init) }
                let module = files.resolved("\(link)/driver/module")
                    .flatMap { $0.split(separator: "/").last.map(String.init) }
                result[place] = Device(path: place, bus: bus, modalias: modalias, driver: driver, module: module)
            }
        }
        return result.values.sorted { $0.path < $1.path }
    }

    private static func disks(_ files: KernelFiles, _ places: Set<String>) -> [Disk] {
        files.names("/sys/class/block").compactMap { name in
            // A partition hangs on its disk; what has no device (loop, dm, md) on nothing.
            guard !files.exists("/sys/class/block/\(name)/partition"), files.exists("/sys/class/block/\(name)/device"),
                var place = place("/sys/class/block/\(name)", files)
            else { return nil }
            var chain: [String] = []
            while let slash = place.lastIndex(of: "/") {
                place = String(place[..<slash])
                if places.contains(place) { chain.append(place) }
            }
            return Disk(name: name, chain: chain)
        }
    }

    private static func network(_ files: KernelFiles) -> [Interface] {
        files.names("/sys/class/net").compactMap { name in
            guard let device = place("/sys/class/net/\(name)/device", files) else { return nil }
            return Interface(
                name: name, address: files.word("/sys/class/net/\(name)/address", limit: 64), device: device)
        }
    }
}
