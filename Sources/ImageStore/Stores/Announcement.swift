// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings
import Glibc
import Synchronization

/// The sign that a writer or pruner is at work on a set, visible to everyone who uses it until ``end()``. That an owner
/// is gone which did not end it is noticed at once where the place has locks, else after ``Announced/grace``.
public protocol Announcement: AnyObject, Sendable {
    /// The id under which the others see it: 32 lower-case hexadecimal digits.
    var id: String { get }
    /// Says that its owner still runs, for those who can only judge by age. Stores call it themselves, about every
    /// hour in which something is written; owners that write nothing for long have to. Throws `set.left-for-dead` when
    /// somebody took it away.
    func renew() throws(Fault)
    /// Takes it away. Does nothing the second time.
    func end()
}

/// An announcement as others see it.
public struct Announced: Hashable, Sendable {
    /// What is at work.
    public enum Kind: String, Hashable, Sendable {
        /// Adds packs and a recovery point.
        case writer = "w"
        /// Removes what no point needs.
        case pruner = "p"
    }
    /// What is at work.
    public var kind: Kind
    /// Its id: 32 hexadecimal digits.
    public var id: String
    /// Seconds since it was made or renewed, by the clock of the place.
    public var age: UInt64
    /// Whether it must be taken to be at work still.
    public var isAlive: Bool

    /// An announcement as others see it.
    public init(kind: Kind, id: String, age: UInt64, isAlive: Bool) {
        self.kind = kind
        self.id = id
        self.age = age
        self.isAlive = isAlive
    }

    /// Seconds after which an announcement that was not renewed is dead where nothing better tells: 24 hours.
    public static let grace: UInt64 = 86_400
}

/// The name of an announcement's object: `writers/<id>-<w|p>-<host>.writer`. All it says is in the name, so it is
/// empty and fits on a full medium.
struct AnnouncementName: Hashable {
    static let folder = "writers"
    var kind: Announced.Kind
    var id: String
    /// 16 hexadecimal digits that stand for the running system that made it.
    var host: String

    /// The object's name with its folder.
    var text: String { "\(AnnouncementName.folder)/\(id)-\(kind.rawValue)-\(host).writer" }

    init(kind: Announced.Kind, id: String, host: String) {
        self.kind = kind
        self.id = id
        self.host = host
    }

    /// Parses a file name without folder; `nil` for anything else.
    init?(_ file: String) {
        guard file.hasSuffix(".writer") else { return nil }
        let parts = file.dropLast(7).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 3, let id = ObjectID(parts[0]), let kind = Announced.Kind(rawValue: String(parts[1])),
            HostMark.isValid(parts[2])
        else { return nil }
        self.init(kind: kind, id: id.text, host: String(parts[2]))
    }
}

/// The announcements a store made that still stand, to be renewed while something is written.
final class Renewals: Sendable {
    private struct Entry {
        weak var announcement: (any Announcement)?
        var renewed: Int
    }
    private let entries = Mutex<[Entry]>([])
    static let interval = 3600

    /// Seconds of a clock nobody sets.
    static var now: Int {
        var time = timespec()
        _ = unsafe clock_gettime(CLOCK_BOOTTIME, &time)
        return time.tv_sec
    }

    /// Ids of those that stand.
    var ids: Set<String> { entries.withLock { Set($0.compactMap { $0.announcement?.id }) } }

    func add(_ announcement: any Announcement) {
        entries.withLock { $0.append(Entry(announcement: announcement, renewed: Renewals.now)) }
    }

    /// Renews what was not renewed for an hour. A failure is left to the next try: 23 remain.
    func renewDue() {
        let now = Renewals.now
        let due = entries.withLock { entries in
            entries.removeAll { $0.announcement == nil }
            return entries.indices.compactMap { index -> (any Announcement)? in
                guard now - entries[index].renewed >= Renewals.interval else { return nil }
                entries[index].renewed = now
                return entries[index].announcement
            }
        }
        for announcement in due { try? announcement.renew() }
    }
}
