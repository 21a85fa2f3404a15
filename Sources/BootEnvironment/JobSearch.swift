// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc
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
}

/// The folder a job file lay in.
enum JobHome: Sendable {
    case folder(String)
    case volume(FoundVolume, folder: String)
}

/// Finding the job file: what the kernel line names; else `relight.job` on the medium's own data partition; else on
/// exactly one attached filesystem labelled `RELIGHT…` that lies on no disk the job names and on no disk that holds an
/// operating system. Several candidates are none.
///
/// Filesystems are looked into read-only and without replaying a journal; nothing stays mounted.
public enum JobSearch {
    /// The file's name.
    public static let fileName = "relight.job"

    /// The job at `place` (a path, `label:NAME/file` or `uuid:ID/file`), or the one found by the rules above.
    /// Throws `missing`, `job.ambiguous`, and what ``JobFile`` throws.
    public static func find(
        _ place: String?, say: (String) -> Void,
        identify: @escaping VolumeIdentity.Identifier = VolumeIdentity.byProgram
    ) throws(Fault) -> FoundJob {
        if let place { return try named(place, identify) }
        let scan = DiskScan()
        let volumes = scan.volumes(identify)
        let media = scan.bootMedia()

        for volume in volumes where !volume.disks.isDisjoint(with: media) && volume.identity.kind != "iso9660" {
            if let bytes = content(of: volume) {
                let name = "\(fileName) on the medium (\(volume.path))"
                return FoundJob(
                    name: name, job: try JobFile(parsing: bytes, name: name), home: .volume(volume, folder: ""))
            }
        }

        var found: [FoundJob] = []
        var broken: [Fault] = []
        let labelled = volumes.filter {
            $0.identity.label?.hasPrefix("RELIGHT") == true && $0.disks.isDisjoint(with: media)
        }
        for volume in labelled {
            let label = volume.identity.label ?? ""
            guard let bytes = content(of: volume) else { continue }
            let name = "\(fileName) on \(volume.path) (label \(label))"
            if let reason = systemReason(volume, volumes) {
                say("\(name) is not used: \(reason).")
                continue
            }
            do throws(Fault) {
                let job = try JobFile(parsing: bytes, name: name)
                if let disk = namedDisk(job, volume.disks, scan, identify) {
                    say("\(name) is not used: it lies on a disk the job names (\(disk)).")
                    continue
                }
                found.append(FoundJob(name: name, job: job, home: .volume(volume, folder: "")))
            } catch {
                broken.append(error)
            }
        }
        if found.count + broken.count > 1 {
            throw Fault(
                .ambiguousJob,
                what: "\(found.count + broken.count) attached filesystems offer a job: "
                    + (found.map(\.name) + broken.map(\.place)).joined(separator: "; ") + ". None is used.",
                remedy: "Detach all but one, or name one with relight.job=label:NAME/\(fileName) on the kernel line.")
        }
        if let fault = broken.first { throw fault }
        guard let only = found.first else {
            throw Fault(
                .missing, what: "No job file was found.",
                remedy:
                    "Put \(fileName) on a filesystem labelled RELIGHT (and more letters if you like), or name it with relight.job= on the kernel line."
            )
        }
        return only
    }

    private static func named(_ place: String, _ identify: VolumeIdentity.Identifier) throws(Fault) -> FoundJob {
        let home: JobHome
        let bytes: [UInt8]?
        let folder: String
        switch try StoreLocation.Name(place) {
        case .path(let path):
            folder = path.contains("/") ? String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) : "."
            home = .folder(folder.isEmpty ? "/" : folder)
            bytes = KernelFiles.live.bytes(path, limit: JobFile.limit + 1)
        case .label(_, let path), .uuid(_, let path):
            let location = try StoreLocation.open(place, .untouched, identify: identify)
            defer { location.release() }
            folder = path.contains("/") ? String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) : ""
            bytes = KernelFiles.live.bytes(location.path, limit: JobFile.limit + 1)
            guard let volume = location.volume else {
                throw Fault(.missing, what: "It lies on no filesystem.", place: place, remedy: "Check the name.")
            }
            home = .volume(volume, folder: folder)
        }
        guard let bytes else {
            throw Fault(
                .missing, what: "There is no such job file, or it cannot be read.", place: place,
                remedy: "Check relight.job= on the kernel line: a path, or label:NAME/file.")
        }
        return FoundJob(name: place, job: try JobFile(parsing: bytes, name: place), home: home)
    }

    /// The job file in the top folder of a volume; `nil` when there is none.
    private static func content(of volume: FoundVolume) -> [UInt8]? {
        guard let location = try? StoreLocation.mount(volume, .untouched) else { return nil }
        defer { location.release() }
        return KernelFiles.live.bytes("\(location.path)/\(fileName)", limit: JobFile.limit + 1)
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
    private static func systemReason(_ volume: FoundVolume, _ all: [FoundVolume]) -> String? {
        for other in all where !other.disks.isDisjoint(with: volume.disks) {
            if let reason = JobSearch.systemReason(kind: other.identity.kind) {
                return "its disk holds \(reason) (\(other.path))"
            }
            guard let location = try? StoreLocation.mount(other, .untouched) else { continue }
            defer { location.release() }
            if let marker = systemMarkers.first(where: { KernelFiles.live.exists("\(location.path)/\($0)") }) {
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
    /// A job's countdown was stopped.
    public static let jobStopped = FaultCode("job.stopped", exit: .interrupted)
}
