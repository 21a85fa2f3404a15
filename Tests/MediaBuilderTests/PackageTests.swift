// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import TestSupport
import Testing
import Tools

@testable import MediaBuilder

private let digest = String(repeating: "0123456789abcdef", count: 4)

@Suite struct PackageLockTests {
    private func package(_ name: String, _ version: String, _ sha256: String = digest) throws -> LockedPackage {
        try #require(LockedPackage(sha256: sha256, name: name, version: version, architecture: "amd64"))
    }

    @Test func aLockFileReadsBackAsItWasWritten() throws {
        let lock = PackageLock(
            suite: "trixie", time: 1_795_054_374,
            packages: [try package("zstd", "1.5.7+dfsg-1"), try package("bash", "1:5.2~2")])
        #expect(lock.packages.map(\.name) == ["bash", "zstd"])
        #expect(try PackageLock(text: lock.text, file: "x.lock") == lock)
    }

    @Test func theFileNameIsTheOneAptGives() throws {
        #expect(try package("zlib1g", "1:1.3").fileName == "zlib1g_1%3a1.3_amd64.deb")
        #expect(LockedPackage(fileName: "zlib1g_1%3a1.3_amd64.deb", sha256: digest) == (try package("zlib1g", "1:1.3")))
    }

    @Test(arguments: [
        "", "relight-lock 2 trixie 5\n", "relight-lock 1 trixie 0\n", "relight-lock 1 trixie soon\n",
        "relight-lock 1 trixie 5\nabc bash 5 amd64\n", "relight-lock 1 trixie 5\n\(digest) ../bash 5 amd64\n",
        "relight-lock 1 trixie 5\n\(digest) --force 5 amd64\n", "relight-lock 1 trixie 5\n\(digest) bash 5/6 amd64\n",
        "relight-lock 1 trixie 5\n\(digest) bash 5\n",
    ])
    func aDamagedLockFileIsRefused(_ text: String) {
        #expect(throws: Fault.self) { try PackageLock(text: text, file: "x.lock") }
    }

    @Test func differencesNameEachPackage() throws {
        let other = String(repeating: "f", count: 64)
        let locked = [try package("a", "1"), try package("b", "1"), try package("c", "1"), try package("e", "1")]
        let found = [try package("a", "1"), try package("b", "2"), try package("d", "1"), try package("e", "1", other)]
        #expect(
            PackageLock.differences(locked: locked, found: found)
                == ["b 1 is now 2", "c is no longer needed", "d 1 is new", "e 1 has other bytes"])
    }

    @Test func mutatedLockFilesNeverCrashTheReader() throws {
        let seed = Array(PackageLock(suite: "trixie", time: 9, packages: [try package("bash", "1:5.2~2")]).text.utf8)
        var random = Seeded(0x10C)
        for _ in 0..<5000 {
            _ = try? PackageLock(text: String(decoding: random.mutated(seed), as: UTF8.self), file: "x.lock")
        }
    }
}

@Suite struct ArchiveTests {
    @Test func theHostsDebianArchivesAreTakenAndOthersAreNot() throws {
        let text = """
            http://mirror.example/debian/ bookworm main amd64 Debian
            http://mirror.example/debian/ bookworm contrib amd64 Debian
            http://mirror.example/debian/ bookworm-updates main amd64 Debian
            http://mirror.example/debian-security/ bookworm-security main amd64 Debian
            https://vendor.example/debian/ bookworm main amd64 Vendor
            http://mirror.example/debian/ bookworm-backports main amd64 Debian Backports
            """
        let source = try #require(ArchiveSource(indexTargets: text, codename: "bookworm", needsOrigin: true))
        #expect(
            source.sourcesList(suite: "trixie", components: ["main", "non-free-firmware"], keyring: "/k.gpg") == """
                deb [signed-by=/k.gpg] http://mirror.example/debian/ trixie main non-free-firmware
                deb [signed-by=/k.gpg] http://mirror.example/debian-security/ trixie-security main non-free-firmware
                deb [signed-by=/k.gpg] http://mirror.example/debian/ trixie-updates main non-free-firmware

                """)
    }

    @Test func withoutPackageListsTheAddressDecides() throws {
        let text = """
            https://vendor.example/linux/ bookworm main amd64 $(ORIGIN)
            http://mirror.example/debian/ bookworm main amd64 $(ORIGIN)
            """
        #expect(ArchiveSource(indexTargets: text, codename: "bookworm", needsOrigin: true) == nil)
        let source = try #require(ArchiveSource(indexTargets: text, codename: "bookworm", needsOrigin: false))
        #expect(source.repositories.map(\.uri) == ["http://mirror.example/debian/"])
    }

    /// Both ways apt can be told of an archive, read by apt itself.
    @Test(
        .enabled(if: Tool("apt-get", package: "apt").path != nil, "apt is not installed"),
        arguments: [
            (
                "debian.list",
                "deb http://mirror.example/debian bookworm main\ndeb http://mirror.example/debian-security "
                    + "bookworm-security main\n"
            ),
            (
                "debian.sources",
                "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n\n"
                    + "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\n"
            ),
        ])
    func bothFormatsOfSourcesAreRead(_ name: String, _ text: String) throws {
        let scratch = try Scratch()
        try Files.write(Data(text.utf8), to: scratch.folder + "/parts/" + name)
        try Files.makeFolder(scratch.folder + "/lists/partial")
        let configuration = """
            Dir::Etc "\(scratch.folder)/none";
            Dir::Etc::sourcelist "/dev/null";
            Dir::Etc::sourceparts "\(scratch.folder)/parts";
            Dir::State::lists "\(scratch.folder)/lists";

            """
        try Files.write(Data(configuration.utf8), to: scratch.folder + "/apt.conf")
        let source = try ArchiveSource.ofHost(codename: "bookworm", configuration: scratch.folder + "/apt.conf")
        #expect(source.repositories.map(\.suffix) == ["", "-security"])
        #expect(source.repositories.first?.uri == "http://mirror.example/debian/")
    }

    @Test func ofTheHostsSettingsOnlyThoseOfTheNetworkAreKept() {
        let dump = """
            APT::Architecture "amd64";
            Acquire::http::Proxy "http://proxy.example:3128/";
            Acquire::IndexTargets::deb::Packages::Optional "0";
            Acquire::Retries "3";
            DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb || true";
            Dir::Etc::netrc "auth.conf";
            """
        #expect(
            PackageArchive.networkSettings(dump)
                == "Acquire::http::Proxy \"http://proxy.example:3128/\";\nAcquire::Retries \"3\";\n")
    }

    @Test func whatIsToDownloadIsRead() {
        let text = """
            Reading package lists...
            'http://mirror.example/zlib1g_1.3_amd64.deb' zlib1g_1%3a1.3_amd64.deb 88720 MD5Sum:aa
            'http://mirror.example/x.deb' x_1_all.deb lots
            """
        let files = PackageArchive.missingFiles(printedURIs: text)
        #expect(files.map(\.package) == ["zlib1g"])
        #expect(files.map(\.size) == [88720])
    }

    @Test func whatAptWouldInstallIsRead() {
        let text = """
            Reading package lists...
            Inst libc6 (2.41-12+deb13u4 Debian:13.1/stable [amd64]) []
            Inst zlib1g:amd64 (1:1.3.dfsg-1 Debian:13.1/stable [amd64])
            Conf libc6 (2.41-12+deb13u4 Debian:13.1/stable [amd64])
            """
        let found = PackageArchive.simulatedInstallations(text)
        #expect(found.map(\.name) == ["libc6", "zlib1g"])
        #expect(found.map(\.version) == ["2.41-12+deb13u4", "1:1.3.dfsg-1"])
    }

    @Test(arguments: [
        ("Thu, 01 Jan 1970 00:00:00 UTC", 0), ("Sat, 15 Nov 2025 10:24:51 UTC", 1_763_202_291),
        ("Thu, 29 Feb 2024 23:59:59 UTC", 1_709_251_199),
    ])
    func releaseDatesAreRead(_ text: String, _ seconds: Int) { #expect(ReleaseDate.seconds(text) == seconds) }

    @Test(arguments: [
        "", "soon", "Sat, 15 Nov 2025 10:24 UTC", "Sat, 15 Brr 2025 10:24:51 UTC", "Sat, 99 Nov 2025 10:24:51 UTC",
    ])
    func otherDatesAreNot(_ text: String) { #expect(ReleaseDate.seconds(text) == nil) }
}
