// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Geometry
import Glibc
@testable import LinuxDisks
import Testing
import Tools

/// A real loop device with an ext4 filesystem, detached with the value.
private final class LoopDevice {
    let image: String
    let path: String

    static var isPossible: Bool {
        getuid() == 0 && Tool("losetup", package: "mount").path != nil
            && Tool("mkfs.ext4", package: "e2fsprogs").path != nil && Tool("blkid", package: "util-linux").path != nil
            && (try? Tool("losetup", package: "mount").check(["-f"])) != nil
    }

    init(label: String) throws {
        image = FileManager.default.temporaryDirectory.path() + "/relight-loop-\(UInt64.random(in: 0 ... .max)).img"
        try Tool("truncate", package: "coreutils").check(["-s", "16M", image])
        try Tool("mkfs.ext4", package: "e2fsprogs").check(["-q", "-F", "-L", label, image])
        path = try Tool("losetup", package: "mount").check(["--find", "--show", image]).lastLine
    }

    deinit {
        _ = try? Tool("losetup", package: "mount").run(["--detach", path])
        unsafe unlink(image)
    }
}

@Suite(.serialized, .enabled(if: LoopDevice.isPossible, "needs root, losetup, mkfs.ext4 and a free loop device"))
struct LoopDeviceTests {
    @Test func storeIsMountedByLabelAndUnmounted() throws {
        let label = "RLT\(UInt32.random(in: 0...9_999_999))"
        let loop = try LoopDevice(label: label)
        let name = String(loop.path.dropFirst("/dev/".count))
        let place = try StoreLocation.open("label:\(label)/sets/a")
        #expect(place.path == "\(StoreLocation.mountFolder)/\(label)/sets/a")
        #expect(place.mountedDevice == loop.path)
        try Tool("mkdir", package: "coreutils").check(["-p", place.path])
        let scan = DiskScan()
        #expect(scan.disks(holding: place.path).contains(name))
        #expect(scan.disks(holding: "\(place.path)/not/yet/there").contains(name))
        #expect(scan.device(named: name)?.mounts == ["\(StoreLocation.mountFolder)/\(label)"])
        let mount = try #require(scan.mounts.last { $0.point == "\(StoreLocation.mountFolder)/\(label)" })
        for option in ["nosuid", "nodev", "noexec"] { #expect(mount.options.contains(option)) }

        let second = try StoreLocation.open("label:\(label)/sets/a")
        #expect(second.path == "\(StoreLocation.mountFolder)/\(label).1/sets/a")
        second.release()
        place.release()
        place.release()
        #expect(DiskScan().device(named: name)?.mounts == [])
        #expect(!KernelFiles.live.exists("\(StoreLocation.mountFolder)/\(label)"))
    }

    @Test func selectorFindsAndMarkHoldsOffWriters() throws {
        let label = "RLT\(UInt32.random(in: 0...9_999_999))"
        let loop = try LoopDevice(label: label)
        let disk = try #require(try DiskSelector.resolve("label:\(label)").disk)
        #expect(disk.path == loop.path)
        #expect(disk.size == .mebibytes(16))
        #expect(disk.bus == "loop")
        func isWritable() -> Bool {
            let descriptor = unsafe open(loop.path, O_WRONLY)
            guard descriptor >= 0 else { return false }
            defer { close(descriptor) }
            // The first KiB of an ext4 filesystem belongs to nobody.
            return unsafe write(descriptor, [UInt8](repeating: 0, count: 512), 512) == 512
        }
        #expect(isWritable())
        do {
            let mark = ReadOnlyMark(disk)
            #expect(mark.marked == [loop.path])
            #expect(!isWritable())
        }
        #expect(isWritable())
    }
}
