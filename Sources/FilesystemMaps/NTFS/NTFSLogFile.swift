// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import BinaryFields
import MachineModel

/// What the restart pages of $LogFile say. Linux-NTFS documentation, "$LogFile": two pages, written in turn, tell
/// whether Windows took leave of the volume.
enum NTFSLogFile {
    /// What a log without anything to replay tells.
    enum Verdict {
        /// Windows took leave of the volume: its bitmap is the whole truth.
        case closed
        /// Another system's driver emptied the log. Such drivers write without one, and without the dirty flag: a
        /// volume they were cut off from looks like this too, and its bitmap may be older than its files.
        case emptied
    }

    /// Throws where the log has something to replay, or is damaged.
    static func requireClean(_ volume: NTFSVolume) throws(MapProblem) -> Verdict {
        let log = try volume.data(.logFile)
        let name = "the first restart page of $LogFile"
        // The first page tells how large both are.
        let head = Fields(name, try volume.read(log, at: 0, count: 512))
        if head.bytes.allSatisfy({ $0 == 0xFF }) {
            // Drivers of other systems empty a clean log like this; Windows then begins it anew.
            let rest = try volume.read(log, at: 0, count: Int(min(log.size, 1 << 17)))
            guard rest.allSatisfy({ $0 == 0xFF }) else { throw .damaged("Only the start of $LogFile is empty.") }
            return .emptied
        }
        guard head.matches("RSTR", at: 0) else { throw .damaged("\(name.capitalizedFirst) is not one.") }
        let size = try head.little(UInt32.self, "system_page_size", at: 16)
        guard size >= 512, size <= 65_536, size & (size - 1) == 0 else {
            throw .damaged("\(name.capitalizedFirst) claims to have \(size) bytes.")
        }
        let first = try page(Fields(name, try volume.read(log, at: 0, count: Int(size))))
        let second = try page(
            Fields("the second restart page of $LogFile", try volume.read(log, at: UInt64(size), count: Int(size))))
        // The other one is the state before; it counts too where it is not known to be older.
        try requireClean(first.sequence >= second.sequence ? first : second)
        if first.sequence == second.sequence { try requireClean(second) }
        return .closed
    }

    /// What a restart page says.
    private struct RestartPage {
        /// The log's sequence number when it was written: the larger is the later.
        var sequence: UInt64
        var major: Int16
        var minor: Int16
        /// Whether somebody has the log open.
        var isInUse: Bool
        /// RESTART_VOLUME_IS_CLEAN.
        var isClean: Bool
    }

    private static func page(_ raw: Fields) throws(MapProblem) -> RestartPage {
        guard raw.matches("RSTR", at: 0) else { throw .damaged("\(raw.name.capitalizedFirst) is not one.") }
        let fields = try NTFSFixup.applied(to: raw)
        let area = Int(try fields.little(UInt16.self, "restart_area_offset", at: 24))
        return RestartPage(
            sequence: try fields.little(UInt64.self, "current_lsn", at: area),
            major: try fields.little(Int16.self, "major_ver", at: 28),
            minor: try fields.little(Int16.self, "minor_ver", at: 26),
            isInUse: try fields.little(UInt16.self, "client_in_use_list", at: area + 12) != 0xFFFF,
            isClean: try fields.little(UInt16.self, "flags", at: area + 14) & 2 != 0)
    }

    private static func requireClean(_ page: RestartPage) throws(MapProblem) {
        guard page.major != 2 else {
            // Windows 8 and later go back to version 1.1 when they let go of a volume.
            throw .whole(
                "Windows still holds part of its metadata in memory: it was shut down with fast startup, hibernated, "
                    + "or stopped without notice, or the disk was pulled from it. Shut it down fully (`shutdown /s /t 0`), "
                    + "or, for a disk of another machine, attach it there and eject it, to image used clusters only.",
                .journalToReplay)
        }
        guard page.major == 1, (0...1).contains(page.minor) else {
            throw .whole(
                "Its log has version \(page.major).\(page.minor), which is unknown here.", .unknownFeatures)
        }
        guard page.isClean || !page.isInUse else {
            throw .whole(
                "It was not cleanly unmounted: its log waits to be replayed, and until then its bitmap does not tell "
                    + "what is in use.", .journalToReplay)
        }
    }
}
