// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # VolumeStacks
///
/// Layers between partitions and filesystems: volume groups, arrays, encrypted volumes. A layer is a mapping of extents:
/// it takes members (volumes of one or several disks) and yields volumes, and what is in use of those volumes says, pushed
/// down through the mapping, what is in use of the members. So a physical volume of LVM is imaged by the used blocks of the
/// filesystems in its logical volumes, and still restored byte for byte where it matters.
///
/// One file for each format, one row in ``LayerFormat/all``. Formats that are only recognised are named, and imaged whole.
///
/// The rule of the room: bytes of a member that cannot be proved to belong to a mapped volume are always used. Headers,
/// metadata areas, bitmaps, logs, and the extents of what is not mapped (thin pools, snapshots, caches, RAID with parity)
/// are; extents that the metadata call free are not. Metadata that contradict themselves make their members whole.
/// Copies (mirrors) are read together wherever something is read, and when they differ that is noticed
/// (``StackVolume/copiesDiffer``): a used map is right for both only if both say the same.
///
/// Nothing is activated, nothing is written, no kernel driver is needed. An encrypted volume is looked into only with a
/// passphrase or key file; what is decrypted is metadata, in memory, and only the ciphertext is ever stored.
///
/// What the room does not promise: it checks metadata as far as it relies on them, not as their tools do.
public import Blocks
public import Findings
public import MachineModel
import Threads

/// Layers of volumes.
public enum VolumeStacks {
    /// What `source` is a member of, where libblkid says that it holds `kind`; `nil` where that is no layer. A member whose
    /// metadata are damaged is a result too: one that is imaged whole. Throws `interrupted` only.
    public static func recognise(_ source: any BlockSource, kind: ContentKind) throws(Fault) -> MemberDescriptor? {
        guard let format = LayerFormat.all.first(where: { $0.kinds.contains(kind.rawValue) }) else { return nil }
        try Interruption.check()
        do throws(LayerProblem) {
            return try format.recognise(source, kind)
        } catch {
            let reason: String
            switch error {
            case .fault(let fault):
                if fault.code == .interrupted { throw fault }
                reason = "Its metadata cannot be read: \(fault.what)"
            case .whole(let text): reason = text
            }
            return MemberDescriptor(format: format.name(kind), content: .damaged, wholeBecause: reason)
        }
    }

    /// Puts together what `members` are members of. Each of them is in exactly one of the stacks returned; one that cannot
    /// be put together yields no volumes and makes its members whole.
    ///
    /// Throws `interrupted`, and what unlocking throws: `key.wrong`, `tool.missing`.
    public static func assemble(_ members: [StackMember], unlocking: Unlocking = .none) throws(Fault) -> [Stack] {
        var result: [Stack] = []
        for format in LayerFormat.all {
            let own = members.filter { format.owns($0.descriptor.content) }
            if !own.isEmpty { result += try format.assemble(own, unlocking) }
        }
        let known = Set(result.flatMap { $0.members.map(\.id) })
        for member in members where !known.contains(member.id) {
            result.append(
                Stack(whole: [member], because: member.descriptor.wholeBecause ?? "Its metadata are damaged."))
        }
        return result
    }
}
