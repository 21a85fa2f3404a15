// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc
import ImageStore
import MachineModel
import Testing
import Tools

/// What a set must hold, by the names of its points: the image file whose content each restores to.
struct SetState: Sendable {
    /// The set's folder, or its file, relative to the state's folder.
    var path: String
    /// Files with passphrases: after the command the first opens it, before and in between one of them does.
    var passphrases: [String] = []
    /// Points before the command.
    var before: [String: String]
    /// Points after it.
    var after: [String: String]
    /// Whether the command makes the set, so that it may be missing when the command was interrupted.
    var isNew = false
    /// Whether it is damaged before the command, which repairs it: only afterwards must every point restore.
    var isDamaged = false
    /// Whether it is an archive.
    var isArchive = false

    /// The options that open the set, once one of its passphrases is found to do so.
    func keyOptions(in folder: String) throws -> [String] {
        for file in passphrases {
            let options = ["--passphrase-file", file]
            let run = try Program.run(["points", path] + options, in: folder)
            if run.status == 0 || isNew && run.standardError.contains("There is no image set") { return options }
        }
        try #require(passphrases.isEmpty, "no passphrase opens the set")
        return []
    }

    /// Looks at the set after an interruption: what was there before and after is there and restores bit-equal; nothing is
    /// there but what was before or comes after, complete. Returns the names of its points.
    @discardableResult
    func expectEarlierPoints(in folder: String, _ moment: String) throws -> Set<String> {
        if isDamaged { return [] }
        let found: [String]
        do {
            found = try restoreAll(in: folder, moment, passphrases: passphrases)
        } catch let fault as Fault where isNew && (fault.code == .notASet || fault.code == .missing) {
            return []
        } catch let fault as Fault where isNew && isArchive && fault.what.hasPrefix("Part 1 of the archive is missing")
        {
            // The first part is named last.
            return []
        }
        for name in before.keys where after[name] == before[name] {
            #expect(found.contains(name), "\(moment): the point \(name) of \(path) is gone")
        }
        return Set(found)
    }

    /// As ``expectEarlierPoints(in:_:)``, when the command said that it was done.
    func expectDone(in folder: String, _ moment: String) throws {
        let found = try restoreAll(in: folder, moment, passphrases: Array(passphrases.prefix(1)))
        #expect(Set(found) == Set(after.keys), "\(moment): the points of \(path)")
    }

    /// Restores every point and compares it with its image.
    private func restoreAll(in folder: String, _ moment: String, passphrases: [String]) throws -> [String] {
        let place = "\(folder)/\(path)"
        let store: any ObjectStore = isArchive ? try ArchiveStore(place) : FolderStore(path: place)
        let reader = try open(store, passphrases, in: folder)
        let listing = try reader.points()
        let losses = listing.findings.filter { $0.severity == .loss }
        #expect(losses.isEmpty, "\(moment): \(losses.map(\.what))")
        for summary in listing.points {
            let name = summary.facts.name
            guard let image = after[name] ?? before[name] else {
                Issue.record("\(moment): an unknown point \(name)")
                continue
            }
            let restored = try SetState.image(of: reader.point(summary.id))
            #expect(
                try restored == FileContent.read("\(folder)/\(image)"),
                "\(moment): \(name) of \(path) restores differently")
        }
        return listing.points.map(\.facts.name)
    }

    private func open(_ store: any ObjectStore, _ passphrases: [String], in folder: String) throws -> SetReader {
        guard !passphrases.isEmpty else { return try SetReader(store) }
        var last: (any Error)?
        for file in passphrases {
            let text = try FileContent.read("\(folder)/\(file)").filter { $0 != 10 }
            do { return try SetReader(store, keys: KeyRing(.passphrase(Secret(text)))) } catch { last = error }
        }
        throw try #require(last)
    }

    /// The content of the point's only disk.
    private static func image(of point: RecoveryPoint) throws -> [UInt8] {
        let disk = try #require(point.summary.facts.disks.first)
        var result = [UInt8](repeating: 0, count: Int(disk.size.bytes))
        for stream in point.streams {
            let start = Int(stream.description.extent.start.bytes)
            let decoder = try PieceDecoder(stream.point)
            let cursor = try stream.pieces()
            while let piece = cursor.next() {
                try decoder.decode(piece) { bytes in
                    let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
                    let first = start + Int(piece.extent.start.bytes)
                    result.replaceSubrange(first..<first + copy.count, with: copy)
                }
            }
        }
        return result
    }

    /// The program finds nothing wrong with the set. Where a command was interrupted, a second copy may not have been made
    /// yet; everything that is there is sound all the same.
    func expectSound(in folder: String, _ moment: String, copiesMayBeMissing: Bool = false) throws {
        if isDamaged, copiesMayBeMissing { return }
        let run = try Program.run(["verify", path] + keyOptions(in: folder), in: folder)
        if isNew, run.status != 0, run.standardError.contains("There is no image set") { return }
        // It does not say sound of packs without any point.
        if isNew, run.status == 3, run.standardError.contains("No recovery point is here, but") { return }
        if copiesMayBeMissing, run.status == 5, run.standardOutput.contains("no recovery point lost anything") {
            let damages = run.standardOutput.split(separator: "\n").filter {
                $0.hasPrefix("DAMAGED") || $0.hasPrefix("MISSING")
            }
            let areCopies = damages.allSatisfy {
                ($0.hasPrefix("DAMAGED copies/") || $0.hasPrefix("DAMAGED set.b")) && $0.contains("missing")
            }
            if areCopies, !damages.isEmpty { return }
        }
        #expect(run.status == 0, "\(moment): \(run.standardOutput)\(run.standardError)")
    }

    /// The independent reader restores the same.
    func expectJudgeAgrees(in folder: String, _ moment: String) throws {
        if isDamaged { return }
        // It reads folders.
        if isArchive { return }
        let script = "/" + #filePath.split(separator: "/").dropLast(2).joined(separator: "/") + "/Judges/read_set.py"
        let key = try keyOptions(in: folder)
        let list = try Tool("/usr/bin/python3", package: "python3").run(
            [script] + key + ["list", path], directory: folder)
        if isNew, list.status != 0, try Program.run(["points", path] + key, in: folder).status != 0 { return }
        #expect(list.status == 0, "\(moment): \(list.standardError)")
        for line in list.standardOutput.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 2, let image = after[String(words[2])] ?? before[String(words[2])] else {
                Issue.record("\(moment): the judge finds \(line)")
                continue
            }
            _ = unsafe mkdir("\(folder)/judged", 0o755)
            let restored = try Tool("/usr/bin/python3", package: "python3").run(
                [script] + key + ["restore", path, String(words[0]), "judged"], directory: folder)
            #expect(restored.status == 0, "\(moment): \(restored.standardError)")
            #expect(
                try FileContent.read("\(folder)/judged/disk0.img") == FileContent.read("\(folder)/\(image)"),
                "\(moment): the judge restores \(words[2]) differently")
        }
    }

    /// Nothing unfinished lies in the set, and nobody is announced.
    func expectTidy(in folder: String, _ moment: String) throws {
        // What a kill leaves of an archive has a temporary name, and goes an hour later.
        if isArchive { return }
        for place in ["tmp", "writers"] {
            let left = try FolderStore(path: "\(folder)/\(path)/\(place)").topLevelNames(limit: 100)
            #expect(left.isEmpty, "\(moment): \(path)/\(place) holds \(left)")
        }
    }
}

/// Small files.
enum FileContent {
    static func read(_ path: String) throws -> [UInt8] {
        let file = unsafe open(path, O_RDONLY | O_CLOEXEC)
        try #require(file >= 0, "\(path) cannot be opened")
        defer { close(file) }
        var status = stat()
        try #require(unsafe fstat(file, &status) == 0)
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        try #require(unsafe pread(file, &bytes, bytes.count, 0) == bytes.count)
        return bytes
    }
}
