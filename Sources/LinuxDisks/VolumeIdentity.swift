// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Tools

/// What a device holds, as far as naming it goes.
public struct VolumeIdentity: Hashable, Sendable {
    /// The name libblkid gives the content (`ext4`, `vfat`, `ntfs`, `crypto_LUKS` …).
    public var kind: String
    /// The filesystem's label.
    public var label: String?
    /// The filesystem's UUID or serial.
    public var uuid: String?

    /// An identity.
    public init(kind: String, label: String? = nil, uuid: String? = nil) {
        self.kind = kind
        self.label = label
        self.uuid = uuid
    }

    /// Tells what the device at a path holds; `nil` when nothing was recognised.
    public typealias Identifier = @Sendable (String) -> VolumeIdentity?

    /// Asks the `blkid` program, so that a hostile superblock can end that child at most.
    public static let byProgram: Identifier = { path in
        let blkid = Tool("blkid", package: "util-linux")
        guard let output = try? blkid.run(["-p", "-o", "export", path], seconds: 30, limit: 65_536), output.status == 0
        else { return nil }
        return VolumeIdentity(export: output.standardOutput)
    }

    /// Reads `KEY=value` lines; a backslash stands before each special character.
    init?(export text: String) {
        var values: [String: String] = [:]
        for line in text.split(separator: "\n") {
            guard let sign = line.firstIndex(of: "=") else { continue }
            var value = ""
            var isEscaped = false
            for character in line[line.index(after: sign)...] {
                if character == "\\", !isEscaped {
                    isEscaped = true
                } else {
                    value.append(character)
                    isEscaped = false
                }
            }
            values[String(line[..<sign])] = value
        }
        guard let kind = values["TYPE"] else { return nil }
        self.init(kind: kind, label: values["LABEL"], uuid: values["UUID"])
    }
}

/// A device that holds something, found by label or UUID.
public struct FoundVolume: Hashable, Sendable {
    /// The device's node.
    public var path: String
    /// What it holds.
    public var identity: VolumeIdentity
    /// Kernel names of the disks it lies on.
    public var disks: Set<String>
}

extension DiskScan {
    /// Every partition, whole disk without partitions, and layered device, with what it holds. A disk of whose partitions
    /// none holds anything known is looked at as a whole too: the kernel may still show partitions of what a loop device or
    /// card reader held before.
    public func volumes(_ identify: VolumeIdentity.Identifier) -> [FoundVolume] {
        var result: [FoundVolume] = []
        for device in devices where device.kind == .disk || device.kind == .layered {
            let disks = wholeDisks(under: device.name, throughFiles: false)
            func found(_ path: String) -> FoundVolume? {
                identify(files.root + path).map { FoundVolume(path: path, identity: $0, disks: disks) }
            }
            let inPartitions = device.partitions.compactMap { found($0.path) }
            result += inPartitions
            if inPartitions.isEmpty, let whole = found(device.path) { result.append(whole) }
        }
        return result
    }
}
