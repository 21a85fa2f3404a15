// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry

/// What lies at damaged places of a volume.
public struct LostContent: Hashable, Sendable {
    /// What kind of thing lost bytes.
    public enum Kind: String, Hashable, Sendable, Codable {
        /// A file's data, or what tells where they lie.
        case file
        /// A file or directory whose inode lay there: all of it is lost, though its data may be sound.
        case inode
        /// A directory: names of files may be lost.
        case directory
        /// The filesystem's own tables.
        case metadata
        /// The journal.
        case journal
        /// Nothing that matters.
        case free
        /// In use, but nothing was found that it belongs to.
        case unknown
    }

    /// A file, or another part of the volume, that lost bytes.
    public struct Item: Hashable, Sendable {
        /// What it is.
        public var kind: Kind
        /// A file's or directory's path from the filesystem's root, or the name of what else it is (`inode table of
        /// group 3`). Safe to print: see ``SafeText``.
        public var name: String
        /// Damaged bytes of it.
        public var bytes: ByteCount

        /// An item.
        public init(_ kind: Kind, _ name: String, _ bytes: ByteCount) {
            self.kind = kind
            self.name = name
            self.bytes = bytes
        }
    }

    /// What lost bytes; files first, then directories, then the rest, by their place on the volume.
    public var items: [Item]
    /// Further files and directories that lost bytes, above the number that was to be named.
    public var more: Int
    /// Why not everything could be told, as sentences.
    public var notes: [String]

    /// What was found.
    public init(items: [Item] = [], more: Int = 0, notes: [String] = []) {
        self.items = items
        self.more = more
        self.notes = notes
    }

    /// Names of what lost bytes could not be told at all, for the reason given (a sentence).
    static func untold(_ damaged: ExtentList, because reason: String) -> LostContent {
        LostContent(items: [Item(.unknown, "not known", damaged.byteCount)], notes: [reason])
    }
}

extension LostContent.Item {
    /// What happened to it, as a sentence.
    public var sentence: String {
        switch kind {
        case .file: "The file \(name) lost \(bytes.bytes) bytes."
        case .inode: "\(name) is lost: its inode, which tells where its data lie, was not readable."
        case .directory: "The directory \(name) lost \(bytes.bytes) bytes: names in it may be missing."
        case .metadata:
            "\(bytes.bytes) bytes of the filesystem's own metadata were lost (\(name)): check it after a restore."
        case .journal: "\(bytes.bytes) bytes of the journal were lost."
        case .free: "\(bytes.bytes) bytes that could not be read hold nothing (\(name))."
        case .unknown: "What \(bytes.bytes) of the lost bytes belonged to is not known."
        }
    }
}
