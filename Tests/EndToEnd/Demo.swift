// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import FoundationEssentials
import Geometry
import Tools

extension RelightVM {
    /// `relight-vm demo`: the main job, told as a story.
    struct Demo: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Shows the main job: image a machine, restore it larger behind another controller, boot it.")

        @Option(help: "The ISO.") var iso = "build/relight.iso"
        @Option(help: "Folder for logs and disks.") var out = "build/demo"
        @Option(help: "Folder for what is kept from run to run.") var cache = "build/cache/vm"
        @Option(help: "Multiplies all time limits, for slow or busy machines.") var patience = 1.0

        mutating func run() throws {
            let here = FileManager.default.currentDirectoryPath
            func full(_ path: String) -> String { path.hasPrefix("/") ? path : here + "/" + path }
            let folder = full(out)
            try? FileManager.default.removeItem(atPath: folder)
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            let began = Time.now()
            let stage = Stage(
                folder: folder, iso: full(iso), boot: full("build/boot"), cache: full(cache),
                program: full("build/relight"), patience: patience)
            print(
                """
                A real Debian on a 1.5 GiB virtio-blk disk is imaged by the ISO in one virtual machine, and restored in
                another to a blank 3 GiB NVMe disk. Then that disk boots on its own. Everything runs in QEMU without
                hardware acceleration, so times are several times longer than on a real machine.

                """)
            let tell: @Sendable (String) -> Void = { text in
                print("[\(Demo.stamp(Time.now() - began))] \(text)")
            }
            do {
                try MainJob(from: .virtioBlk, to: .nvme, throughMedium: true, tell: tell).run(stage)
            } catch {
                print("\nThe demo failed: \(error)\nThe consoles' logs are in \(folder).")
                throw ExitCode(1)
            }
            tell("Done.")
            print(
                """

                The restored system showed the mark that was put on the source just before it was imaged, started by
                SeaBIOS and by OVMF. The source's SHA-256 is the same before and after; sgdisk -v and e2fsck -fn are
                content with the restored disk, and all files are equal.
                \(stage.figures.map { "  \($0.name): \($0.value)" }.joined(separator: "\n"))

                The medium is \(iso): write it to a stick with `dd if=\(iso) of=/dev/sdX bs=4M conv=fsync`.
                Pictures of the screen and the consoles' logs are in \(out).
                """)
        }

        /// Minutes and seconds, `2:07`.
        static func stamp(_ seconds: Double) -> String {
            let whole = Int(seconds)
            return "\(whole / 60):\(whole % 60 < 10 ? "0" : "")\(whole % 60)"
        }
    }
}
