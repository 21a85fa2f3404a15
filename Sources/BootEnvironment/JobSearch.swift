// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import LinuxDisks
public import Operations

/// A job file that was found and read.
public struct FoundJob: Sendable {
    /// What to call it in messages.
    public var name: String
    /// The job.
    public var job: JobFile
    /// Where it lay, to put the log beside it: a path, or a filesystem and a path on it.
    var home: JobHome
    /// Kernel names of the disks it lies on; empty where it lies in memory or on the network.
    var disks: Set<String> = []
}

/// The folder a job file lay in.
enum JobHome: Sendable {
    case folder(String)
    case volume(FoundVolume, folder: String)
}

/// What a job does to the disks it names: by kernel name, with the name the job gives it. Disks that cannot be resolved
/// are left out.
struct JobDisks: Hashable, Sendable {
    /// Disks that are written over.
    var restored: [String: String] = [:]
    /// Disks that are only read.
    var imaged: [String: String] = [:]

    init(_ job: JobFile, _ scan: DiskScan, _ identify: @escaping VolumeIdentity.Identifier) {
        for step in job.steps {
            for text in step.disks {
                guard let disk = (try? DiskSelector.resolve(text, in: scan, identify: identify))?.disk else { continue }
                // A file behind a loop device is overwritten, the disk it lies on is not.
                for name in scan.wholeDisks(under: disk.name, throughFiles: false).union([disk.name]) {
                    if step.targets.contains(text) { restored[name] = text } else { imaged[name] = text }
                }
            }
        }
    }

    /// Takes over what `other` knows besides.
    mutating func add(_ other: JobDisks) {
        restored.merge(other.restored) { own, _ in own }
        imaged.merge(other.imaged) { own, _ in own }
    }

    /// Why nothing may be written to a place on `disks`; `nil` when it may. `isWritten` says that a step of the job
    /// writes there anyway, beside what it images.
    func objection(to disks: Set<String>, isWritten: Bool = false) -> String? {
        for name in disks.sorted() {
            if let text = restored[name] { return "it lies on a disk the job restores to (\(text))" }
        }
        for name in disks.sorted() where !isWritten {
            if let text = imaged[name] { return "it lies on a disk the job images (\(text))" }
        }
        return nil
    }

    /// Throws `job.on-target` when the job file lies on a disk that the job overwrites.
    func check(_ found: FoundJob) throws(Fault) {
        for name in found.disks.sorted() {
            guard let text = restored[name] else { continue }
            throw Fault(
                .jobOnTarget, what: "The job file lies on a disk that the job restores to: \(text) is \(name).",
                place: found.name, remedy: "Nothing was done. Put the job file on another disk, or correct the target.")
        }
    }
}

/// The machine as the search sees it; tests put another in its place.
struct JobSight {
    var scan: DiskScan
    var identify: VolumeIdentity.Identifier
    /// The bytes of a file on a volume; `nil` when there is none.
    var read: (FoundVolume, String) throws(Fault) -> [UInt8]?
    /// The first of ``JobSearch/systemMarkers`` on a volume.
    var marker: (FoundVolume) -> String?

    /// The running machine. Volumes are mounted for the look only, and not written to.
    init(_ identify: @escaping VolumeIdentity.Identifier) {
        scan = DiskScan()
        self.identify = identify
        read = { (volume, path) throws(Fault) in
            let location = try StoreLocation.mount(volume, .untouched)
            defer { location.release() }
            return KernelFiles.live.bytes("\(location.path)/\(path)", limit: JobFile.limit + 1)
        }
        marker = { volume in
            guard let location = try? StoreLocation.mount(volume, .untouched) else { return nil }
            defer { location.release() }
            return JobSearch.systemMarkers.first { KernelFiles.live.exists("\(location.path)/\($0)") }
        }
    }

    init(
        scan: DiskScan, identify: @escaping VolumeIdentity.Identifier,
        read: @escaping (FoundVolume, String) throws(Fault) -> [UInt8]?, marker: @escaping (FoundVolume) -> String?
    ) {
        self.scan = scan
        self.identify = identify
        self.read = read
        self.marker = marker
    }

    /// Kernel names of the disks a volume lies on, those below the files of loop devices too.
    func disks(under volume: FoundVolume) -> Set<String> {
        volume.disks.reduce(into: volume.disks) { $0.formUnion(scan.wholeDisks(under: $1)) }
    }
}

/// Finding the job file: what the kernel line names; else `relight.job` on a medium's own data partition; else on exactly
/// one attached filesystem labelled `RELIGHT…` that lies on no disk the job names and on no disk that holds an operating
/// system. Several candidates are none. Wherever it is found, it is refused when it lies on a disk the job restores to.
///
/// Filesystems are looked into read-only and without replaying a journal; nothing stays mounted.
public enum JobSearch {
    /// The file's name.
    public static let fileName = "relight.job"

    /// The job at `place` (a path, `label:NAME/file` or `uuid:ID/file`), or the one found by the rules above.
    /// `understand` tells what is wrong with the words of a command, for a file that is named; `onKernelLine` says that the
    /// kernel line named it.
    /// Throws `missing`, `job.ambiguous`, `job.on-target`, and what ``JobFile`` throws.
    public static func find(
        _ place: String?, say: (String) -> Void,
        identify: @escaping VolumeIdentity.Identifier = VolumeIdentity.byProgram,
        understand: (([String]) -> String?)? = nil, onKernelLine: Bool = false
    ) throws(Fault) -> FoundJob {
        try find(place, say: say, in: JobSight(identify), understand: understand, onKernelLine: onKernelLine)
    }

    static func find(
        _ place: String?, say: (String) -> Void, in sight: JobSight, understand: (([String]) -> String?)? = nil,
        onKernelLine: Bool = false
    ) throws(Fault) -> FoundJob {
        let found: FoundJob
        if let place {
            found = try named(place, sight, understand, onKernelLine)
        } else {
            let volumes = sight.scan.volumes(sight.identify)
            // Every attached medium counts: nothing tells which of two this system was started from.
            let media = sight.scan.bootMedia()
            if let own = try onMedia(volumes.filter { !$0.disks.isDisjoint(with: media) }, sight) {
                found = own
            } else {
                found = try labelled(volumes.filter { $0.disks.isDisjoint(with: media) }, volumes, sight, say)
            }
        }
        try JobDisks(found.job, sight.scan, sight.identify).check(found)
        return found
    }

    private static func onMedia(_ volumes: [FoundVolume], _ sight: JobSight) throws(Fault) -> FoundJob? {
        var offers: [Offer] = []
        for volume in volumes where volume.identity.kind != "iso9660" {
            guard let bytes = content(of: volume, sight) else { continue }
            offers.append(Offer(bytes, "\(fileName) on the medium (\(volume.path))", volume, sight))
        }
        return try only(of: offers)
    }

    private static func labelled(
        _ volumes: [FoundVolume], _ all: [FoundVolume], _ sight: JobSight, _ say: (String) -> Void
    ) throws(Fault) -> FoundJob {
        var offers: [Offer] = []
        for volume in volumes {
            guard let label = volume.identity.label, label.hasPrefix("RELIGHT"),
                let bytes = content(of: volume, sight)
            else { continue }
            let name = "\(fileName) on \(volume.path) (label \(label))"
            if let reason = systemReason(volume, all, sight) {
                say("\(name) is not used: \(reason).")
                continue
            }
            let offer = Offer(bytes, name, volume, sight)
            if case .success(let found) = offer.result,
                let disk = namedDisk(found.job, volume.disks, sight.scan, sight.identify)
            {
                say("\(name) is not used: it lies on a disk the job names (\(disk)).")
                continue
            }
            offers.append(offer)
        }
        guard let found = try only(of: offers) else {
            throw Fault(
                .missing, what: "No job file was found.",
                remedy:
                    "Put \(fileName) on a filesystem labelled RELIGHT (and more letters if you like), or name it with relight.job= on the kernel line."
            )
        }
        return found
    }

    /// A job file that was seen, whether or not it can be read.
    private struct Offer {
        var name: String
        var result: Result<FoundJob, Fault>

        init(_ bytes: [UInt8], _ name: String, _ volume: FoundVolume, _ sight: JobSight) {
            self.name = name
            do throws(Fault) {
                let job = try JobFile(parsing: bytes, name: name)
                result = .success(
                    FoundJob(
                        name: name, job: job, home: .volume(volume, folder: ""), disks: sight.disks(under: volume)))
            } catch {
                result = .failure(error)
            }
        }
    }

    /// The one offer; `nil` when there is none. Throws `job.ambiguous` when there are several: which of them is meant
    /// cannot be known, even where one of them is broken.
    private static func only(of offers: [Offer]) throws(Fault) -> FoundJob? {
        if offers.count > 1 {
            throw Fault(
                .ambiguousJob,
                what: "\(offers.count) attached filesystems offer a job: "
                    + offers.map(\.name).joined(separator: "; ") + ". None is used.",
                remedy: "Detach all but one, or name one with relight.job=label:NAME/\(fileName) on the kernel line.")
        }
        return try offers.first?.result.get()
    }

    private static func named(
        _ place: String, _ sight: JobSight, _ understand: (([String]) -> String?)?, _ onKernelLine: Bool
    ) throws(Fault) -> FoundJob {
        let name = try StoreLocation.Name(place)
        let home: JobHome
        let bytes: [UInt8]?
        let disks: Set<String>
        switch name {
        case .path(let path):
            let folder = path.contains("/") ? String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) : "."
            home = .folder(folder.isEmpty ? "/" : folder)
            bytes = KernelFiles.live.bytes(path, limit: JobFile.limit + 1)
            disks = sight.scan.disks(holding: path)
        case .label(_, let path), .uuid(_, let path):
            guard let volume = try StoreLocation.locate(place, in: sight.scan, identify: sight.identify) else {
                throw Fault(.missing, what: "It lies on no filesystem.", place: place, remedy: "Check the name.")
            }
            let folder = path.contains("/") ? String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) : ""
            bytes = try sight.read(volume, path)
            home = .volume(volume, folder: folder)
            disks = sight.disks(under: volume)
        }
        guard let bytes else {
            throw Fault(
                .missing, what: "There is no such job file, or it cannot be read.", place: place,
                remedy: onKernelLine
                    ? "Check relight.job= on the kernel line: a path, or label:NAME/file."
                    : "Check the name: a path, or label:NAME/file.")
        }
        return FoundJob(
            name: place, job: try JobFile(parsing: bytes, name: place, understand: understand), home: home, disks: disks
        )
    }

    /// The job file in the top folder of a volume; `nil` when there is none.
    private static func content(of volume: FoundVolume, _ sight: JobSight) -> [UInt8]? {
        (try? sight.read(volume, fileName)) ?? nil
    }

    /// Which disk named by the job is one of `disks`; `nil` when none is.
    static func namedDisk(
        _ job: JobFile, _ disks: Set<String>, _ scan: DiskScan, _ identify: VolumeIdentity.Identifier
    ) -> String? {
        job.disks.first { text in
            guard let selected = try? DiskSelector.resolve(text, in: scan, identify: identify), let disk = selected.disk
            else { return false }
            return !scan.wholeDisks(under: disk.name).isDisjoint(with: disks)
        }
    }

    /// Why the disks of a volume count as holding an operating system; `nil` when they do not.
    private static func systemReason(_ volume: FoundVolume, _ all: [FoundVolume], _ sight: JobSight) -> String? {
        for other in all where !other.disks.isDisjoint(with: volume.disks) {
            if let reason = JobSearch.systemReason(kind: other.identity.kind) {
                return "its disk holds \(reason) (\(other.path))"
            }
            if let marker = sight.marker(other) {
                return "its disk holds an operating system (\(other.path) has \(marker))"
            }
        }
        return nil
    }

    /// What contents belong to systems and cannot be looked into.
    static func systemReason(kind: String) -> String? {
        switch kind {
        case "swap": return "swap space"
        case "LVM2_member": return "LVM"
        case "linux_raid_member": return "RAID"
        case "crypto_LUKS", "BitLocker": return "an encrypted volume"
        case "zfs_member", "apfs", "hfsplus": return kind
        default: return nil
        }
    }

    /// Files and folders only systems have.
    static let systemMarkers = [
        "etc/os-release", "usr/lib/os-release", "etc/fstab", "Windows/System32", "WINDOWS/system32", "EFI/Microsoft",
        "EFI/debian", "EFI/ubuntu", "EFI/fedora", "EFI/redhat", "EFI/opensuse", "EFI/arch", "grub/grub.cfg",
        "grub2/grub.cfg", "bootmgr", "ntldr",
    ]
}

extension FaultCode {
    /// Several job files offer themselves.
    public static let ambiguousJob = FaultCode("job.ambiguous", exit: .refused)
    /// The job file lies on a disk that its job overwrites.
    public static let jobOnTarget = FaultCode("job.on-target", exit: .refused)
    /// A job's countdown was stopped.
    public static let jobStopped = FaultCode("job.stopped", exit: .interrupted)
}
