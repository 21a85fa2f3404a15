// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry

/// Opening a set to be written to, and making one where there is none.
extension SetWriter {
    /// What is at the place. Throws what keeps a run with these options from adding to it.
    static func look(_ store: any ObjectStore, _ options: Options) throws(Fault) -> SetAccess.Found {
        let found = try SetAccess.look(at: store)
        guard !found.readOnly else {
            throw Fault(
                .setVersion, what: "The set has features this program must not write to.", place: store.name,
                remedy: "Use a newer version of Relight to add to it; this one can read it.")
        }
        if let header = found.header, !header.isEncrypted, options.encryption != nil {
            throw Fault(
                .unsupported, what: "The set is not encrypted, and what it holds stays readable by anybody.",
                place: store.name,
                remedy: "Back up to a new place with --encrypt, or leave the encryption options out.")
        }
        return found
    }

    /// The constants and keys of the set that was `found`, or of one that is made now. When two make one at once, the one
    /// whose header is there first wins, and the other adds to that set.
    static func openOrMake(
        _ store: any ObjectStore, _ found: SetAccess.Found, _ options: Options, _ ring: KeyRing, _ newKeys: KeyRing
    ) throws(Fault) -> (SetHeader, SetKeys?) {
        guard found.header == nil else { return try open(store, found, options, ring) }
        var slots: [ObjectID] = []
        var own: SetHeader?
        do throws(Fault) {
            return try make(store, options, newKeys, &own, &slots)
        } catch {
            guard error.code == .storeTaken, let there = try? look(store, options), there.header != nil else {
                throw error
            }
            // What would have opened the other set opens nothing.
            for id in slots where there.header != own {
                try? store.delete(ObjectName.copy(of: ObjectName.key(id)))
                try? store.delete(ObjectName.key(id))
            }
            return try open(store, there, options, ring)
        }
    }

    private static func open(
        _ store: any ObjectStore, _ found: SetAccess.Found, _ options: Options, _ ring: KeyRing
    ) throws(Fault) -> (SetHeader, SetKeys?) {
        guard let header = found.header else { throw nothing(store) }
        let keys: SetKeys?
        if let replica = options.replica, replica.set == header {
            keys = replica.keys
        } else {
            keys =
                header.isEncrypted
                ? try SetKeys(
                    master: KeySlots(store, header).unlock(ring, header, name: store.name), set: header) : nil
        }
        for name in found.lostCopies {
            // Missing, it may be on its way from who makes the set; only what is damaged is removed.
            if try store.open(name) != nil { try store.delete(name) }
            try store.putSame(name, header.bytes)
        }
        return (header, keys)
    }

    private static func make(
        _ store: any ObjectStore, _ options: Options, _ ring: KeyRing, _ own: inout SetHeader?,
        _ slots: inout [ObjectID]
    ) throws(Fault) -> (SetHeader, SetKeys?) {
        let set: SetHeader
        let keys: SetKeys?
        if let replica = options.replica {
            set = replica.set
            keys = replica.keys
            own = set
            // What opens a set comes first: without a header it is none yet.
            for slot in replica.slots {
                slots.append(slot.id)
                try SetKeyring.putSame(slot, in: store)
            }
        } else {
            let unit = options.unitSize.int == 16_384 ? 16_384 : 65_536
            let header = SetHeader(
                id: .random(), created: options.time, unitSize: unit,
                parity: UInt8(min(max(options.parity, 0), Int(SetHeader.maximumParity))))
            if let encryption = options.encryption {
                let made = try SetKeyring.make(header, encryption, ring, in: store, time: options.time)
                set = made.header
                slots.append(made.slot)
                keys = try SetKeys(master: made.master, set: set)
            } else {
                set = header
                keys = nil
            }
            own = set
        }
        // The first header decides whose set it is.
        try store.put(ObjectName.headers[0], set.bytes)
        for name in ObjectName.headers.dropFirst() { try store.putSame(name, set.bytes) }
        if try store.open(ObjectName.text) == nil {
            do throws(Fault) {
                try store.put(ObjectName.text, explanation(set))
            } catch {
                // Somebody else may have been faster.
                guard error.code == .storeTaken, (try? store.open(ObjectName.text)) != nil else { throw error }
            }
        }
        return (set, keys)
    }

    private static func nothing(_ store: any ObjectStore) -> Fault {
        Fault(.notASet, what: "There is no image set here.", place: store.name, remedy: "Check the name.")
    }
}
