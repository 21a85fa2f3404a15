// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// What makes a place hold the same set as another: its constants, its keys, and the slots that open it.
struct SetReplica: Sendable {
    let set: SetHeader
    let keys: SetKeys?
    let slots: [KeySlot]

    /// The set that `reader` has open. Throws `set.version` when only newer programs can write one like it.
    init(_ reader: SetReader) throws(Fault) {
        guard !reader.set.forbidsWriting else { throw SetAccess.mustNotBeWritten(reader.store.name) }
        set = reader.set
        keys = reader.keys
        slots = reader.set.isEncrypted ? try KeySlots(reader.store, reader.set).slots : []
    }

    /// A set that exists, with its keys: nothing of it need be asked for again.
    init(_ set: SetHeader, _ keys: SetKeys?) {
        self.set = set
        self.keys = keys
        slots = []
    }
}
