// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import FoundationEssentials
import Glibc
import MachineModel
import TestSupport
import Testing
import Tools

@testable import Edits

/// A folder that goes away with the value.
private final class Scratch {
    let path: String

    init() throws {
        var template = Array("/tmp/relight-edits-XXXXXX".utf8CString)
        try #require(unsafe mkdtemp(&template) != nil)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// Variables in folders and in OVMF's files, judged by efibootmgr and by the firmware's own tools' layout.
@Suite struct EFIVariableStoreTests {
    static let template = "/usr/share/OVMF/OVMF_VARS_4M.fd"
    static let keyed = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
    static let hasOVMF = unsafe access(template, R_OK) == 0 && access(keyed, R_OK) == 0

    private static func bytes(_ path: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: path))) }

    private static func copy(_ path: String, _ folder: Scratch) throws -> String {
        let copy = folder.path + "/vars.fd"
        try Data(try bytes(path)).write(to: URL(filePath: copy))
        return copy
    }

    private static func add(_ option: EFILoadOption, to store: any EFIVariableStore) throws {
        try EFIBootPlan(try EFIBootList(store), place: store.place).adding(option, .first).edits.apply(to: store)
    }

    @Test func aFolderHoldsWhatWasWritten() throws {
        let folder = try Scratch()
        let store = try EFIVariables.open(folder.path)
        try Self.add(EFILoadOptionTests.shim, to: store)
        let again = try EFIVariables.open(folder.path)
        #expect(try EFIBootList(again) == EFIBootList(store))
        let file = folder.path + "/Boot0000-8be4df61-93ca-11d2-aa0d-00e098032b8c"
        #expect(try Self.bytes(file) == [7, 0, 0, 0] + EFILoadOptionTests.shim.bytes)
        try EFIBootPlan(try EFIBootList(store), place: "").removing(0).apply(to: store)
        #expect(try store.names().isEmpty && store.read(.bootOrder) == nil)
    }

    @Test(.enabled(if: Tool("efibootmgr", package: "efibootmgr").path != nil, "needs efibootmgr"))
    func efibootmgrReadsTheSame() throws {
        let folder = try Scratch()
        let store = try EFIVariables.open(folder.path)
        var second = EFILoadOptionTests.shim
        second.label = "zwölf"
        second.attributes = 0
        try Self.add(EFILoadOptionTests.shim, to: store)
        try Self.add(second, to: store)
        let said = try Tool("env", package: "coreutils").check(
            ["EFIVARFS_PATH=\(folder.path)/", "LIBEFIVAR_OPS=efivarfs", "LC_ALL=C.UTF-8", "efibootmgr", "-v"]
        ).standardOutput
        let path = #"HD(1,GPT,11223344-f81f-11d2-ba4b-00a0c93ec93b,0x800,0x100000)/File(\EFI\debian\shimx64.efi)"#
        #expect(said.contains("BootOrder: 0001,0000"))
        #expect(said.contains("Boot0000* debian\t\(path)"))
        #expect(said.contains("Boot0001  zwölf\t\(path)"))
    }

    @Test func aFileThatIsTooShortIsNamed() throws {
        let folder = try Scratch()
        try Data([1, 2]).write(to: URL(filePath: folder.path + "/" + EFIVariableName.bootOrder.file))
        let fault = try #require(throws: Fault.self) { try EFIBootList(try EFIVariables.open(folder.path)) }
        #expect(fault.code == .efiDamaged && fault.place.hasSuffix(EFIVariableName.bootOrder.file))
    }

    @Test func noVariablesAtAllAreSaidSo() throws {
        let fault = try #require(throws: Fault.self) { try EFIVariables.open("/nonexistent") }
        #expect(fault.code == .missing)
        let folder = try Scratch()
        try Data([UInt8](repeating: 0, count: 4096)).write(to: URL(filePath: folder.path + "/zeros"))
        let other = try #require(throws: Fault.self) { try EFIVariables.open(folder.path + "/zeros") }
        #expect(other.code == .wrongKind)
    }

    @Test(.enabled(if: hasOVMF, "needs the package ovmf")) func onlyTheStoreOfAFileChanges() throws {
        let folder = try Scratch()
        let path = try Self.copy(Self.template, folder)
        let before = try Self.bytes(path)
        let store = try EFIVariables.open(path)
        try Self.add(EFILoadOptionTests.shim, to: store)
        let after = try Self.bytes(path)
        // The head of the volume and of the store have 72 and 28 bytes; the store of this file ends at 0x40000.
        #expect(
            after.count == before.count && after[..<100] == before[..<100] && after[0x40000...] == before[0x40000...])
        #expect(try EFIBootList(try EFIVariables.open(path)).entries.map(\.option) == [EFILoadOptionTests.shim])
        try EFIBootPlan(try EFIBootList(store), place: "").removing(0).apply(to: store)
        #expect(try EFIVariables.open(path).names().isEmpty)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["vars.fd"])
    }

    @Test(.enabled(if: hasOVMF, "needs the package ovmf")) func keysAndTheirTimeStampsStay() throws {
        let folder = try Scratch()
        let path = try Self.copy(Self.keyed, folder)
        let store = try EFIVariables.open(path)
        let names = try store.names()
        #expect(names.contains { $0.name == "PK" } && names.contains { $0.name == "dbx" })
        var before: [EFIVariableName: EFIVariable] = [:]
        for name in names { before[name] = try store.read(name) }
        // The key's whole record: head, time stamp, name and content.
        let pk = try #require(before.first { $0.key.name == "PK" })
        let record = try Self.record(of: pk.value.data.bytes, in: Self.bytes(path))
        try Self.add(EFILoadOptionTests.shim, to: store)
        for (name, variable) in before where name != .bootOrder { #expect(try store.read(name) == variable) }
        #expect(try Self.record(of: pk.value.data.bytes, in: Self.bytes(path)) == record)
        #expect(throws: Fault.self) { try store.write(pk.key, EFIVariable([1])) }
        #expect(throws: Fault.self) { try store.write(pk.key, EFIVariable([1], attributes: pk.value.attributes)) }
    }

    /// The record that ends with `content`: from its head on.
    private static func record(of content: [UInt8], in file: [UInt8]) throws -> [UInt8] {
        let start = try #require(
            (0...file.count - content.count).first { at in
                file[at] == content[0] && file[at..<at + content.count].elementsEqual(content)
            })
        return Array(file[start - 66..<start + content.count])
    }

    @Test(.enabled(if: hasOVMF, "needs the package ovmf")) func aFullStoreIsRefusedAndStaysAsItIs() throws {
        let folder = try Scratch()
        let path = try Self.copy(Self.template, folder)
        let store = try EFIVariables.open(path)
        var count = 0
        var fault: Fault?
        while fault == nil, count < 100 {
            var option = EFILoadOptionTests.shim
            option.optionalData = [UInt8](repeating: UInt8(count), count: 30 << 10)
            let before = try Self.bytes(path)
            do {
                try Self.add(option, to: store)
                count += 1
            } catch let error as Fault {
                fault = error
                #expect(try Self.bytes(path) == before)
            }
        }
        #expect(fault?.code == .efiFull && (5...8).contains(count))
        #expect(try EFIBootList(store).entries.count == count)
    }

    @Test(.enabled(if: hasOVMF, "needs the package ovmf")) func damagedFilesAreReadOrRefused() throws {
        let folder = try Scratch()
        let path = try Self.copy(Self.keyed, folder)
        let good = try Self.bytes(path)
        var random = Seeded(11)
        var readable = 0
        for _ in 0..<300 {
            var bytes = Array(good[..<0x8000])
            // The head says that the volume has this many bytes.
            bytes.replaceSubrange(32..<40, with: [0, 0x80, 0, 0, 0, 0, 0, 0])
            bytes.replaceSubrange(88..<92, with: [0xB8, 0x7F, 0, 0])
            for _ in 0..<4 {
                bytes[Int.random(in: 0..<0x4000, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            try Data(bytes).write(to: URL(filePath: path))
            guard let store = try? EFIVariables.open(path), let list = try? EFIBootList(store) else { continue }
            readable += 1
            for entry in list.entries { _ = entry.option.map { "\($0.path)" } }
        }
        #expect(readable > 10 && readable < 300)
    }
}
