// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import RestorePlanning

extension Restorer {
    /// What this executor does with filesystems. A plan that asks for more is refused before the first write.
    public static let abilities = PlanAbilities.growingExt
}
