// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

// relight-bench: whole commands of Relight and of its peers on the same data, in interleaved rounds, as ratios.
// README.md in this folder says what is measured and how to read it.

import CLinux
import Findings
import Glibc

relight_line_buffer_output()
relight_catch_interrupts()
do {
    guard let options = try Options.parse(CommandLine.arguments.dropFirst()) else {
        print(Options.usage)
        exit(2)
    }
    let bench = try Bench(options)
    exit(try bench?.run() ?? true ? 0 : 1)
} catch {
    print("relight-bench: \(error)")
    exit(1)
}
