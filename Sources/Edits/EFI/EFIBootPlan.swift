// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings

/// Plans changes to what the firmware boots. Pure: nothing is read or written.
public struct EFIBootPlan: Sendable {
    /// What there is.
    public let list: EFIBootList
    /// Where it is.
    public let place: String

    /// Plans for `list`, read from `place`.
    public init(_ list: EFIBootList, place: String) {
        self.list = list
        self.place = place
    }

    /// Where a new entry goes in the order.
    public enum Position: Sendable {
        /// It is tried first.
        case first
        /// It is tried when all others fail.
        case last
    }

    /// An entry that says what `option` says, and its number. One that is there already is used again, whoever made it; no
    /// entry is changed or removed. The entry comes before the order, so that the order never names one that is not there.
    public func adding(
        _ option: EFILoadOption, _ position: Position
    ) throws(Fault) -> (number: UInt16, edits: EFIEditList) {
        try EFIBootPlan.check(option)
        var edits: [EFIEdit] = []
        let number: UInt16
        if let same = list.entries.first(where: { $0.option == option }) {
            number = same.number
        } else {
            let taken = Set(list.entries.map(\.number) + list.order)
            guard let free = (UInt16.min...UInt16.max).first(where: { !taken.contains($0) }) else {
                throw Fault(
                    .efiFull, what: "All numbers of boot entries are taken.", place: place,
                    remedy: "Remove entries that are not used.")
            }
            number = free
            edits.append(
                EFIEdit(
                    .boot(free), old: nil, new: EFIVariable(option.bytes),
                    reason: "a new entry \"\(option.label)\""))
        }
        let others = list.order.filter { $0 != number }
        let order =
            position == .first ? [number] + others : list.order.contains(number) ? list.order : others + [number]
        edits += ordering(order, "Boot\(BootNumber.text(number)) is tried \(position == .first ? "first" : "last")")
        return (number, EFIEditList(place: place, edits: edits))
    }

    /// Removes an entry: first from the order, then itself.
    public func removing(_ number: UInt16) throws(Fault) -> EFIEditList {
        guard let entry = list.entries.first(where: { $0.number == number }) else { throw missing(number) }
        let name = "Boot\(BootNumber.text(number))"
        var edits = ordering(list.order.filter { $0 != number }, "\(name) is not tried any more")
        if list.next == number { edits += nexting(nil) }
        edits.append(EFIEdit(.boot(number), old: entry.variable, new: nil, reason: "\(name) is removed"))
        return EFIEditList(place: place, edits: edits)
    }

    /// Sets the order. Entries it does not name stay, and are not tried.
    public func ordered(_ order: [UInt16]) throws(Fault) -> EFIEditList {
        for (index, number) in order.enumerated() {
            guard list.entries.contains(where: { $0.number == number }) else { throw missing(number) }
            guard !order[..<index].contains(number) else {
                throw Fault(
                    .usage, what: "Boot\(BootNumber.text(number)) is named twice.", remedy: "Name each entry once.")
            }
        }
        guard !order.isEmpty else {
            throw Fault(.usage, what: "An order of no entries would start nothing.", remedy: "Name at least one entry.")
        }
        return EFIEditList(place: place, edits: ordering(order, "the order that was asked for"))
    }

    /// Sets what is tried once at the next start; `nil` takes that back.
    public func next(_ number: UInt16?) throws(Fault) -> EFIEditList {
        if let number, !list.entries.contains(where: { $0.number == number }) { throw missing(number) }
        return EFIEditList(place: place, edits: nexting(number))
    }

    private func missing(_ number: UInt16) -> Fault {
        Fault(
            .missing, what: "There is no entry Boot\(BootNumber.text(number)).", place: place,
            remedy: "`relight efi list` shows those there are.")
    }

    private func ordering(_ order: [UInt16], _ reason: String) -> [EFIEdit] {
        guard order != list.order else { return [] }
        return [EFIEdit(.bootOrder, old: list.orderVariable, new: list.orderVariable(of: order), reason: reason)]
    }

    private func nexting(_ number: UInt16?) -> [EFIEdit] {
        guard number != list.next else { return [] }
        return [
            EFIEdit(
                .bootNext, old: list.nextVariable, new: number.map { EFIVariable(EFIBootList.bytes([$0])) },
                reason: number.map { "Boot\(BootNumber.text($0)) is tried once" } ?? "nothing else is tried once")
        ]
    }

    private static func check(_ option: EFILoadOption) throws(Fault) {
        guard !option.label.isEmpty, option.label.count <= EFILoadOption.longestLabel, !option.label.contains("\0")
        else {
            throw Fault(
                .usage, what: "A boot entry's label has 1 to \(EFILoadOption.longestLabel) characters.",
                remedy: "Choose another label.")
        }
        guard option.path.bytes.count <= 0xFFFF, option.bytes.count <= 32 << 10 else {
            throw Fault(
                .usage, what: "The entry has \(option.bytes.count) bytes; firmwares take no more than 32 KiB.",
                remedy: "Use a shorter path, or less data for the loader.")
        }
    }
}
