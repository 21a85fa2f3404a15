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
    /// What an image of the used blocks does not hold though somebody may miss it.
    public var warnings: [Warning]

    /// A warning about a volume of which only used blocks are imaged.
    public struct Warning: Hashable, Sendable {
        /// Stable code, e.g. `volume.snapshots`.
        public var code: String
        /// A sentence.
        public var what: String

        /// A warning.
        public init(code: String, what: String) {
            self.code = code
            self.what = what
        }
    }

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
        self.warnings = []
    }

    /// The same volume, imaged whole for the reason given (a sentence).
    func whole(because reason: String, _ state: VolumeState? = nil) -> VolumeMap {
        var result = self
        result.wholeBecause = reason
        result.damage = nil
        result.warnings = []
        if let state, !result.states.contains(state) { result.states.append(state) }
        return result
    }

    /// The same volume, imaged in full because somebody asked for that.
    public func inFull(length: ByteCount) -> VolumeMap {
        var result = whole(because: wholeBecause ?? "That was asked for with `--whole`.")
        result.used = ExtentList(Extent(from: .zero, to: length))
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
