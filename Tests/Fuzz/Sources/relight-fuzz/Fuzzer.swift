// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later
//
// The entry points libFuzzer calls. The target is named by RELIGHT_FUZZ_TARGET; with RELIGHT_FUZZ_SEEDS set, the seeds are
// made anew instead.

import FuzzTargets
import Glibc

/// libFuzzer's own mutation: changes `size` bytes in place, to at most `longest`; returns the new size.
@_silgen_name("LLVMFuzzerMutate")
private func libFuzzerMutate(_ bytes: UnsafeMutablePointer<UInt8>, _ size: Int, _ longest: Int) -> Int

private let chosen: FuzzTarget = {
    let name = unsafe getenv("RELIGHT_FUZZ_TARGET").map { unsafe String(cString: $0) } ?? ""
    guard let target = FuzzTarget.all.first(where: { $0.name == name }) else {
        print("RELIGHT_FUZZ_TARGET must be one of: " + FuzzTarget.all.map(\.name).joined(separator: " "))
        exit(2)
    }
    return target
}()

/// Called once before anything else.
@_cdecl("LLVMFuzzerInitialize")
public func initialize(
    _ count: UnsafeMutablePointer<CInt>,
    _ words: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>
) -> CInt {
    guard unsafe getenv("RELIGHT_FUZZ_SEEDS") != nil else { return 0 }
    do {
        try SeedFolder.generate()
        exit(0)
    } catch {
        print("The seeds cannot be made: \(error)")
        exit(1)
    }
}

/// One input.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ bytes: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    unsafe chosen.run(Array(UnsafeBufferPointer(start: bytes, count: size)))
    return 0
}

/// libFuzzer's mutation, then one of ours, then the checksums made right in seven of eight cases.
@_cdecl("LLVMFuzzerCustomMutator")
public func mutate(_ bytes: UnsafeMutablePointer<UInt8>, _ size: Int, _ longest: Int, _ seed: CUnsignedInt) -> Int {
    var random = Mutations(seed: UInt64(seed))
    let longest = min(longest, max(size, chosen.longest))
    var input: [UInt8]
    if random.next() % 4 == 0 {
        unsafe input = Array(UnsafeBufferPointer(start: bytes, count: size))
        if chosen.isText { random.changeNumber(&input) } else { random.changeField(&input) }
    } else {
        let changed = unsafe libFuzzerMutate(bytes, size, longest)
        unsafe input = Array(UnsafeBufferPointer(start: bytes, count: changed))
    }
    if random.next() % 8 != 0 { chosen.mend(&input) }
    let count = min(input.count, longest)
    for index in 0..<count { unsafe bytes[index] = input[index] }
    return count
}
