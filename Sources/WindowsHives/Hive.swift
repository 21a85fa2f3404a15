// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings

/// A registry hive, read-only. A handle: copies share the same cache.
///
/// A dirty hive is read as its logs make it; see ``state``.
public struct Hive: Sendable {
    let image: HiveImage
    /// Whether the file was all there is to it.
    public let state: HiveState
    /// The base block as it lies in the file; `nil` where that does not begin like one.
    public let storedHeader: HiveHeader?

    /// Opens `source`. `logs` are its transaction logs (`.LOG`, `.LOG1`, `.LOG2`) as far as they are there, in any order; empty
    /// ones do not matter, and none matters when the hive is clean.
    ///
    /// Throws `hive.not-a-hive`, `hive.unsupported`, `hive.damaged`, and what the sources throw.
    public init(_ source: HiveSource, logs: [HiveSource] = []) throws(Fault) {
        let block = try source.read(at: 0, count: Int(min(source.length, HiveImage.binsStart)))
        let stored = HiveHeader(block)
        storedHeader = stored
        if let stored, !stored.isDirty {
            image = HiveImage(source: source, header: stored, baseBlock: block, overlay: nil)
            state = .clean
        } else {
            // A file that is no hive at all shall not be told that it lacks a log.
            if stored == nil, !(try Hive.hasFirstBin(source)) { throw Hive.notAHive(source) }
            var recovery = Recovery(source, stored: stored, storedBytes: block)
            guard let outcome = try recovery.run(logs) else { throw Hive.notAHive(source) }
            image = outcome.image
            state = outcome.state
        }
        if let problem = image.header.problem {
            throw Fault(
                .hiveUnsupported, what: "This registry file cannot be read: \(problem).", place: source.name,
                remedy:
                    "Hives of versions 1.3 to 1.6 are read (Windows XP to Windows 11 and Server 2025); name the hive "
                    + "itself, not its log.")
        }
        guard HiveHeader.isPlausible(binsLength: image.header.binsLength) else {
            throw image.damaged("Its base block says that its bins have \(image.header.binsLength) bytes.")
        }
    }

    private static func hasFirstBin(_ source: HiveSource) throws(Fault) -> Bool {
        guard source.length >= HiveImage.binsStart + 32 else { return false }
        return try source.read(at: HiveImage.binsStart, count: 4).elementsEqual("hbin".utf8)
    }

    private static func notAHive(_ source: HiveSource) -> Fault {
        Fault(
            .notAHive, what: "This is no registry hive: it does not begin with \"regf\".", place: source.name,
            remedy: "Name a hive, such as Windows/System32/config/SYSTEM or EFI/Microsoft/Boot/BCD.")
    }

    /// The base block that counts: after recovery it is that of the recovered hive.
    public var header: HiveHeader { image.header }
    /// What the hive is called in messages.
    public var name: String { image.source.name }

    /// The root key. Its name means nothing.
    public func root() throws(Fault) -> HiveKey { try HiveKey(root: image) }

    /// The key at `path`, names separated by backslashes: `Microsoft\Windows NT\CurrentVersion`. `nil` when there is none.
    public func key(_ path: String) throws(Fault) -> HiveKey? { try root().key(path) }

    /// Bytes of the recovered hive: base block and bins.
    public var imageLength: UInt64 { HiveImage.binsStart + UInt64(image.length) }

    /// `count` bytes of the recovered hive from byte `offset`, as they would stand in a file. At most 64 MiB at once.
    public func bytes(at offset: UInt64, count: Int) throws(Fault) -> [UInt8] {
        guard count >= 0, count <= 64 << 20, offset <= imageLength, UInt64(count) <= imageLength - offset else {
            throw image.damaged("\(count) bytes at byte \(offset) lie past the end at \(imageLength).")
        }
        let start = Int(offset)
        let block = Int(HiveImage.binsStart)
        let head = start < block ? Array(image.baseBlock[start..<min(block, start + count)]) : []
        return head + (try image.read(at: max(start, block) - block, count: count - head.count))
    }
}
