// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
public import Findings

/// One package file.
public struct LockedPackage: Hashable, Sendable {
    /// SHA-256 of the `.deb`, 64 hexadecimal digits.
    public var sha256: String
    /// Package name.
    public var name: String
    /// Version, with its epoch.
    public var version: String
    /// Architecture: `amd64` or `all`.
    public var architecture: String

    /// The name apt gives the file: the colon of an epoch is written `%3a`.
    var fileName: String { "\(name)_\(version.split(separator: ":").joined(separator: "%3a"))_\(architecture).deb" }

    /// A package whose parts are plausible; `nil` else, so that no name can lead out of a folder or into an option.
    init?(sha256: String, name: String, version: String, architecture: String) {
        let hexadecimal = sha256.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
        guard sha256.utf8.count == 64, hexadecimal, Self.isPlausible(name, "+-."), Self.isPlausible(version, "+-.~:"),
            Self.isPlausible(architecture, "-")
        else { return nil }
        self.sha256 = sha256
        self.name = name
        self.version = version
        self.architecture = architecture
    }

    /// The package of a file as apt names it, `name_version_architecture.deb`.
    init?(fileName: String, sha256: String) {
        guard fileName.hasSuffix(".deb") else { return nil }
        let parts = fileName.dropLast(4).split(separator: "_", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 3 else { return nil }
        self.init(
            sha256: sha256, name: parts[0], version: parts[1].replacing("%3a", with: ":"), architecture: parts[2])
    }

    private static func isPlausible(_ text: String, _ others: String) -> Bool {
        guard let first = text.utf8.first, isAlphanumeric(first), text.utf8.count <= 200 else { return false }
        return text.utf8.allSatisfy { isAlphanumeric($0) || others.utf8.contains($0) }
    }
    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: false
        }
    }
}

/// Exactly which packages a medium is made of: `iso-builder/<suite>.lock`.
///
/// Text. First line `relight-lock 1 <suite> <seconds since 1970>`, the time being the one every file of the medium
/// carries; then `<sha256> <name> <version> <architecture>` for each package, sorted by name.
public struct PackageLock: Hashable, Sendable {
    /// The Debian suite.
    public var suite: String
    /// The time given to every file of the medium, seconds since 1970.
    public var time: Int
    /// The packages, sorted by name.
    public var packages: [LockedPackage]

    /// A lock; the packages are put in order.
    public init(suite: String, time: Int, packages: [LockedPackage]) {
        self.suite = suite
        self.time = time
        self.packages = packages.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    }

    /// Reads a lock file; `file` is its name for messages.
    public init(text: String, file: String) throws(Fault) {
        var lines = text.split(separator: "\n", omittingEmptySubsequences: true).makeIterator()
        let head = lines.next()?.split(separator: " ").map(String.init) ?? []
        guard head.count == 4, head[0] == "relight-lock", head[1] == "1", let time = Int(head[3]), time > 0 else {
            throw Fault(
                .mediaDescription, what: "The first line is not `relight-lock 1 SUITE TIME`.", place: "\(file):1",
                remedy: "Make the file anew with --refresh-lock.")
        }
        var packages: [LockedPackage] = []
        var number = 1
        while let line = lines.next() {
            number += 1
            let words = line.split(separator: " ").map(String.init)
            guard words.count == 4,
                let package = LockedPackage(
                    sha256: words[0], name: words[1], version: words[2], architecture: words[3])
            else {
                throw Fault(
                    .mediaDescription, what: "The line is not `SHA256 NAME VERSION ARCHITECTURE`.",
                    place: "\(file):\(number)", remedy: "Make the file anew with --refresh-lock.")
            }
            packages.append(package)
        }
        self.init(suite: head[2], time: time, packages: packages)
    }

    /// The file's text.
    public var text: String {
        var text = "relight-lock 1 \(suite) \(time)\n"
        for package in packages {
            text += "\(package.sha256) \(package.name) \(package.version) \(package.architecture)\n"
        }
        return text
    }

    /// What differs between what is locked and what was found, one sentence fragment for each package.
    static func differences(locked: [LockedPackage], found: [LockedPackage]) -> [String] {
        var result: [String] = []
        let old = Dictionary(locked.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        let new = Dictionary(found.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        for name in Set(old.keys).union(new.keys).sorted() {
            switch (old[name], new[name]) {
            case (let before?, let after?) where before != after:
                result.append(
                    before.version == after.version
                        ? "\(name) \(after.version) has other bytes"
                        : "\(name) \(before.version) is now \(after.version)")
            case (_?, nil): result.append("\(name) is no longer needed")
            case (nil, let after?): result.append("\(name) \(after.version) is new")
            default: break
            }
        }
        return result
    }
}
