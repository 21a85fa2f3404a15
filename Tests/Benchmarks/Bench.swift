// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import Tools

/// The whole run: inputs, rounds, tables.
final class Bench {
    private var options: Options
    private let shell: Shell
    private let inputs: Inputs
    private let places: Places
    private let contenders: [Contender]
    private let machine: Machine
    private let isOutputInRAM: Bool
    private var results: [Result] = []
    /// The machine's load before each measured command.
    private var loads: [Double] = []
    /// Wrong or failed work of Relight; what fails the run.
    private var faults: [String] = []

    /// Prepares the run; `nil` when only inputs were asked for.
    init?(_ asked: Options) throws(Fault) {
        var options = asked
        guard geteuid() == 0 else {
            throw Fault(.noAccess, what: "The benchmarks mount images.", remedy: "Run them as root.")
        }
        let plain = Shell(log: "/dev/null")
        func absolute(_ path: String) throws(Fault) -> String { try plain.run("realpath -m '\(path)'").trimmed }
        let folder = try absolute(options.directory)
        options.relight = try absolute(options.relight)
        options.source = try absolute(options.source)
        guard unsafe access(options.relight, X_OK) == 0 else {
            throw Fault(.missing, what: "There is no program \(options.relight).", remedy: "Run make build.")
        }
        let work = "\(folder)/work"
        try plain.run("rm -rf '\(work)' && mkdir -p '\(work)'")
        shell = Shell(
            environment: [
                "TMPDIR": work, "RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": "\(work)/cache-restic",
                "BORG_BASE_DIR": "\(work)/cache-borg", "BORG_PASSPHRASE": "x",
                "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
                "TERM": "dumb",
            ], log: "\(work)/log", priority: options.priority)
        inputs = Inputs(
            shell: shell, options: options, mounts: Mounts(shell: shell, point: "\(work)/mnt"),
            folder: "\(folder)/inputs")
        if !inputs.areMade {
            // In a process of its own: what the kernel charges a program as its peak memory includes what the process
            // that started it held at that moment, so this one stays small.
            if options.isInputsOnly {
                try inputs.make()
            } else {
                let own = Tool("/proc/self/exe", package: "relight-bench")
                try own.check(
                    [
                        options.relight, "--inputs-only", "--size", "\(options.size)", "--dir", folder, "--source",
                        options.source,
                    ], seconds: Shell.limit, onLine: { print($0) })
            }
        }
        guard !options.isInputsOnly else { return nil }
        machine = try Machine(shell, relight: options.relight)

        // A base, a second version and a restored image must fit, with the page cache's share of memory left alone.
        let room = UInt64(try shell.run("df --output=avail -B 1 /dev/shm | tail -n 1").trimmed) ?? 0
        let free = UInt64(try shell.run("awk '/^MemAvailable/{printf \"%.0f\", $2*1024}' /proc/meminfo").trimmed) ?? 0
        let wanted = options.size * 5 / 2
        isOutputInRAM = room > wanted && free > options.size * 5
        let out = isOutputInRAM ? "/dev/shm/relight-bench-\(getpid())" : "\(folder)/out"
        try shell.run("rm -rf '\(out)' && mkdir -p '\(out)'")
        var lengths: [Input: UInt64] = [:]
        for input in Input.allCases { lengths[input] = try inputs.length(input) }
        places = Places(
            inputs: "\(folder)/inputs", work: work, out: out, processors: machine.processors, lengths: lengths)
        let isEncrypting = try shell.succeeds("'\(options.relight)' backup --help | grep -q -- --passphrase-file")
        let all =
            RelightContenders(places: places, program: options.relight, isEncrypting: isEncrypting).all()
            + Peers(places: places).all()
        self.options = options
        guard let only = options.only else {
            contenders = all
            return
        }
        var chosen: [Contender] = []
        for contender in all
        where try shell.succeeds("grep -Eiq -- \(Bench.quoted(only)) <<< \(Bench.quoted(contender.title))") {
            chosen.append(contender)
        }
        guard !chosen.isEmpty else {
            let titles = all.map(\.title).joined(separator: "; ")
            throw Fault(.usage, what: "Nothing matches \(only).", remedy: "There are: \(titles).")
        }
        contenders = chosen
    }

    private static func quoted(_ text: String) -> String {
        "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
    }

    /// Runs everything. False when Relight failed or restored something wrong.
    func run() throws(Fault) -> Bool {
        let failure: Fault?
        do throws(Fault) {
            for round in 0..<options.rounds { try self.round(round) }
            failure = nil
        } catch {
            failure = error
        }
        try shell.run("rm -rf '\(places.out)' '\(places.work)'", isCleaning: true)
        if let failure {
            for line in Tables(results: results, rounds: options.rounds).lines(markdown: false) { print(line) }
            throw failure
        }
        try report()
        for fault in faults { print("WRONG: \(fault)") }
        return faults.isEmpty
    }

    private func report() throws(Fault) {
        var sentences: [String] = []
        for input in Input.allCases where contenders.contains(where: { $0.input == input || input == .changed }) {
            let known = try inputs.knownContents(input)
            let used = try inputs.used(input)
            let count = used == 0 ? "" : ", \(ByteCount(used)) in use"
            sentences.append(
                "Input \(input.title): \(ByteCount(places.lengths[input] ?? 0))\(count), \(known.files) files, contents \(known.digest.prefix(12))."
            )
        }
        let report = Report(
            machine: machine, options: options, inputs: sentences,
            place: isOutputInRAM ? "a RAM filesystem" : "a disk", loads: loads, results: results)
        print("")
        for line in machine.lines + [report.conditions] + sentences { print(line) }
        for line in Tables(results: results, rounds: options.rounds).lines(markdown: false) { print(line) }
        print("")
        if let table = options.table { try Files.write(table, Array(report.markdown.utf8)) }
        if let json = options.json { try Files.write(json, Array(report.json.utf8)) }
    }

    private func round(_ round: Int) throws(Fault) {
        for input in Input.allCases {
            let group = contenders.filter { $0.input == input }
            for place in group.indices { try run(group[(place + round) % group.count], round) }
        }
    }

    /// All steps of one contender; a failure ends its steps, not the run.
    private func run(_ contender: Contender, _ round: Int) throws(Fault) {
        try shell.run(places.clear)
        var reason = contender.unavailable
        if let missing = contender.tools.first(where: { Tool($0, package: "").path == nil }) {
            reason = "not measured: \(missing) is not installed"
        } else if let why = reason {
            reason = "not measured: \(why)"
        }
        for step in contender.steps {
            guard reason == nil else {
                note(contender, step, reason)
                continue
            }
            if step.isOnce, round > 0 { continue }
            reason = try run(step, of: contender, round)
            if let reason {
                print("  \(contender.title): \(reason)")
                if contender.name.hasPrefix(Name.relight) { faults.append("\(contender.title): \(reason)") }
                note(contender, step, reason)
            }
        }
        try shell.run(places.clear)
    }

    /// Runs one step. Why it failed, or `nil`.
    private func run(_ step: Step, of contender: Contender, _ round: Int) throws(Fault) -> String? {
        if !step.before.isEmpty {
            do throws(Fault) {
                try shell.run(step.before)
            } catch {
                guard error.code != .interrupted else { throw error }
                return "cannot be prepared: \(error.what)"
            }
        }
        for input in step.warm { try shell.run("cat '\(places.image(input))' > /dev/null") }
        if !isOutputInRAM, step.warm.isEmpty {
            try shell.run("sync; find '\(places.out)' -path '\(places.set)*' -type f -exec cat {} + > /dev/null")
        }
        let before = try size(step.output)
        loads.append(try Machine.load(shell))
        let measured: Measured
        do throws(Fault) {
            measured = try shell.measure(step.command)
        } catch {
            if !step.after.isEmpty { try shell.run(step.after, isCleaning: true) }
            throw error
        }
        let words = measured.status == 0 ? "" : try shell.lastWords()
        if !step.after.isEmpty { try shell.run(step.after, isCleaning: true) }
        guard measured.status == 0 else { return "failed with status \(measured.status): \(words.trimmed)" }
        for job in step.jobs {
            add(
                contender, job,
                Sample(
                    wall: measured.wall, cpu: measured.cpu, peak: measured.peak,
                    output: step.output == nil ? nil : try size(step.output) - before))
        }
        if let job = step.jobs.first {
            print(
                "round \(round + 1)  \(job.title) - \(contender.name): \(fixed(measured.wall)) s wall, \(fixed(measured.cpu)) s CPU"
            )
        }
        // Relight's work is judged in each round, that of the peers in the first.
        guard let (image, input) = step.restored, round == 0 || contender.name.hasPrefix(Name.relight) else {
            return nil
        }
        if let check = input.filesystem.check(image), !(try shell.succeeds("\(check) > /dev/null 2>&1")) {
            return "restored \(input.title) fails: \(check)"
        }
        let (seen, _) = try inputs.contents(image, input.filesystem)
        return seen == (try inputs.knownContents(input).digest) ? nil : "restored \(input.title) has other contents"
    }

    private func size(_ path: String?) throws(Fault) -> UInt64 {
        guard let path else { return 0 }
        let text = try shell.run(
            "[ -e '\(path)' ] && find '\(path)' -type f -printf '%s\\n' | awk '{s+=$1}END{printf \"%.0f\\n\",s}' || echo 0"
        )
        return UInt64(text.trimmed) ?? 0
    }

    private func add(_ contender: Contender, _ job: Job, _ sample: Sample) {
        results[index(contender, job)].samples.append(sample)
    }

    private func note(_ contender: Contender, _ step: Step, _ reason: String?) {
        for job in step.jobs { results[index(contender, job)].remark = reason }
    }

    private func index(_ contender: Contender, _ job: Job) -> Int {
        if let index = results.firstIndex(where: { $0.contender == contender.name && $0.job == job }) { return index }
        results.append(Result(contender: contender.name, job: job))
        return results.count - 1
    }
}
