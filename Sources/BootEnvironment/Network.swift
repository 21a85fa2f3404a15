// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc
public import LinuxDisks
import Tools

/// The wired network: every link up, addresses by DHCP and router advertisements, in the background.
public enum Network {
    static let configurationPath = "/run/relight/dhcpcd.conf"

    /// What `dhcpcd` is told. The addresses stay when it ends (`persistent`): sets on servers are written out after it is
    /// gone, and its crash must not cut a backup off. It takes interfaces as they come and go, leaves wireless ones alone, and calls
    /// ``NetworkLease/program`` with what a server said; no shell script ever sees that.
    static let configuration = """
        denyinterfaces wl* ww* ib*
        persistent
        nodev
        clientid
        noipv4ll
        slaac hwaddr
        option domain_name_servers, domain_name, domain_search, classless_static_routes, interface_mtu
        option dhcp6_name_servers, dhcp6_domain_search
        require dhcp_server_identifier
        script \(NetworkLease.program)

        """

    /// Brings the loopback interface up and becomes the DHCP client. Returns only with a fault.
    public static func run() -> Fault {
        _ = unsafe relight_interface_up("lo")
        unsafe mkdir("/run/relight/resolv", 0o755)
        do throws(Fault) {
            let path = try Tool("dhcpcd", package: "dhcpcd-base").requirePath()
            guard writeFile(configurationPath, configuration) else {
                return Fault(
                    .system, what: "It cannot be written.", place: configurationPath,
                    remedy: "Set the network up by hand with `ip`.")
            }
            // The client talks a lot, most of all when it ends; a console is no place for that.
            let log = unsafe relight_open("/run/relight/network.log", O_WRONLY | O_CREAT | O_APPEND, 0o644)
            if log >= 0 {
                for descriptor in Int32(1)...2 { dup2(log, descriptor) }
            }
            return Tool.execute(path, ["dhcpcd", "-B", "-q", "-f", configurationPath])
        } catch {
            return error
        }
    }

    /// A network interface and its addresses.
    public struct Interface: Hashable, Sendable {
        /// The kernel's name.
        public var name: String
        /// Hardware address.
        public var hardwareAddress: String
        /// Whether it is switched on.
        public var isUp: Bool
        /// Whether a cable with a live other end is plugged in.
        public var hasLink: Bool
        /// IP addresses, without those that only work on the link.
        public var addresses: [String]
    }

    /// The machine's interfaces but loopback, by name.
    public static func interfaces(_ files: KernelFiles = .live) -> [Interface] {
        let addresses = files.root.isEmpty ? addresses() : [:]
        return files.names("/sys/class/net").filter { $0 != "lo" }.map { name in
            Interface(
                name: name, hardwareAddress: files.word("/sys/class/net/\(name)/address", limit: 64) ?? "",
                isUp: files.word("/sys/class/net/\(name)/flags", limit: 32)
                    .flatMap { UInt32($0.dropFirst(2), radix: 16) }.map { $0 & 1 == 1 } ?? false,
                hasLink: files.word("/sys/class/net/\(name)/carrier", limit: 8) == "1",
                addresses: addresses[name] ?? [])
        }
    }

    private static func addresses() -> [String: [String]] {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard unsafe getifaddrs(&list) == 0 else { return [:] }
        defer { unsafe freeifaddrs(list) }
        var result: [String: [String]] = [:]
        var next = unsafe list
        while let entry = unsafe next {
            unsafe next = entry.pointee.ifa_next
            guard let address = unsafe entry.pointee.ifa_addr, let name = unsafe entry.pointee.ifa_name else {
                continue
            }
            let family = unsafe Int32(address.pointee.sa_family)
            var text = [CChar](repeating: 0, count: 64)
            if family == AF_INET {
                let isKnown = unsafe address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                    unsafe inet_ntop(family, &$0.pointee.sin_addr, &text, socklen_t(text.count)) != nil
                }
                if !isKnown { continue }
            } else if family == AF_INET6 {
                let isKnown = unsafe address.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                    unsafe inet_ntop(family, &$0.pointee.sin6_addr, &text, socklen_t(text.count)) != nil
                }
                if !isKnown { continue }
            } else {
                continue
            }
            let address6 = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if !address6.hasPrefix("fe80:") { result[unsafe String(cString: name), default: []].append(address6) }
        }
        return result
    }
}

/// What a DHCP server or router said about name servers, made into `/etc/resolv.conf`.
public enum NetworkLease {
    /// The name `relight` is called by for it.
    public static let program = "/usr/sbin/relight-lease"
    static let folder = "/run/relight/resolv"

    /// Takes a lease from the environment `dhcpcd` passes and writes `/etc/resolv.conf` anew.
    public static func take(_ environment: [String: String]) {
        guard let interface = environment["interface"], isName(interface) else { return }
        let reason = environment["reason"] ?? ""
        let file = "\(folder)/\(interface).\(environment["protocol"].flatMap { isName($0) ? $0 : nil } ?? "dhcp")"
        if ["EXPIRE", "EXPIRE6", "NAK", "RELEASE", "RELEASE6", "STOP", "STOP6", "NOCARRIER", "DEPARTED", "FAIL"]
            .contains(reason)
        {
            let gone = ["NOCARRIER", "DEPARTED", "STOPPED"].contains(reason)
            for name in KernelFiles.live.names(folder) where gone && name.hasPrefix(interface + ".") {
                unsafe unlink("\(folder)/\(name)")
            }
            unsafe unlink(file)
        } else {
            let lines = resolverLines(environment)
            guard !lines.isEmpty else { return }
            _ = writeFile(file, lines.joined(separator: "\n") + "\n")
        }
        var lines: [String] = []
        for name in KernelFiles.live.names(folder) {
            for line in KernelFiles.live.lines("\(folder)/\(name)", limit: 4096) where !lines.contains(line) {
                lines.append(line)
            }
        }
        _ = writeFile("/etc/resolv.conf", lines.map { $0 + "\n" }.joined())
    }

    /// Lines for the resolver: only what is an address or a plain domain name passes, at most three servers.
    static func resolverLines(_ environment: [String: String]) -> [String] {
        var servers: [String] = []
        var domains: [String] = []
        for (key, value) in environment.sorted(by: { $0.key < $1.key }) where value.utf8.count <= 1024 {
            let words = value.split(separator: " ").map(String.init)
            if ["new_domain_name_servers", "new_dhcp6_name_servers"].contains(key)
                || (key.hasPrefix("nd") && key.hasSuffix("_servers") && key.contains("rdnss"))
            {
                servers += words.filter { isAddress($0) && !servers.contains($0) }
            } else if ["new_domain_search", "new_domain_name", "new_dhcp6_domain_search"].contains(key) {
                domains += words.filter { isDomain($0) && !domains.contains($0) }
            }
        }
        var lines = servers.prefix(3).map { "nameserver \($0)" }
        if !domains.isEmpty { lines.append("search " + domains.prefix(6).joined(separator: " ")) }
        return lines
    }

    static func isAddress(_ text: String) -> Bool {
        // C's text ends at a zero byte, ours does not.
        guard text.utf8.count <= 45, !text.utf8.contains(0) else { return false }
        var four = in_addr()
        var six = in6_addr()
        return unsafe inet_pton(AF_INET, text, &four) == 1 || inet_pton(AF_INET6, text, &six) == 1
    }

    static func isDomain(_ text: String) -> Bool {
        text.utf8.count <= 253 && !text.hasPrefix("-") && !text.isEmpty
            && text.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2D
                    || $0 == 0x2E
            }
    }

    private static func isName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 16 && !text.hasPrefix(".")
            && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != 0x2F }
    }
}

/// Writes a small file as a whole; false when that failed.
func writeFile(_ path: String, _ text: String) -> Bool {
    let descriptor = unsafe relight_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let count = unsafe rest.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress, $0.count) }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return false }
        rest = rest.dropFirst(count)
    }
    return true
}
