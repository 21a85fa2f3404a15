// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import Geometry
import Glibc

/// An image that is backed up.
enum Input: String, CaseIterable {
    /// The tree in ext4, NTFS and XFS.
    case ext4, ntfs, xfs
    /// The ext4 of before with a part of its files changed.
    case changed
    /// ext4 full of what no compressor shrinks.
    case incompressible
    /// ext4 with one large file of zeros, all of it allocated.
    case zeros
    /// ext4 with very many very small files.
    case tiny

    var filesystem: Filesystem {
        switch self {
        case .ntfs: .ntfs
        case .xfs: .xfs
        default: .ext4
        }
    }
}

/// Makes the inputs, once for each folder and size, and knows what is in them.
struct Inputs {
    let shell: Shell
    let options: Options
    let mounts: Mounts
    /// Where they lie.
    let folder: String

    /// Grows when inputs are made differently, so that old ones are not used any more.
    private static let version = 1

    func path(_ input: Input) -> String { "\(folder)/\(input.rawValue).img" }

    /// The size of the image file of `input`, in bytes.
    func length(_ input: Input) throws(Fault) -> UInt64 {
        UInt64(try shell.run("stat -c %s '\(path(input))'").trimmed) ?? 0
    }

    private var mark: String {
        "\(folder)/made-\(Inputs.version)-\(options.size)-\(nameHash(options.source))"
    }

    /// Whether they are there.
    var areMade: Bool { unsafe access(mark, R_OK) == 0 }

    /// Makes them all.
    func make() throws(Fault) {
        print("Making inputs of \(ByteCount(options.size)) in \(folder) …")
        try shell.run(
            "mountpoint -q '\(mounts.point)' && umount '\(mounts.point)'; rm -rf '\(folder)' && mkdir -p '\(folder)'")
        let tree = InputTree(shell: shell, folder: "\(folder)/from", source: options.source, size: options.size)
        try tree.make()
        for input in [Input.ext4, .ntfs, .xfs] {
            let image = path(input)
            // XFS refuses to be made smaller than 300 MiB.
            try create(image, max(options.size * 2, 320 << 20))
            try shell.run(input.filesystem.make(image))
            try mounts.with(image, input.filesystem, readOnly: false) { (root) throws(Fault) in
                try shell.run(
                    """
                    cp -dR --preserve=timestamps,mode '\(tree.churn)' '\(root)/churn' && sync -f '\(root)'
                    cp -dR --preserve=timestamps,mode '\(tree.tree)/.' '\(root)/' && rm -rf '\(root)/churn'
                    """)
            }
        }
        try shell.run("rm -rf '\(folder)/from'")
        try shell.run("cp --sparse=always '\(path(.ext4))' '\(path(.changed))'")
        try mounts.with(path(.changed), .ext4, readOnly: false) { (root) throws(Fault) in
            let done = try InputChange(shell: shell).apply(to: root)
            print(
                "  changed version: \(done.rewritten) files saved again, \(done.edited) edited in place, \(done.added) added, \(done.removed) removed"
            )
        }
        try special()
        for input in Input.allCases {
            let (digest, files) = try contents(path(input), input.filesystem)
            try Files.write("\(folder)/\(input.rawValue).contents", Array("\(digest) \(files)\n".utf8))
        }
        try Files.write(mark, [])
    }

    private func special() throws(Fault) {
        let half = options.size / 2
        try create(path(.incompressible), half + half / 8 + 64 << 20)
        try shell.run(Filesystem.ext4.make(path(.incompressible)))
        try mounts.with(path(.incompressible), .ext4, readOnly: false) { (root) throws(Fault) in
            for number in 0..<Int(half >> 23) {
                var generator = Generator(seed: UInt64(1 << 32 + number))
                try Files.write("\(root)/\(number).bin", generator.bytes(8 << 20))
            }
        }
        try create(path(.zeros), half + half / 8 + 64 << 20)
        try shell.run(Filesystem.ext4.make(path(.zeros)))
        try mounts.with(path(.zeros), .ext4, readOnly: false) { (root) throws(Fault) in
            try shell.run("head -c \(half) /dev/zero > '\(root)/zeros'")
        }
        // 100,000 at 2 GiB; each takes a block of 4 KiB and an inode.
        let count = Int(min(options.size, 2 << 30) / 21475)
        try create(path(.tiny), UInt64(count) * 10_000 + 64 << 20)
        try shell.run(Filesystem.ext4.make(path(.tiny), inodes: count + 4096))
        try mounts.with(path(.tiny), .ext4, readOnly: false) { (root) throws(Fault) in
            let letters = Array("etaoin shrdlucmfwypvbgkqjxz,.\n()".utf8)
            for number in 0..<count {
                if number % 256 == 0 { try shell.run("mkdir -p '\(root)/\(number / 25_600)/\(number / 256)'") }
                var generator = Generator(seed: UInt64(2 << 32 + number))
                let random = generator.bytes(1 + Int(generator.next() % 2000))
                // Text-like: the lower letters are more frequent.
                let text = random.map { letters[Int($0 & 31) & Int($0 >> 3)] }
                try Files.write("\(root)/\(number / 25_600)/\(number / 256)/\(number).txt", text)
            }
        }
    }

    private func create(_ path: String, _ size: UInt64) throws(Fault) {
        try shell.run("rm -f '\(path)' && truncate -s \((size >> 20) << 20) '\(path)'")
    }

    /// A hash of all names, sizes and contents of the filesystem in `image`, and the number of its files.
    func contents(_ image: String, _ filesystem: Filesystem) throws(Fault) -> (digest: String, files: Int) {
        var text = ""
        try mounts.with(image, filesystem, readOnly: true) { (root) throws(Fault) in
            text = try shell.run(
                """
                cd '\(root)' && { find . -printf '%y %p %l\\n' | LC_ALL=C sort; \
                  find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum; } | sha256sum | cut -d ' ' -f 1
                find . -type f | wc -l
                """)
        }
        let lines = text.split(separator: "\n")
        guard lines.count == 2, let files = Int(lines[1]) else {
            throw Fault(.system, what: "The contents of \(image) cannot be listed.", remedy: "Look into the folder.")
        }
        return (String(lines[0]), files)
    }

    /// What ``contents`` said when the input was made.
    func knownContents(_ input: Input) throws(Fault) -> (digest: String, files: Int) {
        let words = String(decoding: try Files.read("\(folder)/\(input.rawValue).contents"), as: UTF8.self).trimmed
            .split(separator: " ")
        return (String(words.first ?? ""), Int(words.last ?? "") ?? 0)
    }

    /// Bytes of `input` that are in use, as the filesystem's own tools count them where that is simple.
    func used(_ input: Input) throws(Fault) -> UInt64 {
        let text: String
        switch input.filesystem {
        case .ext4:
            text = try shell.run(
                "dumpe2fs -h '\(path(input))' 2>/dev/null | awk -F: '/^Block count/{b=$2}/^Free blocks/{f=$2}/^Block size/{s=$2}END{printf \"%.0f\\n\",(b-f)*s}'"
            )
        case .xfs:
            text = try shell.run(
                "xfs_db -r -c 'sb 0' -c 'p blocksize dblocks fdblocks' '\(path(input))' | awk '{v[$1]=$3}END{printf \"%.0f\\n\",(v[\"dblocks\"]-v[\"fdblocks\"])*v[\"blocksize\"]}'"
            )
        case .ntfs:
            text = try shell.run(
                "ntfsinfo -m '\(path(input))' | awk -F: '/Cluster Size:/{c=$2}/Volume Size in Clusters/{v=$2}/Free Clusters/{split($2,a,\" \");f=a[1]}END{printf \"%.0f\\n\",(v-f)*c}'"
            )
        }
        return UInt64(text.trimmed) ?? 0
    }
}
