// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
import CLinux
public import Findings
import Glibc
import Threads
import Tools

/// A target presented as a file that foreign programs open: our own server of the kernel's FUSE protocol, one file that is
/// mounted over an empty one. Unmounted when released.
///
/// Made within ``PrivateMounts/run(_:)``, it is seen there only, and nothing is left of it even when the program is killed:
/// its namespace ends with it, and what other programs still ask of it fails at once.
public struct VolumeFile: ~Copyable {
    /// The file.
    public let path: String
    private let server: FuseServer
    private let threads: BackgroundThreads
    private let folder: String

    /// Presents `target` to root. Throws `no-access` where mounting is not allowed, `missing` where the kernel has no FUSE.
    public init(_ target: any BlockTarget) throws(Fault) {
        let descriptor = try VolumeFile.connection()
        let server = FuseServer(target, descriptor)
        let (folder, path) = try VolumeFile.mountPoint()
        let status = unsafe relight_mount(
            "relight", path, "fuse", UInt(MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME),
            "fd=\(descriptor),rootmode=100000,user_id=0,group_id=0,max_read=\(Fuse.largest)")
        guard status == 0 else {
            VolumeFile.remove(folder, path)
            throw Fault(
                status == -EPERM ? .noAccess : .system,
                what: "The volume cannot be presented as a file: \(errorText(-status)).", place: target.name,
                remedy: status == -EPERM
                    ? "Run relight as root, on the machine itself or in the Relight environment."
                    : "The kernel's module fuse is needed: `modprobe fuse`.")
        }
        let threads = BackgroundThreads(2) { server.serve() }
        guard threads.count > 0 else {
            _ = unsafe relight_unmount(path, VolumeFile.forced)
            VolumeFile.remove(folder, path)
            throw Fault(.system, what: "No thread can be started.", remedy: "Free some memory and try again.")
        }
        self.path = path
        self.folder = folder
        self.server = server
        self.threads = threads
    }

    deinit {
        // Whoever still has the file open is cut off, so that the threads end in any case.
        _ = unsafe relight_unmount(path, VolumeFile.forced)
        threads.join()
        VolumeFile.remove(folder, path)
    }

    /// The first fault of the target that a program met. The program itself knows only that input or output failed.
    public var fault: Fault? { server.fault }

    /// MNT_FORCE and MNT_DETACH.
    private static let forced: Int32 = 1 | 2

    private static func connection() throws(Fault) -> Int32 {
        var opened = unsafe relight_open("/dev/fuse", O_RDWR, 0)
        if opened == -ENOENT || opened == -ENODEV {
            // The node comes with the module.
            _ = try? Tool("modprobe", package: "kmod").run(["fuse"], seconds: 60)
            opened = unsafe relight_open("/dev/fuse", O_RDWR, 0)
        }
        guard opened >= 0 else {
            throw Fault(
                opened == -EACCES || opened == -EPERM ? .noAccess : .missing,
                what: "The kernel's FUSE cannot be used: \(errorText(-opened)).", place: "/dev/fuse",
                remedy:
                    "Run relight as root, on the machine itself or in the Relight environment, which has the module.")
        }
        return opened
    }

    /// An empty file to mount over, in a folder of its own.
    private static func mountPoint() throws(Fault) -> (folder: String, path: String) {
        for place in ["/run", "/tmp", ""] {
            var template = Array("\(place)/relight-volume-XXXXXX".utf8CString)
            guard unsafe mkdtemp(&template) != nil else { continue }
            let folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            let path = "\(folder)/volume"
            let made = unsafe relight_open(path, O_CREAT | O_EXCL | O_RDONLY, 0o600)
            if made >= 0 {
                close(made)
                return (folder, path)
            }
            _ = unsafe rmdir(folder)
        }
        throw Fault(
            .system, what: "There is no place to mount at: \(errorText(errno)).", place: "/run, /tmp",
            remedy: "Make one of these folders writable.")
    }

    private static func remove(_ folder: String, _ path: String) {
        _ = unsafe unlink(path)
        _ = unsafe rmdir(folder)
    }
}
