// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import ArgumentParser
import CLinux

relight_line_buffer_output()
relight_catch_interrupts()
RelightVM.main()
