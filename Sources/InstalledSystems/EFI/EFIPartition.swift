// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import FileTrees
import Findings
import MachineModel

/// The programs on an EFI system partition, and what each is: by what it carries (SBAT, the systemd stub's sections),
/// else by its name.
struct EFIPartition {
    /// What kernels with their initramfs and command line in one program are called.
    static let unified = "unified kernel image"
    private static let mostFolders = 64
    private static let mostPrograms = 128

    private(set) var programs: [EFIProgram] = []
    private(set) var notes: Notes
    private let volume: String
    private let tree: any FileTree
    /// Heads of programs, to tell copies.
    private var heads: [String: [UInt8]] = [:]

    init(_ volume: String, _ tree: any FileTree) {
        self.volume = volume
        self.tree = tree
        notes = Notes(volume)
    }

    /// Reads it. Throws `interrupted` only.
    mutating func read() throws(Fault) {
        let tree = tree
        let folders =
            try notes.attempt { () throws(Fault) in try tree.names(in: "EFI", most: EFIPartition.mostFolders) } ?? []
        for folder in folders where folder.kind == .folder {
            // Windows has its programs one level down.
            let path = folder.name.lowercased() == "microsoft" ? "EFI/\(folder.name)/Boot" : "EFI/\(folder.name)"
            let files = try notes.attempt { () throws(Fault) in try tree.names(in: path, most: 512) } ?? []
            for file in files where file.kind == .file && file.name.lowercased().hasSuffix(".efi") {
                guard programs.count < EFIPartition.mostPrograms else { return }
                try add("\(path)/\(file.name)", file.size)
            }
        }
        tellCopies()
    }

    private mutating func add(_ path: String, _ size: UInt64) throws(Fault) {
        let tree = tree
        guard let head = try notes.attempt({ () throws(Fault) in try tree.start(of: path, count: PEImage.headBytes) })
        else { return }
        var program = EFIProgram(volume: volume, path: "/\(path)", size: size)
        program.isFallback = EFIPartition.isFallback(path)
        guard let image = try? PEImage(parsing: head) else {
            notes.add(
                Finding(
                    .warning, "efi.no-program",
                    what: size == 0 ? "The EFI program is empty." : "It bears the name of an EFI program, but is none.",
                    place: "\(volume): /\(path)"))
            programs.append(program)
            return
        }
        program.architecture = image.architecture
        program.isSigned = image.isSigned
        heads["/\(path)"] = head
        if image.sections.contains(where: { $0.offset + UInt64($0.length) > size }) {
            notes.add(
                Finding(
                    .warning, "efi.cut-short", what: "The EFI program ends before its own content does.",
                    place: "\(volume): /\(path)"))
        }
        (program.name, program.version) = try identity(path, image)
        programs.append(program)
    }

    /// The text of a section, at most 4 KiB.
    private mutating func text(_ name: String, _ path: String, _ image: PEImage) throws(Fault) -> String? {
        guard let section = image.sections.first(where: { $0.name == name }), section.length > 0 else { return nil }
        let tree = tree
        let bytes = try notes.attempt { () throws(Fault) -> [UInt8]? in
            guard let place = try tree.find(path) else { return nil }
            return try tree.read(place.path, stream: nil, from: section.offset, count: min(section.length, 4096))
        }
        return bytes.map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    private mutating func identity(_ path: String, _ image: PEImage) throws(Fault) -> (String?, String?) {
        let names = Set(image.sections.map(\.name))
        if names.contains(".linux"), names.contains(".osrel") || names.contains(".cmdline") || names.contains(".initrd")
        {
            return (EFIPartition.unified, try text(".uname", path, image).flatMap { PlainText.safe($0, limit: 128) })
        }
        let file = path.split(separator: "/").last.map { $0.lowercased() } ?? ""
        // "#### LoaderInfo: systemd-boot 252.33-1~deb12u1 ####"
        if let magic = try text(".sdmagic", path, image), let colon = magic.firstIndex(of: ":") {
            let words = magic[magic.index(after: colon)...].split(separator: " ")
            if words.first == "systemd-boot" {
                return ("systemd-boot", words.dropFirst().first.flatMap { PlainText.safe($0) })
            }
        }
        let byName = EFIPartition.named.first { file.hasPrefix($0.prefix) && !$0.prefix.isEmpty }?.name
        if let sbat = try text(".sbat", path, image) {
            // component, generation, vendor, package, version, address
            let rows = sbat.split(whereSeparator: \.isNewline).map {
                $0.split(separator: ",", omittingEmptySubsequences: false)
            }
            .filter { $0.count >= 5 && $0[0] != "sbat" }
            if let first = rows.first {
                let component = first[0].split(separator: ".").first.map(String.init) ?? ""
                let own = EFIPartition.components[component] ?? PlainText.safe(component, limit: 64)
                // shim's companions carry its rows.
                let name = component == "shim" ? byName ?? own : own
                let row = rows.last { $0[0].hasPrefix("\(component).") } ?? first
                return (name, PlainText.safe(row[4], limit: 64))
            }
        }
        if names.contains("mods") { return ("GRUB", nil) }
        return (byName, nil)
    }

    private static let components = [
        "grub": "GRUB", "shim": "shim", "systemd": "systemd-boot", "systemd-boot": "systemd-boot", "refind": "rEFInd",
        "fwupd-efi": "fwupd", "fwupd": "fwupd", "linux": "Linux kernel", "memtest86+": "Memtest86+",
    ]
    private static let named: [(prefix: String, name: String)] = [
        ("bootmgfw", "Windows Boot Manager"), ("bootmgr", "Windows Boot Manager"),
        ("memtest.efi", "Windows Memory Diagnostic"), ("shim", "shim"), ("mm", "MokManager"), ("fb", "shim fallback"),
        ("grub", "GRUB"), ("systemd-boot", "systemd-boot"), ("refind", "rEFInd"), ("fwup", "fwupd"),
        ("memtest86", "Memtest86+"), ("vmlinuz", "Linux kernel"), ("gcd", "GRUB"),
    ]

    /// What is started from its path alone is nearly always a copy of another program: equal heads have equal checksums.
    private mutating func tellCopies() {
        for index in programs.indices where programs[index].name == nil {
            guard let head = heads[programs[index].path] else { continue }
            let original = programs.first {
                $0.name != nil && $0.size == programs[index].size && heads[$0.path] == head
            }
            programs[index].name = original?.name
            programs[index].version = original?.version
        }
    }

    /// UEFI 2.10, 3.5.1.1.
    private static func isFallback(_ path: String) -> Bool {
        let parts = path.lowercased().split(separator: "/")
        guard parts.count == 3, parts[0] == "efi", parts[1] == "boot", parts[2].hasPrefix("boot") else { return false }
        return ["x64", "ia32", "aa64", "arm", "riscv64", "loongarch64", "ia64"].contains(
            String(parts[2].dropFirst(4).dropLast(4)))
    }
}
