// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings

/// What the figures were measured on and with.
struct Machine {
    var processor: String
    var processors: Int
    var memory: String
    var kernel: String
    var versions: [String]
    /// Bytes: what a command that does nothing is charged as its peak size.
    var floor: UInt64

    init(_ shell: Shell, relight: String) throws(Fault) {
        processor = try shell.run("sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1").trimmed
        processors = Int(try shell.run("nproc").trimmed) ?? 1
        memory = try shell.run("awk '/^MemTotal/{printf \"%.1f GiB\", $2/1048576}' /proc/meminfo").trimmed
        kernel = try shell.run("uname -r").trimmed
        let packages = "partclone zstd e2fsprogs ntfs-3g fsarchiver restic borgbackup qemu-utils"
        versions =
            try shell.run("dpkg-query -W -f='${Package} ${Version}\\n' \(packages) 2>/dev/null; true").split(
                separator: "\n"
            ).map(String.init)
        versions.insert("relight " + (try shell.run("'\(relight)' --version").trimmed), at: 0)
        floor = try shell.measure("true").peak
    }

    /// The load of the last minute: how many threads wanted a processor.
    static func load(_ shell: Shell) throws(Fault) -> Double {
        Double(try shell.run("cut -d ' ' -f 1 /proc/loadavg").trimmed) ?? 0
    }

    var lines: [String] {
        [
            "\(processors) processors (\(processor)), \(memory) of memory, Linux \(kernel).",
            versions.joined(separator: ", ") + ".",
        ]
    }
}
