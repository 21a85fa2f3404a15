// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import FilesystemMaps
import Findings
import Geometry
import MachineModel

/// What of one volume, or of a disk outside its volumes, could not be read.
struct Loss {
    let source: any BlockSource
    /// The place, for messages.
    let name: String
    /// What lies in the volume; `nil` outside of volumes.
    let kind: ContentKind?
    let lost: LostBytes

    /// The places, as findings.
    func extents(_ effort: ReadEffort) -> [Finding] {
        let place = kind == nil ? " (outside of all partitions: a partition table or boot code)" : ""
        var findings = Finding.unreadable(
            lost.unreadable, "could not be read\(place); the image holds zeros there."
        ).map { Finding(.loss, FaultCode.unreadable.rawValue, what: $0, place: name) }
        let givenUp = lost.givenUp.byteCount
        if givenUp > .zero {
            findings.append(
                Finding(
                    .loss, FaultCode.unreadable.rawValue,
                    what: "\(givenUp.bytes) of these bytes were not tried sector by sector: the time for bad places "
                        + "(\(effort.regionTime.words) for each, \(effort.totalTime.words) for all) had run out. Another "
                        + "backup with more time may read some of them.",
                    place: name))
        }
        return findings
    }

    /// The files that lost data, as findings. Throws `interrupted` only.
    func names(_ effort: ReadEffort) throws(Fault) -> [Finding] {
        guard let kind, kind != .unknown, kind != .empty else { return [] }
        var limits = FileNames.Limits()
        // What was given up may be readable, and may be what tells the names.
        limits.spared = lost.unreadable.subtracting(lost.givenUp)
        let began = effort.now()
        limits.stop = { effort.now() - began > effort.namingTime }
        let content = try FileNames.at(lost.unreadable, of: source, kind: kind, limits: limits)
        var findings: [Finding] = []
        for item in content.items where item.kind != .unknown || kind.hasNames {
            findings.append(
                Finding(
                    item.kind == .free ? .notice : .loss, FaultCode.unreadable.rawValue, what: item.sentence,
                    place: name))
        }
        if content.more > 0 {
            findings.append(
                Finding(
                    .loss, FaultCode.unreadable.rawValue,
                    what: "\(content.more) more files or directories lost data.", place: name))
        }
        for note in content.notes {
            findings.append(Finding(.notice, FaultCode.unreadable.rawValue, what: note, place: name))
        }
        return findings
    }
}

extension ContentKind {
    /// Whether there is a reader that names files.
    fileprivate var hasNames: Bool { [.ext2, .ext3, .ext4, .fat].contains(self) }
}

extension Duration {
    /// For people: `30 s`, `10 min`.
    var words: String {
        let seconds = components.seconds
        return seconds >= 120 && seconds % 60 == 0 ? "\(seconds / 60) min" : "\(seconds) s"
    }
}
