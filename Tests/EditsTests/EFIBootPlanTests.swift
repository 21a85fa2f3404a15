// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import Findings
import MachineModel
import Testing

@testable import Edits

/// Variables in memory, whose writes can fail.
final class MemoryVariables: EFIVariableStore {
    let place = "memory"
    var content: [EFIVariableName: EFIVariable] = [:]
    /// Writes in the order they came.
    var writes: [EFIVariableName] = []
    /// The write with this number fails, counted from 0, and all later ones when they come within `failures`.
    var failing: Range<Int> = 0..<0
    /// Writes of this variable are taken and forgotten.
    var forgets: EFIVariableName?

    func names() throws(Fault) -> [EFIVariableName] { Array(content.keys) }
    func read(_ name: EFIVariableName) throws(Fault) -> EFIVariable? { content[name] }
    func write(_ name: EFIVariableName, _ variable: EFIVariable?) throws(Fault) {
        writes.append(name)
        if failing.contains(writes.count - 1) { throw Fault(.efiFailed, what: "No.", remedy: "") }
        if name != forgets { content[name] = variable }
    }
}

/// What is planned for boot entries, and how it is carried out.
@Suite struct EFIBootPlanTests {
    /// Two entries, the second first in the order; a third that is in no order.
    static func machine() throws -> MemoryVariables {
        let store = MemoryVariables()
        for (number, label) in [(UInt16(0), "firmware"), (1, "windows"), (4, "network")] {
            let option = EFILoadOption(label, EFIDevicePath(EFILoadOptionTests.partition, file: "/\(label).efi"))
            store.content[.boot(number)] = EFIVariable(option.bytes)
        }
        store.content[.bootOrder] = EFIVariable([1, 0, 0, 0])
        store.content[EFIVariableName("Timeout")] = EFIVariable([5, 0])
        return store
    }

    static func plan(_ store: MemoryVariables) throws -> EFIBootPlan {
        EFIBootPlan(try EFIBootList(store), place: store.place)
    }

    @Test func aNewEntryTakesTheLowestFreeNumberAndComesFirst() throws {
        let store = try Self.machine()
        let (number, edits) = try Self.plan(store).adding(EFILoadOptionTests.shim, .first)
        try edits.apply(to: store)
        let list = try EFIBootList(store)
        #expect(number == 2 && list.order == [2, 1, 0] && list.entries.map(\.number) == [0, 1, 2, 4])
        // An order never names an entry that is not there yet.
        #expect(store.writes == [.boot(2), .bootOrder])
    }

    @Test func aNumberTheOrderNamesIsNotFree() throws {
        let store = try Self.machine()
        store.content[.bootOrder] = EFIVariable([2, 0, 1, 0])
        #expect(try Self.plan(store).adding(EFILoadOptionTests.shim, .last).number == 3)
    }

    @Test func theSameEntryIsUsedAgain() throws {
        let store = try Self.machine()
        let plan = try Self.plan(store)
        try plan.adding(EFILoadOptionTests.shim, .first).edits.apply(to: store)
        let again = try Self.plan(store).adding(EFILoadOptionTests.shim, .first)
        #expect(again.number == 2 && again.edits.edits.isEmpty)
        #expect(try Self.plan(store).adding(EFILoadOptionTests.shim, .last).edits.edits.isEmpty)
        // One that somebody else made and that is in no order is only put into it.
        let network = try #require(try EFIBootList(store).entries.last?.option)
        let (number, edits) = try Self.plan(store).adding(network, .last)
        #expect(number == 4 && edits.edits.map(\.variable) == [.bootOrder])
    }

    @Test func whatWasMadeIsTakenBackExactly() throws {
        let store = try Self.machine()
        let before = store.content
        let edits = try Self.plan(store).adding(EFILoadOptionTests.shim, .first).edits
        try edits.apply(to: store)
        #expect(store.content != before)
        try edits.inverse.apply(to: store)
        #expect(store.content == before)
    }

    @Test func nothingIsTakenBackOverANewerChange() throws {
        let store = try Self.machine()
        let edits = try Self.plan(store).adding(EFILoadOptionTests.shim, .first).edits
        try edits.apply(to: store)
        try Self.plan(store).ordered([0, 1, 2]).apply(to: store)
        let after = store.content
        let fault = try #require(throws: Fault.self) { try edits.inverse.apply(to: store) }
        #expect(fault.code == .editChanged && store.content == after)
    }

    @Test(arguments: 0..<2) func aWriteThatFailsLeavesWhatWasThere(failing: Int) throws {
        let store = try Self.machine()
        let before = store.content
        store.failing = failing..<failing + 1
        #expect(throws: Fault.self) {
            try Self.plan(store).adding(EFILoadOptionTests.shim, .first).edits.apply(to: store)
        }
        #expect(store.content == before)
    }

    @Test func whatCannotBePutBackIsNamed() throws {
        let store = try Self.machine()
        store.failing = 1..<100
        let fault = try #require(throws: Fault.self) {
            try Self.plan(store).adding(EFILoadOptionTests.shim, .first).edits.apply(to: store)
        }
        #expect(fault.what.contains("Boot0002 could not be put back"))
    }

    @Test func aWriteThatIsForgottenIsNoticed() throws {
        let store = try Self.machine()
        store.forgets = .bootOrder
        let before = store.content
        let fault = try #require(throws: Fault.self) { try Self.plan(store).ordered([0, 1]).apply(to: store) }
        #expect(fault.code == .efiFailed && store.content == before)
    }

    @Test func removingTakesTheEntryOutOfTheOrderFirst() throws {
        let store = try Self.machine()
        store.content[.bootNext] = EFIVariable([1, 0])
        try Self.plan(store).removing(1).apply(to: store)
        let list = try EFIBootList(store)
        #expect(list.order == [0] && list.next == nil && list.entries.map(\.number) == [0, 4])
        #expect(store.writes == [.bootOrder, .bootNext, .boot(1)])
    }

    @Test func whatIsNotThereIsNotOrdered() throws {
        let plan = try Self.plan(try Self.machine())
        #expect(throws: Fault.self) { try plan.ordered([0, 9]) }
        #expect(throws: Fault.self) { try plan.ordered([0, 0]) }
        #expect(throws: Fault.self) { try plan.ordered([]) }
        #expect(throws: Fault.self) { try plan.next(9) }
        #expect(throws: Fault.self) { try plan.removing(9) }
    }

    @Test func onlyBootEntriesAreEverWritten() throws {
        let store = try Self.machine()
        let before = store.content
        for name in [EFIVariableName("PK"), EFIVariableName("Timeout"), EFIVariableName("Boot0009", .random())] {
            let list = EFIEditList(
                place: "", edits: [EFIEdit(name, old: store.content[name], new: EFIVariable([1]), reason: "")])
            #expect(throws: Fault.self) { try list.apply(to: store) }
        }
        #expect(store.content == before && store.writes.isEmpty)
    }

    @Test(arguments: ["", String(repeating: "x", count: 61), "a\0b"]) func labelsThatFirmwaresCutAreRefused(
        label: String
    ) throws {
        let plan = try Self.plan(try Self.machine())
        var option = EFILoadOptionTests.shim
        option.label = label
        #expect(throws: Fault.self) { try plan.adding(option, .first) }
    }

    @Test func aDamagedEntryIsListedWithItsProblem() throws {
        let store = try Self.machine()
        store.content[.boot(7)] = EFIVariable([1, 2, 3])
        let entry = try #require(try EFIBootList(store).entries.last)
        #expect(entry.number == 7 && entry.option == nil && entry.problem != nil)
        try Self.plan(store).removing(7).apply(to: store)
        #expect(store.content[.boot(7)] == nil)
    }
}
