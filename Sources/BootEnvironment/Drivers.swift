// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import Glibc
public import LinuxDisks
import Tools

/// Loading drivers by the names devices give themselves, without udev.
public enum Drivers {
    /// Names of modules that no device asks for, one per line; `#` begins a remark.
    public static let listPath = "\(BootEnvironment.folder)/modules"
    /// At most this many aliases are given to one `modprobe`.
    static let batch = 200

    /// Loads the drivers for everything present, over and over until nothing new appears (a controller's driver brings
    /// up devices that need drivers of their own), then waits until the disks have settled.
    public static func coldplug(_ files: KernelFiles = .live, say: (String) -> Void) {
        load(extraModules(files), say)
        var known: Set<String> = []
        for _ in 0..<12 {
            let fresh = aliases(files).subtracting(known)
            if fresh.isEmpty { break }
            known.formUnion(fresh)
            load(fresh.sorted(), say)
            usleep(100_000)
        }
        if let problem = EarlySystem.firmwareVariables.perform() { say(problem) }
        settle(files)
        // What a disk brought up late (a USB hub behind a hub) may need drivers too.
        let late = aliases(files).subtracting(known)
        if !late.isEmpty { load(late.sorted(), say) }
    }

    /// The aliases of all devices on all buses.
    public static func aliases(_ files: KernelFiles) -> Set<String> {
        var result: Set<String> = []
        for bus in files.names("/sys/bus") {
            for device in files.names("/sys/bus/\(bus)/devices") {
                let place = "/sys/bus/\(bus)/devices/\(device)"
                guard let alias = files.word("\(place)/modalias"), isPlausible(alias) else { continue }
                result.insert(alias)
            }
        }
        return result
    }

    /// Modules named in the environment's own list.
    static func extraModules(_ files: KernelFiles) -> [String] {
        files.lines(listPath, limit: 65_536).map { line in
            String(line.prefix { $0 != "#" }).filter { !$0.isWhitespace }
        }.filter { isPlausible($0) }
    }

    /// Loads modules by alias or name; those without a module, and those blacklisted, are passed over.
    static func load(_ aliases: [String], _ say: (String) -> Void) {
        var rest = aliases[...]
        while !rest.isEmpty {
            let some = Array(rest.prefix(batch))
            rest = rest.dropFirst(batch)
            do throws(Fault) {
                _ = try Tool("modprobe", package: "kmod").run(["-a", "-b", "-q", "--"] + some, seconds: 120)
            } catch {
                say("Loading drivers: \(error.what)")
            }
        }
    }

    /// An alias comes from a device: it must not look like an option, nor be endless.
    static func isPlausible(_ alias: String) -> Bool {
        !alias.isEmpty && alias.utf8.count <= 1024 && !alias.hasPrefix("-")
            && alias.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F }
    }

    /// Waits until no disk has appeared for as long as ``quietTime(_:)`` says; at most 12 seconds. Disks slower than that
    /// are looked for again by whoever needs them.
    static func settle(_ files: KernelFiles) {
        let begin = uptime()
        var last = files.names("/sys/class/block")
        var changed = begin
        while uptime() - begin < 12 {
            usleep(100_000)
            let now = files.names("/sys/class/block")
            if now != last {
                last = now
                changed = uptime()
            }
            if uptime() - changed > quietTime(files) { return }
        }
    }

    /// Seconds without a new disk after which the disks count as settled: three while a USB mass storage interface has no
    /// target or a SCSI disk or drive (also SATA, SAS and Fibre Channel) no block device, else half a second.
    static func quietTime(_ files: KernelFiles) -> Double {
        expectsUSBDisk(files) || expectsSCSIDisk(files) ? 3 : 0.5
    }

    /// Whether a SCSI device of a type that becomes a block device (SPC: 0 disk, 4 and 7 optical memory, 5 CD, 14
    /// simplified disk, 20 zoned disk) is there whose block device is not: its driver is loading, or its disk spins up.
    private static func expectsSCSIDisk(_ files: KernelFiles) -> Bool {
        let types: Set<String> = ["0", "4", "5", "7", "14", "20"]
        return files.names("/sys/bus/scsi/devices").contains { device in
            let place = "/sys/bus/scsi/devices/\(device)"
            guard let type = files.word("\(place)/type", limit: 8), types.contains(type) else { return false }
            return files.names("\(place)/block").isEmpty
        }
    }

    /// Whether a USB mass storage interface (class 08) is there whose disk is not: its driver waits a second first.
    private static func expectsUSBDisk(_ files: KernelFiles) -> Bool {
        for device in files.names("/sys/bus/usb/devices") where device.contains(":") {
            let place = "/sys/bus/usb/devices/\(device)"
            guard files.word("\(place)/bInterfaceClass", limit: 8) == "08" else { continue }
            let hosts = files.names(place).filter { $0.hasPrefix("host") }
            let hasTarget = hosts.contains { host in
                files.names("\(place)/\(host)").contains { $0.hasPrefix("target") }
            }
            if !hasTarget { return true }
        }
        return false
    }

    /// Listens for devices that appear later and loads their drivers; never returns unless the socket fails.
    public static func listen(_ files: KernelFiles = .live, say: (String) -> Void) {
        let socket = relight_device_event_socket()
        guard socket >= 0 else {
            say(
                "Devices plugged in later need `modprobe` by hand: the kernel's events cannot be heard (\(reason(-socket)))."
            )
            return
        }
        var buffer = [CChar](repeating: 0, count: 16_384)
        while true {
            var wanted: Set<String> = []
            var isOverrun = false
            var polls = [pollfd(fd: socket, events: Int16(POLLIN), revents: 0)]
            _ = unsafe poll(&polls, 1, -1)
            // Devices come in flocks; a moment's patience makes one modprobe of many.
            usleep(150_000)
            while true {
                let got = unsafe relight_receive_device_event(socket, &buffer, UInt64(buffer.count))
                if got == -Int64(ENOBUFS) {
                    isOverrun = true
                } else if got < 0 {
                    break
                } else if let alias = alias(event: buffer[0..<Int(got)].map { UInt8(bitPattern: $0) }) {
                    wanted.insert(alias)
                }
            }
            if isOverrun { wanted.formUnion(aliases(files)) }
            if !wanted.isEmpty { load(wanted.sorted(), say) }
        }
    }

    /// The alias in a device event, if it is one of a new device. An event is `add@/path` and `KEY=value` strings, each
    /// ended by a zero byte.
    static func alias(event: [UInt8]) -> String? {
        let parts = event.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        guard parts.contains("ACTION=add") || parts.contains("ACTION=bind") || parts.contains("ACTION=change"),
            let field = parts.first(where: { $0.hasPrefix("MODALIAS=") })
        else { return nil }
        let alias = String(field.dropFirst("MODALIAS=".count))
        return isPlausible(alias) ? alias : nil
    }

    /// Firmware files that drivers asked for and that are not there, from the kernel's log.
    public static func missingFirmware(log: String) -> [String] {
        var result: [String] = []
        for line in log.split(separator: "\n") {
            guard let range = line.firstRange(of: "firmware load for ") ?? line.firstRange(of: "failed to load ") else {
                continue
            }
            guard line.contains("firmware") else { continue }
            let name = String(line[range.upperBound...].prefix { $0 != " " })
            if name.contains("."), isPlausible(name), !result.contains(name) { result.append(name) }
        }
        return result
    }
}
