// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Glibc
import LinuxDisks

/// What the environment mounts, makes and links before anything else, as a table that PID 1 walks and tests read.
struct EarlySystem {
    /// A mount; skipped where `needs` does not exist.
    struct Mount: Hashable {
        var type: String
        var point: String
        var flags: UInt
        var options = ""
        var mode: UInt32 = 0o755
        var needs: String?
    }
    /// A folder.
    struct Folder: Hashable {
        var path: String
        var mode: UInt32 = 0o755
    }
    /// A symbolic link, made only where nothing is at `path`.
    struct Link: Hashable {
        var path: String
        var target: String
    }
    var mounts: [Mount]
    var folders: [Folder]
    var links: [Link]

    static let standard: EarlySystem = {
        let plain = UInt(MS_NOSUID) | UInt(MS_NODEV) | UInt(MS_NOEXEC)
        let memory = UInt(MS_NOSUID) | UInt(MS_NODEV)
        return EarlySystem(
            mounts: [
                Mount(type: "proc", point: "/proc", flags: plain, mode: 0o555),
                Mount(type: "sysfs", point: "/sys", flags: plain, mode: 0o555),
                Mount(type: "devtmpfs", point: "/dev", flags: UInt(MS_NOSUID), options: "mode=0755"),
                Mount(
                    type: "devpts", point: "/dev/pts", flags: UInt(MS_NOSUID) | UInt(MS_NOEXEC),
                    options: "gid=5,mode=620,ptmxmode=666"),
                Mount(type: "tmpfs", point: "/dev/shm", flags: memory, options: "mode=1777"),
                Mount(type: "tmpfs", point: "/run", flags: memory, options: "mode=0755"),
                Mount(type: "tmpfs", point: "/tmp", flags: memory, options: "mode=1777"),
                Mount(
                    type: "securityfs", point: "/sys/kernel/security", flags: plain, needs: "/sys/kernel/security"),
            ],
            folders: [
                Folder(path: "/run/relight", mode: 0o700), Folder(path: "/run/relight/stores", mode: 0o700),
                Folder(path: "/run/lock", mode: 0o1777), Folder(path: "/run/sshd"), Folder(path: "/root", mode: 0o700),
                Folder(path: "/mnt"), Folder(path: "/var"), Folder(path: "/var/lib"), Folder(path: "/var/log"),
                Folder(path: "/var/lib/dhcpcd"), Folder(path: "/etc"),
            ],
            links: [
                Link(path: "/dev/fd", target: "/proc/self/fd"), Link(path: "/dev/stdin", target: "/proc/self/fd/0"),
                Link(path: "/dev/stdout", target: "/proc/self/fd/1"),
                Link(path: "/dev/stderr", target: "/proc/self/fd/2"), Link(path: "/var/run", target: "/run"),
                Link(path: "/var/lock", target: "/run/lock"), Link(path: "/etc/mtab", target: "/proc/self/mounts"),
                Link(path: "/usr/sbin/poweroff", target: "/usr/bin/relight"),
                Link(path: "/usr/sbin/reboot", target: "/usr/bin/relight"),
                Link(path: "/usr/sbin/halt", target: "/usr/bin/relight"),
                Link(path: NetworkLease.program, target: "/usr/bin/relight"),
            ])
    }()

    /// EFI variables; the driver may be a module, so drivers are loaded first.
    static let firmwareVariables = Mount(
        type: "efivarfs", point: "/sys/firmware/efi/efivars",
        flags: UInt(MS_NOSUID) | UInt(MS_NODEV) | UInt(MS_NOEXEC), needs: "/sys/firmware/efi")

    /// Walks the table. Returns what failed, a sentence each; what is there already is no failure.
    func setUp() -> [String] {
        var problems: [String] = []
        umask(0)
        for mount in mounts {
            // The kernel would mount a second one on top of the first, and hide what is in it.
            if KernelFiles.live.mounts().contains(where: { $0.point == mount.point && $0.type == mount.type }) {
                continue
            }
            if let problem = mount.perform() { problems.append(problem) }
        }
        for folder in folders where unsafe mkdir(folder.path, folder.mode) != 0 && errno != EEXIST {
            problems.append("The folder \(folder.path) cannot be made: \(reason(errno)).")
        }
        for link in links where unsafe symlink(link.target, link.path) != 0 && errno != EEXIST && errno != ENOENT {
            problems.append("The link \(link.path) cannot be made: \(reason(errno)).")
        }
        umask(0o022)
        return problems
    }
}

extension EarlySystem.Mount {
    /// Mounts it; a sentence when that failed.
    func perform() -> String? {
        if let needs, unsafe access(needs, F_OK) != 0 { return nil }
        unsafe mkdir(point, mode)
        let status = unsafe -relight_mount(type, point, type, flags, options)
        return status == 0 || status == EBUSY ? nil : "Mounting \(type) at \(point) failed: \(reason(status))."
    }
}

/// The system's text for an error number.
func reason(_ number: Int32) -> String {
    guard let text = unsafe strerror(number) else { return "error \(number)" }
    return unsafe String(cString: text)
}
