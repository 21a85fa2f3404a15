// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
public import Geometry

/// A volume that is a member of a layer.
public struct StackMember: Sendable {
    /// The caller's number for it.
    public let id: Int
    /// What it may be called in ``Unlocking``, the name for messages first.
    public let names: [String]
    /// Its bytes.
    public let source: any BlockSource
    /// What it says of itself.
    public let descriptor: MemberDescriptor

    /// A member.
    public init(id: Int, names: [String], source: any BlockSource, descriptor: MemberDescriptor) {
        self.id = id
        self.names = names
        self.source = source
        self.descriptor = descriptor
    }

    var name: String { names.first ?? source.name }
}

/// Members that belong together, and the volumes they yield.
public struct Stack: Sendable {
    /// What is used of one member whatever its volumes hold.
    public struct Member: Hashable, Sendable {
        /// The caller's number.
        public let id: Int
        /// Bytes of it that are always used: metadata, and what is not mapped. All of it when it is whole.
        public var alwaysUsed: ExtentList
        /// Why all of it is used; `nil` when it is not.
        public var wholeBecause: String?
    }

    /// Something worth saying.
    public struct Notice: Hashable, Sendable {
        /// Whether it may cause trouble.
        public var isWarning: Bool
        /// The stable name.
        public var code: String
        /// A sentence.
        public var what: String
    }

    /// The format: `LVM2`, `md raid1`, `LUKS2` …
    public var format: String
    /// Its name; may be empty.
    public var name: String
    /// Its UUID, as its tools print it.
    public var uuid: String?
    /// The members given that belong to it.
    public var members: [Member]
    /// How many members it should have besides.
    public var missing = 0
    /// Whether it might be put together, or better, with members that were not found yet.
    public var isComplete: Bool { missing == 0 && !waits }
    var waits = false
    /// What it yields.
    public var volumes: [StackVolume] = []
    /// What was noticed.
    public var notices: [Notice] = []

    /// Whether it was put together.
    public var isAssembled: Bool { members.contains { $0.wholeBecause == nil } }

    init(format: String, name: String, uuid: String?, members: [Member]) {
        self.format = format
        self.name = name
        self.uuid = uuid
        self.members = members
    }

    /// A member that is not put together with others, for the reason given (a sentence).
    public init(whole member: StackMember, because reason: String) {
        self.init(whole: [member], because: reason)
    }

    /// Members that are not put together, all for one reason (a sentence).
    init(whole members: [StackMember], because reason: String) {
        let first = members.first?.descriptor
        self.init(
            format: first?.format ?? "", name: first?.name ?? "", uuid: first?.setUUID,
            members: members.map { Member(whole: $0, because: reason) })
    }
}

extension Stack.Member {
    init(whole member: StackMember, because reason: String) {
        self.init(
            id: member.id, alwaysUsed: ExtentList(Extent(from: .zero, to: member.source.length)), wholeBecause: reason)
    }

    /// A member of which all is used but `payload`.
    init(_ member: StackMember, except payload: ExtentList) {
        self.init(
            id: member.id, alwaysUsed: payload.complement(in: Extent(from: .zero, to: member.source.length)),
            wholeBecause: nil)
    }
}

/// A volume that a stack yields.
public struct StackVolume: Sendable {
    /// Its name: `vg0/root`, `md/0`, `luks-UUID`.
    public let name: String
    /// Its UUID, as its tools print it.
    public let uuid: String?
    /// How it is laid out: `linear`, `striped`, `raid1`, `crypt` …
    public let layout: String
    /// Its size.
    public let length: ByteCount
    /// Its bytes; `nil` for one that is not mapped, all of which is in the members' ``Stack/Member/alwaysUsed``.
    public let source: (any BlockSource)?
    /// The same bytes read from one copy each, where there are several.
    public let copies: [any BlockSource]
    /// Why it is not mapped.
    public let wholeBecause: String?
    private let push: @Sendable (ExtentList) -> [Int: ExtentList]
    private let differs: @Sendable () -> Bool

    /// The bytes of each member that hold `used` of this volume.
    public func pushDown(_ used: ExtentList) -> [Int: ExtentList] {
        push(used.intersection(Extent(from: .zero, to: length)))
    }

    /// Whether copies were found to differ, or one could not be read, in anything that was read through ``source``.
    public var copiesDiffer: Bool { differs() }

    /// A volume that is mapped.
    init(
        name: String, uuid: String?, layout: String, source: any BlockSource, copies: [any BlockSource] = [],
        push: @escaping @Sendable (ExtentList) -> [Int: ExtentList], differs: @escaping @Sendable () -> Bool = { false }
    ) {
        self.name = name
        self.uuid = uuid
        self.layout = layout
        self.length = source.length
        self.source = source
        self.copies = copies
        self.wholeBecause = nil
        self.push = push
        self.differs = differs
    }

    /// A volume that is not mapped.
    init(name: String, uuid: String?, layout: String, length: ByteCount, because reason: String) {
        self.name = name
        self.uuid = uuid
        self.layout = layout
        self.length = length
        self.source = nil
        self.copies = []
        self.wholeBecause = reason
        self.push = { _ in [:] }
        self.differs = { false }
    }
}
