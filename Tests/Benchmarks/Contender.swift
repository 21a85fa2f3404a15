// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// A program's way through the jobs of one input.
struct Contender {
    let input: Input
    let name: String
    /// Programs that must be installed.
    var tools: [String] = []
    /// Why it is not run at all.
    var unavailable: String?
    var steps: [Step] = []

    var isRelight: Bool { name == Name.relight }
    /// What `--only` is compared with.
    var title: String { "\(input.rawValue): \(name)" }
}

/// A command of a contender, run once in each round.
struct Step {
    /// The tables it counts in; none for what only prepares or checks.
    var jobs: [Job] = []
    /// Run before, unmeasured.
    var before = ""
    /// The measured command.
    var command: String
    /// Run afterwards, unmeasured, also after a failure.
    var after = ""
    /// Images brought into the page cache before.
    var warm: [Input] = []
    /// The file or folder whose bytes are the output; what was there before does not count.
    var output: String?
    /// An image file that must hold the contents of this input afterwards.
    var restored: (image: String, input: Input)?
    /// Only in the first round.
    var isOnce = false
}

/// Where contenders write.
struct Places {
    /// Folder of the inputs; the same filesystem as ``work``.
    let inputs: String
    /// Small files: logs, caches, links.
    let work: String
    /// Sets and restored images, in RAM where there is room.
    let out: String
    /// Number of processors.
    let processors: Int
    /// Size of each input's image file, in bytes.
    let lengths: [Input: UInt64]

    func image(_ input: Input) -> String { "\(inputs)/\(input.rawValue).img" }
    /// A backup: a file or a folder.
    var set: String { "\(out)/set" }
    /// A restored image.
    var restored: String { "\(out)/restored.img" }
    /// A folder that programs restore files into.
    var folder: String { "\(out)/restored" }
    /// The folder whose one file, `disk.img`, file backup programs are given: base and changed version by the same name.
    var current: String { "\(work)/current" }

    /// Makes an empty, sparse target of the size of `input`.
    func target(_ input: Input) -> String {
        "rm -f '\(restored)' && truncate -s \(lengths[input] ?? 0) '\(restored)'"
    }
    /// Gives `input` the name that file backup programs see.
    func name(_ input: Input) -> String {
        "mkdir -p '\(current)' && ln -f '\(image(input))' '\(current)/disk.img'"
    }
    /// Removes everything a contender left.
    var clear: String { "rm -rf '\(set)' '\(set)'.* '\(restored)' '\(folder)' '\(current)' '\(work)'/cache-*" }
}
