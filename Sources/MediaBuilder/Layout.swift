// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// The figures of the medium, from `iso-builder/layout`.
struct Layout: Hashable, Sendable {
    /// Debian suite everything is taken from.
    var suite = ""
    /// Components of the archive.
    var components: [String] = []
    /// Package that brings the newest kernel of the suite.
    var kernelPackage = ""
    /// Packages whose programs build the medium; nothing of them enters it unless a hook says so.
    var builderPackages: [String] = []
    /// Volume name of the ISO 9660 file system.
    var volumeName = ""
    /// Size of the EFI system partition's image, KiB.
    var efiImageKiB = 0
    /// Serial number of that FAT file system, 8 hexadecimal digits.
    var efiSerial = ""
    /// Volume name of that FAT file system.
    var efiVolumeName = ""
    /// Largest allowed size of the ISO, bytes.
    var sizeLimit: UInt64 = 0
    /// GRUB modules inside the BIOS core image.
    var biosModules: [String] = []

    /// Reads the file; `file` is its name for messages.
    init(text: String, file: String) throws(Fault) {
        for line in try DeclarationFile.parse(text, file: file) {
            switch line.verb {
            case "suite": suite = try line.single("name")
            case "components": components += line.words.map(\.text)
            case "kernel": kernelPackage = try line.single("package")
            case "builder-packages": builderPackages += line.words.map(\.text)
            case "volume-name": volumeName = try line.single("name")
            case "efi-image-kib": efiImageKiB = try line.number(2_048...262_144)
            case "efi-serial": efiSerial = try line.single("serial")
            case "efi-volume-name": efiVolumeName = try line.single("name")
            case "size-limit": sizeLimit = UInt64(try line.number(1_000_000...4_000_000_000))
            case "bios-modules": biosModules += line.words.map(\.text)
            default:
                throw line.fault(
                    "`\(line.verb)` is not a verb of the layout file.", remedy: "See the comments in \(file).")
            }
        }
        let checks: [(name: String, isMissing: Bool)] = [
            ("suite", suite.isEmpty), ("components", components.isEmpty), ("kernel", kernelPackage.isEmpty),
            ("builder-packages", builderPackages.isEmpty), ("volume-name", volumeName.isEmpty),
            ("efi-image-kib", efiImageKiB == 0), ("efi-serial", efiSerial.isEmpty),
            ("efi-volume-name", efiVolumeName.isEmpty), ("size-limit", sizeLimit == 0),
            ("bios-modules", biosModules.isEmpty),
        ]
        let missing = checks.filter { $0.isMissing }.map { $0.name }
        guard missing.isEmpty else {
            throw Fault(
                .mediaDescription, what: "These lines are missing: \(missing.joined(separator: ", ")).", place: file,
                remedy: "Add them; the file in Relight's repository has all of them.")
        }
    }
}

extension Declaration {
    /// The line's only word as a number in `range`.
    func number(_ range: ClosedRange<Int>) throws(Fault) -> Int {
        let text = try single("number")
        guard let value = Int(text), range.contains(value) else {
            throw fault(
                "`\(text)` is not a number from \(range.lowerBound) to \(range.upperBound).",
                remedy: "Write `\(verb) \(range.lowerBound)` or more.")
        }
        return value
    }
}
