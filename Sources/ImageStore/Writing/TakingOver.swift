// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Geometry

/// Taking units over from an earlier point without reading them, where the filesystem's metadata says that they have not
/// changed.
extension UnitWorker {
    /// `piece` with what need not be read taken out of ``StreamPiece/toRead``: units all of whose used bytes were named
    /// to ``StreamWriter/trust(_:)``, and of which the parent knows the same bytes in use. They become part of the new
    /// point as the parent lists them. Where the parent's list is damaged, what it lists is gone from the set, or a part
    /// of the unit could not be read when the parent was made, the unit has to be read like any other.
    public func takeOver(_ piece: StreamPiece, of stream: StreamWriter) throws(Fault) -> StreamPiece {
        let trusted = stream.trusted(piece.extent)
        guard !trusted.isEmpty, let parent = stream.parent, let page = stream.parentPage(piece) else { return piece }
        let units = try page.units()
        guard units.isKnown else { return piece }
        var result = piece
        let before = parent.stream
        let unitSize = writer.set.unitSize
        let first = piece.extent.start.bytes / UInt64(unitSize)
        var start = piece.extent.start
        while start < piece.extent.end {
            let number = start.bytes / UInt64(unitSize)
            let extent = Extent(from: start, to: min(start + ByteCount(UInt64(unitSize)), piece.extent.end))
            start = extent.end
            let used = piece.used.intersection(extent)
            guard !used.isEmpty, used.extents.allSatisfy({ trusted.covers($0) }),
                before.description.used.intersection(extent) == used,
                before.unreadable.intersection(extent).isEmpty
            else { continue }
            let position = Int(number % UInt64(SetHeader.pageUnits))
            guard position < units.ids.count else { continue }
            if let id = units.ids[position] {
                let place: UnitPlace?
                if let hint = units.places[position] { place = hint } else { place = try writer.place(of: id) }
                guard let place else { continue }
                result.adopted.append(StoredUnit(number: number, id: id, place: place))
            }
            result.skipped |= 1 << UInt32(number - first)
            result.toRead = result.toRead.subtracting(ExtentList(extent))
        }
        return result
    }
}
