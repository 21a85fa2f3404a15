// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import Testing

@testable import WindowsHives

/// Where real hives must be there, their absence is a failure: the other suites only skip.
@Test(.enabled(if: RealData.isRequired, "RELIGHT_DATA=1 requires the real hives"))
func realHivesAreThere() { #expect(RealData.isThere, RealData.missing) }

/// Hives that Windows wrote, and ones made to be difficult.
@Suite(.enabled(if: RealData.isThere, RealData.missing), .serialized) struct RealHiveTests {
    static let stores = [
        "3alan-win10-uefi/BCD", "3alan-win10-uefi/Recovery-BCD", "bandysc-win10-uefi/BCD", "bizzaro-win10-uefi/BCD",
        "bizzaro-win10-uefi/Recovery-BCD", "cikappa-win11-uefi/BCD", "cikappa-win11-uefi/Recovery-BCD",
        "ezimmerman-client-efi-media/BCD.xz", "go-bcdedit-empty-store/BCD", "ntloader-template/BCD",
        "regipy-win10-uefi/BCD", "systemd/description-bad-type.bcd", "systemd/description-empty.bcd",
        "systemd/displayorder-bad-name.bcd", "systemd/empty.bcd", "systemd/win10.bcd", "usbboot-short-integers/BCD",
        "ventoy-common/BCD", "windeploy-bios/BCD", "windeploy-efi-minimal/BCD", "winpe-media/efi-BCD",
        "winpe-media/pcat-BCD",
    ]
    static let small =
        stores.map { "bcd/\($0)" } + [
            "hives/edge/BigDataHive.xz", "hives/edge/ManySubkeysHive.xz", "hives/edge/UnicodeHive.xz",
            "hives/edge/minimal", "hives/edge/nt-hive-testhive", "hives/edge/rlenvalue_test_hive",
        ]
    static let large = [
        "hives/win7-sp1-x86-SYSTEM.xz", "hives/win81-x64-SYSTEM-dirty-header.xz", "hives/winxp-sp2-x86-SYSTEM.xz",
    ]

    @Test(.enabled(if: hasHivex, "python3-hivex is needed"), arguments: small + large)
    func everyKeyAndValueIsTheOneHivexSees(name: String) throws {
        let scratch = try ScratchFolder()
        let bytes = try RealData.bytes(name)
        let hive = try Hive(HiveSource(bytes, name: name))
        expectSame(try Ours.dump(hive), try Judge.hivex.dump(bytes, in: scratch))
    }

    @Test(.enabled(if: hasRegipy, "the Python module regipy is needed"), arguments: small)
    func everyKeyClassAndNumberIsTheOneRegipySees(name: String) throws {
        let scratch = try ScratchFolder()
        let bytes = try RealData.bytes(name)
        let hive = try Hive(HiveSource(bytes, name: name))
        // It takes names for ASCII that are not.
        func plain(_ lines: [String]) -> [String] { lines.filter { !$0.utf8.contains { $0 >= 0x80 } } }
        expectSame(
            plain(try Ours.dump(hive, types: [3, 4, 11], hasClass: true)),
            plain(try Judge.regipy.dump(bytes, in: scratch)))
    }

    @Test(arguments: stores) func everyStoreHasTheValuesOfItsTable(name: String) throws {
        let hive = try Hive(RealData.source("bcd/\(name)"))
        #expect(hive.kind == (name == "systemd/empty.bcd" ? .other : .bcd))
        let plain = name.hasSuffix(".xz") ? String(name.dropLast(3)) : name
        let table = try RealData.text("expected/bcd__\(plain.split(separator: "/").joined(separator: "__")).tsv")
        let theirs = table.split(separator: "\n").filter { !$0.hasPrefix("#") }.map(String.init)
        var ours: [String] = []
        func walk(_ key: HiveKey) throws {
            for value in try key.values() {
                let line = "\(key.path)\t\(value.name)\t\(value.type.rawValue)\t\(Hex.text(try value.data()))"
                ours.append(line)
            }
            for subkey in try key.subkeys() { try walk(subkey) }
        }
        try walk(try hive.root())
        #expect(!theirs.isEmpty || name == "systemd/empty.bcd")
        // The tables' maker does not keep how many zeros a text has that is nothing else.
        func kept(_ line: String) -> String {
            let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
            guard fields.count == 4, ["1", "7"].contains(fields[2]), fields[3].allSatisfy({ $0 == "0" }) else {
                return line
            }
            return fields[..<3].joined(separator: "\t")
        }
        expectSame(ours.map(kept).sorted(), theirs.map(kept).sorted())
    }

    @Test func theBrokenStoreIsRefusedWithItsPlace() throws {
        let fault = try #require(throws: Fault.self) {
            let hive = try Hive(RealData.source("bcd/systemd/corrupt.bcd"))
            _ = try Ours.dump(hive)
        }
        #expect(fault.code == .hiveDamaged)
        #expect(fault.place.contains("cell 0x"))
        #expect(!fault.remedy.isEmpty)
    }

    @Test func aDirtyHiveWithoutLogsIsReadAsItLiesThereAndSaysSo() throws {
        let hive = try Hive(RealData.source("hives/win81-x64-SYSTEM-dirty-header.xz"))
        #expect(hive.state == .dirty(because: "its sequence numbers are 205 and 204, and no log was given"))
        #expect(hive.kind == .system)
    }

    @Test func classesAndSecurityAreRead() throws {
        let hive = try Hive(RealData.source("hives/winxp-sp2-x86-SYSTEM.xz"))
        // The four keys whose classes make up the boot key: eight digits each.
        for name in ["JD", "Skew1", "GBG", "Data"] {
            let key = try #require(try hive.key("ControlSet001\\Control\\Lsa\\\(name)"))
            let text = try #require(try key.className())
            #expect(text.count == 8 && Hex.bytes(text) != nil)
        }
        let descriptor = try #require(try hive.root().securityDescriptor())
        // Revision 1, self-relative, and the owner's identifier where it says.
        #expect(descriptor[0] == 1 && descriptor[3] & 0x80 != 0)
        #expect(descriptor[Int(descriptor.word(at: 4))] == 1)
    }

    @Test func lookupsFindEveryKeyInAnyCase() throws {
        for (name, most) in [
            ("hives/win7-sp1-x86-SYSTEM.xz", 3000), ("hives/edge/ManySubkeysHive.xz", 200),
            ("hives/edge/UnicodeHive.xz", 10),
        ] {
            let hive = try Hive(RealData.source(name))
            var count = 0
            func walk(_ key: HiveKey) throws {
                for subkey in try key.subkeys() where count < most {
                    count += 1
                    let name = count % 2 == 0 ? subkey.name.uppercased() : subkey.name.lowercased()
                    #expect(try key.subkey(name)?.offset == subkey.offset, "\(subkey.path)")
                    if count % 16 == 0 { #expect(try hive.key(subkey.path)?.offset == subkey.offset) }
                    try walk(subkey)
                }
            }
            try walk(try hive.root())
            #expect(count >= min(most, 2))
            #expect(try hive.key("ControlSet001\\no such key") == nil)
        }
    }

    /// Header, Select, mounted devices, drivers: against tables made with another reader.
    @Test(arguments: ["win7-sp1-x86-SYSTEM", "win81-x64-SYSTEM-dirty-header", "winxp-sp2-x86-SYSTEM"])
    func systemHivesSayWhatTheirTablesSay(name: String) throws {
        let hive = try Hive(RealData.source("hives/\(name).xz"))
        let sets = try #require(try hive.controlSets())
        var seen = 0
        for line in try RealData.text("expected/\(name).tsv").split(separator: "\n") {
            let fields = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
            seen += 1
            switch fields[0] {
            case "header":
                #expect(fields[2] == "\(hive.storedHeader?.primarySequence ?? 0)")
                #expect(fields[3] == "\(hive.storedHeader?.secondarySequence ?? 0)")
            case "Select":
                let value = [
                    "Current": sets.current, "Default": sets.default, "LastKnownGood": sets.lastKnownGood,
                    "Failed": sets.failed,
                ][fields[1]]
                #expect(value == UInt32(fields[2]))
            case "CurrentControlSet": #expect(try hive.currentControlSet()?.name == fields[1])
            case "MountedDevices":
                #expect(try hive.key("MountedDevices")?.value(fields[1])?.data() == Hex.bytes(fields[2]), "\(line)")
            default: seen -= 1
            }
        }
        #expect(seen > 8)
    }
}
