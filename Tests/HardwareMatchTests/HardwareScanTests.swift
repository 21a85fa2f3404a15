// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Glibc
import LinuxDisks
import MachineModel
import Testing
import Tools

@testable import HardwareMatch

/// A machine's hardware, from a `/sys` made for the purpose.
@Suite struct HardwareScanTests {
    @Test func disksAndInterfacesNameWhatTheyHangOn() throws {
        var template = Array("/tmp/relight-hardware-XXXXXX".utf8CString)
        try #require(unsafe mkdtemp(&template) != nil)
        let folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try Tool("bash", package: "bash").check(
            [
                "-euo", "pipefail", "-c",
                """
                r=$PWD; mkdir -p sys/bus/{pci,virtio,scsi}/{devices,drivers} sys/class/{block,net} sys/class/dmi/id sys/module
                mkdir -p sys/module/{virtio_pci,ahci} proc/sys/kernel
                device() { # bus name place modalias driver module
                  mkdir -p "sys/devices/$3" "sys/bus/$1/drivers/$5"; echo "$4" > "sys/devices/$3/modalias"
                  ln -s "$r/sys/devices/$3" "sys/bus/$1/devices/$2"
                  test -z "$5" || ln -s "$r/sys/bus/$1/drivers/$5" "sys/devices/$3/driver"
                  test -z "$6" || ln -sfn "$r/sys/module/$6" "sys/bus/$1/drivers/$5/module"
                }
                device pci 0000:00:03.0 pci0000:00/0000:00:03.0 pci:v00001AF4d00001001 virtio-pci virtio_pci
                device virtio virtio0 pci0000:00/0000:00:03.0/virtio0 virtio:d00000002v00001AF4 virtio_blk ''
                device pci 0000:00:04.0 pci0000:00/0000:00:04.0 pci:v00008086d00002922 ahci ahci
                device scsi 0:0:0:0 pci0000:00/0000:00:04.0/ata1/host0/target0:0:0/0:0:0:0 scsi:t-0x00 sd ''
                device pci 0000:00:05.0 pci0000:00/0000:00:05.0 pci:v00008086d0000100E '' ''
                disk() { mkdir -p "sys/devices/$1/block/$2/$2"1; ln -s "$r/sys/devices/$1/block/$2" "sys/class/block/$2"
                  touch "sys/devices/$1/block/$2/$2"1/partition; ln -s "$r/sys/devices/$1/block/$2/$2"1 "sys/class/block/$2"1
                  ln -s "$r/sys/devices/$1" "sys/devices/$1/block/$2/device"; }
                disk pci0000:00/0000:00:03.0/virtio0 vda
                disk pci0000:00/0000:00:04.0/ata1/host0/target0:0:0/0:0:0:0 sda
                mkdir -p sys/devices/virtual/block/loop0; ln -s "$r/sys/devices/virtual/block/loop0" sys/class/block/loop0
                mkdir -p sys/devices/pci0000:00/0000:00:05.0/net/eth0
                ln -s "$r/sys/devices/pci0000:00/0000:00:05.0/net/eth0" sys/class/net/eth0
                ln -s "$r/sys/devices/pci0000:00/0000:00:05.0" sys/devices/pci0000:00/0000:00:05.0/net/eth0/device
                echo 52:54:00:12:34:56 > sys/class/net/eth0/address
                echo QEMU > sys/class/dmi/id/sys_vendor; echo 1 > sys/class/dmi/id/chassis_type
                echo 6.1.0-test > proc/sys/kernel/osrelease; echo x86_64 > proc/sys/kernel/arch
                printf 'processor : 0\\nvendor_id : GenuineIntel\\n' > proc/cpuinfo
                """,
            ], directory: folder)
        let profile = HardwareProfile(of: KernelFiles(root: folder))
        #expect(profile.product == "QEMU" && profile.chassis == 1 && profile.firmware == .bios)
        #expect(
            profile.kernel == "6.1.0-test" && profile.architecture == "x86_64" && profile.processor == "GenuineIntel")
        #expect(profile.disks.map(\.name) == ["sda", "vda"])
        #expect(profile.devices(ofDisk: "vda").map(\.driver) == ["virtio-pci", "virtio_blk"])
        #expect(profile.devices(ofDisk: "sda").map(\.module) == ["ahci", nil])
        #expect(profile.devices.first { $0.path.hasSuffix("05.0") }?.driver == nil)
        #expect(profile.network.map(\.name) == ["eth0"] && profile.network[0].address == "52:54:00:12:34:56")
        // As it is stored, it is read.
        let stored = try JSONEncoder().encode(profile)
        #expect(try JSONDecoder().decode(HardwareProfile.self, from: stored) == profile)
    }
}
