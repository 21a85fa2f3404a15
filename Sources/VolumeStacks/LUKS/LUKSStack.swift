// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import Geometry
import MachineModel

/// LUKS1 and LUKS2. Header and key slots are always used. The payload is whole while the volume is locked; with its
/// passphrase or key file, the filesystem in it tells which of its sectors are in use, and those are imaged as they lie on
/// the disk, encrypted.
enum LUKSStack {
    static let format = LayerFormat(
        kinds: ["crypto_LUKS"], name: { _ in "LUKS" },
        recognise: { (source, _) throws(LayerProblem) in
            let header = try LUKSHeader(source)
            return MemberDescriptor(
                format: "LUKS\(header.version)", name: header.volumeName, setUUID: header.uuid, memberUUID: nil,
                content: .luks(header), wholeBecause: header.wholeBecause)
        },
        owns: { if case .luks = $0 { true } else { false } }, assemble: assemble)

    @Sendable static func assemble(_ members: [StackMember], _ unlocking: Unlocking) throws(Fault) -> [Stack] {
        var result: [Stack] = []
        for member in members {
            guard case .luks(let header) = member.descriptor.content else { continue }
            result.append(try stack(header, member, unlocking))
        }
        return result
    }

    private static func stack(
        _ header: LUKSHeader, _ member: StackMember, _ unlocking: Unlocking
    ) throws(Fault) -> Stack {
        // Asked for in any case: a volume that cannot be looked into was still named rightly.
        let secret = unlocking.secret(for: member.names + [header.uuid, header.volumeName])
        var stack = Stack(whole: [member], because: header.wholeBecause ?? locked)
        if let damage = header.damage {
            stack.notices.append(Stack.Notice(isWarning: true, code: "luks.damaged", what: damage))
        }
        guard header.wholeBecause == nil, let secret else { return stack }
        let key: VolumeKey
        if let known = unlocking.key(header.digest) {
            key = known
        } else {
            key = try LUKSKey.find(header, of: member.source, name: member.name, secret: secret)
            unlocking.keep(key, header.digest)
        }
        let payload = header.payload
        let sector = header.sectorSize.count
        let source = LUKSPayload(header, key, of: member.source)
        stack.members = [Stack.Member(member, except: ExtentList(payload))]
        stack.volumes = [
            StackVolume(
                name: header.volumeName, uuid: header.uuid, layout: "crypt", source: source,
                push: { used in
                    let sectors = used.widened(to: sector, limit: payload.length)
                    return [member.id: sectors.shifted(by: payload.start) ?? ExtentList(payload)]
                })
        ]
        stack.notices.append(
            Stack.Notice(
                isWarning: false, code: "luks.pattern-visible",
                what:
                    "Only the encrypted sectors that are in use are imaged. Whoever has the image, but not the passphrase, "
                    + "sees which parts of the encrypted volume are in use, and the names and sizes of what lies in it."
            ))
        return stack
    }

    private static let locked =
        "It is encrypted and locked; which blocks are in use cannot be seen. With `--unlock VOLUME=FILE` (its passphrase or "
        + "key file) only those in use are imaged, still encrypted."
}

extension LUKSHeader {
    /// `luks-UUID`, as udisks and systemd call it.
    var volumeName: String { "luks-\(uuid)" }
}

/// The payload of a LUKS volume, decrypted as it is read. For reading metadata: nothing that is read through it is stored.
private final class LUKSPayload: BlockSource {
    let name: String
    let sectorSize: SectorSize
    let length: ByteCount
    private let base: any BlockSource
    private let start: ByteCount
    private let grain: Int
    private let firstTweak: UInt64
    private let key: VolumeKey

    init(_ header: LUKSHeader, _ key: VolumeKey, of base: any BlockSource) {
        name = header.volumeName
        sectorSize = header.sectorSize.bytes > base.sectorSize.bytes ? header.sectorSize : base.sectorSize
        length = header.payload.length
        start = header.payload.start
        grain = Int(header.sectorSize.bytes)
        firstTweak = header.firstTweak
        self.base = base
        self.key = key
    }

    var file: FileWindow? { nil }

    func read(at offset: ByteCount, into buffer: inout MutableRawSpan) throws(Fault) {
        try requireInside(buffer.byteCount, at: offset)
        let size = ByteCount(UInt64(grain))
        var done = 0
        while done < buffer.byteCount {
            let position = offset + ByteCount(UInt64(done))
            let first = position.roundedDown(to: size)
            let skip = (position - first).int ?? 0
            let wanted = min(buffer.byteCount - done, (1 << 20) - skip)
            let count = (skip + wanted + grain - 1) / grain * grain
            var sectors = try base.bytes(at: start + first, count: count)
            defer { wipe(&sectors) }
            let tweak = firstTweak &+ first.bytes / 512
            let decrypted = unsafe sectors.withUnsafeMutableBytes { pointer in
                unsafe key.decrypt(pointer, size: grain, first: tweak)
            }
            guard decrypted else {
                throw Fault(
                    .system, what: "OpenSSL's AES-XTS does not work.", place: name,
                    remedy: "This program is built wrong: please report it.")
            }
            unsafe buffer.withUnsafeMutableBytes { target in
                unsafe sectors.withUnsafeBytes { from in
                    unsafe UnsafeMutableRawBufferPointer(rebasing: target[done..<done + wanted])
                        .copyMemory(from: UnsafeRawBufferPointer(rebasing: from[skip..<skip + wanted]))
                }
            }
            done += wanted
        }
    }
}
