// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Glibc
import TestSupport
import Testing

/// Random steps against a model: whatever happens to a set in whatever order, each point restores to what was backed up
/// or says that it cannot, and only what damage explains is lost.
///
/// `RELIGHT_MODEL_STEPS` gives the number of steps (600; 2,000 with `RELIGHT_TESTS=full`), `RELIGHT_MODEL_SEED` the seed, which
/// is random otherwise and printed. A seed gives the same steps again; ids and nonces are random all the same, so an
/// order that follows from names may differ.
@Suite struct ModelTests {
    static func number(_ name: String) -> UInt64? { unsafe getenv(name).flatMap { unsafe UInt64(String(cString: $0)) } }

    private static var steps: Int { Int(number("RELIGHT_MODEL_STEPS") ?? (Thoroughness.isFull ? 2_000 : 600)) }

    /// Worlds of sixty steps, each with sets of another make.
    static func run(steps: Int, makePlace: () -> any ModelPlace) throws {
        var system = SystemRandomNumberGenerator()
        let seed = number("RELIGHT_MODEL_SEED") ?? UInt64.random(in: 0...999_999_999, using: &system)
        print("Model test: RELIGHT_MODEL_SEED=\(seed), \(steps) steps.")
        var seeds = Seeded(seed)
        var done = 0
        var counts: [String: Int] = [:]
        while done < steps {
            let world = ModelWorld(seeds.next(), "seed \(seed), world \(done / 60 + 1)", makePlace: makePlace)
            for _ in 0..<min(60, steps - done) {
                try world.run()
                done += 1
            }
            for set in world.sets { try set.check(nil, verify: true, "seed \(seed), end of world \(done / 60)") }
            counts.merge(world.counts, uniquingKeysWith: +)
        }
        print(
            "Model test: " + counts.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", "))
        #expect(ModelWorld.verbs.allSatisfy { steps < 200 || counts[$0.name, default: 0] > 0 })
    }

    @Test func randomStepsInMemory() throws {
        try Self.run(steps: Self.steps) { MemoryPlace() }
    }

    @Test func randomStepsInAFolder() throws {
        try Self.run(steps: Self.steps / 8) { FolderPlace() }
    }
}
