// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Edits
///
/// Changes to what a machine boots by, as values: shown before they are made, made one after the other, each read back,
/// and undone in the opposite order. A change names what it expects to find; where it finds something else it is not made.
///
/// This room holds the firmware's variables (UEFI Specification 2.10, sections 3.1, 8.2 and 10): device paths and load
/// options are encoded here, without other programs. The variables are those of the running machine (efivarfs), a folder
/// of the same shape, or a variable file of OVMF.
///
/// What it does not promise: a firmware may change its variables when the machine starts, and drop or add entries. Nobody
/// can look at that from a running system. Variables that only the owner of a key may write are read, never written.
/// Entries that somebody else made are not changed and not removed unless they are named.
public import Findings

extension FaultCode {
    /// There are no firmware variables: the machine was not started by UEFI, or the kernel does not show them.
    public static let efiMissing = FaultCode("efi.missing", exit: .failed)
    /// A firmware variable or a file of them contradicts itself.
    public static let efiDamaged = FaultCode("efi.damaged", exit: .damaged)
    /// A firmware variable could not be written, or does not read back as it was written.
    public static let efiFailed = FaultCode("efi.failed", exit: .failed)
    /// The firmware has no room for another variable.
    public static let efiFull = FaultCode("efi.full", exit: .refused)
    /// What is to be edited is no longer what it was when the edit was planned.
    public static let editChanged = FaultCode("edit.changed", exit: .refused)
}
