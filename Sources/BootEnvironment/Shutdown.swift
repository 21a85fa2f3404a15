// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc
import LinuxDisks
import Tools

/// How the machine is left.
public enum Shutdown: String, Sendable, CaseIterable {
    /// Switch off.
    case powerOff = "poweroff"
    /// Start again.
    case restart = "reboot"
    /// Stop, leave the power on.
    case halt

    /// The signal that asks PID 1 for it.
    public var signal: Int32 {
        switch self {
        case .powerOff: return SIGUSR2
        case .restart: return SIGTERM
        case .halt: return SIGUSR1
        }
    }

    /// What a signal to PID 1 asks for. SIGINT is Ctrl-Alt-Del, SIGPWR a failing power supply.
    static func asked(by signal: Int32) -> Shutdown? {
        if signal == SIGINT { return .restart }
        if signal == SIGPWR { return .powerOff }
        return allCases.first { $0.signal == signal }
    }

    /// Asks PID 1 to leave. Throws `unsupported` outside the environment.
    public func request() throws(Fault) {
        guard MachineProbe.isEnvironment() else {
            throw Fault(
                .unsupported, what: "This is not the Relight environment.",
                remedy: "Use this system's own command: `systemctl \(rawValue)`.")
        }
        guard kill(1, signal) == 0 else {
            throw Fault(
                .system, what: "The supervisor cannot be asked: \(reason(errno)).", remedy: "Press Ctrl+Alt+Del.")
        }
    }

    /// Ends every process, writes everything out, unmounts and leaves. For PID 1 only.
    func perform(say: (String) -> Void) -> Never {
        say(stamped("Relight: \(phrase)."))
        kill(-1, SIGTERM)
        // Shells ignore SIGTERM; hanging up is what ends them.
        kill(-1, SIGHUP)
        Shutdown.reap(seconds: 5)
        kill(-1, SIGKILL)
        Shutdown.reap(seconds: 5)
        // A disk that no longer answers holds sync(2) and umount(2) up for ever, and not even SIGKILL ends them: they are
        // a child's work, and PID 1 does not wait for it longer than this.
        let child = try? Tool.spawn("/proc/self/exe", ["relight", "environment", "write-out"])
        if child.map({ Shutdown.ends($0, seconds: 60) }) ?? false {
            say(stamped("Relight: all is written out."))
        } else {
            say(stamped("Relight: writing everything out did not end; a disk does not answer."))
        }
        // Serial lines are slow; one that is held up is not waited for longer.
        usleep(300_000)
        switch self {
        case .powerOff: _ = relight_reboot_power_off()
        case .restart: _ = relight_reboot_restart()
        case .halt: _ = relight_reboot_halt()
        }
        say("Relight: the machine does not obey; switch it off by hand.")
        while true { pause() }
    }

    /// Writes everything out and unmounts what lies on disks and servers. May never return: see ``perform(say:)``.
    public static func writeOut() {
        sync()
        for mount in KernelFiles.live.mounts().reversed() where isRealDisk(mount) {
            if unsafe relight_unmount(mount.point, 0) != 0 {
                // A read-only mount is as safe to leave as none.
                _ = unsafe relight_mount(nil, mount.point, nil, UInt(MS_REMOUNT) | UInt(MS_RDONLY), nil)
                _ = unsafe relight_unmount(mount.point, Int32(MNT_DETACH))
            }
        }
    }

    /// Whether the child ends within `seconds`; others that end meanwhile are reaped too.
    private static func ends(_ child: Int32, seconds: Double) -> Bool {
        let end = uptime() + seconds
        while uptime() < end {
            var status: Int32 = 0
            let process = unsafe waitpid(-1, &status, WNOHANG)
            if process == child { return true }
            if process < 0, errno == ECHILD { return true }
            if process <= 0 { usleep(20_000) }
        }
        return false
    }

    private var phrase: String {
        switch self {
        case .powerOff: return "switching off"
        case .restart: return "starting the machine again"
        case .halt: return "stopping the machine"
        }
    }

    /// Whether a mount keeps files on a disk or a server.
    static func isRealDisk(_ mount: MountEntry) -> Bool {
        mount.device.major != 0
            || ["btrfs", "nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "overlay"].contains(mount.type)
    }

    private static func reap(seconds: Double) {
        let end = uptime() + seconds
        while uptime() < end {
            var status: Int32 = 0
            let process = unsafe waitpid(-1, &status, WNOHANG)
            if process < 0, errno == ECHILD { return }
            if process <= 0 { usleep(20_000) }
        }
    }
}
