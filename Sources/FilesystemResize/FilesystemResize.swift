// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # FilesystemResize
///
/// Grows, shrinks and checks filesystems with their own tools: one file and one row in ``FilesystemTools/table`` per family.
///
/// Growing works on a device node (a partition, or a loop device over part of an image file) that nothing else uses, and
/// follows the rule container first: the partition must already have its new size. Checking never writes.
///
/// Shrinking never touches a disk: ``Shrinker`` lays a copy-on-write overlay over the volume as it was imaged, presents it
/// as a file that only this process and its tools see, has the filesystem's own resizer work there and its own checker look
/// afterwards. What comes out, a ``ShrunkVolume``, is written to the target by others. ``Shrinker/measureMinimum(_:used:wanted:)``
/// finds the smallest size in the same way, by trying.
///
/// Swap has no content: ``SwapHeader`` writes its header for another size.
///
/// The room promises that a filesystem it resized was found sound by its own checker; that nothing below the overlay
/// changed; and that nothing mounted, attached or stored is left, however it ends. It does not resize layers (LVM, LUKS,
/// md), does not shrink XFS, FAT, exFAT and F2FS, and does not make filesystems.
public import Blocks
public import Findings
public import Geometry
public import MachineModel
public import Tools

/// What a filesystem's own checker said.
public struct CheckVerdict: Hashable, Sendable {
    /// Whether it found nothing to mend.
    public var isClean: Bool
    /// The program and its words, for the report.
    public var evidence: String
}

/// What is known about the tools of one family of filesystems.
public protocol FilesystemTool: Sendable {
    /// The kinds it is for.
    var kinds: Set<ContentKind> { get }
    /// Whether ``grow(_:)`` works.
    var canGrow: Bool { get }
    /// Whether ``shrink(_:to:)`` works.
    var canShrink: Bool { get }
    /// The program that checks.
    var checker: Tool { get }
    /// The program that grows and shrinks; `nil` where there is none.
    var resizer: Tool? { get }
    /// Throws `tool.missing` when growing is asked for and the programs for it are not installed; a missing checker hinders
    /// nothing.
    func require(growing: Bool) throws(Fault)
    /// Checks without writing.
    func check(_ device: String) throws(Fault) -> CheckVerdict
    /// Grows the filesystem to the size of its device.
    func grow(_ device: String) throws(Fault)
    /// Shrinks the filesystem in the file at `path`, which nothing else uses, to at most `size` bytes. A file that is cut
    /// to that size afterwards must hold all of it. Called within ``PrivateMounts``.
    func shrink(_ path: String, to size: ByteCount) throws(Fault)
    /// The smallest size, where the resizer itself knows it exactly; `nil` where only trying tells.
    func leastSize(_ path: String) throws(Fault) -> ByteCount?
    /// What the resizer leaves to others, such as a copy of the boot sector in the last sector of `size` bytes.
    func finishShrinking(_ volume: any BlockTarget, to size: ByteCount) throws(Fault)
    /// Prepares `copy`, an overlay of the shrunk filesystem presented as the file at `path`, for the reader of used maps:
    /// takes marks away that say no more than that a resizer was here.
    func readyForMapping(_ path: String) throws(Fault)
    /// What the user should know of a filesystem that was shrunk, a sentence; `nil` for nothing.
    var noticeAfterShrinking: String? { get }
}

extension FilesystemTool {
    /// Not unless a family says so.
    public var canShrink: Bool { false }
    /// None unless a family says so.
    public var resizer: Tool? { nil }
    /// Throws `unsupported`.
    public func shrink(_ path: String, to size: ByteCount) throws(Fault) {
        throw FilesystemTools.cannotShrink(kinds.map(\.rawValue).sorted().joined(separator: ", "))
    }
    /// Only trying tells.
    public func leastSize(_ path: String) throws(Fault) -> ByteCount? { nil }
    /// Nothing.
    public func finishShrinking(_ volume: any BlockTarget, to size: ByteCount) throws(Fault) {}
    /// Nothing.
    public func readyForMapping(_ path: String) throws(Fault) {}
    /// Nothing.
    public var noticeAfterShrinking: String? { nil }
    /// Throws `tool.missing` unless the programs for growing are installed, or `unsupported` where there are none.
    public func require(growing: Bool) throws(Fault) {
        guard growing else { return }
        guard canGrow else {
            throw FilesystemTools.cannotGrow(kinds.map(\.rawValue).sorted().joined(separator: ", "))
        }
        _ = try resizer?.requirePath()
    }
    /// Throws `tool.missing` unless the programs for shrinking and checking are installed, or `unsupported` where there are
    /// none: no filesystem is shrunk that is not checked afterwards.
    public func requireShrinking() throws(Fault) {
        guard canShrink else {
            throw FilesystemTools.cannotShrink(kinds.map(\.rawValue).sorted().joined(separator: ", "))
        }
        _ = try resizer?.requirePath()
        _ = try checker.requirePath()
    }
}

/// The table of families.
public enum FilesystemTools {
    /// One row per family.
    public static let table: [any FilesystemTool] = [
        ExtTools(), NTFSTools(), BtrfsTools(), XFSTools(), F2FSTools(), FATTools(),
    ]

    /// The row for `kind`; `nil` where there is none.
    public static func tool(for kind: ContentKind) -> (any FilesystemTool)? {
        table.first { $0.kinds.contains(kind) }
    }

    static func cannotGrow(_ what: String, _ device: String = "") -> Fault {
        Fault(
            .unsupported, what: "A filesystem of this kind (\(what)) cannot be grown.", place: device,
            remedy: "Keep its size, or make a larger one and copy the files.")
    }

    static func cannotShrink(_ what: String) -> Fault {
        Fault(
            .unsupported, what: "A filesystem of this kind (\(what)) cannot be shrunk.",
            remedy: "Restore to a larger disk, or make a smaller one and copy the files.")
    }

    /// What a resizer said when it refused, as a fault.
    static func refused(_ tool: String, _ words: String, _ remedy: String) -> Fault {
        Fault(.toolFailed, what: "\(tool) does not resize it: \(words)", remedy: remedy)
    }
}
