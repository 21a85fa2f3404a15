// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import MachineModel
public import Findings

/// What the firmware boots: its entries, their order, and what it says of itself (UEFI Specification 2.10, section 3.1).
public struct EFIBootList: Hashable, Sendable {
    /// One entry.
    public struct Entry: Hashable, Sendable {
        /// Its number: `Boot0007`.
        public var number: UInt16
        /// What it says; `nil` when that cannot be read.
        public var option: EFILoadOption?
        /// The variable as it is.
        public var variable: EFIVariable
        /// Why it cannot be read.
        public var problem: String?
    }

    /// All entries, by number.
    public var entries: [Entry] = []
    /// The order they are tried in. May name entries that are not there.
    public var order: [UInt16] = []
    /// What is tried once, at the next start.
    public var next: UInt16?
    /// What the running system was started by.
    public var current: UInt16?
    /// The variable that holds the order, as it is.
    public var orderVariable: EFIVariable?
    /// The variable that holds what is tried once, as it is.
    public var nextVariable: EFIVariable?
    /// Seconds the firmware waits before it starts the first entry.
    public var timeout: UInt16?
    /// Whether only signed loaders are started; `nil` when the firmware does not say.
    public var secureBoot: Bool?
    /// Whether the firmware has no owner yet, so that keys can be put in; `nil` when it does not say.
    public var setupMode: Bool?

    /// Reads what `store` holds. An entry that contradicts itself is listed with its problem.
    public init(_ store: any EFIVariableStore) throws(Fault) {
        for name in try store.names() where name.vendor == EFIVariableName.global {
            guard let number = BootNumber.inName(name.name), let variable = try store.read(name) else { continue }
            var entry = Entry(number: number, variable: variable)
            do { entry.option = try EFILoadOption(variable.data.bytes) } catch { entry.problem = error.what }
            entries.append(entry)
        }
        entries.sort { $0.number < $1.number }
        orderVariable = try store.read(.bootOrder)
        nextVariable = try store.read(.bootNext)
        order = EFIBootList.numbers(orderVariable?.data.bytes ?? [])
        next = EFIBootList.numbers(nextVariable?.data.bytes ?? []).first
        current = EFIBootList.numbers(try store.read(EFIVariableName("BootCurrent"))?.data.bytes ?? []).first
        timeout = EFIBootList.numbers(try store.read(EFIVariableName("Timeout"))?.data.bytes ?? []).first
        secureBoot = try store.read(EFIVariableName("SecureBoot"))?.data.bytes.first.map { $0 == 1 }
        setupMode = try store.read(EFIVariableName("SetupMode"))?.data.bytes.first.map { $0 == 1 }
    }

    /// The variable that says `order`: with the attributes it has, or the usual ones. None for an empty order.
    func orderVariable(of order: [UInt16]) -> EFIVariable? {
        guard !order.isEmpty else { return nil }
        return EFIVariable(EFIBootList.bytes(order), attributes: orderVariable?.attributes ?? EFIVariable.usual)
    }

    static func numbers(_ bytes: [UInt8]) -> [UInt16] {
        (0..<bytes.count / 2).map { UInt16(bytes[$0 * 2]) | UInt16(bytes[$0 * 2 + 1]) << 8 }
    }

    static func bytes(_ numbers: [UInt16]) -> [UInt8] {
        numbers.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8(truncatingIfNeeded: $0 >> 8)] }
    }
}
