// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FilesystemResize
import MachineModel
public import RestorePlanning
import Tools

extension Restorer {
    /// What this executor does with filesystems. A plan that asks for more is refused before the first write.
    public static let abilities: PlanAbilities = {
        var grow: [ContentKind: String] = [:]
        var shrink: [ContentKind: String] = [:]
        for tool in FilesystemTools.table {
            for kind in tool.kinds {
                if tool.canGrow { grow[kind] = tool.resizer?.name }
                if tool.canShrink { shrink[kind] = tool.resizer?.name }
            }
        }
        var recreate: [ContentKind: String] = [.swap: "mkswap"]
        for maker in FilesystemMakers.table {
            for kind in maker.kinds { recreate[kind] = maker.maker.name }
        }
        return PlanAbilities(grow: grow, shrink: shrink, recreate: recreate)
    }()
}
