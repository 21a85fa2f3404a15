// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Which recovery point a plan is for, in words: what tells it from the others of its set.
public struct PointLabel: Hashable, Sendable, Codable {
    /// The name given by the user; may be empty.
    public var name: String
    /// When it was made, `2026-11-21 03:04:05`, UTC.
    public var made: String
    /// The machine it was made on, in words; `nil` when nobody knows.
    public var machine: String?

    /// A label.
    public init(name: String, made: String, machine: String?) {
        self.name = name
        self.made = made
        self.machine = machine
    }

    /// `1a67482d3f "web01", made 2026-11-21 03:04:05 UTC on ACME PC, serial X`, for the point `id`.
    public func text(_ id: String) -> String {
        let text =
            "\(id.prefix(10))\(name.isEmpty ? "" : " \"\(name)\""), made \(made) UTC"
            + (machine.map { " on \($0)" } ?? "")
        // One line, whatever somebody called it.
        return String(text.map { $0.isNewline ? "?" : $0 })
    }
}
