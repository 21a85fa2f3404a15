// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import CLinux
import MachineModel
public import Findings
import Glibc

/// The variable file of a virtual machine's firmware (OVMF): a firmware volume (UEFI Platform Initialization
/// Specification 1.8, volume 3, section 3.2.1) with EDK II's store of variables that can be authenticated
/// (MdeModulePkg/Include/Guid/VariableFormat.h).
///
/// Everything but the variables stays as it is, byte for byte. A change writes the file anew beside the old one, which it
/// then replaces. No machine may use the file meanwhile.
public final class EFIVariableFile: EFIVariableStore {
    /// The file.
    public let place: String
    /// The whole file.
    private var file: [UInt8]
    /// Where the store's records lie in it: from the end of the store's head to the end of the store.
    private let records: Range<Int>

    /// A record that counts.
    private struct Record {
        var name: EFIVariableName
        var variable: EFIVariable
        /// Count, time stamp and key of variables that only the owner of a key may write.
        var authentication: [UInt8]
    }

    private static let volumeType = GUID("fff12b8d-7696-4c8b-a985-2747075b4f50")
    private static let storeType = GUID("aaf32c78-947b-439a-a180-2e144ec37792")
    private static let headLength = 60
    /// The largest file that is read. Those of OVMF have 528 KiB and less.
    private static let largest = 64 << 20

    /// Reads the file. Throws unless it is one of OVMF's.
    public convenience init(_ path: String) throws(Fault) {
        try self.init(path, EFIVariableFile.content(path))
    }

    /// A file of this content.
    init(_ path: String, _ content: [UInt8]) throws(Fault) {
        place = path
        file = content
        guard let records = EFIVariableFile.store(in: file) else {
            throw Fault(
                .wrongKind, what: "This is not a file of firmware variables in the form of OVMF.", place: path,
                remedy: "Name a copy of OVMF_VARS.fd, or a folder in the form of efivarfs.")
        }
        self.records = records
        _ = try live()
    }

    private static func content(_ path: String) throws(Fault) -> [UInt8] {
        let descriptor = unsafe relight_open(path, O_RDONLY | O_NONBLOCK, 0)
        var status = stat()
        guard descriptor >= 0 else {
            throw Fault(
                .noAccess, what: "It cannot be read: \(unsafe String(cString: strerror(-descriptor))).", place: path,
                remedy: "Check the path.")
        }
        defer { close(descriptor) }
        guard unsafe fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
            (0x100...off_t(largest)).contains(status.st_size)
        else {
            throw Fault(
                .wrongKind, what: "This is not a file of firmware variables.", place: path,
                remedy: "Name a copy of OVMF_VARS.fd, or a folder in the form of efivarfs.")
        }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var filled = 0
        while filled < bytes.count {
            let count = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe Glibc.read(descriptor, buffer.baseAddress?.advanced(by: filled), buffer.count - filled)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw Fault(
                    .efiFailed, what: "It cannot be read to its end.", place: path, remedy: "Check the disk it lies on."
                )
            }
            filled += count
        }
        return bytes
    }

    private static func number(_ bytes: [UInt8], _ offset: Int, _ count: Int) -> Int {
        Int(clamping: bytes[offset..<offset + count].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
    }

    /// Where the records lie.
    private static func store(in file: [UInt8]) -> Range<Int>? {
        guard file.count >= 0x100, GUID(bytes: Array(file[16..<32])) == volumeType,
            Array(file[40..<44]) == Array("_FVH".utf8)
        else { return nil }
        let volume = number(file, 32, 8)
        let head = number(file, 48, 2)
        guard volume <= file.count, head >= 56, head + 28 <= volume,
            GUID(bytes: Array(file[head..<head + 16])) == storeType, file[head + 20] == 0x5A, file[head + 21] == 0xFE
        else { return nil }
        let size = number(file, head + 16, 4)
        guard size >= 28, size <= volume - head else { return nil }
        return head + 28..<head + size
    }

    /// The records that count, in their order. One being replaced counts while there is no newer one.
    private func live() throws(Fault) -> [Record] {
        var result: [(record: Record, isLeaving: Bool)] = []
        var at = records.lowerBound
        func damaged(_ what: String) -> Fault {
            Fault(
                .efiDamaged, what: "\(what), at byte \(at).", place: place,
                remedy:
                    "Start the machine once, so that its firmware repairs the file, or begin with a fresh OVMF_VARS.fd."
            )
        }
        while at + EFIVariableFile.headLength <= records.upperBound {
            if file[at] == 0xFF, file[at + 1] == 0xFF { break }
            guard file[at] == 0xAA, file[at + 1] == 0x55 else { throw damaged("A variable's head is missing") }
            let state = file[at + 2]
            let nameLength = EFIVariableFile.number(file, at + 36, 4)
            let dataLength = EFIVariableFile.number(file, at + 40, 4)
            let content = at + EFIVariableFile.headLength
            guard nameLength <= records.upperBound - content,
                dataLength <= records.upperBound - content - nameLength
            else { throw damaged("A variable passes the end of the store") }
            let end = content + nameLength + dataLength
            if state == 0x3F || state == 0x3E, let vendor = GUID(bytes: Array(file[at + 44..<at + 60])) {
                let name = EFIVariableName(UTF16Text.decode(file[content..<content + nameLength]), vendor)
                let attributes = UInt32(truncatingIfNeeded: EFIVariableFile.number(file, at + 4, 4))
                result.append(
                    (
                        Record(
                            name: name,
                            variable: EFIVariable(Array(file[content + nameLength..<end]), attributes: attributes),
                            authentication: Array(file[at + 8..<at + 36])), state == 0x3E
                    ))
            }
            at = records.lowerBound + (end - records.lowerBound + 3) / 4 * 4
        }
        // The store begins at a multiple of four, its head has 28 bytes: records do as well.
        let staying = Set(result.filter { !$0.isLeaving }.map(\.record.name))
        return result.filter { !$0.isLeaving || !staying.contains($0.record.name) }.map(\.record)
    }

    /// The names of all variables.
    public func names() throws(Fault) -> [EFIVariableName] { try live().map(\.name) }

    /// What a variable holds.
    public func read(_ name: EFIVariableName) throws(Fault) -> EFIVariable? {
        try live().last { $0.name == name }?.variable
    }

    /// Writes the file anew with the variable changed. Throws `efi.full` before anything is written where it has no room.
    public func write(_ name: EFIVariableName, _ variable: EFIVariable?) throws(Fault) {
        var all = try live()
        let old = all.firstIndex { $0.name == name }
        if let variable {
            guard variable.attributes & EFIVariable.keyed == 0,
                old.map({ all[$0].variable.attributes & EFIVariable.keyed == 0 }) ?? true
            else {
                throw Fault(
                    .noAccess, what: "Only the owner of its key may write \(name.name).", place: place,
                    remedy: "Change it in the firmware's setup.")
            }
            let record = Record(name: name, variable: variable, authentication: [UInt8](repeating: 0, count: 28))
            if let old { all[old] = record } else { all.append(record) }
        } else {
            guard let old else { return }
            all.remove(at: old)
        }
        var content: [UInt8] = []
        for record in all {
            let text = UTF16Text.encode(record.name.name) + [0, 0]
            // In use, and valid.
            content += [0xAA, 0x55, 0x3F, 0]
            content.appendLittleEndian(record.variable.attributes)
            content += record.authentication
            content.appendLittleEndian(UInt32(clamping: text.count))
            content.appendLittleEndian(UInt32(clamping: record.variable.data.bytes.count))
            content += record.name.vendor.bytes + text + record.variable.data.bytes
            content += [UInt8](repeating: 0xFF, count: (4 - content.count % 4) % 4)
        }
        guard content.count <= records.count else {
            throw Fault(
                .efiFull, what: "The firmware's store of \(records.count) bytes has no room for this variable.",
                place: place,
                remedy: "Nothing was changed. Remove boot entries that are not used (`relight efi remove`).")
        }
        content += [UInt8](repeating: 0xFF, count: records.count - content.count)
        var changed = file
        changed.replaceSubrange(records, with: content)
        try replaceFile(with: changed)
        file = changed
    }

    private func replaceFile(with bytes: [UInt8]) throws(Fault) {
        // A link stays one: what it leads to is replaced.
        guard let resolved = unsafe realpath(place, nil) else { throw failed(errno, nil) }
        defer { unsafe free(resolved) }
        let path = unsafe String(cString: resolved)
        let beside = path + ".relight-new"
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { throw failed(errno, nil) }
        let descriptor = unsafe relight_open(beside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw failed(-descriptor, nil) }
        // Whose it is and who may use it stays: a virtual machine opens it as its own user.
        var error: Int32 = fchown(descriptor, status.st_uid, status.st_gid) == 0 ? 0 : errno
        if error == 0, fchmod(descriptor, status.st_mode & 0o7777) != 0 { error = errno }
        var written = 0
        while written < bytes.count, error == 0 {
            let count = unsafe bytes.withUnsafeBytes { buffer in
                unsafe Glibc.write(descriptor, buffer.baseAddress?.advanced(by: written), buffer.count - written)
            }
            if count > 0 {
                written += count
            } else if count == 0 {
                error = ENOSPC
            } else if errno != EINTR {
                error = errno
            }
        }
        if error == 0, fsync(descriptor) != 0 { error = errno }
        if close(descriptor) != 0, error == 0 { error = errno }
        if error == 0, unsafe rename(beside, path) != 0 { error = errno }
        guard error == 0 else { throw failed(error, beside) }
        let folder = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        let handle = unsafe relight_open(folder, O_RDONLY | O_DIRECTORY, 0)
        if handle >= 0 {
            _ = fsync(handle)
            close(handle)
        }
    }

    private func failed(_ error: Int32, _ remains: String?) -> Fault {
        if let remains { unsafe _ = unlink(remains) }
        return Fault(
            .efiFailed, what: "It cannot be written: \(unsafe String(cString: strerror(error))).", place: place,
            remedy: error == EEXIST
                ? "Nothing was changed. Another program changes it now, or one was stopped: remove \(place).relight-new."
                : "Nothing was changed. Check the folder's permissions and its free room.")
    }
}
