// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// Reads cpio archives in the "new ASCII" format piece by piece, as the kernel does (kernel documentation,
/// `driver-api/early-userspace/buffer-format.rst`). Keeps the contents of files that are wanted; memory is bounded.
struct CpioReader {
    /// One entry.
    struct Entry: Hashable {
        /// Its path without a leading `/` or `./`.
        var path: String
        /// Type and permissions, as in stat(2).
        var mode: UInt32
        /// Bytes.
        var size: UInt32
    }

    private enum State {
        /// A header is next, or zeros between archives.
        case header
        /// Padding up to a multiple of four, then what follows.
        case name(Entry, length: Int)
        /// What is left of an entry's content.
        case content(left: Int, padding: Int, keeping: Bool)
    }

    /// Longest name that is taken; the kernel's own limit.
    static let longestName = 4096
    /// Largest file that is kept, and all of them together.
    static let largestKept = 4 << 20
    static let largestSum = 64 << 20
    /// At most this many entries.
    static let mostEntries = 1 << 20

    private var state = State.header
    /// What was given and not yet read; short.
    private var pending: [UInt8] = []
    private var kept: [UInt8] = []
    private var keptSum = 0
    private let wants: (Entry) -> Bool
    private let found: (Entry, [UInt8]?) -> Void
    private var count = 0
    /// Whether the last archive has been read to its trailer.
    private(set) var isComplete = true
    private var current: Entry?
    private var keepsCurrent = false

    /// A reader that gives each entry to `found`, with its content when it is a file or link that `wants` asked for.
    init(wants: @escaping (Entry) -> Bool, found: @escaping (Entry, [UInt8]?) -> Void) {
        self.wants = wants
        self.found = found
    }

    /// Whether reading stops behind an archive's trailer.
    var stopsAtTrailer = false

    /// Reads more. Returns how many bytes it took, all of them unless it stopped at a trailer; `nil` when this can be no
    /// archive.
    mutating func feed(_ bytes: UnsafeBufferPointer<UInt8>) -> Int? {
        var at = 0
        while at < bytes.count {
            switch state {
            case .content(let left, let padding, let keeping):
                if left > 0 {
                    let some = min(left, bytes.count - at)
                    if keeping { unsafe kept += bytes[at..<at + some] }
                    at += some
                    state = .content(left: left - some, padding: padding, keeping: keeping)
                    if left > some { continue }
                }
                guard case .content(0, let padding, _) = state else { continue }
                if padding > 0 {
                    let some = min(padding, bytes.count - at)
                    at += some
                    state = .content(left: 0, padding: padding - some, keeping: false)
                    if padding > some { continue }
                }
                endContent()
            case .header, .name:
                unsafe pending.append(bytes[at])
                at += 1
                if !step() { return nil }
                if isComplete, stopsAtTrailer, pending.isEmpty, count > 0 { return at }
            }
        }
        return at
    }

    /// Looks at what is pending.
    private mutating func step() -> Bool {
        switch state {
        case .header:
            if isComplete, pending == [0] {
                // Between archives.
                pending = []
                return true
            }
            guard pending.count == 110 else { return true }
            let head = pending
            pending = []
            guard head[..<6].elementsEqual("070701".utf8) || head[..<6].elementsEqual("070702".utf8),
                let mode = Self.number(head, 1), let size = Self.number(head, 6), let length = Self.number(head, 11),
                (1...UInt32(Self.longestName)).contains(length)
            else { return false }
            isComplete = false
            count += 1
            guard count <= Self.mostEntries else { return false }
            state = .name(Entry(path: "", mode: mode, size: size), length: Int(length))
        case .name(var entry, let length):
            // Header and name together are padded.
            let padded = (110 + length + 3) / 4 * 4 - 110
            guard pending.count == padded else { return true }
            guard pending[length - 1] == 0 else { return false }
            var name = pending[..<(length - 1)]
            pending = []
            while name.starts(with: "./".utf8) { name = name.dropFirst(2) }
            while name.first == UInt8(ascii: "/") { name = name.dropFirst() }
            entry.path = String(decoding: name, as: UTF8.self)
            if entry.path == "TRAILER!!!", entry.size == 0 {
                isComplete = true
                state = .header
                return true
            }
            let keeping =
                Int(entry.size) <= Self.largestKept && keptSum + Int(entry.size) <= Self.largestSum && wants(entry)
            current = entry
            kept = []
            state = .content(
                left: Int(entry.size), padding: (4 - Int(entry.size % 4)) % 4, keeping: keeping)
            keepsCurrent = keeping
            if entry.size == 0 { endContent() }
        case .content: break
        }
        return true
    }

    private mutating func endContent() {
        if let current {
            keptSum += kept.count
            found(current, keepsCurrent ? kept : nil)
        }
        current = nil
        kept = []
        state = .header
    }

    private static func number(_ head: [UInt8], _ field: Int) -> UInt32? {
        let digits = head[6 + field * 8..<14 + field * 8]
        guard digits.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }) else { return nil }
        return UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
    }
}
