// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Glibc
public import ImageStore
public import LinuxDisks

/// Where an image set lies, opened the same way by every verb: a folder, `label:NAME/folder`, `uuid:ID/folder`, several of
/// them (media that are too small to hold the set alone), a place that cannot be listed but has a catalogue, or an archive
/// (a file, or its first part FILE.001), which is only read.
public final class SetPlace: Sendable {
    /// What is done there.
    public enum Access: Sendable {
        /// The set is read.
        case reading
        /// Something is added to the set, or removed from it.
        case writing
    }

    /// The set's objects.
    public let store: any ObjectStore
    /// Folders and files the set lies in: what must not be overwritten, and must not lie on a disk that is imaged.
    public let paths: [String]
    /// The places as a stored plan names them: `label:NAME/folder`, or a full path, which holds from anywhere.
    public let names: [String]
    /// Whether it is an archive.
    public let isArchive: Bool
    private let locations: [StoreLocation]

    /// Opens `place` and the other places of the set, `also`.
    ///
    /// Throws `usage`, `missing`, `disk.ambiguous`, `set.not-a-set`, `set.different`, `set.damaged` for an archive of
    /// which parts are missing, `unsupported` for writing to an archive, `store.failed`.
    public init(
        _ place: String, also: [String] = [], _ access: Access = .reading, in scan: DiskScan = DiskScan()
    ) throws(Fault) {
        var locations: [StoreLocation] = []
        var stores: [any ObjectStore] = []
        var paths: [String] = []
        var names: [String] = []
        do throws(Fault) {
            for text in [place] + also {
                let location = try StoreLocation.open(
                    text, access == .writing ? .readWrite : .readOnly, in: scan, identify: Identify.volume)
                locations.append(location)
                names.append(location.volume == nil ? scan.files.resolved(text) ?? text : text)
                let store = try SetPlace.store(location.path, text, access)
                if let archive = store as? ArchiveStore { paths += archive.files } else { paths.append(location.path) }
                stores.append(store)
            }
            if stores.count == 1, let only = stores.first { store = only } else { store = try SpanStore(stores) }
        } catch {
            for location in locations { location.release() }
            throw error
        }
        isArchive = stores.contains { $0 is ArchiveStore }
        self.locations = locations
        self.paths = paths
        self.names = names
    }

    /// The places of a set as a command line names them.
    public static func words(_ place: String, _ also: [String]) -> String {
        ([place] + also.map { "--also \($0)" }).joined(separator: " ")
    }

    /// Gives the places up.
    public func close() { for location in locations { location.release() } }

    /// The store at one path.
    private static func store(_ path: String, _ name: String, _ access: Access) throws(Fault) -> any ObjectStore {
        let folder = FolderStore(path: path)
        if let what = notAPlace(path) {
            throw Fault(
                .notASet, what: what, place: name,
                remedy: "Name the folder of a set, label:NAME/folder, or an archive made by `relight archive`.")
        }
        if let isSplit = archiveKind(path) {
            do throws(Fault) {
                let archive = try archive(path)
                guard access == .reading else { throw finished(name) }
                return archive
            } catch {
                // For a file that is no tar file, or to be written to, the folder's own words fit better.
                guard error.code == .wrongKind, !isSplit else { throw error }
                guard access == .reading else { return folder }
                throw Fault(
                    .notASet, what: "This file is not an archive of an image set.", place: name,
                    remedy: "Name the folder of a set, or an archive made by `relight archive`.")
            }
        }
        guard access == .reading else { return folder }
        let top = try? folder.topLevelNames(limit: 1)
        // Some network file systems open files but list nothing.
        guard top?.isEmpty ?? true, (try? folder.open(Catalogue.name)) ?? nil != nil else { return folder }
        return try CatalogueStore(folder)
    }

    /// An archive as far as it can be read: one damaged header, or a lost end, must not cost what is sound beside it. What was
    /// passed over is among ``SetReader/findings``.
    private static func archive(_ path: String) throws(Fault) -> ArchiveStore {
        do throws(Fault) {
            return try ArchiveStore(path)
        } catch {
            guard error.code == .setDamaged, let archive = try? ArchiveStore(path, allowDamage: true) else {
                throw error
            }
            return archive
        }
    }

    /// Whether a path is a file, or stands for parts of one (true); `nil` for everything else.
    private static func archiveKind(_ path: String) -> Bool? {
        var status = stat()
        if unsafe stat(path, &status) == 0 {
            return status.st_mode & S_IFMT == S_IFREG ? path.hasSuffix(".001") : nil
        }
        if unsafe stat("\(path).001", &status) == 0, status.st_mode & S_IFMT == S_IFREG { return true }
        return nil
    }

    /// A sentence for what can hold no set: a disk, and a file that begins as an empty image does. A tar file that begins with
    /// zeros is an empty one, which no archive of a set is. `nil` for everything else.
    private static func notAPlace(_ path: String) -> String? {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { return nil }
        if status.st_mode & S_IFMT == S_IFBLK { return "This is a disk, not the folder of an image set." }
        guard status.st_mode & S_IFMT == S_IFREG, !path.hasSuffix(".001") else { return nil }
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return nil }
        defer { Glibc.close(descriptor) }
        var head = [UInt8](repeating: 0, count: 512)
        let got = unsafe head.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
        guard got >= 0, head.prefix(got).allSatisfy({ $0 == 0 }) else { return nil }
        return status.st_size == 0
            ? "This is an empty file, not an image set."
            : "This is a file that begins with zeros, such as an image of a disk, not an image set."
    }

    private static func finished(_ name: String) -> Fault {
        Fault(
            .unsupported, what: "An archive is finished: nothing can be added to it or changed in it.", place: name,
            remedy: "Copy it into a set with `relight copy \(name) SET`, and go on there.")
    }

    // MARK: - Words for faults

    /// `fault`, with what helps where a set may go on elsewhere.
    func explained(_ fault: Fault) -> Fault {
        var fault = worded(fault)
        guard fault.code == .storeFull, fault.remedy != SpanStore.makeRoom else { return fault }
        fault.remedy =
            "Finished recovery points are not harmed. Run the same command again with "
            + "\(names.count > 1 ? "one more " : "")--also OTHER/PLACE to go on there, using what was stored; or make room."
        return fault
    }

    /// `fault` with the places as the user named them: where a filesystem was mounted for the job nobody else finds it.
    public func worded(_ fault: Fault) -> Fault {
        var fault = fault
        for (location, name) in zip(locations, names) where location.volume != nil {
            fault.what = fault.what.replacing(location.path, with: name)
            fault.place = fault.place.replacing(location.path, with: name)
            fault.remedy = fault.remedy.replacing(location.path, with: name)
        }
        return fault
    }

    /// What was noticed while the places were used: which are full, what only some of them have.
    func report(_ events: EventHandler) {
        guard let span = store as? SpanStore else { return }
        for finding in span.findings { events(.finding(finding)) }
    }

    /// Makes the catalogue anew where the set has one. A failure is reported, not thrown: what was done is done.
    func refreshCatalogue(_ events: EventHandler) {
        do throws(Fault) { try Catalogue.refresh(store) } catch {
            events(
                .finding(
                    Finding(
                        .warning, "set.old-catalogue",
                        what:
                            "The set's catalogue could not be made anew, and does not list what was added: \(error.what)",
                        place: names.joined(separator: " + "))))
        }
    }
}

extension SetPlace {
    /// Throws `set.on-source` when one of the places `texts` names lies on one of `disks`, which are to be imaged. Nothing is
    /// mounted: that alone would write to it.
    static func refuse(_ texts: [String], on disks: [SelectedDisk], in scan: DiskScan) throws(Fault) {
        let guarding = SourceGuard(scan: scan)
        for text in texts {
            let volume = try StoreLocation.locate(text, in: scan, identify: Identify.volume)
            for disk in disks {
                if let volume {
                    try guarding.refuseIfHolding(text, on: volume.disks, disk)
                } else {
                    try guarding.refuseIfHolding(text, at: text, disk)
                }
            }
        }
    }
}
