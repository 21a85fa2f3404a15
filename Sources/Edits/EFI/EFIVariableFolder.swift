// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import CLinux
import MachineModel
public import Findings
import Glibc

/// Firmware variables as files: efivarfs, or a folder of the same shape. Each file holds the attributes, four bytes, and
/// the content (Linux, Documentation/filesystems/efivarfs.rst).
public final class EFIVariableFolder: EFIVariableStore {
    /// The folder.
    public let place: String
    /// Whether the kernel makes the files: it takes a variable as one write, and has marked the files as not to be changed.
    private let isFirmware: Bool

    /// The folder `place`. Nothing is read yet.
    public init(_ place: String) {
        self.place = place
        var type: UInt64 = 0
        isFirmware = unsafe relight_filesystem_type(place, &type) == 0 && type == 0xDE5E_81E4
    }

    private func path(_ name: EFIVariableName) -> String { "\(place)/\(name.file)" }

    private func fault(_ what: String, _ path: String, _ error: Int32) -> Fault {
        let reason = unsafe String(cString: strerror(error))
        switch error {
        case ENOSPC:
            return Fault(
                .efiFull, what: "The firmware has no room for this variable.", place: path,
                remedy:
                    "Nothing was changed. Remove boot entries that are not used (`relight efi remove`), or clear what the "
                    + "firmware keeps of crashes (files dump-type0-* in \(place)).")
        case EACCES, EPERM, EROFS:
            return Fault(
                .noAccess, what: "\(what): \(reason).", place: path,
                remedy:
                    "Firmware variables are changed by root, where they are not mounted read-only; some firmwares forbid it."
            )
        default:
            return Fault(.efiFailed, what: "\(what): \(reason).", place: path, remedy: "See the kernel's messages.")
        }
    }

    /// All files whose names are those of variables.
    public func names() throws(Fault) -> [EFIVariableName] {
        guard let folder = unsafe opendir(place) else { throw fault("It cannot be listed", place, errno) }
        defer { unsafe _ = closedir(folder) }
        var result: [EFIVariableName] = []
        while let entry = unsafe readdir(folder) {
            let file = unsafe withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let name = EFIVariableName(file: file) { result.append(name) }
        }
        return result
    }

    /// A file's content.
    public func read(_ name: EFIVariableName) throws(Fault) -> EFIVariable? {
        let path = path(name)
        let descriptor = unsafe relight_open(path, O_RDONLY, 0)
        if descriptor == -ENOENT { return nil }
        guard descriptor >= 0 else { throw fault("It cannot be read", path, -descriptor) }
        defer { close(descriptor) }
        // efivarfs gives no more than a page at a time, and nothing twice.
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while bytes.count <= EFIVariables.largest {
            let count = unsafe chunk.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw fault("It cannot be read", path, errno) }
            if count == 0 { break }
            bytes += chunk[..<count]
        }
        guard (4...EFIVariables.largest).contains(bytes.count) else {
            throw Fault(
                .efiDamaged,
                what: "A firmware variable has four bytes of attributes and its content; this file has "
                    + "\(bytes.count) bytes.", place: path, remedy: "It is left as it is.")
        }
        let attributes = bytes[..<4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        return EFIVariable(Array(bytes[4...]), attributes: attributes)
    }

    /// Writes a file, in one write as the kernel asks for, or removes it.
    public func write(_ name: EFIVariableName, _ variable: EFIVariable?) throws(Fault) {
        let path = path(name)
        if isFirmware {
            let outcome = unsafe relight_allow_changes(path)
            if outcome != 0, outcome != -ENOENT { throw fault("It cannot be made changeable", path, -outcome) }
        }
        guard let variable else {
            if unsafe unlink(path) != 0, errno != ENOENT { throw fault("It cannot be removed", path, errno) }
            return
        }
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(variable.attributes)
        bytes += variable.data.bytes
        // In a folder that is only a folder the old content stays until the new one is complete.
        let written = isFirmware ? path : "\(place)/.\(name.file).new"
        let isNew = unsafe access(written, F_OK) != 0
        let descriptor = unsafe relight_open(written, O_WRONLY | O_CREAT | (isFirmware ? 0 : O_TRUNC), 0o644)
        guard descriptor >= 0 else { throw fault("It cannot be written", path, -descriptor) }
        var count = 0
        repeat {
            count = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
        } while count < 0 && errno == EINTR
        var error: Int32 = count == bytes.count ? 0 : count < 0 ? errno : EIO
        if error == 0, !isFirmware, fsync(descriptor) != 0 { error = errno }
        if close(descriptor) != 0, error == 0 { error = errno }
        if error == 0, !isFirmware, unsafe rename(written, path) != 0 { error = errno }
        guard error == 0 else {
            // What could not be made must not stay as an empty variable.
            if isNew { unsafe _ = unlink(written) }
            throw fault("It cannot be written", path, error)
        }
    }
}
