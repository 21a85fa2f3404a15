// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
public import Findings
import Tools

/// The mirror the host's own apt uses, with another suite put in.
struct ArchiveSource: Hashable, Sendable {
    /// A repository and the kind of suite that is taken from it.
    struct Repository: Hashable, Sendable {
        var uri: String
        /// `""`, `-updates` or `-security`.
        var suffix: String
    }
    var repositories: [Repository]

    /// What `apt-get indextargets` is asked for, one line for each index: apt itself reads both formats of its
    /// configuration, so they need no second reader here.
    static let format = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ARCHITECTURE) $(ORIGIN)"

    /// Asks the host's apt. `configuration` is a foreign apt configuration (tests); `nil` the host's own.
    static func ofHost(codename: String, configuration: String? = nil) throws(Fault) -> ArchiveSource {
        let apt = Tool("apt-get", package: "apt")
        let environment = configuration.map { ["APT_CONFIG": $0] } ?? [:]
        // With its package lists apt knows each repository's origin; without them (a fresh container) only its address.
        let known = try apt.run(
            ["indextargets", "--format", format, "Created-By: Packages"], environment: environment)
        if let source = ArchiveSource(indexTargets: known.standardOutput, codename: codename, needsOrigin: true) {
            return source
        }
        let all = try apt.run(
            ["indextargets", "--no-release-info", "--format", format, "Created-By: Packages"], environment: environment)
        if let source = ArchiveSource(indexTargets: all.standardOutput, codename: codename, needsOrigin: false) {
            return source
        }
        throw Fault(
            .mediaArchive, what: "This machine's apt has no Debian archive for its own suite, \(codename).",
            place: "/etc/apt",
            remedy: "Add one (component main) and run `apt-get update`, or name a mirror with --mirror URL.")
    }

    /// Reads what apt printed. `nil` when it names no archive of `codename`.
    init?(indexTargets text: String, codename: String, needsOrigin: Bool) {
        var found: [Repository] = []
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ").map(String.init)
            guard words.count >= 4, words[2] == "main", words[1].hasPrefix(codename) else { continue }
            // Suites of others are called after Debian's too; with package lists their origin tells, without the path.
            if needsOrigin {
                guard words.count == 5, words[4] == "Debian" else { continue }
            } else {
                let path = words[0].split(separator: "/").last.map(String.init) ?? ""
                guard path == "debian" || path == "debian-security" else { continue }
            }
            let suffix = String(words[1].dropFirst(codename.count))
            guard ["", "-updates", "-security"].contains(suffix) else { continue }
            let repository = Repository(uri: words[0], suffix: suffix)
            if !found.contains(where: { $0.suffix == suffix }) { found.append(repository) }
        }
        guard found.contains(where: { $0.suffix.isEmpty }) else { return nil }
        repositories = found.sorted { $0.suffix < $1.suffix }
    }

    /// A mirror given by hand: it serves the suite and its updates; security updates only from the host's archive.
    init(mirror: String) {
        repositories = [Repository(uri: mirror, suffix: ""), Repository(uri: mirror, suffix: "-updates")]
    }

    /// A `sources.list` for `suite`.
    func sourcesList(suite: String, components: [String], keyring: String?) -> String {
        let option = keyring.map { "[signed-by=\($0)] " } ?? ""
        return repositories.map { repository in
            "deb \(option)\(repository.uri) \(suite)\(repository.suffix) \(components.joined(separator: " "))\n"
        }.joined()
    }
}

extension MediaBuilder {
    /// A `sources.list` for `suite` on the mirror that this machine's apt uses: for programs that install a system.
    /// Throws `media.archive` where apt knows no Debian archive.
    public static func hostSources(suite: String) throws(Fault) -> String {
        try ArchiveSource.ofHost(codename: try PackageArchive.hostCodename())
            .sourcesList(suite: suite, components: ["main"], keyring: nil)
    }
}
