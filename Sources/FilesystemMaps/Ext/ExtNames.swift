// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import CExt2Glue
import Findings
import Geometry
import Threads

/// Which files of an ext2, ext3 or ext4 filesystem lie at damaged places. Every inode is asked once where its blocks lie;
/// names are looked for afterwards, and only for those that were hit.
struct ExtNames {
    private let volume: ExtVolume
    private let limits: FileNames.Limits
    private var tally: LossTally
    private var steps: UInt64
    /// Damaged bytes of inodes that are to be named.
    private var hits: [UInt32: Hit] = [:]
    private var order: [UInt32] = []
    private var more: Set<UInt32> = []
    /// Inodes that lay at damaged places themselves.
    private var lostInodes: [ClosedRange<UInt32>] = []
    private var lostFiles: [UInt32] = []
    /// Where inodes were found named.
    private var names: [UInt32: Place] = [:]

    private struct Hit {
        var kind: LostContent.Kind
        var bytes: ByteCount
    }
    private struct Place {
        var parent: UInt32
        var name: String
    }
    /// Files above the number to be named are counted up to here.
    private static let mostCounted = 1 << 20
    private static let root: UInt32 = 2
    private static let resize: UInt32 = 7
    private static let mostDepth = 128

    static func at(
        _ damaged: ExtentList, of source: any BlockSource, _ limits: FileNames.Limits
    ) throws(Fault) -> LostContent {
        let spared = Faulty(source, bad: limits.spared ?? damaged)
        let volume: ExtVolume
        do {
            volume = try ExtVolume(spared, stop: limits.stop)
        } catch {
            return .untold(damaged, because: "Which files lie there cannot be told: \(error.text).")
        }
        var walk = ExtNames(volume, damaged, limits)
        try walk.groups()
        try walk.inodes()
        try walk.unclaimed()
        try walk.findNames()
        return walk.result
    }

    private init(_ volume: ExtVolume, _ damaged: ExtentList, _ limits: FileNames.Limits) {
        self.volume = volume
        self.limits = limits
        self.tally = LossTally(damaged, limit: limits.names)
        // Two passes over the inodes; a sound filesystem has each block in one run, and each directory's block once more.
        let blocks = min(volume.facts.blocks, 1 << 60)
        self.steps = min(limits.steps, UInt64(volume.facts.inodes) * 2 + blocks * 4 + 65536)
    }

    /// Superblocks, descriptors, bitmaps, inode tables.
    private mutating func groups() throws(Fault) {
        let facts = volume.facts
        // The boot sector's place lies in no block group with blocks of 1 KiB.
        if facts.first_data_block > 0 {
            tally.region(.metadata, "boot block", Extent(from: .zero, to: volume.blockSize))
        }
        for number in 0..<facts.groups {
            guard let group = volume.group(number) else { continue }
            func region(_ first: UInt64, _ count: UInt64, _ name: @autoclosure () -> String) {
                guard count > 0, let extent = volume.extent(first, count) else { return }
                tally.region(.metadata, name(), extent)
            }
            region(
                group.superblock, group.superblock_blocks,
                number == 0 ? "superblock" : "backup superblock of group \(number)")
            region(group.descriptors, group.descriptor_blocks, "group descriptors in group \(number)")
            guard group.is_inside != 0 else { continue }
            region(group.block_bitmap, 1, "block bitmap of group \(number)")
            region(group.inode_bitmap, 1, "inode bitmap of group \(number)")
            region(group.inode_table, group.inode_table_blocks, "inode table of group \(number)")
            addLostInodes(group, number)
        }
        try volume.checkInterruption()
    }

    private mutating func addLostInodes(_ group: relight_ext_group, _ number: UInt32) {
        guard let table = volume.extent(group.inode_table, group.inode_table_blocks) else { return }
        let size = UInt64(volume.facts.inode_size)
        let first = UInt64(number) * UInt64(volume.facts.inodes_per_group) + 1
        for part in tally.hit(table).extents where lostInodes.count < LossTallyLimits.lostRuns && group.inodes > 0 {
            let low = (part.start - table.start).bytes / size
            let high = min(((part.end - table.start).bytes - 1) / size, UInt64(group.inodes) - 1)
            guard low <= high, let from = UInt32(exactly: first + low), let to = UInt32(exactly: first + high) else {
                continue
            }
            lostInodes.append(from...to)
        }
    }

    /// Calls `body` with every inode that may be in use, until the steps or the time end.
    private mutating func eachInode(
        _ body: (inout ExtNames, UInt32, relight_ext_inode) -> Void
    ) throws(Fault) {
        let perGroup = volume.facts.inodes_per_group
        for number in 0..<volume.facts.groups {
            guard let group = volume.group(number), group.is_inside != 0 else { continue }
            for index in 0..<min(group.inodes, perGroup) {
                guard steps > 0 else {
                    tally.note("There is more in this filesystem than can be looked at: not everything was.")
                    return
                }
                steps -= 1
                if index % 256 == 0 {
                    if limits.stop() {
                        tally.note("The time to look for names ended before everything was looked at.")
                        return
                    }
                    try volume.checkInterruption()
                }
                let (inode, overflow) = (number &* perGroup).addingReportingOverflow(index + 1)
                if overflow { return }
                // An inode that cannot be read is either among those that were lost, or damaged before.
                guard let facts = try? volume.inode(inode), facts.isLive else { continue }
                body(&self, inode, facts)
            }
        }
        try volume.checkInterruption()
    }

    /// Asks every inode where its blocks lie.
    private mutating func inodes() throws(Fault) {
        try eachInode { walk, number, inode in walk.look(number, inode) }
    }

    private mutating func look(_ number: UInt32, _ inode: relight_ext_inode) {
        if inode.xattr_block != 0, let extent = volume.extent(inode.xattr_block, 1) {
            add(number, inode, tally.hit(extent))
        }
        guard inode.has_blocks != 0 else { return }
        let trims = inode.isRegular && inode.flags & 0x0010_0000 == 0
        let size = ByteCount(inode.size)
        var found: [Extent] = []
        var slack: [Extent] = []
        let (damaged, blockSize) = (tally.damaged, volume.blockSize)
        var taken: UInt64 = 0
        let problem = volume.pieces(most: steps) { piece in
            taken += 1
            let parts = damaged.intersection(piece.extent)
            guard !parts.isEmpty else { return true }
            switch piece.kind {
            case .tree: found += parts.extents
            case .unwritten: slack += parts.extents
            case .data:
                // Behind a file's end nothing of it lies.
                var end = piece.extent.end
                if trims {
                    let before = blockSize.multiplied(by: piece.logical) ?? size
                    let inside = size.subtracting(before) ?? .zero
                    end = min(end, piece.extent.start.adding(inside) ?? end)
                }
                let window = Extent(from: piece.extent.start, to: end)
                found += parts.intersection(window).extents
                slack += parts.intersection(Extent(from: end, to: piece.extent.end)).extents
            }
            return found.count + slack.count < LossTallyLimits.runsOfAFile
        }
        steps -= min(steps, taken)
        if problem != nil, found.isEmpty, limits.stop() {
            tally.note("The time to look for names ended before everything was looked at.")
        }
        for extent in slack { tally.region(.free, "space reserved for a file or behind its end", extent) }
        add(number, inode, ExtentList(found))
    }

    /// Notes that `parts` of what belongs to an inode are damaged.
    private mutating func add(_ number: UInt32, _ inode: relight_ext_inode, _ parts: ExtentList) {
        guard !parts.isEmpty else { return }
        let facts = volume.facts
        if number == ExtNames.resize {
            // Its blocks are the room behind the descriptors, counted already, and the tree that names them.
            let own = tally.unclaimed(of: parts)
            tally.claim(own)
            if !own.isEmpty { tally.add(.metadata, "reserved group descriptors", own.byteCount) }
            return
        }
        tally.claim(parts)
        let bytes = parts.byteCount
        if number == facts.journal_inode, number != 0 { return tally.add(.journal, "journal", bytes) }
        let (user, group, project) = facts.quota_inodes
        if number != 0, [user, group, project].contains(number) { return tally.add(.metadata, "quota file", bytes) }
        if number == facts.orphan_inode, number != 0 { return tally.add(.metadata, "orphan file", bytes) }
        if number < facts.first_inode, number != ExtNames.root {
            return tally.add(.metadata, "reserved inode \(number)", bytes)
        }
        if inode.isAttributeValue { return tally.add(.metadata, "extended attributes (inode \(number))", bytes) }
        if hits[number] != nil {
            hits[number]?.bytes += bytes
        } else if hits.count < limits.names {
            order.append(number)
            hits[number] = Hit(kind: inode.isDirectory ? .directory : .file, bytes: bytes)
        } else if more.count < ExtNames.mostCounted {
            more.insert(number)
        }
    }

    /// What no inode and no table claimed: free, or not known.
    private mutating func unclaimed() throws(Fault) {
        let left = tally.unclaimed
        guard !left.isEmpty else { return }
        let hasBitmap = (try? volume.loadBitmap()) != nil
        if !hasBitmap { tally.note("Whether the rest is in use cannot be told: the block bitmaps cannot be read.") }
        let size = volume.extent(0, volume.facts.blocks) ?? Extent(from: .zero, to: .zero)
        var pending = LossTally.Alike()
        var rounds = 0
        for extent in left.extents {
            let outside = Extent(from: max(extent.start, size.end), to: extent.end)
            if !outside.isEmpty { pending.add(.free, "behind the filesystem's end", outside.length, to: &tally) }
            var position = extent.start
            let end = min(extent.end, size.end)
            while position < end {
                rounds += 1
                if rounds % 4096 == 0 {
                    try Interruption.check()
                    if limits.stop() {
                        pending.add(.unknown, "not known", end - position, to: &tally)
                        tally.note("The time to look for names ended before everything was looked at.")
                        break
                    }
                }
                // Along blocks, joined while they are alike.
                let next = min((position.roundedDown(to: volume.blockSize)).adding(volume.blockSize) ?? end, end)
                if hasBitmap, !volume.isUsed(at: position) {
                    pending.add(.free, "free space", next - position, to: &tally)
                } else {
                    pending.add(.unknown, "not known", next - position, to: &tally)
                }
                position = next
            }
        }
        pending.end(&tally)
    }
}

/// Bounds on what is remembered while looking for names.
private enum LossTallyLimits {
    static let lostRuns = 4096
    static let runsOfAFile = 1 << 16
    static let lostFiles = 1000
}

// MARK: Names
extension ExtNames {
    /// One pass through all directories for the names of what was hit.
    private mutating func findNames() throws(Fault) {
        var wanted = Set(hits.keys)
        wanted.remove(ExtNames.root)
        guard !wanted.isEmpty || !lostInodes.isEmpty else { return }
        lostInodes.sort { $0.lowerBound < $1.lowerBound }
        try eachInode { walk, number, inode in
            guard inode.isDirectory else { return }
            walk.entries(number, inode) { walk, child, name in
                if wanted.contains(child) || walk.isLost(child), walk.names[child] == nil, !isDot(name) {
                    if !wanted.contains(child) {
                        guard walk.lostFiles.count < LossTallyLimits.lostFiles else { return true }
                        walk.lostFiles.append(child)
                    }
                    walk.names[child] = Place(parent: number, name: SafeText.name(name))
                }
                return true
            }
        }
    }

    private func isLost(_ inode: UInt32) -> Bool {
        var (low, high) = (0, lostInodes.count)
        while low < high {
            let middle = (low + high) / 2
            if lostInodes[middle].upperBound < inode { low = middle + 1 } else { high = middle }
        }
        return low < lostInodes.count && lostInodes[low].contains(inode)
    }

    /// Hands the entries of directory `number`, whose inode was read last, to `body`.
    private mutating func entries(
        _ number: UInt32, _ inode: relight_ext_inode,
        _ body: (inout ExtNames, UInt32, ArraySlice<UInt8>) -> Bool
    ) {
        if inode.isInline {
            guard let bytes = try? volume.inlineData(number) else { return }
            ExtDirectory.inlineEntries(bytes) { body(&self, $0, $1) }
            return
        }
        // The tree's runs first: the volume is not to be asked anew while it walks.
        var runs: [Extent] = []
        _ = volume.pieces(most: min(steps, 1 << 20)) { piece in
            if piece.kind == .data { runs.append(piece.extent) }
            return true
        }
        var goOn = true
        for run in runs {
            var position = run.start
            while position < run.end, goOn {
                guard steps > 0, !limits.stop() else { return }
                steps -= 1
                // A block that cannot be read hides its own names only.
                if let bytes = volume.block(at: position) {
                    ExtDirectory.entries(bytes) { child, name in
                        goOn = body(&self, child, name)
                        return goOn
                    }
                }
                guard let next = position.adding(volume.blockSize) else { return }
                position = next
            }
        }
    }

    /// Where directory `number` lies: its own entry for its parent, and the parent's for it.
    private mutating func place(ofDirectory number: UInt32) -> Place? {
        if let known = names[number] { return known }
        var parent: UInt32?
        guard let inode = try? volume.inode(number), inode.isLive, inode.isDirectory else { return nil }
        if inode.isInline {
            parent = (try? volume.inlineData(number)).flatMap { ExtDirectory.inlineParent($0) }
        } else {
            entries(number, inode) { _, child, name in
                if name.elementsEqual("..".utf8) { parent = child }
                return parent == nil
            }
        }
        guard let parent, let above = try? volume.inode(parent), above.isLive, above.isDirectory else { return nil }
        var found: Place?
        entries(parent, above) { _, child, name in
            if child == number, !isDot(name) { found = Place(parent: parent, name: SafeText.name(name)) }
            return found == nil
        }
        if let found { names[number] = found }
        return found
    }

    /// The path of an inode; one without a name is told by its number.
    private mutating func path(_ number: UInt32) -> String {
        if number == ExtNames.root { return "/" }
        guard let first = names[number] else { return "inode \(number) (no name was found)" }
        var parts = [first.name]
        var current = first.parent
        while current != ExtNames.root {
            guard parts.count < ExtNames.mostDepth, let place = place(ofDirectory: current) else {
                return "…" + SafeText.path(parts.reversed())
            }
            parts.append(place.name)
            current = place.parent
        }
        return SafeText.path(parts.reversed())
    }

    fileprivate var result: LostContent {
        mutating get {
            var items = order.compactMap { number in
                hits[number].map { LostContent.Item($0.kind, path(number), $0.bytes) }
            }
            items.sort { ($0.kind == .file ? 0 : 1) < ($1.kind == .file ? 0 : 1) }
            let room = max(0, limits.names - items.count)
            for number in lostFiles.prefix(room) {
                items.append(LostContent.Item(.inode, path(number), ByteCount(UInt64(volume.facts.inode_size))))
            }
            return LostContent(
                items: items + tally.others, more: more.count + max(0, lostFiles.count - room), notes: tally.notes)
        }
    }
}

/// Whether a name is `.` or `..`.
private func isDot(_ name: ArraySlice<UInt8>) -> Bool {
    name.elementsEqual(".".utf8) || name.elementsEqual("..".utf8)
}
