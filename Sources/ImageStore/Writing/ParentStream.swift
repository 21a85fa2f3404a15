// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Synchronization

/// The stream of an earlier point a new stream is compared with, position by position.
///
/// Whether it is really of the same volume decides how much is found in it, never what is stored: a unit is taken from it
/// only when its hash is the one listed there.
final class ParentStream: Sendable {
    let stream: PointStream
    private let packs: PackTable
    private let report: @Sendable (Finding) -> Void
    private let decoder: Mutex<Decoder>

    private struct Decoder: @unchecked Sendable {
        // Used under the lock only.
        var decoder: PieceDecoder
    }

    /// `nil` when `stream` is of another set, or has another length or unit size than what it is to be compared with.
    init?(
        _ stream: PointStream, for description: StreamDescription, set: SetHeader, packs: PackTable,
        report: @escaping @Sendable (Finding) -> Void
    ) throws(Fault) {
        guard stream.point.file.set == set, stream.length == description.length else { return nil }
        self.stream = stream
        self.packs = packs
        self.report = report
        self.decoder = Mutex(Decoder(decoder: try PieceDecoder(stream.point)))
    }

    /// Reads page `number`.
    fileprivate func load(_ number: UInt64) throws(Fault) -> ParentPage.Units {
        let count = stream.units(number)
        guard let reference = stream.reference(number) else { return .init(count: count) }
        let runs: [PageRun]
        do throws(Fault) {
            runs = try decoder.withLock { (state: inout Decoder) throws(Fault) in
                try state.decoder.page(reference, number: number, of: stream)
            }
        } catch {
            // Then everything there is looked up by its id, and no list is taken from that pack any more: the new point
            // would be damaged like the old one.
            guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
            if let pack = packs.number(of: reference.place.pack), packs.distrust(pack) {
                report(SetWriter.notBuiltUpon(error))
            }
            return .init(count: count, isKnown: false)
        }
        var units = ParentPage.Units(count: count)
        for run in runs {
            let pack = packs.number(of: run.place.pack)
            for (index, id) in run.ids.enumerated() where run.first + index < count {
                units.ids[run.first + index] = id
                if let pack {
                    units.places[run.first + index] = UnitPlace(
                        pack: pack, offset: run.place.offset, length: run.place.length,
                        index: run.firstInFrame + index)
                }
            }
        }
        return units
    }
}

/// What the parent lists for one page of the stream, read when it is first asked for.
final class ParentPage: Sendable {
    struct Units: Sendable {
        var ids: [UnitID?]
        /// Where they lie; `nil` where the pack is not there or not sound any more.
        var places: [UnitPlace?]
        /// `false` when the page could not be read: then nothing is known about its units.
        var isKnown: Bool

        init(count: Int, isKnown: Bool = true) {
            ids = Array(repeating: nil, count: count)
            places = Array(repeating: nil, count: count)
            self.isKnown = isKnown
        }
    }
    private let parent: ParentStream
    private let number: UInt64
    private let state = Mutex<Units?>(nil)

    init(_ parent: ParentStream, number: UInt64) {
        self.parent = parent
        self.number = number
    }

    /// The page's units.
    func units() throws(Fault) -> Units {
        try state.withLock { (state: inout Units?) throws(Fault) -> Units in
            if let state { return state }
            let units = try parent.load(number)
            state = units
            return units
        }
    }

    /// Where the parent's own page lies.
    var reference: PageReference? { parent.stream.reference(number) }
}
