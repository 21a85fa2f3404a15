// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// Every scenario, in the order they run. A new one is added to its file's list; a new file's list is added here.
let allScenarios: [Scenario] =
    bootMatrix + mainJobScenarios + jobScenarios + memoryScenarios + environmentScenarios + powerCutScenarios
    + mediumScenarios + layerScenarios + sourceScenarios + firmwareScenarios
