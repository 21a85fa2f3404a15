// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Glibc
public import LinuxDisks

/// A terminal the environment talks on.
public struct ConsoleDevice: Hashable, Sendable {
    /// What it is used for.
    public enum Role: Sendable {
        /// The main screen, the job, every message.
        case main
        /// A root shell beside it.
        case shell
    }
    /// The kernel's name, `tty1`, `ttyS0`.
    public var name: String
    /// What it is used for.
    public var role: Role

    /// A console.
    public init(name: String, role: Role) {
        self.name = name
        self.role = role
    }

    /// Its node.
    public var path: String { "/dev/\(name)" }
    /// Whether it is a serial line, or anything but the machine's own screen.
    public var isSerial: Bool { !name.hasPrefix("tty") || name.dropFirst(3).first?.isNumber != true }
    /// What `TERM` is on it.
    public var terminal: String { isSerial ? "vt220" : "linux" }

    /// The terminals of the machine: every console the kernel line names, the screen and the first serial port whether
    /// named or not; a shell on the second virtual terminal, and on the second serial port where there is one.
    public static func find(_ files: KernelFiles = .live) -> [ConsoleDevice] {
        var names: [String] = []
        func add(_ name: String) {
            // The virtual terminal in the foreground is shown as tty0.
            let name = name == "tty0" ? "tty1" : name
            let isPlain =
                name.utf8.count < 32 && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != 0x2F && $0 != 0x2E }
            if isPlain, !names.contains(name), files.exists("/dev/\(name)") { names.append(name) }
        }
        let active = files.word("/sys/class/tty/console/active")?.split(separator: " ").map(String.init) ?? []
        let hasScreen = files.exists("/sys/class/tty/tty0")
        if hasScreen { add("tty0") }
        if isRealPort("ttyS0", files) { add("ttyS0") }
        for name in active { add(name) }
        var result = names.map { ConsoleDevice(name: $0, role: .main) }
        if hasScreen, files.exists("/dev/tty2") { result.append(ConsoleDevice(name: "tty2", role: .shell)) }
        if !names.contains("ttyS1"), isRealPort("ttyS1", files), files.exists("/dev/ttyS1") {
            result.append(ConsoleDevice(name: "ttyS1", role: .shell))
        }
        return result
    }

    /// Whether a chip answers behind a serial port's node: its type is then not 0 (`PORT_UNKNOWN`).
    private static func isRealPort(_ name: String, _ files: KernelFiles) -> Bool {
        (files.number("/sys/class/tty/\(name)/type") ?? 0) != 0
    }
}

/// Says things on several consoles at once and never waits for one: a serial line whose other end holds it up must not
/// stop the rest.
final class Broadcast {
    private var lines: [(path: String, descriptor: Int32)] = []

    /// None of the consoles becomes a controlling terminal.
    init(_ consoles: [ConsoleDevice]) {
        lines = consoles.map { ($0.path, Broadcast.open($0.path)) }
    }

    deinit { for line in lines where line.descriptor >= 0 { close(line.descriptor) } }

    private static func open(_ path: String) -> Int32 {
        unsafe relight_open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK, 0)
    }

    /// Writes `text` and a line end on each console.
    func say(_ text: String) {
        let bytes = Array((text + "\r\n").utf8)
        for index in lines.indices where !write(bytes, lines[index].descriptor) {
            // When a session on a terminal ends the kernel hangs up every file open on it.
            if lines[index].descriptor >= 0 { close(lines[index].descriptor) }
            lines[index].descriptor = Broadcast.open(lines[index].path)
            _ = write(bytes, lines[index].descriptor)
        }
    }

    /// False when the descriptor is of no use any more.
    private func write(_ bytes: [UInt8], _ descriptor: Int32) -> Bool {
        guard descriptor >= 0 else { return false }
        var rest = bytes[...]
        var patience = 50
        while !rest.isEmpty, patience > 0 {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if count < 0, errno == EAGAIN || errno == EINTR {
                patience -= 1
                usleep(10_000)
            } else {
                return false
            }
        }
        return true
    }
}

/// Settings of a terminal.
enum Terminal {
    /// Makes a terminal sane for a shell: 115,200 bit/s where it is a serial line that the kernel line does not name, a
    /// size where it knows none.
    static func prepare(_ descriptor: Int32, _ device: ConsoleDevice) {
        var rows: UInt16 = 0
        var columns: UInt16 = 0
        if unsafe relight_terminal_size(descriptor, &rows, &columns) == 0, rows == 0 || columns == 0 {
            _ = relight_set_terminal_size(descriptor, 24, 80)
        }
        var settings = termios()
        guard unsafe tcgetattr(descriptor, &settings) == 0 else { return }
        let named = KernelFiles.live.word("/sys/class/tty/console/active")?.split(separator: " ") ?? []
        if device.isSerial, !named.contains(where: { $0 == device.name }) {
            unsafe cfsetspeed(&settings, speed_t(B115200))
        }
        settings.c_iflag |= tcflag_t(ICRNL | IXON)
        settings.c_oflag |= tcflag_t(OPOST | ONLCR)
        settings.c_lflag |= tcflag_t(ISIG | ICANON | ECHO | ECHOE | ECHOK | IEXTEN)
        settings.c_cflag |= tcflag_t(CREAD | CLOCAL)
        settings.c_cflag &= ~tcflag_t(HUPCL)
        unsafe tcsetattr(descriptor, TCSANOW, &settings)
    }

    /// Rows of a terminal; 24 where it knows none.
    static func rows(_ descriptor: Int32) -> Int {
        var rows: UInt16 = 0
        var columns: UInt16 = 0
        return unsafe relight_terminal_size(descriptor, &rows, &columns) == 0 && rows > 0 ? Int(rows) : 24
    }

    /// Single keys without echo; returns the settings to put back, `nil` where it is no terminal.
    static func readKeys(_ descriptor: Int32) -> termios? {
        var settings = termios()
        guard unsafe tcgetattr(descriptor, &settings) == 0 else { return nil }
        let before = settings
        settings.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG)
        unsafe tcsetattr(descriptor, TCSANOW, &settings)
        return before
    }

    /// Puts settings back.
    static func restore(_ descriptor: Int32, _ settings: termios) {
        var settings = settings
        unsafe tcsetattr(descriptor, TCSANOW, &settings)
    }
}
