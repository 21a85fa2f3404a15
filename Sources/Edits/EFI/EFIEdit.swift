// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings

/// A change to one firmware variable.
public struct EFIEdit: Hashable, Sendable, Codable {
    /// Which.
    public var variable: EFIVariableName
    /// What it holds before; `nil`: it is not there.
    public var old: EFIVariable?
    /// What it holds after; `nil`: it is removed.
    public var new: EFIVariable?
    /// Why, for people.
    public var reason: String

    /// A change.
    public init(_ variable: EFIVariableName, old: EFIVariable?, new: EFIVariable?, reason: String) {
        self.variable = variable
        self.old = old
        self.new = new
        self.reason = reason
    }

    /// The change that takes this one back.
    public var inverse: EFIEdit { EFIEdit(variable, old: new, new: old, reason: "undo: \(reason)") }
}

/// Changes to firmware variables, in the order they are made.
public struct EFIEditList: Hashable, Sendable, Codable {
    /// Format of the stored list.
    public var efiEdits = 1
    /// Where the variables are.
    public var place: String
    /// The changes.
    public var edits: [EFIEdit]

    /// A list.
    public init(place: String, edits: [EFIEdit]) {
        self.place = place
        self.edits = edits
    }

    /// The list that takes this one back.
    public var inverse: EFIEditList { EFIEditList(place: place, edits: edits.reversed().map(\.inverse)) }

    /// Makes the changes. Before the first, every variable is compared with what the list expects; each one is read back.
    /// Where one fails, those made before are taken back, and the fault says whether that succeeded.
    public func apply(to store: any EFIVariableStore) throws(Fault) {
        var expected: [EFIVariableName: EFIVariable?] = [:]
        for edit in edits {
            guard edit.variable.vendor == EFIVariableName.global, EFIEditList.mayWrite(edit.variable.name) else {
                throw Fault(
                    .unsupported, what: "\(edit.variable.name) is not a variable of the boot entries.",
                    place: store.place,
                    remedy: "Nothing was changed. Change it in the firmware's setup.")
            }
            let found: EFIVariable?
            if let known = expected[edit.variable] { found = known } else { found = try store.read(edit.variable) }
            guard found == edit.old else {
                throw Fault(
                    .editChanged,
                    what: "\(edit.variable.name) is no longer what it was when this change was planned.",
                    place: store.place, remedy: "Nothing was changed. Look at it again with `relight efi list`.")
            }
            expected[edit.variable] = .some(edit.new)
        }
        var done: [EFIEdit] = []
        for edit in edits {
            do throws(Fault) {
                try EFIEditList.make(edit, in: store)
                done.append(edit)
            } catch {
                var fault = error
                // What failed may have been written in part.
                var isHalf = true
                if let now = try? store.read(edit.variable) {
                    isHalf = now != edit.old
                } else if edit.old == nil {
                    isHalf = ((try? store.names()) ?? [edit.variable]).contains(edit.variable)
                }
                let half = isHalf ? [edit] : []
                var left: [String] = []
                for edit in half + done.reversed() {
                    do throws(Fault) { try EFIEditList.make(edit.inverse, in: store) } catch {
                        left.append(edit.variable.name)
                    }
                }
                if !left.isEmpty {
                    fault.what += " \(left.joined(separator: ", ")) could not be put back."
                } else if !done.isEmpty {
                    fault.what += " What had been changed before was put back."
                }
                throw fault
            }
        }
    }

    private static func make(_ edit: EFIEdit, in store: any EFIVariableStore) throws(Fault) {
        try store.write(edit.variable, edit.new)
        guard try store.read(edit.variable) == edit.new else {
            throw Fault(
                .efiFailed, what: "\(edit.variable.name) does not read back as it was written.", place: store.place,
                remedy: "Some firmwares allow no changes, or only in their setup.")
        }
    }

    /// Only what says what is booted is ever written.
    private static func mayWrite(_ name: String) -> Bool {
        BootNumber.inName(name) != nil || ["BootOrder", "BootNext"].contains(name)
    }
}
