// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
public import DiskSurvey
import FilesystemMaps
public import Findings
public import Geometry
public import ImageStore
import MachineModel
import PointDisk
import Synchronization

/// What of volumes need not be read because the filesystem's metadata says that it is as it was in an earlier point.
///
/// For a backup that was asked to compare metadata only. Where nothing can be concluded from the metadata all is read, and
/// a finding says why.
public final class UnchangedFiles: Sendable {
    private let events: EventHandler
    private let noticed = Mutex<[Finding]>([])

    /// A comparison that tells `events` what it finds.
    public init(events: @escaping EventHandler) { self.events = events }

    /// What was noticed: volumes of which all is read, and why.
    public var findings: [Finding] { noticed.withLock { $0 } }

    /// The bytes of `volume` on `disk` that `parent`, the stream of an earlier point, holds as they are now. Counted from
    /// the volume's start. Throws `interrupted` only.
    public func bytes(
        of volume: SurveyedVolume, on disk: ImagedDisk, since parent: PointStream
    ) throws(Fault) -> ExtentList {
        let path = disk.survey.model.path
        let name = volume.number == 0 ? path : "\(path):\(volume.number)"
        // What is imaged whole is said to be, and swap space has no files.
        guard volume.map.wholeBecause == nil, volume.map.identity.kind != .swap else { return ExtentList() }
        guard volume.map.states == [.clean] else {
            return all(name, "its used blocks are not known for certain")
        }
        let now: Window
        do throws(Fault) {
            now = try Window(disk.source, volume.extent, name: name)
        } catch {
            return all(name, error.what)
        }
        events(.step("\(name): comparing its metadata with point \(parent.point.summary.shortID)"))
        let before = PointVolume(parent, sectorSize: disk.survey.model.sectorSize)
        let outcome = try MetadataCompare.compare(
            now, with: before, kind: volume.map.identity.kind, imaged: parent.point.facts.time)
        switch outcome {
        case .unchanged(let list, let files):
            let kept = list.subtracting(parent.unreadable)
            events(.step("\(name): \(files) files with \(kept.byteCount) are unchanged and are not read"))
            return kept
        case .unknown(let reason): return all(name, reason)
        }
    }

    private func all(_ name: String, _ reason: String) -> ExtentList {
        let finding = Finding(
            .notice, "compare.full",
            what: "Its metadata do not tell what is unchanged, so all of it is read: \(reason).",
            place: name)
        noticed.withLock { $0.append(finding) }
        events(.finding(finding))
        return ExtentList()
    }
}
