// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// One mount of `/proc/self/mountinfo` (proc(5)).
public struct MountEntry: Hashable, Sendable {
    /// Device number of the files in it; major 0 where no single block device lies below.
    public var device: DeviceNumber
    /// The folder of the filesystem that is mounted; `/` for all of it.
    public var root: String
    /// Where it is mounted.
    public var point: String
    /// Mount options.
    public var options: [String]
    /// Filesystem type.
    public var type: String
    /// What was mounted, usually a device's path.
    public var source: String
    /// Options of the filesystem.
    public var superOptions: [String]

    /// Reads one line; `nil` when it is not of the documented form.
    public init?(line: String) {
        let fields = line.split(separator: " ")
        guard let dash = fields.firstIndex(of: "-"), dash >= 6, fields.count >= dash + 3,
            let device = DeviceNumber(fields[2])
        else { return nil }
        self.device = device
        root = KernelFiles.unescaped(fields[3])
        point = KernelFiles.unescaped(fields[4])
        options = fields[5].split(separator: ",").map(String.init)
        type = String(fields[dash + 1])
        source = KernelFiles.unescaped(fields[dash + 2])
        superOptions = fields.count > dash + 3 ? fields[dash + 3].split(separator: ",").map(KernelFiles.unescaped) : []
    }

    /// Whether it can be written through.
    public var isWritable: Bool { !options.contains("ro") && !superOptions.contains("ro") }

    /// Whether the filesystem itself is writable, be it only through another mount of it.
    public var isFilesystemWritable: Bool { !superOptions.contains("ro") }

    /// Whether `path` lies in the mount's folder.
    func covers(_ path: String) -> Bool { point == "/" || path == point || path.hasPrefix(point + "/") }
}

extension KernelFiles {
    /// The mounts this process sees, in the order they were made.
    public func mounts() -> [MountEntry] { lines("/proc/self/mountinfo").compactMap { MountEntry(line: $0) } }

    /// Paths of the devices and files the kernel swaps to.
    public func swaps() -> [String] {
        lines("/proc/swaps").dropFirst().compactMap { $0.split(whereSeparator: { $0 == " " || $0 == "\t" }).first }
            .map { KernelFiles.unescaped($0) }
    }
}
