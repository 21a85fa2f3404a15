// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Findings
import MachineModel

/// Why a layer is not looked into.
enum LayerProblem: Error {
    /// A read failed, or the program was asked to stop.
    case fault(Fault)
    /// The member is imaged whole for a reason (a sentence).
    case whole(String)
}

/// A row of the table of layers. A new format is one file and one row.
struct LayerFormat: Sendable {
    /// libblkid's names of its members.
    let kinds: [String]
    /// What to call it, before more is known.
    var name: @Sendable (_ kind: ContentKind) -> String
    /// Reads a member's metadata.
    let recognise: @Sendable (_ source: any BlockSource, _ kind: ContentKind) throws(LayerProblem) -> MemberDescriptor
    /// Whether a member is one of this format.
    let owns: @Sendable (MemberDescriptor.Content) -> Bool
    /// Puts members of this format together.
    let assemble: @Sendable (_ members: [StackMember], _ unlocking: Unlocking) throws(Fault) -> [Stack]

    /// All rows. Where members are missing, those of an earlier row are given up first: later ones usually lie on top.
    static let all = [MDStack.format, LUKSStack.format, LVMStack.format, NamedLayers.format, WindowsLayers.format]
}

/// What a member says of itself.
public struct MemberDescriptor: Sendable {
    /// The format: `LVM2`, `md`, `LUKS2` …
    public let format: String
    /// Name of what it is a member of; empty where it does not say.
    public let name: String
    /// UUID of what it is a member of, as its tools print it.
    public let setUUID: String?
    /// The member's own UUID.
    public let memberUUID: String?
    /// Why it is imaged whole whatever the other members say.
    public let wholeBecause: String?
    let content: Content

    enum Content: Sendable {
        case lvm(LVMPhysicalVolume)
        case md(MDSuperblock)
        case luks(LUKSHeader)
        case named
        case damaged
    }

    init(
        format: String, name: String = "", setUUID: String? = nil, memberUUID: String? = nil, content: Content,
        wholeBecause: String? = nil
    ) {
        self.format = format
        self.name = name
        self.setUUID = setUUID
        self.memberUUID = memberUUID
        self.content = content
        self.wholeBecause = wholeBecause
    }
}
