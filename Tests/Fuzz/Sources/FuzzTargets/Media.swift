// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials

@testable import MediaBuilder

extension FuzzTarget {
    /// The text files of the media builder, and what it reads of programs and of apt. The first byte says which.
    static let media = FuzzTarget(name: "media", longest: 8_000, isText: true, seeds: MediaSeeds.make) { input in
        guard let kind = input.first else { return }
        let bytes = Array(input.dropFirst())
        let text = String(decoding: bytes, as: UTF8.self)
        switch kind {
        case UInt8(ascii: "h"):
            guard let hook = try? Hook(name: "fuzz", text: text, file: "fuzz.hook") else { return }
            for word in hook.paths { promise(isConfined(word.text), "paths are absolute: \(word.text)") }
            for link in hook.links { promise(isConfined(link.path), "links lie inside: \(link.path)") }
            for bundle in hook.bundles {
                promise(
                    isConfined(bundle.path) && isConfined(bundle.pattern.text), "bundles lie inside: \(bundle.path)")
            }
        case UInt8(ascii: "l"):
            guard let lock = try? PackageLock(text: text, file: "fuzz.lock") else { return }
            for package in lock.packages {
                promise(!package.fileName.contains("/") && !package.fileName.hasPrefix("-"), "a plain file name")
                promise(
                    LockedPackage(fileName: package.fileName, sha256: package.sha256) == package,
                    "a package's file name names it: \(package.fileName)")
            }
            promise((try? PackageLock(text: lock.text, file: "again")) == lock, "a lock is written as it was read")
        case UInt8(ascii: "y"): keep(try? Layout(text: text, file: "layout"))
        case UInt8(ascii: "m"):
            let parts = text.split(separator: "\u{1}", omittingEmptySubsequences: false).map(String.init)
            func part(_ index: Int) -> String { index < parts.count ? parts[index] : "" }
            let modules = KernelModules(dependencies: part(0), soft: part(1), weak: part(2), builtIn: part(3))
            guard let hook = try? Hook(name: "base", text: "about fuzz\nmodules \(part(4))", file: "fuzz.hook") else {
                return
            }
            keep(try? modules.choose([hook]))
        case UInt8(ascii: "e"): keep(ELF.needsLibraries(Data(bytes)))
        case UInt8(ascii: "d"):
            if let time = ReleaseDate.seconds(text) { promise(time > -90_000, "dates from 1970 on") }
        default:
            keep(PackageArchive.missingFiles(printedURIs: text).map(\.size))
            keep(PackageArchive.simulatedInstallations(text).count)
            keep(PackageArchive.networkSettings(text))
            keep(ArchiveSource(indexTargets: text, codename: "trixie", needsOrigin: kind & 1 == 0)?.repositories.count)
        }
    }

    private static func isConfined(_ path: String) -> Bool {
        path.hasPrefix("/") && !path.utf8.split(separator: UInt8(ascii: "/")).contains { Array($0) == Array("..".utf8) }
    }
}

enum MediaSeeds {
    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        let digest = String(repeating: "0a", count: 32)
        let elf: [UInt8] =
            [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 62, 0, 1, 0, 0, 0]
            + [UInt8](repeating: 0, count: 8) + [64, 0, 0, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 12)
            + [64, 0, 56, 0, 2, 0] + [UInt8](repeating: 0, count: 6) + [1, 0, 0, 0]
            + [UInt8](repeating: 0, count: 52) + [2, 0, 0, 0]
        let texts = [
            (
                "hook", "h",
                """
                about Filesystems. # remark
                packages e2fsprogs dosfstools?
                binaries mke2fs /sbin/e2fsck
                paths /etc/mke2fs.conf /usr/share/x*?
                libraries libnss_files.so.2
                link /usr/bin/sh bash
                bundle /etc/ssl/ca.crt /usr/share/ca/*.crt
                modules fs/ext4 drivers/block/loop
                no-modules fs/ext4/test
                firmware e100/*.bin
                no-firmware e100/x.bin

                """
            ),
            (
                "lock", "l",
                """
                relight-lock 1 trixie 1795054374
                \(digest) adduser 3.152 all
                \(digest) libc6 1:2.41-12+deb13u1~x amd64

                """
            ),
            (
                "layout", "y",
                """
                suite trixie
                components main non-free-firmware
                kernel linux-image-amd64
                builder-packages libc6
                volume-name RELIGHT
                size-limit 140000000
                efi-image-kib 8192
                efi-volume-name RLEFI
                efi-serial 524C0001
                bios-modules biosdisk iso9660

                """
            ),
            (
                "modules", "m",
                "kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz\nkernel/lib/crc16.ko.xz:\n\u{1}softdep ext4 pre: crc32c post: x\n"
                    + "\u{1}weakdep ext4 crc-16\n\u{1}kernel/fs/fat/vfat.ko\n\u{1}fs/ext4 lib/crc[0-9]* fs/fat/vfat"
            ),
            ("date", "d", "Sat, 15 Nov 2025 10:24:51 UTC"),
            (
                "apt", "a",
                """
                'http://mirror.invalid/debian/pool/main/a/adduser_3.152_all.deb' adduser_3.152_all.deb 100 SHA256:\(digest)
                Inst adduser:amd64 (3.152 Debian:13.1/stable [all])
                http://mirror.invalid/debian trixie main amd64 Debian
                Acquire::http::Proxy "http://proxy.invalid:3128";
                Dir::Etc::netrc "/etc/apt/auth.conf";

                """
            ),
        ]
        return texts.map { ($0.0, Array($0.1.utf8) + Array($0.2.utf8)) } + [("elf", [UInt8(ascii: "e")] + elf)]
    }
}
