// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import TestSupport

@testable import ImageStore

/// Cuts the power after each thing a folder store does, in every way, and looks at what is left.
struct PowerCut {
    /// The content of the points, by their names.
    var contents: [String: [UInt8]]
    var keys = KeyRing.none
    /// For backing up again.
    var options = SetWriter.Options()
    /// The set's folder below the base.
    var set = "set"
    /// Stop at so many violations.
    var limit = 3
    /// Every so many-th of the different remains is also backed up to again; 0: none.
    var rerunStep = 0

    struct Outcome {
        var moments = 0
        /// Different remains looked at.
        var remains = 0
        var reruns = 0
        /// Remains in which files share their place.
        var shared = 0
        var violations: [String] = []
    }

    /// `steps` were recorded with stores below `base`, which was empty.
    func run(_ steps: [DiskRecorder.Step], base: String) throws -> Outcome {
        var disk = VolatileDisk(base: base)
        var outcome = Outcome()
        var seen: Set<String> = []
        var acknowledged: [String] = []
        var random = Seeded(4711)
        for step in steps {
            switch step {
            case .acknowledged(let names): acknowledged = names
            case .event(let event): disk.apply(event)
            }
            outcome.moments += 1
            for remains in disk.remains(random: &random)
            where seen.insert("\(acknowledged)\(remains.signature)").inserted {
                outcome.remains += 1
                if case .acknowledged = step, let shared = remains.shared.first {
                    outcome.violations.append("\(shared.sorted()) share their place after success was reported")
                }
                if !remains.shared.isEmpty { outcome.shared += 1 }
                if let problem = violation(remains, acknowledged) {
                    outcome.violations.append("after step \(outcome.moments), \(step.summary): \(problem)")
                } else if rerunStep > 0, !remains.shared.isEmpty || outcome.remains % rerunStep == 0 {
                    outcome.reruns += 1
                    if let problem = try rerunViolation(remains) {
                        outcome.violations.append("after step \(outcome.moments), run again: \(problem)")
                    }
                }
                if outcome.violations.count >= limit { return outcome }
            }
        }
        return outcome
    }

    private func objects(_ remains: VolatileDisk.Remains) -> [String: [UInt8]] {
        var objects: [String: [UInt8]] = [:]
        for (path, bytes) in remains.files where path.hasPrefix(set + "/") && !path.hasPrefix(set + "/tmp/") {
            let name = String(path.dropFirst(set.utf8.count + 1))
            if !bytes.isEmpty || FolderStore.mayBeEmpty(name) { objects[name] = bytes }
        }
        return objects
    }

    /// What is wrong with the remains; `nil`: nothing.
    private func violation(_ remains: VolatileDisk.Remains, _ acknowledged: [String]) -> String? {
        do {
            let reader: SetReader
            do {
                reader = try SetReader(MemoryStore(objects: objects(remains)), keys: keys)
            } catch  where error.code == .notASet && acknowledged.isEmpty {
                return nil
            }
            let listing = try reader.points()
            for finding in listing.findings where finding.severity == .loss {
                return finding.what + " " + finding.place
            }
            let names = listing.points.map(\.facts.name)
            for name in acknowledged where !names.contains(name) { return "the point \(name) was reported and is gone" }
            for point in listing.points {
                guard let content = contents[point.facts.name] else { return "an unknown point \(point.facts.name)" }
                guard try Sample.restore(reader.point(point.id).streams[0]) == content else {
                    return "the point \(point.facts.name) restores differently"
                }
            }
            guard try reader.verify(.full).isComplete else { return "a point is not complete" }
            return nil
        } catch {
            return "\(error)"
        }
    }

    /// Backs up to what is left, on a real filesystem.
    private func rerunViolation(_ remains: VolatileDisk.Remains) throws -> String? {
        let folder = Sample.folder()
        defer { Sample.remove(folder) }
        for (path, bytes) in remains.files.sorted(by: { $0.key < $1.key }) {
            var made = folder
            for part in path.split(separator: "/").dropLast() {
                made += "/" + part
                _ = unsafe mkdir(made, 0o755)
            }
            let twin = remains.shared.first { $0.contains(path) }?.min()
            if let twin, twin != path {
                guard unsafe link("\(folder)/\(twin)", "\(folder)/\(path)") == 0 else { return "no link: \(path)" }
            } else {
                try JudgeTests.write(bytes, to: "\(folder)/\(path)")
            }
        }
        let shared = remains.shared.map { $0.map { "\(folder)/\($0)" } }
        guard let (name, content) = contents.max(by: { $0.key < $1.key }) else { return nil }
        do {
            let store = FolderStore(path: "\(folder)/\(set)", places: PowerCut.isSame)
            // What is removed takes the content of its other names with it.
            let point = try FolderEvent.$observer.withValue({ event in
                guard case .removed(let file) = event else { return }
                for other in shared.first(where: { $0.contains(file) }) ?? [] where other != file {
                    var status = stat()
                    guard unsafe stat(other, &status) == 0 else { continue }
                    try? JudgeTests.write([UInt8](repeating: 0xEE, count: Int(status.st_size)), to: other)
                }
            }) {
                try Sample.backup([(content, nil)], to: store, name: name, options: options, keys: keys).0
            }
            let reader = try SetReader(FolderStore(path: "\(folder)/\(set)"), keys: keys)
            guard try Sample.restore(reader.point(point.id).streams[0]) == content else {
                return "restores differently"
            }
            let report = try reader.verify(.full)
            guard report.isSound else { return "\(report.damages)" }
            let left = try FolderStore(path: "\(folder)/\(set)/tmp").topLevelNames(limit: 10)
                .filter { name in !shared.contains { $0.contains("\(folder)/\(set)/tmp/\(name)") } }
            return left.isEmpty ? nil : "\(left) are left"
        } catch {
            return "\(error)"
        }
    }

    /// Whether two paths lead to one file.
    @Sendable static func isSame(_ one: String, _ other: String) -> Bool {
        var (first, second) = (stat(), stat())
        return unsafe stat(one, &first) == 0 && stat(other, &second) == 0 && first.st_ino == second.st_ino
    }

    // MARK: - What is recorded

    static let first = Sample.content(220_000, seed: 41)
    static let second = Array(first[..<100_000]) + Sample.content(90_000, seed: 42)

    /// Two backups, the first of which makes the set.
    static func twoBackups(through wrap: (FolderStore) -> any ObjectStore = { $0 }) throws -> Outcome {
        let base = Sample.folder()
        defer { Sample.remove(base) }
        let recorder = DiskRecorder()
        try recorder.record {
            for (number, content) in [first, second].enumerated() {
                let names = ["1 first", "2 second"]
                try Sample.backup([(content, nil)], to: wrap(FolderStore(path: base + "/set")), name: names[number])
                recorder.acknowledge(Array(names[...number]))
            }
        }
        return try PowerCut(contents: ["1 first": first, "2 second": second], rerunStep: 2).run(
            recorder.steps, base: base)
    }
}

extension DiskRecorder.Step {
    /// For messages.
    var summary: String {
        switch self {
        case .acknowledged(let names): "reported \(names)"
        case .event(.wrote(let file, let offset, let bytes)): "wrote \(bytes.count) bytes at \(offset) of \(file)"
        case .event(let event): "\(event)"
        }
    }
}
