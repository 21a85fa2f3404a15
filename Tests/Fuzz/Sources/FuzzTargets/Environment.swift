// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import LinuxDisks

@testable import BootEnvironment

extension FuzzTarget {
    /// What the environment is told: kernel line, manifest, device events, the kernel's log, DHCP. The first byte says
    /// which.
    static let environment = FuzzTarget(
        name: "environment", longest: 8_000, isText: true, seeds: EnvironmentSeeds.make
    ) { input in
        guard let kind = input.first else { return }
        let bytes = Array(input.dropFirst())
        let text = String(decoding: bytes, as: UTF8.self)
        switch kind {
        case UInt8(ascii: "k"):
            let line = KernelLine(text)
            keep(line)
            promise((0...3600).contains(line.countdown), "a countdown has a limit")
            if let name = line.hostname { promise(!name.isEmpty && name.utf8.count <= 63, "a host's name is short") }
            keep(KernelLine.words(text))
        case UInt8(ascii: "m"):
            guard let manifest = try? UnpackedManifest(parsing: bytes) else { return }
            promise(
                manifest.files.allSatisfy { $0.path.hasPrefix("/") && $0.sha256.utf8.count == 64 }, "files are named")
            let differences = manifest.files.prefix(7).map {
                UnpackedManifest.Difference(path: $0.path, what: "missing")
            }
            keep(manifest.complaint(differences, memory: 512))
        case UInt8(ascii: "u"):
            guard let alias = Drivers.alias(event: bytes) else { return }
            promise(!alias.hasPrefix("-") && alias.utf8.allSatisfy { $0 > 0x20 }, "an alias is one plain word")
        case UInt8(ascii: "f"):
            for name in Drivers.missingFirmware(log: text) { promise(!name.hasPrefix("-"), "no option: \(name)") }
        default:
            var environment: [String: String] = [:]
            for line in text.split(separator: "\n") {
                let sign = line.firstIndex(of: "=") ?? line.endIndex
                environment[String(line[..<sign])] = String(line[sign...].dropFirst())
            }
            for line in NetworkLease.resolverLines(environment) {
                promise(!line.utf8.contains { $0 < 0x20 }, "a resolver line is one line")
                promise(line.hasPrefix("nameserver ") || line.hasPrefix("search "), "servers and domains only")
            }
        }
    }
}

enum EnvironmentSeeds {
    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        let digest = String(repeating: "0a", count: 32)
        let texts = [
            (
                "kernel-line", "k",
                "BOOT_IMAGE=/boot/vmlinuz relight.mode=job relight.job=\"label:JOB X/relight.job\" relight.countdown=60 "
                    + "relight.hostname=re-1 relight.network=off console=ttyS0 relight.other quiet"
            ),
            ("manifest", "m", "relight-manifest 1 2 300 512\n\(digest) 100 /init\n\(digest) 200 /usr/bin/a b\n"),
            ("event", "u", "add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0MODALIAS=pci:v00008086d0000\0SEQNUM=1\0"),
            (
                "log", "f",
                "e100 0000:00: Direct firmware load for e100/d101m.bin failed with error -2\n"
                    + "x: failed to load firmware y.bin\n"
            ),
            (
                "lease", "l",
                "interface=eth0\nreason=BOUND\nnew_domain_name_servers=10.0.0.1 fe80::1 x\nnew_domain_name=example.invalid\n"
                    + "nd1_rdnss1_servers=2001:db8::1\nnew_domain_search=a.invalid b.invalid\n"
            ),
        ]
        return texts.map { ($0.0, Array($0.1.utf8) + Array($0.2.utf8)) }
    }
}
