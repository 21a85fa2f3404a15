// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// One thing that is measured: a table of its own.
enum Job: Hashable {
    case backup(Input)
    case encrypted
    case incremental
    case restore(Input)
    case verify
    case backupReadBack
    case restoreReadBack

    /// All of them, in the order of the tables.
    static let all: [Job] = [
        .backup(.ext4), .backup(.xfs), .backup(.ntfs), .encrypted, .incremental, .restore(.ext4), .restore(.xfs),
        .restore(.ntfs), .verify, .backup(.incompressible), .backup(.zeros), .backup(.tiny), .restore(.incompressible),
        .restore(.zeros), .restore(.tiny), .backupReadBack, .restoreReadBack,
    ]

    var title: String {
        switch self {
        case .backup(let input): "Backup, \(input.title)"
        case .encrypted: "Backup, encrypted (ext4)"
        case .incremental: "Incremental (ext4, changed version after the base)"
        case .restore(let input): "Restore, \(input.title)"
        case .verify: "Verify all data (ext4, base)"
        case .backupReadBack: "Backup with read-back (ext4; outside the goals)"
        case .restoreReadBack: "Restore with read-back (ext4; outside the goals)"
        }
    }

    /// What is aimed at.
    var goals: [Goal] {
        switch self {
        case .backup(.ext4):
            [Goal(.wall, 0.50, .best), Goal(.wall, 1.00, .partclone), Goal(.output, 0.95, .partclone)]
        case .backup(.xfs): [Goal(.wall, 0.50, .best), Goal(.wall, 1.00, .partclone)]
        case .backup(.ntfs): [Goal(.wall, 0.65, .best), Goal(.wall, 1.00, .partclone)]
        case .backup, .restore(.incompressible), .restore(.zeros), .restore(.tiny): [Goal(.wall, 1.00, .partclone)]
        case .encrypted: [Goal(.wall, 0.30, .named("restic"))]
        case .incremental: [Goal(.wall, 0.40, .best), Goal(.output, 0.80, .named("restic"))]
        case .restore: [Goal(.wall, 0.50, .best), Goal(.wall, 1.00, .partclone)]
        case .verify: [Goal(.wall, 0.45, .best)]
        case .backupReadBack, .restoreReadBack: []
        }
    }
}

extension Input {
    var title: String {
        switch self {
        case .ext4: "ext4"
        case .xfs: "XFS"
        case .ntfs: "NTFS"
        case .changed: "ext4, changed"
        case .incompressible: "incompressible (ext4)"
        case .zeros: "all zero (ext4)"
        case .tiny: "tiny files (ext4)"
        }
    }
}

/// An upper bound of a ratio of Relight to a peer.
struct Goal {
    enum Measure { case wall, output }
    enum Against: Equatable { case best, partclone, named(String) }

    let measure: Measure
    let limit: Double
    let against: Against

    init(_ measure: Measure, _ limit: Double, _ against: Against) {
        (self.measure, self.limit, self.against) = (measure, limit, against)
    }
}

/// What a program is called in the tables.
enum Name {
    static let relight = "Relight"
    static let partclone = "partclone | zstd -1"
}
