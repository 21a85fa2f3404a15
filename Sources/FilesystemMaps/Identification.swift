// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Blocks
import CBlkid
public import Findings
import Geometry
import Glibc
import MachineModel
import Synchronization

/// Says what lies in a volume, by libblkid.
public enum Identification {
    /// What lies in `volume`. Nothing recognised is a result, not an error.
    ///
    /// Throws `source.unreadable` or `system` where libblkid could not look.
    public static func identify(_ volume: any BlockSource) throws(Fault) -> Identity {
        guard volume.length > .zero else { return Identity(kind: .empty) }
        var identity: Identity
        if let window = volume.file {
            do throws(Fault) {
                identity = try probe(window.descriptor, from: window.offset, length: volume.length, volume)
            } catch {
                // One bad sector at the volume's end, where only other contents would have something, must not hide what
                // lies at its start; but where the start itself cannot be read, nothing is known.
                guard error.code == .unreadable, try isReadable(volume) else { throw error }
                identity = try sketched(volume)
            }
        } else {
            identity = try sketched(volume)
        }
        if identity.kind == .unknown, identity.ambivalent.isEmpty {
            for reader in FilesystemReader.all {
                if let found = try reader.recognise(volume) { return found }
            }
            if try startIsZero(volume) { identity.kind = .empty }
        }
        return identity
    }

    /// What a copy of the places where superblocks lie shows; places that cannot be read are zero in it.
    private static func sketched(_ volume: any BlockSource) throws(Fault) -> Identity {
        let sketch = try Sketch(of: volume)
        return try probe(sketch.descriptor, from: .zero, length: volume.length, volume)
    }

    /// Whether the first 68 KiB, where nearly all superblocks lie, can be read.
    private static func isReadable(_ volume: any BlockSource) throws(Fault) -> Bool {
        do throws(Fault) {
            _ = try volume.bytes(at: .zero, count: min(volume.length.int ?? 69_632, 69_632))
            return true
        } catch {
            guard error.code == .unreadable else { throw error }
            return false
        }
    }

    /// libblkid seeks in the descriptor it is given, so two probes of one disk must not meet.
    private static let turn = Mutex<Void>(())

    private static func probe(
        _ descriptor: Int32, from offset: ByteCount, length: ByteCount, _ volume: any BlockSource
    ) throws(Fault) -> Identity {
        let result: Result<Identity, Fault> = turn.withLock { _ in
            guard let start = Int64(exactly: offset.bytes), let size = Int64(exactly: length.bytes),
                let probe = unsafe blkid_new_probe()
            else { return .failure(cannotLook(volume)) }
            defer { unsafe blkid_free_probe(probe) }
            errno = 0
            guard unsafe blkid_probe_set_device(probe, descriptor, start, size) == 0 else {
                return .failure(cannotLook(volume))
            }
            unsafe blkid_probe_set_sectorsize(probe, volume.sectorSize.bytes)
            unsafe blkid_probe_enable_superblocks(probe, 1)
            unsafe blkid_probe_set_superblocks_flags(
                probe,
                BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_VERSION
                    | BLKID_SUBLKS_BADCSUM)
            switch unsafe blkid_do_safeprobe(probe) {
            case 0: return .success(unsafe identity(probe))
            case 1: return .success(Identity(kind: .unknown))
            case -2:
                unsafe blkid_reset_probe(probe)
                var names: [String] = []
                while names.count < 16, unsafe blkid_do_probe(probe) == 0 {
                    if let name = unsafe value(probe, "TYPE"), !names.contains(name) { names.append(name) }
                }
                return .success(Identity(kind: .unknown, ambivalent: names))
            default: return .failure(cannotLook(volume))
            }
        }
        return try result.get()
    }

    private static func cannotLook(_ volume: any BlockSource) -> Fault {
        Fault(
            .unreadable, what: "Its superblocks cannot be read\(errno == 0 ? "" : ": " + errorText(errno)).",
            place: volume.name,
            remedy: "The disk may be failing: image it now with `--on-read-error skip`, then replace it.")
    }

    private static func identity(_ probe: blkid_probe) -> Identity {
        let kind = unsafe value(probe, "TYPE").map { ContentKind(rawValue: $0) } ?? .unknown
        let usage: Identity.Usage =
            switch unsafe value(probe, "USAGE") {
            case "filesystem": .filesystem
            case "raid": .container
            case "crypto": .encrypted
            default: .other
            }
        func count(_ name: String) -> ByteCount? {
            unsafe value(probe, name).flatMap { UInt64($0) }.flatMap { $0 > 0 ? ByteCount($0) : nil }
        }
        return unsafe Identity(
            kind: kind, usage: usage, label: value(probe, "LABEL"), uuid: value(probe, "UUID"),
            version: value(probe, "VERSION"), blockSize: count("BLOCK_SIZE"), filesystemSize: count("FSSIZE"),
            badChecksum: value(probe, "SBBADCSUM") != nil)
    }

    private static func value(_ probe: blkid_probe, _ name: String) -> String? {
        var data: UnsafePointer<CChar>?
        var length = 0
        guard unsafe blkid_probe_lookup_value(probe, name, &data, &length) == 0, let data = unsafe data else {
            return nil
        }
        let bytes = unsafe Array(UnsafeRawBufferPointer(start: data, count: length)).prefix { $0 != 0 }
        return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
    }

    private static func startIsZero(_ volume: any BlockSource) throws(Fault) -> Bool {
        let count = min(volume.length.int ?? 1 << 20, 1 << 20)
        return try volume.bytes(at: .zero, count: count).allSatisfy { $0 == 0 }
    }
}
