// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings
import Tools

/// The package files a medium is made of.
struct Packages {
    /// Exactly which they are.
    var lock: PackageLock
    /// Their files, in the lock's order.
    var files: [String]

    /// Finds the packages: from the cache when the lock file's are all there, else through apt.
    static func obtain(
        layout: Layout, hooks: [Hook], options: ISOOptions, events: @escaping EventHandler
    ) throws(Fault) -> Packages {
        let lockFile = "\(options.source)/iso-builder/\(layout.suite).lock"
        let words = hooks.flatMap(\.packages)
        let wanted = Set(
            [layout.kernelPackage] + layout.builderPackages + words.filter { !$0.isOptional }.map(\.text)
        ).sorted()
        let optional = Set(words.filter(\.isOptional).map(\.text)).subtracting(wanted).sorted()
        var lock: PackageLock?
        if Files.exists(lockFile), options.lock != .refresh {
            lock = try PackageLock(text: try Files.text(lockFile), file: lockFile)
        }
        let folder = "\(options.cache)/apt-\(layout.suite)"
        if let lock, Set(lock.packages.map(\.name)).isSuperset(of: wanted),
            let files = try cached(lock, folder: folder + "/cache/archives")
        {
            return Packages(lock: lock, files: files)
        }
        let archive = PackageArchive(
            folder: folder, suite: layout.suite, components: layout.components, mirror: options.mirror, events: events)
        let found = try archive.download(wanted, optional: optional, preferring: lock)
        let time = try releaseTime(folder: folder + "/lists")
        var result = PackageLock(suite: layout.suite, time: time, packages: found.map(\.0))
        if let lock {
            let differences = PackageLock.differences(locked: lock.packages, found: result.packages)
            if differences.isEmpty {
                result = lock
            } else if options.lock == .strict {
                throw Fault(
                    .mediaLock,
                    what: "The archive no longer has all packages of the lock file: \(summary(differences)).",
                    place: lockFile,
                    remedy:
                        "Build without --locked to take what the archive has now, or with --refresh-lock to pin that.")
            } else {
                result.time = lock.time
                events(
                    .finding(
                        Finding(
                            .notice, "media.lock",
                            what:
                                "The packages are not those of the lock file (Debian has replaced some), so this image "
                                + "differs from one made of those: \(summary(differences)). The packages used are listed "
                                + "beside the image; --refresh-lock pins them.",
                            place: lockFile)))
            }
        }
        if options.lock == .refresh || lock == nil {
            try Files.write(Data(result.text.utf8), to: lockFile)
            events(.step("Wrote the lock file \(lockFile)"))
        }
        let paths = Dictionary(found.map { ($0.0.name, $0.path) }, uniquingKeysWith: { first, _ in first })
        return Packages(lock: result, files: result.packages.compactMap { paths[$0.name] })
    }

    private static func summary(_ differences: [String]) -> String {
        let shown = differences.prefix(4).joined(separator: "; ")
        return differences.count > 4 ? "\(shown); and \(differences.count - 4) more" : shown
    }

    /// The files of all locked packages; `nil` when one is missing or has other bytes.
    private static func cached(_ lock: PackageLock, folder: String) throws(Fault) -> [String]? {
        var files: [String] = []
        for package in lock.packages {
            let file = folder + "/" + package.fileName
            guard case .file? = Files.kind(file) else { return nil }
            files.append(file)
        }
        for (package, file) in zip(lock.packages, files) where try SHA256.hex(try Files.bytes(file)) != package.sha256 {
            try Files.remove(file)
            return nil
        }
        return files
    }

    /// The newest date of the suite's signed release files, seconds since 1970.
    private static func releaseTime(folder: String) throws(Fault) -> Int {
        var newest = 0
        for name in try Files.names(in: folder) where name.hasSuffix("Release") {
            for line in try Files.text(folder + "/" + name).split(separator: "\n") where line.hasPrefix("Date: ") {
                newest = max(newest, ReleaseDate.seconds(String(line.dropFirst("Date: ".count))) ?? 0)
            }
        }
        guard newest > 0 else {
            throw Fault(
                .mediaArchive, what: "The archive's release files have no date.", place: folder,
                remedy: "Remove the folder and build again.")
        }
        return newest
    }

    /// The tree of all packages, unpacked once for each set of packages.
    func unpacked(cache: String, events: EventHandler) throws(Fault) -> DownloadedRoot {
        let key = try SHA256.hex(Data(("root 1\n" + lock.packages.map(\.sha256).joined(separator: "\n")).utf8)).prefix(
            16)
        let folder = "\(cache)/root-\(lock.suite)-\(key)"
        if Files.exists(folder) { return DownloadedRoot(folder: folder) }
        // Roots of older package sets only take room.
        for name in try Files.names(in: cache) where name.hasPrefix("root-\(lock.suite)-") {
            try Files.remove(cache + "/" + name)
        }
        let root = try DownloadedRoot.unpack(files, into: folder + ".part", events: events)
        let kernel = try Kernel(root: root)
        events(.step("Indexing the modules of kernel \(kernel.release)"))
        try root.run("depmod", ["-b", root.folder, kernel.release])
        try Files.move(root.folder, to: folder)
        return DownloadedRoot(folder: folder)
    }
}

/// Dates as Debian's release files write them: `Sat, 15 Nov 2025 10:24:51 UTC`.
enum ReleaseDate {
    /// Seconds since 1970; `nil` when the text is no such date.
    static func seconds(_ text: String) -> Int? {
        let words = text.split(separator: " ").map(String.init)
        guard words.count == 6, words[5] == "UTC" || words[5] == "+0000", let day = Int(words[1]),
            (1...31).contains(day),
            let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
                .firstIndex(of: words[2]),
            let year = Int(words[3]), (1970...9999).contains(year)
        else { return nil }
        let time = words[4].split(separator: ":").compactMap { Int($0) }
        guard time.count == 3, (0...23).contains(time[0]), (0...59).contains(time[1]), (0...60).contains(time[2]) else {
            return nil
        }
        // Days since 1970-01-01 of the proleptic Gregorian calendar, the year beginning in March.
        let shifted = month < 2 ? year - 1 : year
        let era = shifted / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * ((month + 10) % 12) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        return (era * 146_097 + dayOfEra - 719_468) * 86_400 + time[0] * 3600 + time[1] * 60 + time[2]
    }
}
