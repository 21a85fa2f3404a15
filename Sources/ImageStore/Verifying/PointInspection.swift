// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Threads

/// Whether all that points refer to is there and sound, and what is lost where it is not.
extension Verifier {
    func check(_ point: RecoveryPoint) throws(Fault) {
        let decoder = try PieceDecoder(point)
        for stream in point.streams {
            for (number, reference) in stream.stored.pages where !soundPages.contains(reference.hash) {
                try Interruption.check()
                try check(point, stream, number, reference, decoder)
            }
        }
    }

    private func check(
        _ point: RecoveryPoint, _ stream: PointStream, _ number: UInt64, _ reference: PageReference,
        _ decoder: PieceDecoder
    ) throws(Fault) {
        var runs: [PageRun]?
        var first: Int?
        let place = try actual(reference.place)
        let name = ObjectName.pack(place.pack)
        for (copy, name) in [(false, name), (true, ObjectName.copy(of: name))] {
            do throws(Fault) {
                let read = try decoder.page(reference, number: number, of: stream, copy: copy)
                runs = runs ?? read
            } catch {
                guard error.code == .setDamaged || error.code == .storeFailed else { throw error }
                let known =
                    places[Place(file: name, offset: -1)].flatMap { files[name] == nil ? $0 : nil }
                    ?? damage(name, place.offset, error.what)
                first = first ?? known
            }
        }
        // The second copy in another place.
        for other in reader.store.places.indices.dropFirst() where runs == nil {
            runs = try? decoder.page(reference, number: number, of: stream, copy: true, in: other)
        }
        guard let runs else {
            if let first { lose(first, point, stream, stream.extent(ofPage: number)) }
            return
        }
        var sound = first == nil
        for run in runs {
            let extent = stream.extent(run, page: number)
            if let damage = try problem(run) {
                lose(damage, point, stream, extent)
                sound = false
            } else if stream.description.used.intersection(extent).isEmpty {
                lose(
                    damage(name, place.offset, "A list names units where nothing is in use."), point, stream,
                    extent)
                sound = false
            }
        }
        if sound { soundPages.insert(reference.hash) }
    }

    /// Where a record lies, as far as moves tell.
    private func actual(_ hint: RecordPlace) throws(Fault) -> RecordPlace {
        if files[ObjectName.pack(hint.pack)] != nil || moves.isEmpty { return hint }
        let start = try moves.follow(RecordStart(pack: hint.pack, offset: hint.offset)) { (start) throws(Fault) in
            files[ObjectName.pack(start.pack)] == nil ? nil : start
        }
        return start.map { hint.moved(to: $0) } ?? hint
    }

    /// The damage that hits a run; `nil` when its frame is sound.
    private func problem(_ run: PageRun) throws(Fault) -> Int? {
        let place = try actual(run.place)
        let name = ObjectName.pack(place.pack)
        guard let file = files[name] else {
            if let id = run.ids.first,
                let found = try reader.shelf.search(id, index: run.firstInFrame, copy: false, size: place.length)
            {
                damage(
                    name, -1,
                    "The file is gone and nothing says where its records went. Some were found by searching: they can "
                        + "be restored, and `relight prune` notes where they are.", harmless: true)
                if try isHeld(run, at: found.1) { return nil }
            }
            return damage(name, -1, "The file is missing.")
        }
        if let gap = file.gaps.first(where: { $0.contains(place.offset) }) {
            return damage(name, gap.lowerBound, "\(gap.count) bytes hold no sound record.")
        }
        guard let record = file.record(place.offset) else {
            if place.offset >= file.end {
                return damage(name, file.end, "The records after this place are missing.")
            }
            return damage(name, place.offset, "There is no record where a recovery point refers to one.")
        }
        if let known = places[Place(file: name, offset: place.offset)] { return known }
        let marks = file.marks[Int(file.firsts[record])..<Int(file.firsts[record + 1])].dropFirst(run.firstInFrame)
        guard marks.count >= run.ids.count,
            zip(run.ids, marks).allSatisfy({ UInt32(truncatingIfNeeded: $0.b) == $1 })
        else {
            return damage(name, place.offset, "The record holds other units than a recovery point refers to.")
        }
        // Without the footer the end of a record is not told by where the next one begins.
        guard !file.gaps.isEmpty || run.place.length == file.length(record) else {
            return damage(
                name, run.place.offset,
                "The record has \(file.length(record)) bytes; a recovery point refers to \(run.place.length).")
        }
        return nil
    }

    /// Whether a record that was searched for holds the run's units, and was not found damaged.
    private func isHeld(_ run: PageRun, at start: RecordStart) throws(Fault) -> Bool {
        let name = ObjectName.pack(start.pack)
        guard let file = files[name], let record = file.record(start.offset),
            places[Place(file: name, offset: start.offset)] == nil
        else { return false }
        let marks = file.marks[Int(file.firsts[record])..<Int(file.firsts[record + 1])].dropFirst(run.firstInFrame)
        return marks.count >= run.ids.count && zip(run.ids, marks).allSatisfy { UInt32(truncatingIfNeeded: $0.b) == $1 }
    }

    private func lose(_ damage: Int, _ point: RecoveryPoint, _ stream: PointStream, _ extent: Extent) {
        let lost = stream.description.used.intersection(extent)
        guard !lost.isEmpty else { return }
        // Pages and runs come in rising order, and a list that is not held elsewhere grows in place: a point may have
        // millions of them.
        let index = report.damages[damage].losses.lastIndex {
            $0.point == point.summary.id && $0.stream == stream.index
        }
        if let index {
            for extent in lost.extents { report.damages[damage].losses[index].extents.append(extent) }
        } else {
            report.damages[damage].losses.append(
                VerifyReport.Loss(
                    point: point.summary.id, stream: stream.index, disk: stream.description.disk,
                    kind: stream.description.kind, extents: lost))
        }
    }
}
