// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
public import Findings
import Geometry

/// A key slot in brief.
public struct KeySlotSummary: Hashable, Sendable, Encodable {
    /// What opens a slot.
    public enum Kind: String, Sendable, Encodable {
        case passphrase
        case keyFile = "key-file"
    }
    /// 32 hexadecimal digits.
    public var id: String
    /// What opens it; `nil` when both its copies are damaged, and nothing does.
    public var kind: Kind?
    /// Whether both its copies are damaged.
    public var damaged: Bool { kind == nil }
    /// What people call it.
    public var label: String
    /// Seconds since 1970 when it was made, by the clock of the machine that made it.
    public var created: UInt64
}

extension KeySlotSummary {
    private enum CodingKeys: String, CodingKey { case id, kind, damaged, label, created }

    /// With `damaged`.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(id, forKey: .id)
        try container.encodeIfPresent(kind, forKey: .kind)
        try container.encode(damaged, forKey: .damaged)
        try container.encode(label, forKey: .label)
        try container.encode(created, forKey: .created)
    }
}

/// The key slots of a set and what is wrong with them.
struct KeySlots {
    var slots: [KeySlot] = []
    /// How many are looked at.
    static let most = 256
    /// How many there are, damaged ones and those of others included.
    var count = 0
    /// Slots of which no copy is sound, while one is damaged: nobody knows what opened them.
    var lost: [ObjectID] = []
    /// Copies that are missing or damaged, by name, with the reason.
    var damaged: [(name: String, what: String, place: String?)] = []
    /// Names of first or second copies that are not there.
    var missing: [String] = []

    /// Reads all slots of the set in `store`, from first or second copies.
    init(_ store: any ObjectStore, _ set: SetHeader) throws(Fault) {
        var ids: Set<ObjectID> = []
        for folder in [ObjectName.keys, ObjectName.copy(of: ObjectName.keys)] {
            let listing = store.listReadable(folder)
            damaged += listing.faults.map { (folder, $0.what, nil) }
            for object in listing.objects {
                if let id = ObjectName.id(object.name, suffix: ".key") { ids.insert(id) }
            }
        }
        // Far more than anybody needs; what is beyond is not looked at.
        count = ids.count
        for id in ids.sorted().prefix(KeySlots.most) {
            var sound: KeySlot?
            var foreign: [(name: String, what: String, place: String?)] = []
            for name in [ObjectName.key(id), ObjectName.copy(of: ObjectName.key(id))] {
                var isThere = false
                for place in store.places {
                    do throws(Fault) {
                        guard let handle = try place.open(name) else { continue }
                        isThere = true
                        let slot = try KeySlots.read(handle, id)
                        if slot.set == set {
                            sound = sound ?? slot
                        } else {
                            foreign.append((name, "it is a key slot of set \(slot.set.id.text)", place.name))
                        }
                    } catch {
                        guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                        isThere = true
                        damaged.append((name, error.what, place.name))
                    }
                }
                if !isThere { missing.append(name) }
            }
            if let sound {
                slots.append(sound)
            } else if !foreign.isEmpty || !damaged.contains(where: { ObjectName.id($0.name, suffix: ".key") == id }) {
                // Left by a run that ended before its set had a header; another one was made here since.
                missing.removeAll { ObjectName.id($0, suffix: ".key") == id }
                damaged.removeAll { ObjectName.id($0.name, suffix: ".key") == id }
                continue
            } else {
                lost.append(id)
            }
            damaged += foreign
        }
    }

    private static func read(_ handle: any ObjectHandle, _ id: ObjectID) throws(Fault) -> KeySlot {
        let bytes = try handle.bytes(at: .zero, count: Int(min(handle.size.bytes, UInt64(KeySlot.size) + 1)))
        do throws(FieldError) {
            let slot = try unsafe KeySlot(bytes.span.bytes)
            guard slot.id == id else {
                throw FieldError.invalid(field: "slot id", at: 16, seen: slot.id.text, expected: id.text)
            }
            return slot
        } catch {
            throw Fault(.setDamaged, what: "\(error)", remedy: "")
        }
    }

    /// Writes copies of slots that are missing (a run ended between the two), from those that are sound.
    func mend(_ store: any ObjectStore) throws(Fault) {
        for name in missing {
            guard let id = ObjectName.id(name, suffix: ".key"), let slot = slots.first(where: { $0.id == id }) else {
                continue
            }
            try store.putCopy(name, slot.bytes)
            // Somebody may have removed the slot meanwhile: second copy first, then the first.
            if name.hasPrefix(ObjectName.copies), try store.open(ObjectName.key(id)) == nil { try store.delete(name) }
        }
    }

    /// The master key. Asks `ring` until a slot opens.
    /// Throws `key.needed`, `key.wrong`, `set.damaged` when no slot is sound.
    func unlock(_ ring: KeyRing, _ set: SetHeader, name: String) throws(Fault) -> Secret {
        try open(ring, set, name: name).master
    }

    /// As ``unlock(_:_:name:)``; tells the slot too.
    func open(
        _ ring: KeyRing, _ set: SetHeader, name: String
    ) throws(Fault) -> (master: Secret, slot: ObjectID) {
        guard !slots.isEmpty else {
            throw Fault(
                .setDamaged,
                what: damaged.isEmpty
                    ? "The set is encrypted, and all its key slots are missing."
                    : "The set is encrypted, and all its key slots are damaged: "
                        + "\(damaged[0].what)\(damaged[0].what.hasSuffix(".") ? "" : ".")",
                place: name,
                remedy:
                    "Put the folder \(ObjectName.keys) back from another copy of the set: without a key slot nobody can "
                    + "open it, whatever the passphrase.")
        }
        var wrong: Fault?
        var attempt = 1
        while let secret = try ring.ask(name, attempt) {
            var failed: Fault?
            for slot in slots {
                let opened: Secret?
                do throws(Fault) {
                    opened = try slot.open(secret)
                } catch {
                    // One slot may need more memory than there is; the next may be the right one.
                    if error.code == .interrupted { throw error }
                    failed = failed ?? error
                    continue
                }
                guard let master = opened else { continue }
                guard try SetKeys.check(master: master, header: set.bytes, set: set.id) == set.keyCheck else {
                    throw Fault(
                        .setDamaged, what: "The set's header is not the one its key belongs to.", place: name,
                        remedy:
                            "Somebody changed or exchanged the header: put set.a and set.b back from another copy of the "
                            + "set.")
                }
                return (master, slot.id)
            }
            if let failed { throw failed }
            let kinds = Set(slots.map(\.kind))
            let given: KeySlot.Kind = if case .passphrase = secret { .passphrase } else { .keyFile }
            wrong = refusal(of: given, kinds, isTyped: ring.isTyped, name)
            attempt += 1
        }
        throw wrong
            ?? Fault(
                .keyNeeded, what: "The set is encrypted, and no passphrase or key file was given.", place: name,
                remedy: "Add --passphrase-file FILE or --key-file FILE, or run relight at a terminal, where it asks.")
    }
}

extension KeySlots {
    /// Why a passphrase or key file that was given opens nothing. A damaged slot is named first: it may be the one.
    private func refusal(of given: KeySlot.Kind, _ kinds: Set<KeySlot.Kind>, isTyped: Bool, _ name: String) -> Fault {
        let word = given == .keyFile ? "key file" : "passphrase"
        let other = given == .keyFile ? "passphrase" : "key file"
        let all = slots.count + lost.count
        var what =
            lost.isEmpty
            ? "" : "\(lost.count) of the set's \(all) key slots \(lost.count == 1 ? "is" : "are") damaged. "
        if !kinds.contains(given) {
            what +=
                lost.isEmpty
                ? "The set is opened by a \(other), not by a \(word)."
                : "If that was the slot of this \(word), it opens the set no more; what is left is opened by a \(other)."
        } else {
            what +=
                slots.count == 1 && lost.isEmpty
                ? "The \(word) does not open the set's key slot."
                : lost.isEmpty
                    ? "The \(word) opens none of the set's \(slots.count) key slots."
                    : "The \(word) opens none of the others; if its slot is the damaged one, it opens the set no more."
        }
        let again =
            given == .keyFile
            ? "Give the file the set was made with."
            : isTyped
                ? "Check the keyboard layout and Caps Lock, then try again. Nothing was changed."
                : "Check that the file's first line is the passphrase of this set. Nothing was changed."
        return Fault(
            .wrongKey, what: what, place: name,
            remedy: lost.isEmpty
                ? again
                : "\(again) A damaged slot comes back from another copy of the set (folders \(ObjectName.keys) and "
                    + "\(ObjectName.copy(of: ObjectName.keys))).")
    }
}

/// How a set that is made now is encrypted.
public struct NewEncryption: Sendable {
    /// AES with 256 or 128 bits.
    public enum Cipher: String, Sendable, CaseIterable {
        case aes256
        case aes128
    }
    /// The cipher.
    public var cipher: Cipher
    /// scrypt's N as a power of two; 17 needs 128 MiB and half a second for each attempt.
    public var cost: Int

    /// The defaults: AES-256-GCM, scrypt with N = 2^17.
    public init(_ cipher: Cipher = .aes256, cost: Int = 17) {
        self.cipher = cipher
        self.cost = cost
    }
}

/// Changes who can open an encrypted set. The data are not touched.
public struct SetKeyring: Sendable {
    private let store: any ObjectStore
    private let set: SetHeader
    private let master: Secret
    private let isReadOnly: Bool
    /// Id of the slot that opened the set.
    public let openedBy: String

    /// Opens the set in `store`. Throws what opening throws, and `unsupported` when it is not encrypted.
    public init(_ store: any ObjectStore, keys: KeyRing) throws(Fault) {
        let found = try SetAccess.require(store)
        guard let header = found.header, header.isEncrypted else {
            throw Fault(
                .unsupported, what: "The set is not encrypted.", place: store.name,
                remedy: "Encryption is chosen when a set is made: begin a new one with `relight backup --encrypt`.")
        }
        isReadOnly = found.readOnly
        self.store = store
        set = header
        let opened = try KeySlots(store, header).open(keys, header, name: store.name)
        master = opened.master
        openedBy = opened.slot.text
    }

    /// The slots, oldest first; those that are damaged come last.
    public func slots() throws(Fault) -> [KeySlotSummary] {
        let found = try KeySlots(store, set)
        return found.slots.map { slot in
            KeySlotSummary(
                id: slot.id.text, kind: slot.kind == .passphrase ? .passphrase : .keyFile, label: slot.label,
                created: slot.created)
        }.sorted { ($0.created, $0.id) < ($1.created, $1.id) }
            + found.lost.map { KeySlotSummary(id: $0.text, kind: nil, label: "", created: 0) }
    }

    /// Adds a slot. It opens the set as soon as this returns. Returns its id.
    public func add(
        _ secret: SetSecret, label: String, time: UInt64, cost: Int = NewEncryption().cost
    ) throws(Fault) -> String {
        guard !isReadOnly else { throw SetAccess.mustNotBeWritten(store.name) }
        let slot = try KeySlot(
            master, for: secret, label: label, created: time,
            cost: KeySlot.Cost(logN: min(max(cost, 10), 20), r: 8, p: 1),
            set: set)
        let there = try KeySlots(store, set)
        guard there.count < KeySlots.most else {
            throw Fault(
                .unsupported,
                what: "The set has \(there.count) key slots, and no more than \(KeySlots.most) are looked at.",
                place: store.name,
                remedy: "Remove one that is not needed first: `relight key list`, `relight key remove`.")
        }
        try there.mend(store)
        try SetKeyring.put(slot, in: store)
        return slot.id.text
    }

    /// Removes the slot whose id begins with `prefix`; never the last sound one. Throws `missing`, `usage`.
    /// Its bytes may remain on the medium until they are overwritten: a passphrase that became known needs a new set.
    /// Returns the slot's whole id.
    @discardableResult
    public func remove(_ prefix: String) throws(Fault) -> String {
        guard !isReadOnly else { throw SetAccess.mustNotBeWritten(store.name) }
        let slots = try self.slots()
        let matches = slots.filter { !prefix.isEmpty && $0.id.hasPrefix(prefix.lowercased()) }
        guard matches.count == 1, let id = ObjectID(matches[0].id) else {
            throw Fault(
                matches.isEmpty ? .missing : .usage,
                what: "\(matches.isEmpty ? "No key slot's id begins" : "\(matches.count) key slots' ids begin") with "
                    + "\"\(prefix)\".",
                place: store.name, remedy: "`relight key list` shows them.")
        }
        guard matches[0].damaged || slots.count(where: { !$0.damaged }) > 1 else {
            throw Fault(
                .usage, what: "This is the only key slot that is sound: without it nobody could open the set.",
                place: store.name,
                remedy: "Add another one first: `relight key add`.")
        }
        let removed = try KeySlots(store, set).slots.first { $0.id == id }
        try store.delete(ObjectName.copy(of: ObjectName.key(id)))
        try store.delete(ObjectName.key(id))
        // Somebody else may have removed the others at the same moment.
        if let removed, try KeySlots(store, set).slots.isEmpty {
            try SetKeyring.put(removed, in: store)
            throw Fault(
                .setBusy, what: "Somebody else removed all other key slots at the same time, so this one was put back.",
                place: store.name, remedy: "See what `relight key list` shows, and try again.")
        }
        return id.text
    }

    static func put(_ slot: KeySlot, in store: any ObjectStore) throws(Fault) {
        try store.put(ObjectName.key(slot.id), slot.bytes)
        try store.put(ObjectName.copy(of: ObjectName.key(slot.id)), slot.bytes)
    }

    /// Writes a slot of another copy of the same set, of which a run that was interrupted may have written some already.
    static func putSame(_ slot: KeySlot, in store: any ObjectStore) throws(Fault) {
        try store.putSame(ObjectName.key(slot.id), slot.bytes)
        try store.putSame(ObjectName.copy(of: ObjectName.key(slot.id)), slot.bytes)
    }

    /// A new set's header and master key; its first slot is in `store` when this returns.
    static func make(
        _ header: SetHeader, _ encryption: NewEncryption, _ ring: KeyRing, in store: any ObjectStore, time: UInt64
    ) throws(Fault) -> (header: SetHeader, master: Secret, slot: ObjectID) {
        guard let secret = try ring.ask(store.name, 1) else {
            throw Fault(
                .keyNeeded, what: "A new encrypted set needs a passphrase or key file.", place: store.name,
                remedy: "Add --passphrase-file FILE or --key-file FILE, or run relight at a terminal, where it asks.")
        }
        var header = header
        header.cipher = encryption.cipher == .aes128 ? StoredID.aes128 : StoredID.aes256
        let master = try Secret.random(SetKeys.masterSize)
        header.keyCheck = try SetKeys.check(master: master, header: header.bytes, set: header.id)
        let cost = KeySlot.Cost(logN: min(max(encryption.cost, 10), 20), r: 8, p: 1)
        let slot = try KeySlot(master, for: secret, label: "", created: time, cost: cost, set: header)
        try put(slot, in: store)
        return (header, master, slot.id)
    }
}
