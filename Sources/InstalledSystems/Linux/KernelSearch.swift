// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FileTrees
import Findings
import MachineModel

/// The kernels of a Linux: images in /boot, beside their modules, and those that entries of the Boot Loader Specification
/// (type 1) name; and modules without an image.
struct KernelSearch {
    /// Kernels told of one system.
    static let most = 64
    private(set) var kernels: [LinuxKernel] = []
    private(set) var notes: Notes
    private let view: SystemView
    /// Where its EFI system partitions are mounted.
    private let points: [String]
    private var modules: Set<String> = []

    init(_ view: SystemView, _ points: [String], _ notes: Notes) {
        self.view = view
        self.points = points
        self.notes = notes
    }

    mutating func run() throws(Fault) {
        let view = view
        for folder in ["usr/lib/modules", "lib/modules"] where modules.isEmpty {
            let names = try notes.attempt { () throws(Fault) in try view.names(in: folder, most: 256) } ?? []
            modules = Set(names.filter { $0.kind == .folder }.map(\.name))
            for release in modules.sorted() {
                let image = "\(folder)/\(release)/vmlinuz"
                guard let place = try notes.attempt({ () throws(Fault) in try view.find(image) }) else { continue }
                add(LinuxKernel(release: release, image: "/\(image)", volume: view.place(place.path).volume))
            }
        }
        try inBoot()
        for point in ["boot"] + points.map({ String($0.dropFirst()) }) { try entries(point) }
        for release in modules.sorted() where !kernels.contains(where: { $0.release == release }) {
            add(LinuxKernel(release: release))
        }
        for index in kernels.indices { kernels[index].hasModules = modules.contains(kernels[index].release) }
        // Fedora and Arch keep the image beside the modules and a copy in /boot, which is the one that is started.
        kernels = kernels.filter { kernel in
            !(kernel.image?.contains("lib/modules/") ?? false)
                || !kernels.contains { $0.release == kernel.release && $0.image != kernel.image }
        }
    }

    /// What `uname -r` would say of a unified image, and where it is.
    static func unified(_ release: String, _ path: String, _ volume: String) -> LinuxKernel {
        LinuxKernel(release: release, image: path, volume: volume, initramfs: path, isUnified: true)
    }

    private mutating func add(_ kernel: LinuxKernel) {
        if kernels.count < KernelSearch.most, !kernels.contains(where: { $0.image == kernel.image && $0.image != nil })
        {
            kernels.append(kernel)
        }
    }

    private mutating func inBoot() throws(Fault) {
        let view = view
        let entries = try notes.attempt { () throws(Fault) in try view.names(in: "boot", most: 1024) } ?? []
        let sizes = Dictionary(entries.map { ($0.name, $0.size) }) { first, _ in first }
        for entry in entries where entry.kind == .file {
            guard
                let prefix = ["vmlinuz", "vmlinux", "bzImage", "kernel", "Image"].first(where: {
                    entry.name.hasPrefix($0)
                }),
                entry.name.count > prefix.count, entry.name.dropFirst(prefix.count).first == "-"
            else { continue }
            let suffix = String(entry.name.dropFirst(prefix.count + 1))
            guard !suffix.hasSuffix(".hmac"), !suffix.hasSuffix(".sig"), !suffix.hasSuffix(".old") else { continue }
            let path = "boot/\(entry.name)"
            guard let place = try notes.attempt({ () throws(Fault) in try view.find(path) }) else { continue }
            let release = try notes.attempt { () throws(Fault) in try KernelImage.release(path, view) } ?? suffix
            var kernel = LinuxKernel(release: release, image: "/\(path)", volume: view.place(place.path).volume)
            let names = [release, suffix].flatMap {
                [
                    "initrd.img-\($0)", "initramfs-\($0).img", "initrd-\($0)", "initramfs-\($0)", "initrd-\($0).img",
                    "booster-\($0).img",
                ]
            }
            if let name = names.first(where: { sizes[$0] != nil }) {
                if sizes[name] == 0 {
                    notes.add(
                        Finding(
                            .warning, "system.initramfs-empty",
                            what: "The initramfs /boot/\(name) is empty: kernel \(release) cannot start with it.",
                            place: view.place(place.path).volume))
                } else {
                    kernel.initramfs = "/boot/\(name)"
                }
            }
            if entry.size == 0 {
                notes.add(
                    Finding(
                        .warning, "system.kernel-empty", what: "The kernel /\(path) is empty.",
                        place: view.place(place.path).volume))
            }
            add(kernel)
        }
    }

    /// Entries in `loader/entries` of a boot partition. Their paths count from that partition's root.
    private mutating func entries(_ point: String) throws(Fault) {
        let view = view
        let folder = "\(point)/loader/entries"
        let names = try notes.attempt { () throws(Fault) in try view.names(in: folder, most: 64) } ?? []
        for entry in names where entry.kind == .file && entry.name.hasSuffix(".conf") {
            let path = "\(folder)/\(entry.name)"
            guard let bytes = try notes.attempt({ () throws(Fault) in try view.file(path, limit: 64 << 10) }) else {
                continue
            }
            var values: [String: String] = [:]
            for line in PlainText.lines(bytes) {
                let words = PlainText.trim(line).split(maxSplits: 1, whereSeparator: \.isWhitespace)
                if words.count == 2, values[String(words[0])] == nil {
                    values[String(words[0])] = PlainText.trim(words[1])
                }
            }
            guard let linux = values["linux"] else { continue }
            let image = "\(point)/\(TreePaths.clean(linux).joined(separator: "/"))"
            guard let place = try notes.attempt({ () throws(Fault) in try view.find(image) }) else {
                notes.add(
                    Finding(
                        .notice, "system.entry-without-kernel",
                        what:
                            "The boot entry \(entry.name) names a kernel that is not there: \(PlainText.safe(linux) ?? "").",
                        place: view.place(TreePaths.clean(folder)).volume))
                continue
            }
            let release =
                try notes.attempt { () throws(Fault) in try KernelImage.release(image, view) }
                ?? PlainText.safe(values["version"] ?? "", limit: 128) ?? entry.name
            var kernel = LinuxKernel(release: release, image: "/\(image)", volume: view.place(place.path).volume)
            if let initrd = values["initrd"] {
                let initramfs = "\(point)/\(TreePaths.clean(initrd).joined(separator: "/"))"
                if try notes.attempt({ () throws(Fault) in try view.find(initramfs) }) != nil {
                    kernel.initramfs = "/\(initramfs)"
                }
            }
            add(kernel)
        }
    }
}

/// The image of a Linux kernel. Documentation/arch/x86/boot.rst.
enum KernelImage {
    /// The release in its head; `nil` where it is none for a PC, or says nothing. Throws as the tree does.
    static func release(_ path: String, _ view: SystemView) throws(Fault) -> String? {
        guard let place = try view.find(path), place.entry.kind == .file else { return nil }
        let head = try view.read(place.path, stream: nil, from: 0, count: 0x212)
        guard head.count >= 0x210, head[0x202..<0x206].elementsEqual("HdrS".utf8) else { return nil }
        // kernel_version: where the text lies, counted from the second sector.
        let offset = UInt64(head[0x20E]) | UInt64(head[0x20F]) << 8
        guard offset > 0 else { return nil }
        let text = try view.read(place.path, stream: nil, from: 0x200 + offset, count: 128)
        let word = String(decoding: text.prefix { $0 != 0 }, as: UTF8.self).split(separator: " ").first
        guard let word, word.first?.isNumber == true else { return nil }
        return PlainText.safe(word, limit: 128)
    }
}

/// Releases in the order of time.
enum Versions {
    /// Whether `one` is newer than `other`: numbers count as numbers.
    static func isNewer(_ one: String, _ other: String) -> Bool {
        let (first, second) = (parts(one), parts(other))
        for (left, right) in zip(first, second) where left != right {
            if let a = UInt64(left), let b = UInt64(right) {
                if a != b { return a > b }
            } else {
                return left > right
            }
        }
        return first.count == second.count ? one < other : first.count > second.count
    }

    private static func parts(_ text: String) -> [String] {
        var result: [String] = []
        var isDigits: Bool?
        for character in text {
            let digit = character.isASCII && character.isNumber
            if digit == isDigits, let last = result.indices.last {
                result[last].append(character)
            } else {
                result.append(String(character))
            }
            isDigits = digit
        }
        return result
    }
}
