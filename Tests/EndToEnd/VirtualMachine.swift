// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Findings
import Glibc
import Tools

/// A running virtual machine.
final class VirtualMachine {
    /// Debian's package `ovmf`.
    static let firmwareFolder = "/usr/share/OVMF"

    let console: SerialConsole
    private let process: Int32
    private let folder: String
    private var monitor: Monitor?
    private let monitorPath: String
    private var hasEnded = false

    /// Starts it. `folder` is the scenario's; `index` numbers the scenario's starts.
    init(_ machine: Machine, folder: String, index: Int, patience: Double) throws(Fault) {
        let qemu = try Tool("qemu-system-x86_64", package: "qemu-system-x86").requirePath()
        self.folder = folder
        monitorPath = "\(folder)/qmp-\(index)"
        if machine.firmware != .bios {
            let template = machine.firmware == .uefi ? "OVMF_VARS_4M.fd" : "OVMF_VARS_4M.ms.fd"
            let variables = "\(folder)/variables-\(machine.variables).fd"
            guard unsafe access("\(Self.firmwareFolder)/\(template)", R_OK) == 0 else {
                throw Fault(
                    .toolMissing, what: "The UEFI firmware for virtual machines is not installed.",
                    place: Self.firmwareFolder, remedy: "Install the Debian package ovmf.")
            }
            if unsafe access(variables, F_OK) != 0 {
                try Tool("cp", package: "coreutils").check(["\(Self.firmwareFolder)/\(template)", variables])
            }
        }
        for end in [".in", ".out"] where unsafe mkfifo(monitorPath + end, 0o600) != 0 && errno != EEXIST {
            throw Fault(.system, what: "A pipe cannot be made.", place: monitorPath + end, remedy: "Check the folder.")
        }
        let arguments = machine.arguments(folder: folder, index: index)
        try writeText("\(folder)/qemu-\(index).txt", arguments.joined(separator: " ") + "\n")
        var toMachine: [Int32] = [-1, -1]
        var fromMachine: [Int32] = [-1, -1]
        guard unsafe relight_pipe(&toMachine) == 0, unsafe relight_pipe(&fromMachine) == 0 else {
            throw Fault(.system, what: "No pipe could be made.", remedy: "Too many files are open.")
        }
        let errors = unsafe open("\(folder)/qemu-\(index).err", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        process = try Tool.spawn(
            qemu, ["qemu-system-x86_64"] + arguments, standardInput: toMachine[0], standardOutput: fromMachine[1],
            standardError: errors)
        for end in [toMachine[0], fromMachine[1], errors] { close(end) }
        console = try SerialConsole(
            input: toMachine[1], output: fromMachine[0], logFile: "\(folder)/console-\(index).log", patience: patience)
    }
    deinit { stop() }

    /// Pulls the plug.
    func stop() {
        guard !hasEnded else { return }
        hasEnded = true
        kill(process, SIGKILL)
        _ = Tool.wait(process)
    }

    /// Waits until the machine has switched itself off (or restarted, where that ends it).
    func waitForEnd(within seconds: Double = 60) throws(Fault) {
        try console.waitForEnd(within: seconds)
        hasEnded = true
        let status = Tool.wait(process)
        guard status == 0 else {
            throw Fault(.vm, what: "QEMU ended with status \(status).", place: folder, remedy: "See qemu-*.err there.")
        }
    }

    /// Takes a picture of the screen, `<name>.png` in the scenario's folder. Its path.
    @discardableResult
    func screenshot(_ name: String) throws(Fault) -> String {
        let path = "\(folder)/\(name).png"
        try command(#"{"execute":"screendump","arguments":{"filename":"\#(path)","format":"png"}}"#)
        return path
    }

    /// Presses keys on the machine's own keyboard, by QEMU's key names: `["ctrl", "alt", "f2"]`.
    func press(_ keys: [String]) throws(Fault) {
        let list = keys.map { #"{"type":"qcode","data":"\#($0)"}"# }.joined(separator: ",")
        try command(#"{"execute":"send-key","arguments":{"keys":[\#(list)]}}"#)
    }

    /// Sends a QMP command and waits for its answer.
    @discardableResult
    func command(_ json: String) throws(Fault) -> String {
        let monitor: Monitor
        if let known = self.monitor {
            monitor = known
        } else {
            monitor = try Monitor(monitorPath)
            _ = try monitor.ask(#"{"execute":"qmp_capabilities"}"#)
            self.monitor = monitor
        }
        return try monitor.ask(json)
    }
}

/// QEMU's machine protocol over a pair of named pipes.
private final class Monitor {
    private let input: Int32
    private let output: Int32
    private var pending: [UInt8] = []

    init(_ path: String) throws(Fault) {
        input = unsafe open(path + ".in", O_RDWR | O_CLOEXEC)
        output = unsafe open(path + ".out", O_RDWR | O_CLOEXEC)
        guard input >= 0, output >= 0 else {
            throw Fault(.system, what: "QEMU's monitor cannot be opened.", place: path, remedy: "Check the folder.")
        }
    }
    deinit {
        close(input)
        close(output)
    }

    func ask(_ json: String) throws(Fault) -> String {
        let bytes = Array((json + "\n").utf8)
        _ = unsafe bytes.withUnsafeBytes { unsafe write(input, $0.baseAddress, $0.count) }
        let deadline = Time.now() + 30
        while Time.now() < deadline {
            while let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: pending[..<end], as: UTF8.self)
                pending.removeSubrange(...end)
                if line.contains("\"return\"") { return line }
                if line.contains("\"error\"") {
                    throw Fault(.vm, what: "QEMU refuses \(json): \(line)", remedy: "See QEMU's own messages.")
                }
            }
            var poll = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
            guard unsafe Glibc.poll(&poll, 1, 500) > 0 else { continue }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(output, $0.baseAddress, $0.count) }
            if count > 0 { pending += buffer[0..<count] }
        }
        throw Fault(.vm, what: "QEMU does not answer \(json).", remedy: "It may hang; see its messages.")
    }
}

/// Writes a small text file.
func writeText(_ path: String, _ text: String) throws(Fault) {
    let file = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    let bytes = Array(text.utf8)
    let written = file < 0 ? -1 : unsafe bytes.withUnsafeBytes { unsafe write(file, $0.baseAddress, $0.count) }
    if file >= 0 { close(file) }
    guard written == bytes.count else {
        throw Fault(.system, what: "The file cannot be written.", place: path, remedy: "Check free space and rights.")
    }
}
