// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import Findings
import ImageStore
import Operations
import Synchronization

/// `relight key …`.
struct KeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key", abstract: "Who can open an encrypted image set: passphrases and key files.",
        discussion: """
            An encrypted set has one master key that never changes, and any number of slots that each hold it locked with a \
            passphrase or key file. Changing a passphrase rewrites no data. It does not lock out who knows the old one and \
            kept a copy of the old slot: when a passphrase became known, make a new set. Copies of the set, and other \
            places it lies in that are not named with --also, keep the slots they have: change them there too.
            """,
        subcommands: [List.self, Add.self, Change.self, Remove.self])

    /// What a new slot is opened by.
    struct NewKey: ParsableArguments {
        @Option(help: ArgumentHelp("The new passphrase: the first line of this file.", valueName: "file"))
        var newPassphraseFile: String?
        @Option(help: ArgumentHelp("The new key file.", valueName: "file")) var newKeyFile: String?
        @Option(help: "What to call it, at most 64 bytes; readable by anybody.") var label = ""

        func validate() throws {
            if newPassphraseFile != nil, newKeyFile != nil {
                throw ValidationError("Give a passphrase file or a key file, not both.")
            }
        }

        func secret(for set: String) throws(Fault) -> SetSecret {
            guard label.utf8.count <= 64 else {
                throw Fault(.usage, what: "The label has more than 64 bytes.", remedy: "Use a shorter one.")
            }
            if let given = try KeyOptions.read(passphraseFile: newPassphraseFile, keyFile: newKeyFile) { return given }
            guard Terminal.canAsk else {
                throw Fault(
                    .keyNeeded, what: "Nobody can be asked for the new passphrase.",
                    remedy: "Add --new-passphrase-file FILE or --new-key-file FILE.")
            }
            return .passphrase(try Terminal.newPassphrase(for: set))
        }
    }

    /// `relight key list`.
    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the key slots.")
        @Argument(help: "The image set.") var set: String
        @OptionGroup var places: PlaceOptions
        @OptionGroup var key: KeyOptions

        func run() throws {
            let console = Console.current.withLock { $0 }
            let slots = try Keys.with(set, also: places.also, key.ring(), writing: false) { (keyring) throws(Fault) in
                try keyring.slots()
            }
            console.document("keys", Document(set: set, slots: slots))
            var table = TextTable(["slot", "opened by", "made (UTC)", "label"])
            for slot in slots {
                let opener =
                    switch slot.kind {
                    case .passphrase: "passphrase"
                    case .keyFile: "key file"
                    case nil: "DAMAGED"
                    }
                table.add([
                    String(slot.id.prefix(10)), opener, slot.damaged ? "" : Clock.text(slot.created), slot.label,
                ])
            }
            table.lines.forEach { console.line($0) }
            if slots.contains(where: \.damaged) {
                console.line(
                    "What opened a damaged slot opens the set no more. Put the slot's file back from another copy of the set, "
                        + "or take it away with `relight key remove \(set) SLOT`.")
            }
        }

        private struct Document: Encodable {
            let set: String
            let slots: [KeySlotSummary]
        }
    }

    /// `relight key add`.
    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Adds a passphrase or key file.")
        @Argument(help: "The image set.") var set: String
        @OptionGroup var places: PlaceOptions
        @OptionGroup var key: KeyOptions
        @OptionGroup var new: NewKey

        func run() throws {
            let console = Console.current.withLock { $0 }
            let id = try Keys.with(set, also: places.also, key.ring()) { (keyring) throws(Fault) in
                try keyring.add(new.secret(for: set), label: new.label, time: Clock.now())
            }
            console.document("key", Changed(added: id, removed: nil, findings: console.findings))
            console.line("Added slot \(id.prefix(10)). It was read back and opens the set.")
        }
    }

    /// `relight key change`.
    struct Change: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Puts a new passphrase or key file in the place of the one given.")
        @Argument(help: "The image set.") var set: String
        @OptionGroup var places: PlaceOptions
        @OptionGroup var key: KeyOptions
        @OptionGroup var new: NewKey

        func run() throws {
            let console = Console.current.withLock { $0 }
            let (id, old) = try Keys.with(set, also: places.also, key.ring()) { (keyring) throws(Fault) in
                // The new slot is called what the old one was, unless another name is given.
                let before = try keyring.slots().first { $0.id == keyring.openedBy }
                let label = new.label.isEmpty ? before?.label ?? "" : new.label
                let id = try keyring.add(new.secret(for: set), label: label, time: Clock.now())
                try keyring.remove(keyring.openedBy)
                return (id, keyring.openedBy)
            }
            console.receive(.finding(KeyCommand.elsewhere(set)))
            console.document("key", Changed(added: id, removed: old, findings: console.findings))
            console.line("Slot \(id.prefix(10)) opens the set from now on; slot \(old.prefix(10)) is removed.")
        }
    }

    /// `relight key remove`.
    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Removes a slot, never the last one.")
        @Argument(help: "The image set.") var set: String
        @Argument(help: "The slot: the first digits of its id.") var slot: String
        @OptionGroup var places: PlaceOptions
        @OptionGroup var key: KeyOptions

        func run() throws {
            let console = Console.current.withLock { $0 }
            let removed = try Keys.with(set, also: places.also, key.ring()) { (keyring) throws(Fault) in
                try keyring.remove(slot)
            }
            console.receive(.finding(KeyCommand.elsewhere(set)))
            console.document("key", Changed(added: nil, removed: removed, findings: console.findings))
            console.line("Removed slot \(removed.prefix(10)).")
        }
    }

    private struct Changed: Encodable {
        let added: String?
        let removed: String?
        let findings: [Finding]
    }

    /// What a change does not reach.
    private static func elsewhere(_ set: String) -> Finding {
        Finding(
            .warning, "key.elsewhere",
            what:
                "The old slot still opens copies of the set, and places of it that were not named with --also. Name all "
                + "places, and change the key of each copy (`relight copy --like`, archives) as well.", place: set)
    }
}
