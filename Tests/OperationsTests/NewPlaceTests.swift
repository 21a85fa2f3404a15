// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import LinuxDisks
@testable import Operations
import Testing

@Suite struct NewPlaceTests {
    /// A system whose root is memory and that has a disk mounted at /mnt/usb.
    private final class System {
        let root = FileManager.default.temporaryDirectory.path() + "/relight-place-\(UInt64.random(in: 0 ... .max))"
        var scan: DiskScan { DiskScan(KernelFiles(root: root)) }

        init() throws {
            for folder in ["mnt/usb", "home", "proc/self"] {
                try FileManager.default.createDirectory(atPath: "\(root)/\(folder)", withIntermediateDirectories: true)
            }
            let mounts = "1 1 0:1 / / rw - rootfs rootfs rw\n22 1 8:2 / /mnt/usb rw - ext4 /dev/sda2 rw\n"
            try Data(mounts.utf8).write(to: URL(filePath: "\(root)/proc/self/mountinfo"))
        }
        deinit { try? FileManager.default.removeItem(atPath: root) }
    }

    @Test func theEnvironmentRefusesMemory() throws {
        let system = try System()
        for place in ["/mnt/set", "/home"] {
            let fault = try #require(throws: Fault.self) {
                try NewPlace.require([place], in: system.scan, isEnvironment: true) { _ in }
            }
            #expect(fault.code == .storeInMemory && fault.code.exit == .refused && fault.place == place)
        }
        for place in ["/mnt/usb/set", "label:STICK/any/folder"] {
            try NewPlace.require([place], in: system.scan, isEnvironment: true) { _ in }
        }
    }

    @Test func aDiskThatIsNotMountedHasNoFolder() throws {
        let system = try System()
        let fault = try #require(throws: Fault.self) {
            try NewPlace.require(["/mnt/usb/set", "/mnt/disk/a/set"], in: system.scan, isEnvironment: true) { _ in }
        }
        #expect(fault.code == .storeMissing && fault.what.contains("/mnt/disk/a") && fault.what.contains("is /mnt."))
    }
}
