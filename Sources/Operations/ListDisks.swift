// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import DiskSurvey
public import Findings
public import Geometry
public import LinuxDisks
public import MachineModel

/// What a disk holds, and what holds it.
public struct DiskListing: Sendable {
    /// What is on it; `nil` when it cannot be read.
    public var model: DiskModel?
    /// Where it is.
    public var path: String
    /// The disk as the kernel shows it; `nil` for image files.
    public var attached: AttachedDisk?
    /// Why it cannot be read.
    public var fault: Fault?

    /// A listing of `model`, or of a disk that cannot be read.
    public init(path: String, model: DiskModel? = nil, attached: AttachedDisk? = nil, fault: Fault? = nil) {
        self.path = path
        self.model = model
        self.attached = attached
        self.fault = fault
    }
}

/// Lists disks.
public enum ListDisks {
    /// Surveys the disks named, or all that can be imaged when none is, together. A disk that cannot be read is listed with
    /// its fault; one that was named and does not exist is thrown.
    public static func run(
        _ names: [String], fileSectorSize: SectorSize, unlocking: VolumeUnlocking = VolumeUnlocking()
    ) throws(Fault) -> [DiskListing] {
        let scan = DiskScan()
        var result: [DiskListing] = []
        var selected: [SelectedDisk] = scan.disks.map { SelectedDisk(whole: $0) }
        if !names.isEmpty {
            selected = []
            for name in names { selected.append(try DiskSelector.resolve(name, in: scan, identify: Identify.volume)) }
        }
        var opened: [(index: Int, disk: OpenedDisk)] = []
        for (index, disk) in selected.enumerated() {
            var listing = DiskListing(path: disk.path, attached: disk.disk)
            do {
                let name = names.isEmpty ? disk.path : names[index]
                opened.append((index, try OpenedDisk(name, disk, scan, fileSectorSize)))
            } catch {
                if !names.isEmpty, disk.disk == nil { throw error }
                listing.fault = error
            }
            result.append(listing)
        }
        do throws(Fault) {
            let sources = try OpenedDisk.surveyed(opened.map(\.disk), unlocking)
            for (place, source) in zip(opened, sources) { result[place.index].model = source.survey.model }
        } catch {
            // One that cannot be looked at must not hide the others.
            guard opened.count > 1, ![.interrupted, .wrongKey, .toolMissing, .toolFailed].contains(error.code) else {
                guard let only = opened.first, names.isEmpty || selected[only.index].disk != nil, opened.count == 1
                else {
                    throw error
                }
                result[only.index].fault = error
                return result
            }
            for place in opened {
                do throws(Fault) {
                    result[place.index].model = try OpenedDisk.surveyed([place.disk], unlocking)[0].survey.model
                } catch {
                    if !names.isEmpty, selected[place.index].disk == nil { throw error }
                    result[place.index].fault = error
                }
            }
        }
        try unlocking.requireUsed()
        return result
    }
}
