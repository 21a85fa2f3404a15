// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # BootEnvironment
///
/// Relight as the first process of the recovery environment.
///
/// PID 1 (``Supervisor``) only mounts, starts children, reaps, says what happened on every console, and shuts down.
/// Whatever can fail runs in a child of its own: checking that the whole initramfs was unpacked, loading drivers,
/// listening for new devices, the network, each console's screen and shell, the job. A child that ends unasked is named
/// on the consoles and started again after a pause; should PID 1 itself trap, it executes itself again and takes its
/// children over, because its end would be the kernel's.
///
/// ```
/// firmware > GRUB > kernel > /init = relight
///   mounts > consoles > check the manifest ┐
///                     > load drivers       ┴> RELIGHT-READY > a screen and shell per console, or the job
///                     > listen for devices                  > network (never waited for)
/// ```
///
/// It does not promise a system to live in: there are no users, no services, no logs after power-off but a job's.
import CLinux
import Glibc
import LinuxDisks

/// The environment's first process.
public enum BootEnvironment {
    /// Where the environment's own files lie.
    public static let folder = "/etc/relight"

    /// Whether this process is the first one of the recovery environment, and not of some container.
    public static func isInit(firstWord: String) -> Bool {
        getpid() == 1 && (firstWord.hasSuffix("init") || KernelFiles.live.exists(UnpackedManifest.path))
    }

    /// Runs as PID 1 until the machine is switched off.
    public static func run(version: String, arguments: [String]) -> Never {
        // Mounts come first: nothing can be said without /dev, nothing started without /proc.
        let problems = EarlySystem.standard.setUp()
        for descriptor in 0..<3 where fcntl(Int32(descriptor), F_GETFD) < 0 {
            // A descriptor below 3 that is closed would be given to the next file that is opened.
            while true {
                let opened = unsafe open("/dev/null", O_RDWR)
                if opened < 0 || opened >= descriptor { break }
            }
        }
        relight_start_again_after_crash()
        _ = relight_no_core_dumps()
        _ = relight_catch_ctrl_alt_del()
        let supervisor = Supervisor(version: version)
        supervisor.run(problems: problems, isResumed: arguments.contains("resumed"))
    }
}

/// Seconds since the machine was started.
func uptime() -> Double {
    var time = timespec()
    unsafe clock_gettime(CLOCK_BOOTTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// A message with the time since power-on in front, as the kernel writes its own: `[    3.42] text`.
func stamped(_ text: String, at seconds: Double = uptime()) -> String {
    let hundredths = Int(seconds * 100)
    let fraction = hundredths % 100
    let number = "\(hundredths / 100).\(fraction < 10 ? "0" : "")\(fraction)"
    return "[\(String(repeating: " ", count: max(0, 8 - number.count)))\(number)] \(text)"
}
