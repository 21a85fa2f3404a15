// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Geometry
public import MachineModel

/// What lies in a volume and which of its bytes are in use.
public struct VolumeMap: Hashable, Sendable {
    /// What libblkid found.
    public var identity: Identity
    /// Bytes in use, from the volume's start, within the volume.
    public var used: ExtentList
    /// The filesystem's own size; `nil` when unknown.
    public var filesystemSize: ByteCount?
    /// Block, cluster or page size; `nil` when unknown.
    public var blockSize: ByteCount?
    /// Smallest size it could shrink to; `nil` when it cannot shrink or nobody knows.
    public var minimum: ByteCount?
    /// How the smallest size is known: `estimated` or `measured`.
    public var minimumIs: String?
    /// States by name.
    public var states: [VolumeState]
    /// Why every byte counts as used; `nil` when only used blocks do.
    public var wholeBecause: String?
    /// What is damaged although only used blocks are imaged, since a second copy of it is sound (a sentence).
    public var damage: String?

    /// A map in which all `length` bytes are used.
    public init(identity: Identity, whole length: ByteCount) {
        self.identity = identity
        self.used = ExtentList(Extent(from: .zero, to: length))
        self.filesystemSize = identity.filesystemSize
        self.blockSize = identity.blockSize
        self.minimum = nil
        self.minimumIs = nil
        self.states = []
        self.wholeBecause = nil
        self.damage = nil
    }

    /// The same volume, imaged whole for the reason given (a sentence).
    func whole(because reason: String, _ state: VolumeState? = nil) -> VolumeMap {
        var result = self
        result.wholeBecause = reason
        result.damage = nil
        if let state, !result.states.contains(state) { result.states.append(state) }
        return result
    }

    /// The volume as the machine model tells it.
    public func model(number: Int, extent: Extent) -> VolumeModel {
        VolumeModel(
            number: number, extent: extent, kind: identity.kind, label: identity.label, uuid: identity.uuid,
            filesystemSize: filesystemSize, blockSize: blockSize, used: used.byteCount, minimum: minimum,
            minimumIs: minimumIs, states: states, wholeBecause: wholeBecause)
    }
}
