// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Geometry

/// A volume group as its metadata describe it. Only what the mapping needs is read.
struct LVMGroup: Sendable {
    struct PhysicalVolume: Sendable {
        /// 32 characters without dashes.
        let uuid: String
        let isMissing: Bool
        let start: ByteCount
        let extents: UInt64
    }

    struct LogicalVolume: Sendable {
        let uuid: String
        let status: [String]
        let segments: [Segment]

        var isVisible: Bool { status.contains("VISIBLE") }
        var extents: UInt64 { segments.reduce(0) { $0 + $1.count } }
    }

    /// A run of extents of a logical volume.
    struct Segment: Sendable {
        let first: UInt64
        let count: UInt64
        /// LVM2's name of the type.
        let type: String
        let layout: Layout
        /// Logical volumes it needs, those of the layout included.
        let references: Set<String>
        /// Physical volumes that its layout does not tell the use of.
        let obscure: Set<String>
        /// The volume that keeps what a snapshot saved, whose name the snapshot goes by.
        var snapshot: String?
    }

    enum Layout: Sendable {
        /// On one area, or striped over several in pieces of some bytes.
        case striped([Area], ByteCount)
        case copies([Area])
        /// Not one that is mapped here.
        case other
    }

    struct Area: Sendable {
        /// Of a physical or logical volume.
        let name: String
        /// First extent there.
        let extent: UInt64
    }

    let name: String
    let id: String
    let sequence: UInt64
    let status: [String]
    let extentSize: ByteCount
    let physical: [String: PhysicalVolume]
    let logical: [String: LogicalVolume]

    /// What a volume group or a logical volume may be besides, without a change of what is mapped.
    static let harmlessGroup: Set<String> = [
        "RESIZEABLE", "READ", "WRITE", "EXPORTED", "CLUSTERED", "SHARED", "PARTIAL",
    ]
    static let harmlessVolume: Set<String> = [
        "READ", "WRITE", "VISIBLE", "HIDDEN", "FIXED_MINOR", "NOTSYNCED", "WRITEMOSTLY", "ACTIVATION_SKIP", "NOSCAN",
    ]

    init(_ text: [String: LVMValue]) throws(LayerProblem) {
        func damaged(_ what: String) -> LayerProblem {
            .whole("The metadata of its volume group are damaged: \(what).")
        }
        let sections = text.filter { $0.value.section != nil }
        guard text["contents"]?.text == "Text Format Volume Group", text["version"]?.number == 1,
            sections.count == 1, let (name, value) = sections.first, let group = value.section
        else { throw damaged("they do not describe one volume group of version 1") }
        guard let id = LVMGroup.uuid(group["id"]), let sequence = group["seqno"]?.number,
            LVMGroup.isName(name), let sectors = group["extent_size"]?.number, sectors > 0, sectors <= 1 << 40,
            group["format"].map({ $0.text == "lvm2" }) ?? true
        else { throw damaged("id, sequence number, extent size or format of \(name.printable)") }
        self.name = name
        self.id = id
        self.sequence = sequence
        extentSize = ByteCount(sectors * 512)
        status = LVMGroup.words(group["status"]) + LVMGroup.words(group["flags"])

        var physical: [String: PhysicalVolume] = [:]
        for (name, value) in group["physical_volumes"]?.section ?? [:] {
            guard let fields = value.section, let uuid = LVMGroup.uuid(fields["id"]),
                let start = fields["pe_start"]?.number, start <= 1 << 54, let count = fields["pe_count"]?.number,
                let length = extentSize.multiplied(by: count), length.adding(ByteCount(start * 512)) != nil
            else { throw damaged("the physical volume \(name.printable)") }
            physical[name] = PhysicalVolume(
                uuid: uuid,
                isMissing: (LVMGroup.words(fields["status"]) + LVMGroup.words(fields["flags"])).contains("MISSING"),
                start: ByteCount(start * 512), extents: count)
        }
        guard !physical.isEmpty, Set(physical.values.map(\.uuid)).count == physical.count else {
            throw damaged("it has no physical volumes, or two with one UUID")
        }
        self.physical = physical

        let volumes = group["logical_volumes"]?.section ?? [:]
        let names = Set(volumes.keys)
        var logical: [String: LogicalVolume] = [:]
        for (name, value) in volumes {
            guard LVMGroup.isName(name), let fields = value.section, let uuid = LVMGroup.uuid(fields["id"]) else {
                throw damaged("the logical volume \(name.printable)")
            }
            var segments: [Segment] = []
            for (key, value) in fields where key.hasPrefix("segment") && value.section != nil {
                guard let segment = LVMGroup.segment(value.section ?? [:], volumes: names, physical) else {
                    throw damaged("\(key.printable) of the logical volume \(name.printable)")
                }
                segments.append(segment)
            }
            segments.sort { $0.first < $1.first }
            var next: UInt64 = 0
            for segment in segments {
                let (end, overflow) = segment.first.addingReportingOverflow(segment.count)
                guard segment.first == next, !overflow, extentSize.multiplied(by: end) != nil else {
                    throw damaged("the segments of the logical volume \(name.printable) do not follow each other")
                }
                next = end
            }
            guard UInt64(segments.count) == fields["segment_count"]?.number, next > 0 else {
                throw damaged("the number of segments of the logical volume \(name.printable)")
            }
            logical[name] = LogicalVolume(
                uuid: uuid, status: LVMGroup.words(fields["status"]) + LVMGroup.words(fields["flags"]),
                segments: segments)
        }
        self.logical = logical
    }

    /// Whether LVM2 allows the name.
    private static func isName(_ name: String) -> Bool {
        !name.isEmpty && name.utf8.count < 256
            && name.utf8.allSatisfy {
                ($0 | 0x20 >= 0x61 && $0 | 0x20 <= 0x7A) || ($0 >= 0x30 && $0 <= 0x39) || "+_.-".utf8.contains($0)
            }
    }

    /// The UUID with its dashes, as LVM2's tools print it.
    static func dashed(_ uuid: String) -> String {
        var rest = uuid[...]
        return [6, 4, 4, 4, 4, 4, 6].map { (count: Int) -> String in
            defer { rest = rest.dropFirst(count) }
            return String(rest.prefix(count))
        }.joined(separator: "-")
    }

    private static func uuid(_ value: LVMValue?) -> String? {
        guard let text = value?.text else { return nil }
        let bare = text.filter { $0 != "-" }
        return bare.utf8.count == 32 && bare.count == 32 ? bare : nil
    }

    /// The words of a list; one that cannot be read counts as a word that nobody knows.
    private static func words(_ value: LVMValue?) -> [String] {
        guard let value else { return [] }
        return value.texts ?? ["?"]
    }

    private static func segment(
        _ fields: [String: LVMValue], volumes: Set<String>, _ physical: [String: PhysicalVolume]
    ) -> Segment? {
        guard let first = fields["start_extent"]?.number, let count = fields["extent_count"]?.number, count > 0,
            let type = fields["type"]?.text, isName(type)
        else { return nil }
        // Whatever a segment of any type names may be a volume it needs, but not its type and tags.
        var strings: Set<String> = []
        for (key, value) in fields where !["type", "tags"].contains(key) {
            if let text = value.text { strings.insert(text) }
            for text in (value.list ?? []).compactMap(\.text) { strings.insert(text) }
        }
        let layout: Layout
        switch type {
        case "striped", "linear":
            guard let areas = areas(fields["stripes"]), !areas.isEmpty,
                fields["stripe_count"]?.number ?? 1 == UInt64(areas.count), count % UInt64(areas.count) == 0,
                let chunk = areas.count == 1 ? 1 : fields["stripe_size"]?.number, chunk > 0, chunk <= 1 << 32
            else { return nil }
            layout = .striped(areas, ByteCount(chunk * 512))
        case "mirror":
            guard let areas = areas(fields["mirrors"]), !areas.isEmpty else { return nil }
            // The extents of a mirror that is being moved (pvmove) are partly here and partly there.
            layout = fields["extents_moved"] == nil ? .copies(areas) : .other
            guard fields["extents_moved"] != nil || fields["mirror_count"]?.number == UInt64(areas.count) else {
                return nil
            }
            if case .other = layout {
                return Segment(
                    first: first, count: count, type: "pvmove", layout: .other,
                    references: strings.intersection(volumes), obscure: strings.intersection(physical.keys))
            }
        case "raid1":
            guard let names = fields["raids"]?.texts, names.count % 2 == 0, !names.isEmpty,
                fields["device_count"]?.number ?? UInt64(names.count / 2) == UInt64(names.count / 2)
            else { return nil }
            // Pairs of a metadata volume and an image. A reshape shifts the images.
            let images = stride(from: 1, to: names.count, by: 2).map { Area(name: names[$0], extent: 0) }
            let isShifted = fields["data_offset"] != nil || fields["reshape_count"] != nil
            layout = isShifted ? .other : .copies(images)
        default: layout = .other
        }
        var obscure: Set<String> = []
        if case .other = layout { obscure = strings.intersection(physical.keys) }
        return Segment(
            first: first, count: count, type: type, layout: layout, references: strings.intersection(volumes),
            obscure: obscure,
            snapshot: type == "snapshot" ? fields["cow_store"]?.text.flatMap { volumes.contains($0) ? $0 : nil } : nil)
    }

    /// A list of names and extents in turn.
    private static func areas(_ value: LVMValue?) -> [Area]? {
        guard let list = value?.list, list.count % 2 == 0 else { return nil }
        var result: [Area] = []
        for index in stride(from: 0, to: list.count, by: 2) {
            guard let name = list[index].text, let extent = list[index + 1].number else { return nil }
            result.append(Area(name: name, extent: extent))
        }
        return result
    }
}
