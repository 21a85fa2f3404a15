// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Testing

@testable import WindowsHives

@Suite struct IdentityTests {
    typealias Key = HiveBuilder.Key
    typealias Value = HiveBuilder.Value

    /// A SOFTWARE hive with these values of CurrentVersion.
    static func software(_ values: [Value]) throws -> Hive {
        var root = Key("ROOT", [Key("Classes")])
        for value in values { root.set("Microsoft\\Windows NT\\CurrentVersion", value) }
        return try Hive(HiveSource(HiveBuilder().build(root), name: "SOFTWARE"))
    }

    static func system(_ change: (inout Key) -> Void = { _ in }) throws -> Hive {
        var root = Key("ROOT")
        for (name, number) in [("Current", 2), ("Default", 2), ("Failed", 0), ("LastKnownGood", 1)]
            as [(String, UInt32)]
        {
            root.set("Select", Value(name, number))
        }
        root.set("ControlSet002\\Control\\ComputerName\\ComputerName", Value("ComputerName", "WORKSTATION"))
        root.set("ControlSet002\\Control\\Session Manager\\Environment", Value("PROCESSOR_ARCHITECTURE", "AMD64"))
        root.set("ControlSet001\\Control\\ComputerName\\ComputerName", Value("ComputerName", "OLD"))
        change(&root)
        return try Hive(HiveSource(HiveBuilder().build(root), name: "SYSTEM"))
    }

    @Test func windows11IsToldByItsBuild() throws {
        let software = try Self.software([
            Value("ProductName", "Windows 10 Pro"), Value("EditionID", "Professional"), Value("CurrentBuild", "22631"),
            Value("CurrentBuildNumber", "22631"), Value("UBR", 3007), Value("DisplayVersion", "23H2"),
            Value("ReleaseId", "2009"), Value("InstallationType", "Client"), Value("SystemRoot", "C:\\Windows"),
            Value("CurrentMajorVersionNumber", 10), Value("CurrentMinorVersionNumber", 0),
            Value("CurrentVersion", "6.3"),
            Value("BuildLabEx", "22621.1.amd64fre.ni_release.220506-1250"),
        ])
        let identity = WindowsIdentity(system: try Self.system(), software: software)
        #expect(identity.productName == "Windows 11 Pro")
        #expect(identity.edition == "Professional" && identity.installationType == "Client")
        #expect(identity.version == "10.0" && identity.build == 22_631 && identity.updateRevision == 3007)
        #expect(identity.displayVersion == "23H2" && identity.systemRoot == "C:\\Windows")
        #expect(identity.architecture == "amd64" && identity.computerName == "WORKSTATION")
        #expect(identity.controlSets?.currentName == "ControlSet002" && identity.controlSets?.lastKnownGood == 1)
        #expect(identity.isServer == false && identity.findings.isEmpty)
        #expect(identity.summary == "Windows 11 Pro 23H2 (build 22631.3007, amd64)")
        #expect(software.kind == .software)
    }

    @Test(arguments: [
        ("Windows 10 Pro", "19045", "Windows 10 Pro"), ("Windows 10 Enterprise", "22000", "Windows 11 Enterprise"),
        ("Windows Server 2022 Standard", "20348", "Windows Server 2022 Standard"),
        ("Windows Server 2025 Datacenter", "26100", "Windows Server 2025 Datacenter"),
        ("Windows 7 Ultimate", "7601", "Windows 7 Ultimate"), ("Windows 11 Home", "22621", "Windows 11 Home"),
    ])
    func productNamesAreCorrectedOnlyWhereTheyAreWrong(name: String, build: String, expected: String) throws {
        let identity = WindowsIdentity(
            system: nil, software: try Self.software([Value("ProductName", name), Value("CurrentBuildNumber", build)]))
        #expect(identity.productName == expected)
        #expect(identity.isServer == name.contains("Server"))
    }

    @Test func windowsXPIsToldToo() throws {
        let identity = WindowsIdentity(
            system: try Self.system { $0.subkeys.removeAll { $0.name == "ControlSet002" } },
            software: try Self.software([
                Value("ProductName", "Microsoft Windows XP"), Value("CurrentBuildNumber", "2600"),
                Value("CurrentBuild", "1.511.1 () (Obsolete data - do not use)"), Value("CurrentVersion", "5.1"),
                Value("CSDVersion", "Service Pack 3"), Value("BuildLab", "2600.xpsp.080413-2111"),
            ]))
        #expect(identity.build == 2600 && identity.version == "5.1" && identity.architecture == nil)
        #expect(identity.summary == "Microsoft Windows XP Service Pack 3 (build 2600)")
        // The set in use is gone: the last one that worked is there.
        #expect(identity.computerName == "OLD")
    }

    @Test func whatIsMissingIsNotTold() throws {
        let nothing = WindowsIdentity(system: nil, software: nil)
        #expect(nothing.summary == "Windows" && nothing.findings.isEmpty && nothing.isServer == nil)
        let empty = try Hive(HiveSource(HiveBuilder().build(Key("root"))))
        #expect(WindowsIdentity(system: empty, software: empty) == nothing)
        #expect(empty.kind == .other)
        let system = WindowsIdentity(
            system: try Self.system {
                $0.set("ControlSet002\\Control\\ProductOptions", Value("ProductType", "ServerNT"))
            },
            software: nil)
        #expect(system.isServer == true && system.architecture == "amd64" && system.productName == nil)
    }

    @Test func damageIsAFindingAndTheRestIsTold() throws {
        let software = HiveBuilder().build(
            Key(
                "ROOT",
                [
                    Key(
                        "Microsoft",
                        [Key("Windows NT", [Key("CurrentVersion", values: [Value("ProductName", "Windows 10 Pro")])])])
                ]))
        let hive = try Hive(HiveSource(software))
        let key = try #require(try hive.key("Microsoft\\Windows NT\\CurrentVersion"))
        var damaged = software
        damaged.put(0x0400_0000 as UInt32, at: 4096 + 4 + Int(key.offset) + 40)
        let identity = WindowsIdentity(
            system: try Self.system(), software: try Hive(HiveSource(damaged, name: "SOFTWARE")))
        #expect(identity.findings.map(\.code) == ["hive.damaged"])
        #expect(identity.findings.first?.place.hasPrefix("SOFTWARE") == true)
        #expect(identity.computerName == "WORKSTATION")
        let dirty = LogTests.dirty(HiveBuilder().build(Key("root")), (8, 7))
        let told = WindowsIdentity(system: nil, software: try Hive(HiveSource(dirty, name: "SOFTWARE")))
        #expect(told.findings.map(\.code) == ["hive.dirty"])
    }

    @Test func kindsAreToldByTheirKeys() throws {
        func kind(_ names: String...) throws -> HiveKind {
            try Hive(HiveSource(HiveBuilder().build(Key("x", names.map { Key($0) })))).kind
        }
        #expect(try kind("Select", "ControlSet001") == .system)
        #expect(try kind("Microsoft", "Classes") == .software)
        #expect(try kind("Description", "Objects") == .bcd)
        #expect(try kind("DriverDatabase") == .drivers)
        #expect(try kind("SAM") == .sam)
        #expect(try kind("Policy", "RXACT") == .security)
        #expect(try kind("Software", "Control Panel", "Environment") == .user)
        #expect(try kind("CanonicalData", "Installers") == .components)
        #expect(try kind("Objects") == .other)
        #expect(try Self.system().kind == .system)
    }

    @Test(
        .enabled(if: RealData.isThere, RealData.missing),
        arguments: [
            ("hives/winxp-sp2-x86-SYSTEM.xz", "x86"), ("hives/win7-sp1-x86-SYSTEM.xz", "x86"),
            ("hives/win81-x64-SYSTEM-dirty-header.xz", "amd64"), ("dirty/win10-1709-x64/SYSTEM.xz", "amd64"),
        ])
    func realSystemsAreIdentified(name: String, architecture: String) throws {
        let hive = try Hive(RealData.source(name))
        #expect(hive.kind == .system)
        let identity = WindowsIdentity(system: hive, software: nil)
        #expect(identity.architecture == architecture)
        #expect(identity.computerName?.isEmpty == false)
        #expect(identity.controlSets?.current == 1)
        #expect(identity.findings.allSatisfy { $0.code == "hive.dirty" })
    }
}
