// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Glibc
import LinuxDisks
import Tools

/// A filesystem mounted for a short while where nobody else sees it: for those that are resized only by the kernel.
enum MountedVolume {
    private static let mounting = Tool("mount", package: "mount")
    private static let unmounting = Tool("umount", package: "mount")

    /// Mounts the filesystem of `type` in `device`, a node or (with the option `loop`) a file, calls `body` with the folder,
    /// and unmounts it. Throws `tool.failed` when the kernel does not mount it or cannot unmount it, and what `body` throws.
    static func use(
        _ device: String, type: String, options: [String],
        _ body: @escaping @Sendable (_ folder: String) throws(Fault) -> Void
    ) throws(Fault) {
        try PrivateMounts.run { () throws(Fault) in
            let folder = try makeFolder()
            defer { _ = unsafe rmdir(folder) }
            let words = ["-t", type, "-o", (["noatime", "nosuid", "nodev"] + options).joined(separator: ",")]
            let mounted = try mounting.run(words + [device, folder], seconds: 3600, interruptible: false)
            guard mounted.status == 0 else {
                throw Fault(
                    .toolFailed, what: "The kernel does not mount this \(type): \(mounted.lastLine)", place: device,
                    remedy:
                        "Its driver may be missing here (`modprobe \(type)`), or the filesystem is damaged or newer than "
                        + "this kernel; the Relight environment has the driver.")
            }
            var problem: Fault?
            do throws(Fault) { try body(folder) } catch { problem = error }
            // What was written is on the device only after this.
            let ended = try unmounting.run([folder], seconds: 3600, interruptible: false)
            if let problem { throw problem }
            guard ended.status == 0 else {
                throw Fault(
                    .toolFailed, what: "It cannot be unmounted: \(ended.lastLine)", place: device,
                    remedy: "Look into the kernel log (`dmesg`).")
            }
        }
    }

    private static func makeFolder() throws(Fault) -> String {
        for place in ["/run", "/tmp", ""] {
            var template = Array("\(place)/relight-mount-XXXXXX".utf8CString)
            guard unsafe mkdtemp(&template) != nil else { continue }
            return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        throw Fault(
            .system, what: "There is no place to mount at.", place: "/run, /tmp",
            remedy: "Make one of these folders writable.")
    }
}
