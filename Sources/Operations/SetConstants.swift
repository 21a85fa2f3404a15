// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import ImageStore

/// What is chosen when a set is made and never changes; `nil` where nothing was asked for.
struct SetConstants {
    var parity: Int?
    var unitSize: ByteCount?
    var cipher: NewEncryption.Cipher?

    /// Throws `unsupported` when `place` holds a set with other constants than were asked for: somebody would believe for
    /// years that it has parity. A place that holds none yet is left to whoever makes it, and so is what is wrong with one.
    func require(of place: SetPlace) throws(Fault) {
        guard parity != nil || unitSize != nil || cipher != nil,
            let set = try? SetReader(locked: place.store)
        else { return }
        var reasons: [String] = []
        if let parity, parity != set.parity {
            reasons.append(
                set.parity == 0 ? "has no parity in its packs" : "has \(set.parity) percent of parity, not \(parity)")
        }
        if let unitSize, unitSize != set.unitSize { reasons.append("has units of \(set.unitSize), not of \(unitSize)") }
        if let cipher, let its = set.cipher, its != cipher {
            reasons.append("is encrypted with \(its.rawValue), not with \(cipher.rawValue)")
        }
        guard !reasons.isEmpty else { return }
        throw Fault(
            .unsupported,
            what:
                "The set exists already and \(reasons.joined(separator: ", and ")). That is chosen when a set is made.",
            place: place.names.joined(separator: " + "),
            remedy: "Leave the option out, or begin a new set; `relight copy` brings the points over.")
    }
}
