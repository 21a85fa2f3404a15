// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Glibc

/// A place that holds firmware variables.
public protocol EFIVariableStore: AnyObject {
    /// Where it is, for people.
    var place: String { get }
    /// The names of all variables, in no order.
    func names() throws(Fault) -> [EFIVariableName]
    /// What a variable holds; `nil` where there is none of that name.
    func read(_ name: EFIVariableName) throws(Fault) -> EFIVariable?
    /// Writes a variable whole; `nil` removes it. It is written when this returns.
    func write(_ name: EFIVariableName, _ variable: EFIVariable?) throws(Fault)
}

/// Opens places that hold firmware variables.
public enum EFIVariables {
    /// Where the kernel shows those of the running machine.
    public static let ownPlace = "/sys/firmware/efi/efivars"

    /// The most bytes of a variable that are read; the firmwares' own limit is 32 or 64 KiB.
    static let largest = 1 << 20

    /// The variables at `path`: a folder in the form of efivarfs, or a variable file of OVMF. Without a path, those of the
    /// running machine. Throws `efi.missing` where there are none.
    public static func open(_ path: String? = nil) throws(Fault) -> any EFIVariableStore {
        let place = path ?? ownPlace
        var status = stat()
        guard unsafe stat(place, &status) == 0 else {
            throw Fault(
                path == nil ? .efiMissing : .missing, what: "There are no firmware variables.", place: place,
                remedy: path == nil
                    ? "This machine was started by BIOS, or its kernel does not show them. Start the medium by UEFI to read "
                        + "or change them." : "Check the path.")
        }
        if status.st_mode & S_IFMT != S_IFDIR { return try EFIVariableFile(place) }
        let folder = EFIVariableFolder(place)
        if path == nil, try folder.names().isEmpty {
            throw Fault(
                .efiMissing, what: "The kernel shows no firmware variables.", place: place,
                remedy: "Mount them: `mount -t efivarfs efivarfs \(place)`.")
        }
        return folder
    }
}
