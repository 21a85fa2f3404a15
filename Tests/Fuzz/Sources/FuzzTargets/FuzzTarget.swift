// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Synchronization

/// A parser, or a chain of them, that is fed arbitrary bytes. It must neither trap nor hang, and what it accepts must
/// keep the promises its room makes; a broken promise is a trap here.
public struct FuzzTarget: Sendable {
    /// Its name, which is also its folder below `Seeds`.
    public let name: String
    /// Longest input worth trying, bytes.
    public let longest: Int
    /// Feeds it one input.
    public let run: @Sendable ([UInt8]) -> Void
    /// Makes the checksums in an input right again after a mutation; does nothing where there are none.
    public let mend: @Sendable (inout [UInt8]) -> Void
    /// Whether the inputs are text in which numbers deserve extreme values.
    public let isText: Bool
    /// Makes its seeds: sound inputs by name.
    public let seeds: @Sendable () throws -> [(name: String, bytes: [UInt8])]

    init(
        name: String, longest: Int, isText: Bool = false,
        seeds: @escaping @Sendable () throws -> [(name: String, bytes: [UInt8])],
        mend: @escaping @Sendable (inout [UInt8]) -> Void = { _ in },
        run: @escaping @Sendable ([UInt8]) -> Void
    ) {
        self.name = name
        self.longest = longest
        self.isText = isText
        self.seeds = seeds
        self.mend = mend
        self.run = run
    }

    /// All targets.
    public static let all: [FuzzTarget] = [
        .tables, .ext, .fat, .ntfs, .swap, .survey, .structures, .point, .set, .plan, .job, .media, .environment,
        .kernel,
        .names, .xfs, .locked, .protected, .moved, .archive, .catalogue, .btrfs, .exfat, .f2fs, .hfsplus,
        .lvm, .md, .luks, .efi, .initramfs, .hive, .trees, .systemfiles,
    ]
}

/// What was computed is counted here, so that no pure call is optimised away.
private let sink = Atomic<Int>(0)

/// Uses `value`.
func keep(_ value: some Hashable) { sink.wrappingAdd(value.hashValue & 0xFFFF, ordering: .relaxed) }

/// A promise: traps with `what` when it is broken.
func promise(_ holds: Bool, _ what: @autoclosure () -> String) {
    if !holds { fatalError("Broken promise: \(what())") }
}

extension [UInt8] {
    /// The little-endian number of `T`'s size at `offset`; 0 outside.
    func number<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T {
        guard offset >= 0, offset <= count - T.bitWidth / 8 else { return 0 }
        return self[offset..<offset + T.bitWidth / 8].reversed().reduce(0) { $0 << 8 | T(truncatingIfNeeded: $1) }
    }

    /// Stores `value` little-endian at `offset`; nothing outside.
    mutating func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        guard offset >= 0, offset <= count - T.bitWidth / 8 else { return }
        for index in 0..<T.bitWidth / 8 { self[offset + index] = UInt8(truncatingIfNeeded: value >> T(8 * index)) }
    }
}
