// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Findings
import FoundationEssentials
import Glibc
import Tools

/// What the medium itself must be, no machine needed.
let mediumScenarios: [Scenario] = [
    Scenario(
        "medium-same-bytes", shows: "Two builds in two folders, with nothing kept but the packages, give the same ISO.",
        in: .quick
    ) { stage in
        let source = FileManager.default.currentDirectoryPath
        var images: [String] = []
        for (index, zone) in ["UTC", "Asia/Tokyo"].enumerated() {
            let folder = "\(stage.folder)/build \(index)"
            let cache = "\(folder)/cache"
            try Tool("mkdir", package: "coreutils").check(["-p", cache])
            let kept = "\(source)/build/cache/media"
            for name in (try? FileManager.default.contentsOfDirectory(atPath: kept)) ?? [] where name.hasPrefix("apt-")
            {
                try Tool("cp", package: "coreutils").check(["-a", "--reflink=auto", "\(kept)/\(name)", cache])
            }
            images.append("\(folder)/relight.iso")
            try Tool("\(source)/build/relight", package: "relight").check(
                [
                    "--quiet", "media", "iso", "--fast", "--source", source, "--relight", "\(source)/build/relight",
                    "--cache", cache, "--out", "\(folder)/relight.iso", "--boot", "\(folder)/boot",
                ], environment: ["TZ": zone], seconds: 1800)
        }
        let digests = try Tool("sha256sum", package: "coreutils").check(images).standardOutput
            .split(separator: "\n").map { $0.prefix(64) }
        try stage.require(digests.count == 2 && digests[0] == digests[1], "The two images differ: \(images).")
        stage.note("SHA-256", String(digests[0].prefix(16)))
        for image in images { try Tool("rm", package: "coreutils").check(["-r", String(image.dropLast(12))]) }
    }
]
