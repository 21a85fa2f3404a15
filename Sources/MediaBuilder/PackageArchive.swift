// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Findings
import Geometry
import Synchronization
import Tools

/// Downloads packages of one Debian suite into a folder without touching the host's apt: own sources, lists, cache and
/// an empty status file, so that every dependency is resolved as on an empty system.
///
/// apt checks the archive's signature and each file's digest. The host's proxy, mirror passwords and mirror are used.
struct PackageArchive {
    /// Everything apt writes goes below this folder.
    let folder: String
    let suite: String
    let components: [String]
    /// The mirror given by hand, if any.
    let mirror: String?
    let events: EventHandler

    private let apt = Tool("apt-get", package: "apt")
    private var configuration: String { folder + "/apt.conf" }
    private var archives: String { folder + "/cache/archives" }

    /// Resolves `wanted`, and of `optional` those the suite has, with all dependencies, preferring the locked versions,
    /// and downloads. The packages with the path of each file.
    func download(
        _ wanted: [String], optional: [String], preferring lock: PackageLock?
    ) throws(Fault) -> [(LockedPackage, path: String)] {
        try configure(preferring: lock)
        events(.step("Reading the package lists of \(suite)"))
        try update()
        let known = optional.isEmpty ? [] : try knownPackages()
        let request = ["-y", "--no-install-recommends", "install"] + wanted + optional.filter(known.contains)
        let plan = try run(["--print-uris"] + request, doing: "The packages cannot be resolved")
        let files = Self.missingFiles(printedURIs: plan.standardOutput)
        if !files.isEmpty {
            events(.step("Downloading \(files.count) packages"))
            try fetch(files, request)
        }
        let chosen = try run(["--simulate"] + request, doing: "The packages cannot be resolved")
        let selected = Self.simulatedInstallations(chosen.standardOutput)
        let present = try Files.names(in: archives)
        var result: [(LockedPackage, path: String)] = []
        for item in selected {
            let file = present.first { name in
                name.hasPrefix("\(item.name)_\(item.version.replacing(":", with: "%3a"))_") && name.hasSuffix(".deb")
            }
            guard let file,
                let package = LockedPackage(
                    fileName: file, sha256: try SHA256.hex(try Files.bytes(archives + "/" + file)))
            else {
                throw Fault(
                    .mediaArchive, what: "apt chose \(item.name) \(item.version) but did not download it.",
                    place: archives, remedy: "Remove the folder and build again.")
            }
            result.append((package, archives + "/" + file))
        }
        return result
    }

    /// The names of all packages of the suite.
    private func knownPackages() throws(Fault) -> Set<String> {
        let output = try Tool("apt-cache", package: "apt").check(
            ["pkgnames"], environment: environment, limit: 64 << 20)
        return Set(output.standardOutput.split(separator: "\n").map(String.init))
    }

    /// Downloads what is missing, telling how far it is: apt names each package as it begins to fetch it.
    private func fetch(_ files: [(package: String, size: UInt64)], _ request: [String]) throws(Fault) {
        let sizes = Dictionary(files.map { ($0.package, $0.size) }, uniquingKeysWith: { first, _ in first })
        let total = ByteCount(files.reduce(0) { $0 + $1.size })
        let begun = Mutex<UInt64>(0)
        let events = events
        let arguments = ["--download-only"] + request
        let output = try apt.run(
            arguments, environment: environment, seconds: 3600,
            onLine: { line in
                // Get:7 http://… trixie/main amd64 zstd amd64 1.5.7+dfsg-1 [756 kB]
                let words = line.split(separator: " ")
                guard words.count > 4, words[0].hasPrefix("Get:"), let size = sizes[String(words[4])] else { return }
                let before = begun.withLock { begun in
                    defer { begun += size }
                    return begun
                }
                events(.progress(Progress(phase: "downloading", done: ByteCount(before), total: total)))
            })
        guard output.status == 0 else { throw failure("The packages cannot be downloaded", output) }
        events(.progress(Progress(phase: "downloading", done: total, total: total)))
    }

    /// The packages and sizes in the output of `apt-get --print-uris`, which leaves out what is already there:
    /// `'URI' NAME_VERSION_ARCHITECTURE.deb SIZE DIGEST`.
    static func missingFiles(printedURIs text: String) -> [(package: String, size: UInt64)] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard line.hasPrefix("'"), words.count >= 3, let size = UInt64(words[2]), size < 1 << 40,
                let name = words[1].split(separator: "_").first
            else { return nil }
            return (String(name), size)
        }
    }

    /// The `Inst NAME (VERSION …)` lines of `apt-get --simulate`.
    static func simulatedInstallations(_ text: String) -> [(name: String, version: String)] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard words.count >= 3, words[0] == "Inst", words[2].hasPrefix("(") else { return nil }
            let name = words[1].split(separator: ":").first.map(String.init) ?? ""
            return (name, String(words[2].dropFirst()))
        }
    }

    /// The host settings that matter for reaching a mirror, out of `apt-config dump`.
    static func networkSettings(_ dump: String) -> String {
        let wanted = [
            "Acquire::http", "Acquire::https", "Acquire::ftp", "Acquire::socks", "Acquire::Retries",
            "Acquire::Force", "Acquire::Check-Valid-Until", "Acquire::Proxy", "Dir::Etc::netrc",
        ]
        return dump.split(separator: "\n").filter { line in wanted.contains { line.hasPrefix($0) } }
            .filter { !$0.hasPrefix("Dir::") || $0.contains("\"/") }.map { $0 + "\n" }.joined()
    }

    private func configure(preferring lock: PackageLock?) throws(Fault) {
        for name in ["lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d"] {
            try Files.makeFolder(folder + "/" + name)
        }
        let settings = Self.networkSettings(try Tool("apt-config", package: "apt").check(["dump"]).standardOutput)
        let text = """
            \(settings)Dir "\(folder)/";
            Dir::Etc "\(folder)/etc";
            Dir::Etc::sourcelist "\(folder)/sources.list";
            Dir::Etc::sourceparts "/dev/null";
            Dir::Etc::preferences "\(folder)/preferences";
            Dir::Etc::trusted "/etc/apt/trusted.gpg";
            Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";
            Dir::Etc::netrc "/etc/apt/auth.conf";
            Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
            Dir::State "\(folder)/";
            Dir::State::status "\(folder)/status";
            Dir::State::lists "\(folder)/lists";
            Dir::Cache "\(folder)/cache";
            APT::Architecture "amd64";
            APT::Architectures { "amd64"; };
            APT::Sandbox::User "";
            APT::Keep-Downloaded-Packages "true";
            APT::Get::Assume-Yes "true";
            Acquire::Languages "none";
            Debug::NoLocking "true";

            """
        try Files.write(Data(text.utf8), to: configuration)
        try Files.write(Data(), to: folder + "/status")
        var preferences = ""
        for package in lock?.packages ?? [] {
            preferences += "Package: \(package.name)\nPin: version \(package.version)\nPin-Priority: 1001\n\n"
        }
        try Files.write(Data(preferences.utf8), to: folder + "/preferences")
    }

    private func update() throws(Fault) {
        let source: ArchiveSource
        if let mirror {
            source = ArchiveSource(mirror: mirror)
        } else {
            source = try ArchiveSource.ofHost(codename: try Self.hostCodename())
        }
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        try Files.write(
            Data(
                source.sourcesList(
                    suite: suite, components: components, keyring: Files.exists(keyring) ? keyring : nil
                ).utf8),
            to: folder + "/sources.list")
        let first = try apt.run(["update", "--error-on=any"], environment: environment, seconds: 900)
        if first.status == 0 { return }
        // The host's keyring may be older than the suite. The host's own archive, which the host trusts, has a newer one.
        if (first.standardError + first.standardOutput).contains("NO_PUBKEY") {
            events(.step("Fetching the keyring that knows the keys of \(suite)"))
            let newer = try fetchKeyring()
            try Files.write(
                Data(source.sourcesList(suite: suite, components: components, keyring: newer).utf8),
                to: folder + "/sources.list")
            let second = try apt.run(["update", "--error-on=any"], environment: environment, seconds: 900)
            if second.status == 0 { return }
            throw unreachable(second)
        }
        throw unreachable(first)
    }

    private func unreachable(_ output: ToolOutput) -> Fault {
        let reason =
            (output.standardError + output.standardOutput).split(separator: "\n")
            .first { $0.hasPrefix("E:") || $0.hasPrefix("Err:") }.map(String.init) ?? output.lastLine
        return Fault(
            .mediaArchive, what: "The package lists of \(suite) cannot be read: \(reason)",
            place: folder + "/sources.list",
            remedy: "Check the network and `apt-get update`; for another mirror use --mirror URL, for another suite "
                + "--suite NAME.")
    }

    private func fetchKeyring() throws(Fault) -> String {
        let place = folder + "/keyring"
        try Files.freshFolder(place)
        try apt.check(["download", "debian-archive-keyring"], directory: place, seconds: 300)
        guard let file = try Files.names(in: place).first(where: { $0.hasSuffix(".deb") }) else {
            throw Fault(
                .mediaArchive, what: "apt downloaded no debian-archive-keyring.", place: place,
                remedy: "Install the newest debian-archive-keyring and build again.")
        }
        try Tool("dpkg-deb", package: "dpkg").check(["-x", place + "/" + file, place + "/root"])
        return place + "/root" + "/usr/share/keyrings/debian-archive-keyring.gpg"
    }

    private var environment: [String: String] { ["APT_CONFIG": configuration, "DEBIAN_FRONTEND": "noninteractive"] }

    @discardableResult
    private func run(_ arguments: [String], doing failure: String, seconds: Double = 900) throws(Fault) -> ToolOutput {
        let output = try apt.run(arguments, environment: environment, seconds: seconds, limit: 16 << 20)
        guard output.status == 0 else { throw self.failure(failure, output) }
        return output
    }

    private func failure(_ what: String, _ output: ToolOutput) -> Fault {
        let reason = output.standardError.split(separator: "\n").filter { $0.hasPrefix("E:") }.joined(separator: " ")
        return Fault(
            .mediaArchive, what: "\(what): \(reason.isEmpty ? output.lastLine : reason)", place: suite,
            remedy: "Check the network and the `packages` lines of the hooks; a package may not exist in \(suite).")
    }

    /// `VERSION_CODENAME` of the host's `/etc/os-release`.
    static func hostCodename() throws(Fault) -> String {
        for line in try Files.text("/etc/os-release").split(separator: "\n") where line.hasPrefix("VERSION_CODENAME=") {
            let value = line.dropFirst("VERSION_CODENAME=".count).filter { $0 != "\"" }
            if !value.isEmpty { return value }
        }
        throw Fault(
            .mediaArchive, what: "The host does not say which Debian suite it is.", place: "/etc/os-release",
            remedy: "Name a mirror with --mirror URL.")
    }
}
