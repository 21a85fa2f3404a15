// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import MachineModel

@testable import Edits

extension FuzzTarget {
    /// Boot entries, names of variables and files of them. The first byte says which.
    static let efi = FuzzTarget(name: "efi", longest: 8_000, seeds: FirmwareSeeds.make) { input in
        guard let kind = input.first else { return }
        let bytes = Array(input.dropFirst())
        switch kind {
        case UInt8(ascii: "o"):
            guard let option = try? EFILoadOption(bytes) else { return }
            keep(option.path.description)
            keep(option.path.file)
            keep(option.path.partition)
            promise((try? EFILoadOption(option.bytes)) == option, "an entry reads back as it was written")
        case UInt8(ascii: "n"):
            let text = String(decoding: bytes, as: UTF8.self)
            if let name = EFIVariableName(file: text) {
                promise(EFIVariableName(file: name.file) == name, "a variable's file has its name: \(text)")
            }
            if let number = BootNumber.parse(text) {
                promise(BootNumber.parse(BootNumber.text(number)) == number, "a number is printed as it is read")
            }
        default:
            guard let file = try? EFIVariableFile("fuzz", bytes), let list = try? EFIBootList(file) else { return }
            let plan = EFIBootPlan(list, place: "fuzz")
            guard let added = try? plan.adding(FirmwareSeeds.option, .first) else { return }
            let store = FirmwareMemory()
            for name in (try? file.names()) ?? [] { store.content[name] = try? file.read(name) }
            let before = store.content
            guard (try? added.edits.apply(to: store)) != nil else { return }
            promise((try? EFIBootList(store))?.order.first == added.number, "a new entry is tried first")
            promise((try? added.edits.inverse.apply(to: store)) != nil, "what was made is taken back")
            promise(store.content == before, "what was taken back is as it was")
        }
    }
}

/// Variables in memory.
private final class FirmwareMemory: EFIVariableStore {
    let place = "memory"
    var content: [EFIVariableName: EFIVariable] = [:]
    func names() throws(Fault) -> [EFIVariableName] { Array(content.keys) }
    func read(_ name: EFIVariableName) throws(Fault) -> EFIVariable? { content[name] }
    func write(_ name: EFIVariableName, _ variable: EFIVariable?) throws(Fault) { content[name] = variable }
}

enum FirmwareSeeds {
    static let option = EFILoadOption(
        "debian",
        EFIDevicePath(
            EFIDevicePath.Partition(number: 1, start: 2048, length: 1 << 20, signature: .gpt(.zero)),
            file: #"\EFI\debian\shimx64.efi"#))

    /// A variable file of 2 KiB with `variables`, laid out as OVMF's.
    static func file(_ variables: [(EFIVariableName, [UInt8])]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xFF, count: 2048)
        bytes.replaceSubrange(0..<100, with: [UInt8](repeating: 0, count: 100))
        bytes.replaceSubrange(16..<32, with: GUID("fff12b8d-7696-4c8b-a985-2747075b4f50")?.bytes ?? [])
        bytes.put(UInt64(2048), at: 32)
        bytes.replaceSubrange(40..<44, with: Array("_FVH".utf8))
        bytes.put(UInt16(72), at: 48)
        bytes.replaceSubrange(72..<88, with: GUID("aaf32c78-947b-439a-a180-2e144ec37792")?.bytes ?? [])
        bytes.put(UInt32(2048 - 72), at: 88)
        bytes.replaceSubrange(92..<94, with: [0x5A, 0xFE])
        var at = 100
        for (name, data) in variables {
            let text = UTF16Text.encode(name.name) + [0, 0]
            var record: [UInt8] = [0xAA, 0x55, 0x3F, 0, 7, 0, 0, 0] + [UInt8](repeating: 0, count: 28)
            record.appendLittleEndian(UInt32(text.count))
            record.appendLittleEndian(UInt32(data.count))
            record += name.vendor.bytes + text + data
            record += [UInt8](repeating: 0xFF, count: (4 - record.count % 4) % 4)
            bytes.replaceSubrange(at..<at + record.count, with: record)
            at += record.count
        }
        return bytes
    }

    @Sendable static func make() -> [(name: String, bytes: [UInt8])] {
        var other = option
        other.label = "network"
        other.path = EFIDevicePath([
            EFIDevicePath.Node(2, 1, [0xD0, 0x41, 3, 0x0A, 0, 0, 0, 0]), EFIDevicePath.Node(1, 1, [0, 3]),
            EFIDevicePath.Node(3, 11, [UInt8](repeating: 1, count: 33)),
            EFIDevicePath.Node(3, 24, Array("http://boot".utf8)), EFIDevicePath.Node(5, 1, [2, 0, 0, 0, 72, 68, 0]),
        ])
        other.optionalData = [1, 2, 3]
        let kinds: [(String, String, [UInt8])] = [
            ("option", "o", option.bytes), ("network", "o", other.bytes),
            ("name", "n", Array(EFIVariableName.boot(1).file.utf8)),
            (
                "file", "f",
                file([
                    (.boot(0), option.bytes), (.boot(1), other.bytes), (.bootOrder, [0, 0, 1, 0]), (.bootNext, [1, 0]),
                ])
            ),
        ]
        return kinds.map { ($0.0, Array($0.1.utf8) + $0.2) }
    }
}
