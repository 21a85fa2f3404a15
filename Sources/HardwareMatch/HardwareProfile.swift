// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import MachineModel

/// What hardware a machine has: enough to say elsewhere which drivers a system needs to start on it.
public struct HardwareProfile: Hashable, Sendable, Codable {
    /// Format of the stored profile.
    public var hardware = 1
    /// Maker and model, where the firmware says them.
    public var product: String?
    /// Kind of case, as SMBIOS numbers it (System Management BIOS 3.7, section 7.4.1); 1 and 2 say nothing.
    public var chassis: Int?
    /// What starts systems.
    public var firmware: FirmwareMode
    /// Whether only signed loaders are started; `nil` when the firmware does not say.
    public var secureBoot: Bool?
    /// The processor's architecture, as the kernel names it: `x86_64`.
    public var architecture: String
    /// The processor's maker, as it names itself: `GenuineIntel`, `AuthenticAMD`.
    public var processor: String?
    /// The kernel the profile was taken with.
    public var kernel: String
    /// All devices that name themselves.
    public var devices: [Device]
    /// The disks, and what each hangs on.
    public var disks: [Disk]
    /// The network interfaces.
    public var network: [Interface]

    /// A device.
    public struct Device: Hashable, Sendable, Codable {
        /// Its place below `/sys/devices`.
        public var path: String
        /// The bus it was found on: `pci`, `usb`, `virtio`, `acpi` …
        public var bus: String
        /// What it calls itself, for drivers to match.
        public var modalias: String
        /// The driver that has it; `nil` where none has.
        public var driver: String?
        /// The module that driver lies in; `nil` where it is inside the kernel, or unknown.
        public var module: String?

        /// A device.
        public init(path: String, bus: String, modalias: String, driver: String? = nil, module: String? = nil) {
            self.path = path
            self.bus = bus
            self.modalias = modalias
            self.driver = driver
            self.module = module
        }
    }

    /// A disk.
    public struct Disk: Hashable, Sendable, Codable {
        /// Its name: `sda`.
        public var name: String
        /// The devices from the disk up to the machine's root, by their places below `/sys/devices`: all of them need a
        /// driver before the disk is seen.
        public var chain: [String]

        /// A disk.
        public init(name: String, chain: [String]) {
            self.name = name
            self.chain = chain
        }
    }

    /// A network interface with a device.
    public struct Interface: Hashable, Sendable, Codable {
        /// Its name: `enp3s0`.
        public var name: String
        /// Its address, `52:54:00:12:34:56`.
        public var address: String?
        /// The device behind it, by its place below `/sys/devices`.
        public var device: String

        /// An interface.
        public init(name: String, address: String?, device: String) {
            self.name = name
            self.address = address
            self.device = device
        }
    }

    /// The devices that must have drivers before `disk` is seen; all disks' without a name.
    public func devices(ofDisk disk: String? = nil) -> [Device] {
        let places = Set(disks.filter { disk == nil || $0.name == disk }.flatMap(\.chain))
        return devices.filter { places.contains($0.path) }
    }
}
