// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Restoring
///
/// Carries a ``RestorePlan`` out. The executor takes the plan, a ``RestoreSource`` and nothing else. First, for all
/// targets: check the plan against itself and against the source, the tools, the pins; shrink what the plan shrinks, on
/// overlays; and claim every disk. Nothing was written until then. Next, on one target after the other: take the old table away; write the data in disk order; flush;
/// drop caches; read everything back and compare; mend what a move broke in boot sectors; write the new table last; have
/// libparted read it; grow what the plan grows; have each filesystem's own checker look.
///
/// Because the old table goes first and the new one comes last, a restore that was cut off leaves a disk without a table:
/// it can never be mistaken for a finished one. A disk that has no table gets its first MiB last, to the same end. Success
/// is claimed only after the comparison; what fails after it (growing, checking) is a listed loss and leaves the data.
///
/// What the set has lost is either a reason to end (``OnDamage/fail``), or zeros are written in its place, and read back as
/// such, and the report says so (``OnDamage/skip``).
///
/// The room does not plan, does not know the image format, and does not repair what the source was lacking.
public import Blocks
public import Findings
public import Geometry
import RestorePlanning

/// Where a restore takes its data from: a recovery point, or a live disk.
public protocol RestoreSource: Sendable {
    /// The content of partition `volume` of disk `disk` (0: the whole disk is the volume), or with `nil` what lies
    /// outside the volumes, counted from the start of the disk.
    func stream(disk: Int, volume: Int?) throws(Fault) -> any RestoreStream
    /// Partition `volume` of disk `disk` to be read from anywhere: a filesystem's own resizer works on an overlay of it.
    func volume(disk: Int, volume: Int) throws(Fault) -> any BlockSource
    /// Throws unless everything the plan needs is there, as far as that can be told without reading it all.
    func requireComplete() throws(Fault)
}

/// The content of one volume.
public protocol RestoreStream: Sendable {
    /// Size of the volume on the source.
    var length: ByteCount { get }
    /// The bytes in use; everything else has no content.
    var used: ExtentList { get }
    /// Bytes that could not be read when the point was made; they hold zeros.
    var unreadable: ExtentList { get }
    /// Used bytes met so far that the source has lost since; when the source goes on all the same, zeros stand there.
    var lost: ExtentList { get }
    /// Calls `body` on `workers` threads, once for each piece of the content, roughly in rising order: with the piece's
    /// place, the bytes of it that are in use, and its bytes, checked against their hashes (those not in use are zero), or
    /// `nil` where everything in use is zero.
    func forEachPiece(
        workers: Int,
        _ body: @escaping @Sendable (_ place: Extent, _ used: ExtentList, _ bytes: RawSpan?) throws(Fault) -> Void
    ) throws(Fault)
    /// Compares a copy with the content, on `workers` threads: `read` fills the buffer with the copy's bytes of `place`,
    /// those not in `used` zero; `result` is told whether they are equal.
    func compare(
        workers: Int,
        read:
            @escaping @Sendable (_ place: Extent, _ used: ExtentList, _ buffer: inout MutableRawSpan) throws(Fault) ->
            Void,
        result: @escaping @Sendable (_ place: Extent, _ used: ExtentList, _ equal: Bool) throws(Fault) -> Void
    ) throws(Fault)
}

extension RestoreStream {
    /// Nothing.
    public var lost: ExtentList { ExtentList() }
}

/// What to do when the set has lost something that is to be restored.
public enum OnDamage: String, Sendable, CaseIterable {
    /// Refuse before the first write where that can be known, else end there: the target does not look finished.
    case fail
    /// Write zeros in its place and go on. The report says that the volume is not whole.
    case skip
}

/// How much is read back and compared.
public enum ReadBack: String, Sendable, CaseIterable {
    /// Everything that was written.
    case full
    /// Nothing. The restore then claims no more than that the writes were accepted.
    case off
}

/// What a restore did with one volume.
public struct VolumeReport: Hashable, Sendable, Encodable {
    /// Partition number; 0 for a whole disk.
    public var number: Int
    /// Bytes written.
    public var written: ByteCount
    /// Bytes read back and found equal.
    public var compared: ByteCount
    /// Whether its filesystem was grown.
    public var grown: Bool
    /// Used bytes the set has lost, from the start of the volume as it was imaged: zeros were written there.
    public var lost = ExtentList()
    /// What was done to it so that it fits its place; `nil` where it is as it was imaged.
    public var reshaped: ReshapeReport?
    /// Whether everything the recovery point means was written.
    public var isWhole: Bool { lost.isEmpty }
    /// What the filesystem's own checker said; `nil` where there is none.
    public var check: String?
    /// Whether that checker found it clean; `nil` where there is none.
    public var clean: Bool?
}

extension VolumeReport {
    private enum CodingKeys: String, CodingKey {
        case number, written, compared, grown, reshaped, whole, lost, check, clean
    }

    /// With `whole` and `lost`.
    public func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(number, forKey: .number)
        try container.encode(written, forKey: .written)
        try container.encode(compared, forKey: .compared)
        try container.encode(grown, forKey: .grown)
        try container.encodeIfPresent(reshaped, forKey: .reshaped)
        try container.encode(isWhole, forKey: .whole)
        try container.encode(lost, forKey: .lost)
        try container.encodeIfPresent(check, forKey: .check)
        try container.encodeIfPresent(clean, forKey: .clean)
    }
}

/// What a restore did with one disk.
public struct DiskReport: Hashable, Sendable, Encodable {
    /// The target.
    public var target: String
    /// Its volumes.
    public var volumes: [VolumeReport]
    /// Bytes outside the volumes that the set has lost: zeros were written where they are copied.
    public var lostOutside = ExtentList()
}
