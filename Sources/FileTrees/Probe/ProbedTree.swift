// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import CLinux
import Findings
import Geometry
import Glibc
import Threads
import Tools

/// A tree that a child process reads. The child has nothing but a socket to here and asks for the volume's bytes over it.
/// Once something went wrong with the child, every further call throws the same fault.
final class ProbedTree: FileTree {
    private let source: any BlockSource
    private let format: TreeFormat
    private let limits: ProbeLimits
    private let socket: ProbeSocket
    private let process: Int32
    private var isAlive = true
    private var failure: Fault?
    private var handedOut: UInt64 = 0
    private let started = ProbeSocket.now()
    /// Kept until the child is gone.
    private let device: LoopView?

    var isCaseSensitive: Bool { format == .ext || format == .mounted }

    init(
        _ program: String, _ source: any BlockSource, _ format: TreeFormat, device: LoopView?, kind: String,
        _ limits: ProbeLimits
    ) throws(Fault) {
        self.source = source
        self.format = format
        self.limits = limits
        self.device = device
        var ends: [Int32] = [-1, -1]
        guard unsafe relight_socket_pair(&ends) == 0 else {
            throw Fault(.system, what: "No socket could be made.", remedy: "Too many files are open; try again.")
        }
        // The child's end must be its own alone before anything is asked: else its death would not be seen.
        do throws(Fault) {
            process = try Tool.spawn(
                program, ["relight", ProbeChild.verb], environment: ["SWIFT_BACKTRACE": "enable=no"],
                standardInput: ends[1], standardOutput: ends[1])
        } catch {
            close(ends[0])
            close(ends[1])
            throw error
        }
        close(ends[1])
        socket = ProbeSocket(descriptor: ends[0])
        var request = WireWriter(ProbeWord.open)
        request.number(source.length.bytes)
        request.number(source.sectorSize.bytes)
        request.number(limits.memory)
        request.text(source.name)
        request.text(format.rawValue)
        request.text(kind)
        request.text(device?.path ?? "")
        _ = try ask(request) { (_: inout WireReader) throws(ProbeSocket.Problem) in true }
    }

    deinit {
        end()
        close(socket.descriptor)
        device?.release()
    }

    func step(_ path: [String]) throws(Fault) -> TreeStep {
        var request = WireWriter(ProbeWord.step)
        request.path(path)
        return try ask(request) { (answer: inout WireReader) throws(ProbeSocket.Problem) in
            switch try answer.byte() {
            case 0: return .found(try answer.entry())
            case 1:
                let depth = Int(try answer.number(UInt32.self))
                return .link(depth: depth, target: try answer.text())
            default: return .missing
            }
        }
    }

    func list(_ path: [String], most: Int) throws(Fault) -> [TreeEntry] {
        var request = WireWriter(ProbeWord.list)
        request.path(path)
        request.number(UInt32(clamping: most))
        return try ask(request) { (answer: inout WireReader) throws(ProbeSocket.Problem) in
            let count = Int(try answer.number(UInt32.self))
            var result: [TreeEntry] = []
            for _ in 0..<min(count, most) { result.append(try answer.entry()) }
            return result
        }
    }

    func read(_ path: [String], stream: String?, from offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        var request = WireWriter(ProbeWord.read)
        request.path(path)
        request.byte(stream == nil ? 0 : 1)
        request.text(stream ?? "")
        request.number(offset)
        let most = max(0, min(count, TreeLimits.read))
        request.number(UInt32(most))
        return try ask(request) { (answer: inout WireReader) throws(ProbeSocket.Problem) in
            Array(answer.rest().prefix(most))
        }
    }

    func streams(_ path: [String]) throws(Fault) -> [TreeStream] {
        var request = WireWriter(ProbeWord.streams)
        request.path(path)
        return try ask(request) { (answer: inout WireReader) throws(ProbeSocket.Problem) in
            let count = Int(try answer.number(UInt32.self))
            var result: [TreeStream] = []
            for _ in 0..<min(count, 4096) {
                let name = try answer.text()
                result.append(TreeStream(name: name, size: try answer.number(UInt64.self)))
            }
            return result
        }
    }

    // MARK: The child

    /// Sends a request and serves the child's reads until its answer comes.
    private func ask<R>(
        _ request: WireWriter, _ take: (inout WireReader) throws(ProbeSocket.Problem) -> R
    ) throws(Fault) -> R {
        if let failure { throw failure }
        do throws(ProbeSocket.Problem) {
            try send(request)
            while true {
                var answer = WireReader(try socket.receive(deadline: deadline, Interruption.check))
                switch try answer.byte() {
                case ProbeWord.result: return try take(&answer)
                case ProbeWord.fault: throw ProbeSocket.Problem.fault(try answer.fault(source.name))
                case ProbeWord.want:
                    let offset = try answer.number(UInt64.self)
                    try serve(offset, Int(try answer.number(UInt32.self)))
                default: throw ProbeSocket.Problem.nonsense
                }
            }
        } catch {
            if case .fault(let fault) = error, fault.code != .interrupted { throw fault }
            throw give(up: error)
        }
    }

    private var deadline: Double { min(ProbeSocket.now() + limits.silence, started + limits.seconds) }

    private func send(_ writer: WireWriter) throws(ProbeSocket.Problem) {
        try socket.send(writer.frame, deadline: deadline, Interruption.check)
    }

    private func serve(_ offset: UInt64, _ count: Int) throws(ProbeSocket.Problem) {
        var answer = WireWriter(ProbeWord.block)
        guard count > 0, count <= ProbeWord.mostBlock else { throw .nonsense }
        handedOut += UInt64(count)
        guard handedOut <= limits.bytes else { throw .late }
        if let bytes = try? source.bytes(at: ByteCount(offset), count: count) {
            answer.byte(1)
            answer.rest(bytes)
        } else {
            answer.byte(0)
        }
        try send(answer)
    }

    /// Ends the child and tells why.
    private func give(up problem: ProbeSocket.Problem) -> Fault {
        let status = end(problem)
        let reader = format == .ntfs ? "libntfs-3g" : format == .ext ? "libext2fs" : "the kernel"
        let what: String
        switch problem {
        case .fault(let fault):
            failure = fault
            return fault
        case .late: what = "The child that looks into it with \(reader) did not come to an end and was stopped."
        case .nonsense: what = "The child that looks into it with \(reader) said what it never should."
        case .ended:
            what =
                status > 128
                ? "The child that looks into it with \(reader) crashed (signal \(status - 128))."
                : "The child that looks into it with \(reader) ended with status \(status)."
        }
        let fault = Fault(
            .probeFailed, what: what, place: source.name,
            remedy:
                "Its metadata are damaged, or made to do harm: check it with the filesystem's own checker, on a copy.")
        failure = fault
        return fault
    }

    /// Ends the child, unless it has ended by itself; its status.
    @discardableResult
    private func end(_ problem: ProbeSocket.Problem? = nil) -> Int32 {
        guard isAlive else { return 0 }
        isAlive = false
        // One that closed its socket is about to end by itself, with a status that tells more; but not for ever.
        if case .ended? = problem {
            let exited = relight_process_descriptor(process)
            if exited >= 0 {
                var polls = [pollfd(fd: exited, events: Int16(POLLIN), revents: 0)]
                _ = unsafe poll(&polls, 1, 2000)
                close(exited)
            }
        }
        kill(-process, SIGKILL)
        return Tool.wait(process)
    }
}
