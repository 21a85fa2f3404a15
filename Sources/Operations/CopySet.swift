// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
public import Geometry
import Glibc
public import ImageStore
import LinuxDisks
import Threads

/// What copying is asked for.
public struct CopyRequest: Sendable {
    /// The set that is copied from.
    public var source: String
    /// Further places it lies in.
    public var sourceAlso: [String] = []
    /// The set that is copied into, or made.
    public var target: String
    /// Further places of it.
    public var targetAlso: [String] = []
    /// What is copied, and how.
    public var options = SetCopy.Options()
    /// Asked when the source is encrypted.
    public var sourceKeys = KeyRing.none
    /// Asked when the target is encrypted and another set than the source.
    public var targetKeys = KeyRing.none
    /// Asked when the target is made now and encrypted.
    public var newKeys = KeyRing.none
    /// Whether the target gets a catalogue, for places that cannot list.
    public var catalogue = false
    /// Parity that was asked for; a target that exists and has another one is refused.
    public var parity: Int?
    /// Unit size that was asked for, likewise.
    public var unitSize: ByteCount?
    /// The cipher that was asked for by name, likewise.
    public var cipher: NewEncryption.Cipher?

    /// A request to copy all points of `source` into `target`.
    public init(from source: String, to target: String) {
        self.source = source
        self.target = target
    }
}

/// Copies recovery points from set to set.
public enum CopySet {
    /// Copies what is missing in the target. The source is only read.
    /// Throws what opening the sets throws, and what ``SetCopy/run(from:to:options:keys:newKeys:events:)`` throws.
    public static func run(_ request: CopyRequest, events: @escaping EventHandler) throws(Fault) -> CopyReport {
        let source = try OpenedSet(request.source, also: request.sourceAlso, keys: request.sourceKeys)
        defer { source.close() }
        try NewPlace.require([request.target] + request.targetAlso, in: DiskScan(), events: events)
        for finding in source.reader.findings { events(.finding(finding)) }
        let target = try SetPlace(request.target, also: request.targetAlso, .writing)
        defer { target.close() }
        try SetConstants(parity: request.parity, unitSize: request.unitSize, cipher: request.cipher).require(of: target)
        if let name = request.options.point {
            if name == "latest" { try source.reader.requireKnownLatest() }
            try source.requireComplete(source.reader.point(name))
        }
        var options = request.options
        options.threads = Workers.processors
        options.writing.time = UInt64(max(0, time(nil)))
        defer { target.report(events) }
        do throws(Fault) {
            var report = try SetCopy.run(
                from: source.reader, to: target.store, options: options, keys: request.targetKeys,
                newKeys: request.newKeys, events: events)
            // Packs that are on another medium are no damage.
            for index in report.failed.indices where report.failed[index].fault.code == .setDamaged {
                if let point = try? source.reader.point(report.failed[index].point.id),
                    let fault = try? source.missingPacks(of: point)
                {
                    report.failed[index].fault = fault
                }
            }
            if request.catalogue { try Catalogue.write(to: target.store) } else { target.refreshCatalogue(events) }
            return report
        } catch {
            throw target.explained(error)
        }
    }
}

/// Writes a recovery point into one file that holds everything it needs.
public enum ArchivePoint {
    /// Writes the point `point` stands for of the set at `place` into `file` (a path, or `label:NAME/path`).
    ///
    /// - Parameters:
    ///   - partSize: the most bytes of a file; more than one is then named `file`.001, ….
    ///   - readBack: whether the archive is read back from the medium before it gets its name.
    /// - Throws: what opening the set throws, `target.forbidden` when the file exists, `set.damaged`, `store.full`,
    ///   `store.failed`, `interrupted`; then nothing is kept of the archive.
    public static func run(
        _ point: RecoveryPoint, of set: OpenedSet, to file: String, partSize: ByteCount?, readBack: Bool,
        events: @escaping EventHandler
    ) throws(Fault) -> ArchiveReport {
        try set.requireComplete(point)
        if case .path(let path) = try StoreLocation.Name(file) {
            try NewPlace.requireFolder(above: path, in: DiskScan())
            if DiskScan().isInMemory(path) {
                events(
                    .finding(
                        Finding(
                            .warning, FaultCode.storeInMemory.rawValue,
                            what: "This place lies in memory: the archive is lost when the machine is switched off.",
                            place: file)))
            }
        }
        let location = try StoreLocation.open(file, .readWrite, identify: Identify.volume)
        defer { location.release() }
        var options = PointArchive.Options(time: UInt64(max(0, time(nil))))
        options.partSize = partSize
        options.folder = folder(location.path)
        options.readBack = readBack
        options.threads = Workers.processors
        return try PointArchive.write(point, to: location.path, options: options, events: events)
    }

    /// The folder that unpacking makes: the file's name without its ending, in letters that every filesystem takes.
    static func folder(_ path: String) -> String {
        var name = path.split(separator: "/").last.map(String.init) ?? ""
        if name.lowercased().hasSuffix(".tar") { name.removeLast(4) }
        let plain = name.unicodeScalars.prefix(60).map { scalar -> Character in
            let isPlain = scalar.isASCII && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar))
            return isPlain || "-_.".unicodeScalars.contains(scalar) ? Character(scalar) : "_"
        }
        let folder = String(plain.drop { $0 == "." })
        return folder.isEmpty ? "set" : folder
    }
}
