// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import MachineModel
import TestSupport
import Testing

@testable import Edits

/// Load options and device paths, byte for byte.
@Suite struct EFILoadOptionTests {
    static let partition = EFIDevicePath.Partition(
        number: 1, start: 0x800, length: 0x100000,
        signature: .gpt(GUID("11223344-f81f-11d2-ba4b-00a0c93ec93b") ?? .zero))
    static let shim = EFILoadOption("debian", EFIDevicePath(partition, file: #"\EFI\debian\shimx64.efi"#))

    /// Decoded alike by efibootmgr and virt-firmware when this vector was made.
    @Test func anEntryIsEncodedAsOtherProgramsReadIt() {
        let known =
            "010000006200640065006200690061006e00000004012a0001000000000800000000000000001000000000004433221"
            + "11ff8d211ba4b00a0c93ec93b0202040434005c004500460049005c00640065006200690061006e005c00730068006900"
            + "6d007800360034002e0065006600690000007fff0400"
        #expect(Hex.text(Self.shim.bytes) == known)
    }

    @Test(arguments: ["/EFI/debian/shimx64.efi", "EFI/debian/shimx64.efi", #"EFI\debian\shimx64.efi"#])
    func eitherSlashNamesTheSameFile(path: String) {
        #expect(EFIDevicePath(Self.partition, file: path) == Self.shim.path)
    }

    @Test func anEntryReadsBackWhole() throws {
        var option = Self.shim
        option.attributes = EFILoadOption.hidden
        option.label = "zwölf 😀"
        option.optionalData = [0, 1, 2, 255]
        option.furtherPaths = EFIDevicePath(Self.partition, file: "/other").bytes
        let read = try EFILoadOption(option.bytes)
        #expect(read == option && !read.isActive)
        #expect(read.path.partition == Self.partition)
        #expect(read.path.file == #"\EFI\debian\shimx64.efi"#)
    }

    @Test func anMBRPartitionIsKnownByTheDisksSignature() throws {
        let partition = EFIDevicePath.Partition(number: 5, start: 63, length: 99, signature: .mbr(0xDEAD_BEEF))
        let path = EFIDevicePath(partition, file: "/x")
        #expect(path.partition == partition)
        #expect("\(path)" == #"HD(5,MBR,0xdeadbeef,0x3f,0x63)/\x"#)
        #expect(Array(path.bytes[24..<42]) == [0xEF, 0xBE, 0xAD, 0xDE] + [UInt8](repeating: 0, count: 12) + [1, 1])
    }

    /// Nodes in hexadecimal, and how the UEFI specification writes them.
    @Test(arguments: [
        (
            "02010c00d041030a00000000" + "010106000201" + "03120a000000ffff0000",
            "PciRoot(0x0)/Pci(0x1,0x2)/Sata(0,65535,0)"
        ),
        ("0317100001000000" + "0102030405060708", "NVMe(0x1,08-07-06-05-04-03-02-01)"),
        ("0305060003 00", "USB(3,0)"), ("0302080001000200", "Scsi(1,2)"),
        ("7f01 0400" + "01010600 0000", ",Pci(0x0,0x0)"), ("0363 0600 aabb", "Path(3,99,aabb)"),
        ("0101 0500 00", "Path(1,1,00)"),
    ])
    func nodesAreWrittenAsTheSpecificationDoes(hex: String, text: String) throws {
        let bytes = try #require(Hex.bytes(hex.filter { $0 != " " })) + [0x7F, 0xFF, 4, 0]
        var length = 0
        let path = try EFIDevicePath(bytes[...], length: &length)
        #expect("\(path)" == text)
        #expect(length == bytes.count && path.bytes == bytes)
    }

    @Test(
        arguments: [
            [], [1, 0, 0, 0, 4, 0], [1, 0, 0, 0, 4, 0, 65, 0], [1, 0, 0, 0, 200, 0, 0, 0, 0x7F, 0xFF, 4, 0],
            [1, 0, 0, 0, 4, 0, 0, 0, 4, 1, 3, 0], [1, 0, 0, 0, 4, 0, 0, 0, 4, 1, 4, 0],
        ] as [[UInt8]])
    func whatCannotBeIsRefused(bytes: [UInt8]) {
        #expect(throws: EFIFormatError.self) { try EFILoadOption(bytes) }
    }

    @Test func randomChangesNeverEndTheProgram() throws {
        var random = Seeded(7)
        var read = 0
        for _ in 0..<20_000 {
            var bytes = Self.shim.bytes
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            if Bool.random(using: &random) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
            guard let option = try? EFILoadOption(bytes) else { continue }
            read += 1
            _ = "\(option.path)"
            #expect(try EFILoadOption(option.bytes) == option)
        }
        #expect(read > 100)
    }

    @Test(arguments: [
        ("Boot0001", 1), ("BootFFFF", 0xFFFF), ("0A", 10), ("7", 7), ("00010", nil), ("", nil), ("+1", nil),
        ("0x1", nil),
    ])
    func numbersAreReadAsPeopleWriteThem(text: String, number: UInt16?) {
        #expect(BootNumber.parse(text) == number)
    }

    @Test func onlyFourCapitalDigitsNameAnEntry() {
        #expect(BootNumber.inName("Boot00AF") == 0xAF)
        for name in ["Boot00af", "BootOrder", "Boot00010", "Boot001", "BootNext", "boot0001"] {
            #expect(BootNumber.inName(name) == nil, "\(name)")
        }
    }
}
