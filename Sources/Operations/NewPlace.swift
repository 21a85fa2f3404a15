// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import LinuxDisks

/// What is asked of a place before a set is begun in it or goes on in it, or an archive is put there.
enum NewPlace {
    /// Throws `store.missing` unless the folder above each path of `places` exists, and `store.in-memory` in the booted
    /// environment for what lies in memory; elsewhere that is a warning. A filesystem named by label or UUID is there by
    /// itself, and any folder may be made on it.
    ///
    /// A stick that is not mounted leaves an empty folder behind, or none: what was written there would fill the root disk,
    /// which in the environment is memory.
    static func require(
        _ places: [String], in scan: DiskScan, isEnvironment: Bool = MachineProbe.isEnvironment(), events: EventHandler
    ) throws(Fault) {
        for place in places {
            guard case .path(let path) = try StoreLocation.Name(place) else { continue }
            try requireFolder(above: path, in: scan)
            guard scan.isInMemory(path) else { continue }
            let what = "This place lies in memory: what is stored there is lost when the machine is switched off."
            let remedy =
                "Mount the disk that is to hold it, or write label:NAME/folder for a folder on the filesystem with that "
                + "label; `relight disks` shows what is attached."
            guard !isEnvironment else { throw Fault(.storeInMemory, what: what, place: place, remedy: remedy) }
            events(.finding(Finding(.warning, FaultCode.storeInMemory.rawValue, what: what, place: place)))
        }
    }

    /// Throws `store.missing` unless the folder that `path` lies in, or would be made in, exists.
    static func requireFolder(above path: String, in scan: DiskScan) throws(Fault) {
        guard scan.files.resolved(path) == nil else { return }
        var parts = path.split(separator: "/")
        if !parts.isEmpty { parts.removeLast() }
        let folder = (path.hasPrefix("/") ? "/" : "") + parts.joined(separator: "/")
        guard !folder.isEmpty, scan.files.resolved(folder) == nil else { return }
        throw Fault(
            .storeMissing,
            what: "There is no folder \(folder); what exists of it is \(scan.existing(above: folder) ?? "/").",
            place: path,
            remedy:
                "Is the disk mounted? Mount it, write label:NAME/folder for the filesystem with that label, or make the "
                + "folder first: only the last one of a path is made.")
    }
}
