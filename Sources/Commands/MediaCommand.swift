// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import Geometry
import MediaBuilder
import Synchronization

/// `relight media …`: makes bootable media.
struct MediaCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "media", abstract: "Makes the bootable medium.", subcommands: [ISO.self])

    /// `relight media iso`.
    struct ISO: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Builds the hybrid ISO: CD and USB stick, BIOS, UEFI and Secure Boot.",
            discussion: """
                Takes kernel, tools, firmware and signed loaders from the packages of one Debian suite, downloaded by \
                apt from the mirror this machine uses; nothing is installed. Needs apt, dpkg-deb and tar, no root.
                """)

        @Option(help: ArgumentHelp("Relight's source folder.", valueName: "folder"))
        var source = "."
        @Option(help: ArgumentHelp("The static program to put on it. (default: build/relight)", valueName: "file"))
        var relight: String?
        @Option(
            name: [.short, .long],
            help: ArgumentHelp("The ISO to write. (default: build/relight.iso)", valueName: "file"))
        var out: String?
        @Option(
            help: ArgumentHelp(
                "Folder for kernel and initramfs of direct boots. (default: build/boot)", valueName: "folder"))
        var boot: String?
        @Option(help: ArgumentHelp("Debian suite. (default: that of iso-builder/layout)", valueName: "name"))
        var suite: String?
        @Option(
            help: ArgumentHelp("Mirror of the Debian archive. (default: that of this machine's apt)", valueName: "url"))
        var mirror: String?
        @Option(help: ArgumentHelp("Folder for downloads and parts. (default: build/cache/media)", valueName: "folder"))
        var cache: String?
        @Flag(help: "Compress little: quicker to build, larger. For tests.")
        var fast = false
        @Flag(help: "Refuse packages other than those of the lock file.")
        var locked = false
        @Flag(help: "Take the newest packages and write the lock file anew.")
        var refreshLock = false

        mutating func validate() throws {
            if locked && refreshLock { throw ValidationError("--locked and --refresh-lock exclude each other.") }
        }

        mutating func run() throws {
            let console = Console.current.withLock { $0 }
            var options = ISOOptions(source: source, relight: relight, output: out)
            if let boot { options.bootFolder = boot }
            if let cache { options.cache = cache }
            options.suite = suite
            options.mirror = mirror
            options.fast = fast
            options.lock = locked ? .strict : refreshLock ? .refresh : .preferred
            let report = try MediaBuilder.buildISO(options, events: console.events)
            console.document("medium", report)
            console.line("\(report.path): \(ByteCount(report.size)), SHA-256 \(report.sha256)")
            console.line(
                "Debian \(report.suite), kernel \(report.kernel), \(report.packages) packages, \(report.modules) modules; "
                    + "boots with \(report.neededMemory) MiB of memory")
            for part in report.parts {
                console.line(
                    "  \(part.group): \(part.files) files, \(ByteCount(UInt64(part.bytes))), "
                        + "\(ByteCount(UInt64(part.compressed))) compressed")
            }
            if !report.missingFirmware.isEmpty {
                console.line(
                    "Firmware that the archive does not have: \(report.missingFirmware.joined(separator: ", "))")
            }
        }
    }
}
