// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # FilesystemResize
///
/// Grows filesystems and checks them, with their own tools: one row in ``FilesystemTools/table`` per family. The caller
/// gives a device node (a partition, or a loop device over part of an image file) that nothing else uses.
///
/// Checking never writes. Growing follows the rule container first: the partition must already have its new size. The
/// room promises that a grown filesystem was checked before and after by its own checker; it does not shrink.
public import Findings
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
    /// The program that checks.
    var checker: Tool { get }
    /// Throws `tool.missing` when growing is asked for and the programs for it are not installed; a missing checker hinders
    /// nothing.
    func require(growing: Bool) throws(Fault)
    /// Checks without writing.
    func check(_ device: String) throws(Fault) -> CheckVerdict
    /// Grows the filesystem to the size of its device.
    func grow(_ device: String) throws(Fault)
}

/// The table of families.
public enum FilesystemTools {
    /// One row per family.
    public static let table: [any FilesystemTool] = [ExtTools(), FATTools(), XFSTools(), NTFSTools()]

    /// The row for `kind`; `nil` where there is none.
    public static func tool(for kind: ContentKind) -> (any FilesystemTool)? {
        table.first { $0.kinds.contains(kind) }
    }

    static func cannotGrow(_ what: String, _ device: String = "") -> Fault {
        Fault(
            .unsupported, what: "\(what) filesystem is not grown by this version.", place: device,
            remedy: "Keep its size; its own tools can grow it afterwards.")
    }
}
