// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
public import Findings
import Glibc
import LinuxDisks
public import Operations
import Tools

/// Carries out a job: one `relight` process per step, told on every console, logged, ended at the first step that fails.
///
/// For scripts it prints `RELIGHT-STEP <n> ok|failed|refused|crashed <exit code> <verb>` after each step and
/// `RELIGHT-JOB ok|failed` at the end, each on a line of its own.
public final class JobRunner {
    /// How a step ended.
    public enum Outcome: String, Sendable {
        /// Done; of a verb of Relight's own also with listed losses (exit code 3).
        case ok
        /// Failed.
        case failed
        /// Refused before the first write (exit code 4), or wrong usage (2).
        case refused
        /// Ended by a signal.
        case crashed

        /// The outcome that an exit status means; 128 + n is signal n, but 130 an interrupted step that kept its state.
        ///
        /// Of a program that is not ours (`run`) nobody knows what its status means, but 0: a check that says 3 before a
        /// restore has not passed.
        public init(status: Int32, of verb: JobStep.Verb = .verify) {
            switch status {
            case 1...128 where verb == .run: self = .failed
            case ProgramExit.done.rawValue, ProgramExit.doneWithLosses.rawValue: self = .ok
            case ProgramExit.refused.rawValue, ProgramExit.usage.rawValue: self = .refused
            case ProgramExit.interrupted.rawValue: self = .failed
            case 129...: self = .crashed
            default: self = .failed
            }
        }
    }

    private let console: JobConsole
    private let inEnvironment: Bool
    private let program: String
    private let understand: ([String]) -> String?
    /// The job that was found.
    public private(set) var found: FoundJob?
    /// Why it was not begun.
    public private(set) var fault: Fault?
    /// How steps ended, by their numbers.
    public private(set) var results: [Int: (outcome: Outcome, status: Int32)] = [:]
    /// What the job does to which disks, as known before its first step.
    private var disks: JobDisks?
    /// How long slow disks are waited for.
    private let patience: Patience
    /// Whether people were told that it is waited.
    private var saidWaiting = false

    /// How long a job file, disk or store that is not there is looked for again: disks on USB and Fibre Channel may
    /// appear long after their controller.
    struct Patience {
        /// In the booted environment, seconds.
        static let seconds = 60.0
        /// Between two looks, seconds.
        static let pause = 2.0
        /// `uptime()` at which the last look is due.
        var deadline: Double

        /// Whether it is worth looking again after `fault` at the time `now`.
        func looksAgain(after fault: Fault, now: Double) -> Bool {
            (fault.code == .missing || fault.code == .storeMissing) && now < deadline
        }
    }

    /// A runner that talks on the consoles named (when none is, to `say`, else on standard output). `program` is the relight
    /// to run, `understand` tells what is wrong with the words of one of its commands.
    public init(
        consoles: [String], program: String = "/proc/self/exe", understand: @escaping ([String]) -> String?,
        say: ((String) -> Void)? = nil
    ) {
        self.understand = understand
        inEnvironment = !consoles.isEmpty && MachineProbe.isEnvironment()
        console = JobConsole(
            consoles, logFile: inEnvironment ? "\(MachineProbe.stateFolder)/job.log" : nil,
            listener: say)
        self.program = program
        patience = Patience(deadline: uptime() + (inEnvironment ? Patience.seconds : 0))
    }

    /// Finds the job (see ``JobSearch``), counts down, and runs it. Returns the exit code: 0, 3 when a step had losses,
    /// else that of the step or fault that ended it.
    public func run(place: String?, countdown: Int) -> Int32 {
        let found: FoundJob
        do throws(Fault) {
            let console = self.console
            // A look that is repeated says nothing twice.
            var said: Set<String> = []
            found = try patiently { () throws(Fault) in
                try JobSearch.find(
                    place, say: { if said.insert($0).inserted { console.say($0) } }, understand: understand,
                    onKernelLine: inEnvironment)
            }
            self.found = found
            console.say("Job: \(found.name), \(found.job.steps.count) step\(found.job.steps.count == 1 ? "" : "s")")
            for step in found.job.steps { console.say("  \(step.number). \(JobRunner.picture(step))") }
            try found.job.check(understand)
            try awaitDisks(found.job)
            try JobRunner.checkDisks(found.job)
            // Disks that came late may be those the file lies on.
            let disks = JobDisks(found.job, DiskScan(), VolumeIdentity.byProgram)
            try disks.check(found)
            self.disks = disks
            if countdown > 0 { try count(down: countdown) }
        } catch {
            fault = error
            console.say("\(error)")
            console.say("RELIGHT-JOB failed")
            console.closeShells()
            return error.code.exit.rawValue
        }
        return perform(found)
    }

    /// A step as one line for people.
    static func picture(_ step: JobStep) -> String {
        if step.verb == .run { return "run " + step.arguments.joined(separator: " ") }
        return step.arguments.filter { $0 != "--" }.joined(separator: " ")
    }

    /// Does `attempt` again and again while it throws `missing` and there is patience left.
    private func patiently<Result>(_ attempt: () throws(Fault) -> Result) throws(Fault) -> Result {
        while true {
            let fault: Fault
            do throws(Fault) { return try attempt() } catch { fault = error }
            guard patience.looksAgain(after: fault, now: uptime()) else { throw fault }
            sayWaiting(fault)
            if isStopped(within: Patience.pause) { throw JobRunner.stopped }
        }
    }

    private func sayWaiting(_ fault: Fault) {
        guard !saidWaiting else { return }
        saidWaiting = true
        _ = console.keys()
        console.say(
            "Not there yet: \(fault.what) Looking again for up to \(Int(Patience.seconds)) seconds, as disks may be slow. "
                + "Any key stops the job.")
    }

    /// Waits for every disk and store the job names. What has not come by then is the steps' matter: a step may bring it.
    private func awaitDisks(_ job: JobFile) throws(Fault) {
        guard inEnvironment else { return }
        while let fault = JobRunner.absent(job, DiskScan(), VolumeIdentity.byProgram),
            patience.looksAgain(after: fault, now: uptime())
        {
            sayWaiting(fault)
            if isStopped(within: Patience.pause) { throw JobRunner.stopped }
        }
    }

    /// The fault of the first disk or store of the job that is not there; `nil` when all are. A store that is a path is
    /// not looked for: it may be made, and its network may come later.
    static func absent(_ job: JobFile, _ scan: DiskScan, _ identify: @escaping VolumeIdentity.Identifier) -> Fault? {
        for step in job.steps {
            do throws(Fault) {
                for disk in step.disks { _ = try DiskSelector.resolve(disk, in: scan, identify: identify) }
                if let set = step.set { _ = try StoreLocation.locate(set, in: scan, identify: identify) }
            } catch {
                if error.code == .missing || error.code == .storeMissing { return error }
            }
        }
        return nil
    }

    /// Disks that steps pin must be there, once each, before the first step: a job that cannot be finished is not begun.
    /// Throws the first fault, with the sentences of all.
    public static func checkDisks(_ job: JobFile) throws(Fault) {
        let scan = DiskScan()
        var faults: [Fault] = []
        for step in job.steps {
            for disk in step.disks where step.targets.contains(disk) || (try? DiskSelector(disk))?.isPinned == true {
                do throws(Fault) {
                    let selected = try DiskSelector.resolve(disk, in: scan)
                    if selected.isFile, step.targets.contains(disk) {
                        throw Fault(
                            .notConfirmed, what: "An image file cannot be a target in a job.", place: disk,
                            remedy: "Name a disk.")
                    }
                } catch {
                    faults.append(
                        Fault(
                            error.code, what: "Step \(step.number) (\(step.verb.rawValue)): \(error.what)",
                            place: error.place, remedy: error.remedy))
                }
            }
        }
        guard var first = faults.first else { return }
        for other in faults.dropFirst() {
            first.what += " \(other.place.isEmpty || other.place == first.place ? "" : "\(other.place): ")\(other.what)"
        }
        throw first
    }

    private func count(down seconds: Int) throws(Fault) {
        console.say("The job starts in \(seconds) seconds. Any key stops it.")
        _ = console.keys()
        for left in stride(from: seconds, to: 0, by: -1) {
            console.tick("  \(left) ... any key stops the job ")
            if isStopped(within: 1) {
                console.tick("")
                throw JobRunner.stopped
            }
        }
        console.tick("")
        console.say("")
    }

    /// Lets the time pass; whether a key or signal stopped the job meanwhile.
    private func isStopped(within seconds: Double) -> Bool {
        let end = uptime() + seconds
        while uptime() < end {
            var polls = console.keyDescriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            _ = unsafe poll(&polls, nfds_t(polls.count), 100)
            if !console.keys().isEmpty || relight_interrupted() != 0 { return true }
        }
        return false
    }

    private static let stopped = Fault(
        .jobStopped, what: "The job was stopped before its first step; nothing was done.",
        remedy: "Start it with `relight job run FILE`.")

    private func perform(_ found: FoundJob) -> Int32 {
        if inEnvironment { console.say("Keys while the job runs: s opens a shell beside it, Ctrl+C ends it.") }
        var result: Int32 = 0
        for step in found.job.steps {
            console.say("")
            console.say(stamped("Step \(step.number) of \(found.job.steps.count): \(JobRunner.picture(step))"))
            let status = run(step)
            let outcome = Outcome(status: status, of: step.verb)
            results[step.number] = (outcome, status)
            console.say("RELIGHT-STEP \(step.number) \(outcome.rawValue) \(status) \(step.verb.rawValue)")
            if outcome != .ok {
                // The status of somebody else's program is not one of ours: 3 would be "done, with losses".
                let isOurs = step.verb != .run || status == ProgramExit.interrupted.rawValue
                result = outcome == .crashed || !isOurs ? ProgramExit.failed.rawValue : status
                let left = found.job.steps.count - step.number
                if left > 0 {
                    console.say(
                        "The \(left == 1 ? "step" : "\(left) steps") after it \(left == 1 ? "is" : "are") not run.")
                }
                break
            }
            if status != 0 { result = status }
        }
        console.say("")
        let isGood = result == 0 || result == ProgramExit.doneWithLosses.rawValue
        keepLog(found, isGood ? "RELIGHT-JOB ok" : "RELIGHT-JOB failed")
        console.say(isGood ? "RELIGHT-JOB ok" : "RELIGHT-JOB failed")
        console.closeShells()
        leave(found.job.after, isGood: isGood)
        return result
    }

    private func run(_ step: JobStep) -> Int32 {
        let path: String
        let words: [String]
        if step.verb == .run {
            let name = step.arguments.first ?? ""
            guard let found = Tool(name, package: "").path else {
                console.say("There is no program \(name) here.")
                return ProgramExit.failed.rawValue
            }
            path = found
            words = step.arguments
        } else {
            path = program
            words = ["relight"] + step.arguments
        }
        var ends: [Int32] = [-1, -1]
        guard unsafe relight_pipe(&ends) == 0 else {
            console.say("No pipe could be made: too many files are open.")
            return ProgramExit.failed.rawValue
        }
        let process: Int32
        do throws(Fault) {
            process = try Tool.spawn(path, words, standardOutput: ends[1], standardError: ends[1])
        } catch {
            close(ends[0])
            close(ends[1])
            console.say("\(error)")
            return ProgramExit.failed.rawValue
        }
        close(ends[1])
        // When memory runs out it is the step that goes, not the shell or this runner.
        _ = writeFile("/proc/\(process)/oom_score_adj", "500")
        defer { close(ends[0]) }
        return follow(process, output: ends[0], seconds: step.seconds)
    }

    /// Passes a step's output on until it ends; Ctrl+C or the time limit interrupt it, and kill it when it does not mind.
    private func follow(_ process: Int32, output: Int32, seconds: Double?) -> Int32 {
        let ended = relight_process_descriptor(process)
        defer { if ended >= 0 { close(ended) } }
        let deadline = seconds.map { uptime() + $0 }
        var killAt: Double?
        var line: [UInt8] = []
        var hasEnded = false
        var isOpen = true

        func take() -> Bool {
            var buffer = [UInt8](repeating: 0, count: 65_536)
            let got = unsafe buffer.withUnsafeMutableBytes { unsafe read(output, $0.baseAddress, $0.count) }
            if got <= 0 {
                if got == 0 || (errno != EINTR && errno != EAGAIN) { isOpen = false }
                return false
            }
            for byte in buffer[0..<got] {
                if byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") || line.count >= 4096 {
                    if !line.isEmpty { console.say(String(decoding: line, as: UTF8.self)) }
                    line.removeAll(keepingCapacity: true)
                }
                // A step's text may come from a disk: it must not steer the terminal.
                if byte >= 0x20 && byte != 0x7F || byte == UInt8(ascii: "\t") { line.append(byte) }
            }
            return true
        }

        while true {
            var polls = [
                pollfd(fd: isOpen ? output : -1, events: Int16(POLLIN), revents: 0),
                pollfd(fd: hasEnded ? -1 : ended, events: Int16(POLLIN), revents: 0),
            ]
            polls += console.keyDescriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
            let ready = unsafe poll(&polls, nfds_t(polls.count), hasEnded ? 0 : 250)
            if ready > 0, polls[0].revents != 0 { _ = take() }
            if ready > 0, polls[1].revents != 0 { hasEnded = true }
            if ended < 0, kill(process, 0) != 0 { hasEnded = true }
            // What is still in the pipe is read; a daemon that keeps it open is not waited for.
            if hasEnded, !isOpen || polls[0].revents == 0 { break }
            console.takeBack()
            for (key, index) in console.keys() {
                if key == UInt8(ascii: "s") { console.openShell(index) }
                if key == 3, killAt == nil {
                    console.say("Ctrl+C: the step is asked to stop.")
                    killAt = interrupt(process)
                }
            }
            if killAt == nil, relight_interrupted() != 0 { killAt = interrupt(process) }
            if killAt == nil, let deadline, uptime() > deadline {
                console.say("The step's time is over; it is asked to stop.")
                killAt = interrupt(process)
            }
            if let time = killAt, uptime() > time {
                kill(-process, SIGKILL)
                killAt = .infinity
            }
        }
        if !line.isEmpty { console.say(String(decoding: line, as: UTF8.self)) }
        return Tool.wait(process)
    }

    private func interrupt(_ process: Int32) -> Double {
        kill(-process, SIGINT)
        return uptime() + 30
    }

    /// Puts the log beside the job file and into each set, where that can be written: never on a disk the job restored
    /// to, and on one it images only into the set that a backup of the job lies in.
    private func keepLog(_ found: FoundJob, _ verdict: String) {
        let name = "relight-job-\(JobRunner.stamp()).log"
        let text = String(decoding: console.log, as: UTF8.self) + verdict + "\n"
        let scan = DiskScan()
        let identify = VolumeIdentity.byProgram
        var disks = JobDisks(found.job, scan, identify)
        // After a restore a name may fit two disks, and so none.
        if let before = self.disks { disks.add(before) }
        switch found.home {
        case _ where disks.objection(to: found.disks) != nil:
            console.say("No log is put beside the job file: \(disks.objection(to: found.disks) ?? "").")
        case .folder(let folder):
            // Files beside a job that is run by hand are the user's; the environment's own memory keeps nothing.
            if !inEnvironment { store(text, "\(folder)/\(name)", as: "\(folder)/\(name)") }
        case .volume(let volume, _) where !scan.volumes(identify).contains(volume):
            console.say("No log is put beside the job file: \(volume.path) is not what it was.")
        case .volume(let volume, let folder):
            do throws(Fault) {
                let location = try StoreLocation.mount(volume, below: folder)
                store(text, "\(location.path)/\(name)", as: "\(name) on \(volume.path)")
                location.release()
            } catch {
                console.say("The log could not be written beside the job: \(error.what)")
            }
        }
        var done: Set<String> = []
        for set in found.job.steps.compactMap(\.set) where done.insert(set).inserted {
            let isWritten = found.job.steps.contains {
                [.backup, .copy, .forget, .prune].contains($0.verb) && $0.set == set
            }
            let place = try? StoreLocation.locate(set, in: scan, identify: identify)
            if let objection = disks.objection(
                to: place?.disks ?? scan.disks(holding: set), isWritten: isWritten)
            {
                console.say("No log is put into \(set): \(objection).")
                continue
            }
            guard let location = try? StoreLocation.open(set, in: scan, identify: identify) else { continue }
            // Only where a set is: a place that was mistyped is not made.
            if KernelFiles.live.exists("\(location.path)/RELIGHT.txt") {
                unsafe mkdir("\(location.path)/logs", 0o755)
                store(text, "\(location.path)/logs/\(name)", as: "\(set)/logs/\(name)")
            }
            location.release()
        }
    }

    private func store(_ text: String, _ path: String, as place: String) {
        guard writeFile(path, text) else { return console.say("The log could not be written: \(place).") }
        let descriptor = unsafe relight_open(path, O_RDONLY, 0)
        if descriptor >= 0 {
            fsync(descriptor)
            close(descriptor)
        }
        console.say("The log is in \(place).")
    }

    private func leave(_ after: JobFile.After, isGood: Bool) {
        guard inEnvironment else {
            if after != .shell {
                console.say("\"after: \(after.rawValue)\" is for the environment; nothing is done here.")
            }
            return
        }
        let shutdown: Shutdown
        switch after {
        case .shell: return
        case .poweroff: shutdown = .powerOff
        case .reboot:
            guard isGood else {
                // The machine might come up in the same job again, and again.
                return console.say("The job failed, so the machine is not started again.")
            }
            shutdown = .restart
        }
        do throws(Fault) { try shutdown.request() } catch { console.say("\(error)") }
        sleep(60)
    }

    /// `20261121T030405Z`.
    static func stamp() -> String {
        String(MainScreen.clock(seconds: true).filter { $0.isNumber || $0 == "T" || $0 == "Z" })
    }
}
