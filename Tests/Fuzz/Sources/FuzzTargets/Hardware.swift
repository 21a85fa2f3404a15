// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

@testable import HardwareMatch

extension FuzzTarget {
    /// Initramfs images; with `p` as the first byte a pattern, a line feed and a name, with `x` index files of modules.
    static let initramfs = FuzzTarget(name: "initramfs", longest: 20_000, seeds: HardwareSeeds.make) { input in
        guard let kind = input.first else { return }
        let bytes = Array(input.dropFirst())
        switch kind {
        case UInt8(ascii: "p"):
            let parts = bytes.split(separator: 10, maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { return }
            let pattern = AliasPattern(String(decoding: parts[0].prefix(300), as: UTF8.self))
            keep(pattern.matches(Array(parts[1].prefix(1000))))
            promise(AliasPattern("*").matches(Array(parts[1])), "a star matches everything")
        case UInt8(ascii: "x"):
            let texts = bytes.split(separator: 0, maxSplits: 3, omittingEmptySubsequences: false)
                .map { String(decoding: $0, as: UTF8.self) }
            guard texts.count == 4 else { return }
            let index = ModuleIndex(
                .init(dependencies: texts[0], aliases: texts[1], builtIn: texts[2], soft: texts[3]))
            for name in index.files.keys.prefix(50) {
                let closure = index.closure(name)
                promise(Set(closure).count == closure.count && closure.contains(name), "a module once: \(name)")
            }
            keep(index.drivers(of: texts[3]).count)
        default:
            guard let image = try? InitramfsImage(bytes, place: "fuzz", wants: { _ in true }) else { return }
            keep(image.modules().count)
            var end = 0
            for part in image.parts {
                promise(part.offset >= end && part.length > 0, "parts follow each other")
                end = part.offset + part.length
            }
            promise(end <= bytes.count, "parts lie in the file")
            let kept = image.entries.values.reduce(0) { $0 + ($1.content?.count ?? 0) }
            promise(kept <= CpioReader.largestSum * max(1, image.parts.count), "memory is bounded")
        }
    }
}

enum HardwareSeeds {
    /// A cpio archive of `files`.
    static func archive(_ files: [(String, mode: UInt32, String)]) -> [UInt8] {
        var result: [UInt8] = []
        for (name, mode, content) in files + [("TRAILER!!!", 0, "")] {
            result += Array("070701".utf8)
            for value in [1, mode, 0, 0, 1, 0, UInt32(content.utf8.count), 0, 0, 0, 0, UInt32(name.utf8.count + 1), 0] {
                let digits = String(value, radix: 16)
                result += Array((String(repeating: "0", count: 8 - digits.count) + digits).utf8)
            }
            result += Array(name.utf8) + [0]
            while result.count % 4 != 0 { result.append(0) }
            result += Array(content.utf8)
            while result.count % 4 != 0 { result.append(0) }
        }
        return result
    }

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        let early = archive([("kernel", 0o40755, ""), ("kernel/x.bin", 0o100644, "code")])
        let main = archive([
            ("./etc", 0o40755, ""), ("etc/conf", 0o100644, "one\n"), ("lib", 0o120777, "usr/lib"),
            ("usr/lib/modules/6.1/kernel/ahci.ko.xz", 0o100644, "x"),
        ])
        let index = [
            "kernel/a.ko: kernel/b.ko.xz\nkernel/b.ko.xz:\n", "alias pci:v*d*bc01* a\nalias usb:v[0-9]?* b\n",
            "kernel/c.ko\n", "softdep a pre: b\n",
        ].joined(separator: "\0")
        return [
            ("image", Array("i".utf8) + early + [UInt8](repeating: 0, count: 12) + main),
            ("pattern", Array("ppci:v*d*bc0[1-3]s?i\\**\npci:v0000d00bc02s1i*0".utf8)),
            ("index", Array("x".utf8) + Array(index.utf8)),
        ]
    }
}
