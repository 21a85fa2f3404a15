// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import CLinux
import Commands

// Links the constructor that mounts /proc before the Swift runtime looks for it.
precondition(relight_early_anchor == 1)
relight_line_buffer_output()
relight_catch_interrupts()
relight_allow_many_files()
Relight.begin(CommandLine.arguments)
