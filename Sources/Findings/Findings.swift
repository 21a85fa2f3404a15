// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # Findings
///
/// What goes wrong and what is noticed, as values: ``Fault`` is thrown and ends an operation, ``Finding`` is reported
/// beside a result, ``Event`` is what a long operation tells while it runs.
///
/// Every fault has a stable code (scripts match on it), a sentence that says what is wrong, the place, and the next
/// step. The exit code of the program follows from the fault's code alone.
public import Geometry

/// Exit codes of the program.
public enum ProgramExit: Int32, Sendable, Codable {
    /// Done.
    case done = 0
    /// Failed.
    case failed = 1
    /// Wrong usage.
    case usage = 2
    /// Done, but with losses that are listed.
    case doneWithLosses = 3
    /// Refused before the first write; the reasons are listed.
    case refused = 4
    /// Damaged data found.
    case damaged = 5
    /// Wrong passphrase or key.
    case wrongKey = 6
    /// The store is full or cannot be reached.
    case store = 7
    /// Checked: does not boot.
    case doesNotBoot = 8
    /// Checked: undecided.
    case undecided = 9
    /// Interrupted; the state is kept and can be resumed.
    case interrupted = 130
}

/// The stable name of a fault.
public struct FaultCode: Hashable, Sendable, RawRepresentable {
    /// The name printed as `code` in JSON, `noun.problem`.
    public let rawValue: String
    /// The exit code the program ends with.
    public let exit: ProgramExit

    /// A code with its exit code.
    public init(_ name: String, exit: ProgramExit) {
        self.rawValue = name
        self.exit = exit
    }
    /// A code read from text; it ends the program with "failed".
    public init(rawValue: String) { self.init(rawValue, exit: .failed) }

    /// Something is wrong with how the command was written.
    public static let usage = FaultCode("usage", exit: .usage)
    /// A disk, file or folder that was named does not exist.
    public static let missing = FaultCode("missing", exit: .failed)
    /// What was named is not of the kind that is needed.
    public static let wrongKind = FaultCode("wrong-kind", exit: .failed)
    /// The operating system refused access.
    public static let noAccess = FaultCode("no-access", exit: .failed)
    /// A sector of a source cannot be read.
    public static let unreadable = FaultCode("source.unreadable", exit: .failed)
    /// A write to a target failed.
    public static let unwritable = FaultCode("target.unwritable", exit: .failed)
    /// What was written reads back differently.
    public static let readBack = FaultCode("target.read-back", exit: .damaged)
    /// The target is smaller than what must fit.
    public static let targetTooSmall = FaultCode("target.too-small", exit: .refused)
    /// The target is mounted, held by another layer, or claimed.
    public static let targetInUse = FaultCode("target.in-use", exit: .refused)
    /// The target is the source, or holds the image set or the boot medium.
    public static let targetForbidden = FaultCode("target.forbidden", exit: .refused)
    /// The target is not the disk the plan was made for.
    public static let targetChanged = FaultCode("target.changed", exit: .refused)
    /// Nobody confirmed the overwriting of a target.
    public static let notConfirmed = FaultCode("target.not-confirmed", exit: .refused)
    /// A plan asks for what cannot be done.
    public static let planRefused = FaultCode("plan.refused", exit: .refused)
    /// A folder is not an image set.
    public static let notASet = FaultCode("set.not-a-set", exit: .failed)
    /// The image set lies on a disk that is to be imaged.
    public static let setOnSource = FaultCode("set.on-source", exit: .refused)
    /// The set has a format this program does not read.
    public static let setVersion = FaultCode("set.version", exit: .failed)
    /// The set holds no such recovery point.
    public static let noSuchPoint = FaultCode("set.no-such-point", exit: .failed)
    /// Damaged data in an image set.
    public static let setDamaged = FaultCode("set.damaged", exit: .damaged)
    /// Damaged metadata on a disk.
    public static let diskDamaged = FaultCode("disk.damaged", exit: .damaged)
    /// The image set's place is full.
    public static let storeFull = FaultCode("store.full", exit: .store)
    /// An object of that name is in the store already.
    public static let storeTaken = FaultCode("store.taken", exit: .store)
    /// The image set's place cannot be reached or fails.
    public static let storeFailed = FaultCode("store.failed", exit: .store)
    /// The image set's place is not there: its filesystem is not attached, or the folder it would lie in is missing.
    public static let storeMissing = FaultCode("store.missing", exit: .store)
    /// The image set's place lies in memory, and would be lost with the power.
    public static let storeInMemory = FaultCode("store.in-memory", exit: .refused)
    /// The passphrase or key is wrong.
    public static let wrongKey = FaultCode("key.wrong", exit: .wrongKey)
    /// The set is encrypted and no passphrase or key file was given.
    public static let keyNeeded = FaultCode("key.needed", exit: .wrongKey)
    /// An external program is not installed.
    public static let toolMissing = FaultCode("tool.missing", exit: .failed)
    /// An external program failed or ran out of time.
    public static let toolFailed = FaultCode("tool.failed", exit: .failed)
    /// The operation was interrupted.
    public static let interrupted = FaultCode("interrupted", exit: .interrupted)
    /// The operation is not possible with this version.
    public static let unsupported = FaultCode("unsupported", exit: .refused)
    /// A job file cannot be used.
    public static let job = FaultCode("job", exit: .usage)
    /// An operating system call failed in a way not named above.
    public static let system = FaultCode("system", exit: .failed)
}

/// Something that ends an operation.
public struct Fault: Error, Hashable, Sendable {
    /// The stable name.
    public var code: FaultCode
    /// One sentence: what is wrong; what was seen and expected where that is the point.
    public var what: String
    /// The place: file, disk, offset, field. May be empty when the sentence names it.
    public var place: String
    /// What to do next.
    public var remedy: String
    /// The bytes concerned, counted from the start of `place`, where a read or write failed.
    public var extent: Extent?

    /// A fault. `what` is a full sentence without its place; `remedy` an instruction.
    public init(_ code: FaultCode, what: String, place: String = "", remedy: String, extent: Extent? = nil) {
        self.code = code
        self.what = what
        self.place = place
        self.remedy = remedy
        self.extent = extent
    }
}

extension Fault: CustomStringConvertible {
    /// `place: what remedy` for people.
    public var description: String {
        let head = place.isEmpty ? what : "\(place): \(what)"
        return remedy.isEmpty ? head : "\(head) \(remedy)"
    }
}

/// Something noticed that does not end an operation.
public struct Finding: Hashable, Sendable, Codable {
    /// How much it matters.
    public enum Severity: String, Sendable, Codable {
        /// Worth knowing.
        case notice
        /// May cause trouble.
        case warning
        /// Data were lost or a step was left out; the program ends with code 3.
        case loss
    }
    /// How much it matters.
    public var severity: Severity
    /// The stable name, `noun.problem`.
    public var code: String
    /// One sentence.
    public var what: String
    /// The place; may be empty.
    public var place: String

    /// A finding.
    public init(_ severity: Severity, _ code: String, what: String, place: String = "") {
        self.severity = severity
        self.code = code
        self.what = what
        self.place = place
    }
}

extension Finding: CustomStringConvertible {
    /// `place: what` for people.
    public var description: String { place.isEmpty ? what : "\(place): \(what)" }
}

/// How far a long operation has come.
public struct Progress: Hashable, Sendable {
    /// What is being done, e.g. `reading`, `verifying`.
    public var phase: String
    /// Work done so far.
    public var done: ByteCount
    /// All work of this phase; `nil` while unknown.
    public var total: ByteCount?

    /// A report.
    public init(phase: String, done: ByteCount, total: ByteCount?) {
        self.phase = phase
        self.done = done
        self.total = total
    }
}

/// What a long operation tells while it runs.
public enum Event: Sendable {
    /// A step begins; a sentence fragment such as `sda2: growing ext4 to 40 GiB`.
    case step(String)
    /// How far the present phase has come. Sent often; receivers thin it out.
    case progress(Progress)
    /// Something noticed.
    case finding(Finding)
}

/// Receives events; may be called from any thread.
public typealias EventHandler = @Sendable (Event) -> Void
