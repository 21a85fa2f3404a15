// swift-tools-version: 6.2
// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later
//
// A package of its own, so that the sanitizers' flags and build never meet those of `relight`: see README.md.

import PackageDescription

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
]

let package = Package(
    name: "relight-fuzz",
    dependencies: [.package(name: "relight", path: "../..")],
    targets: [
        .target(
            name: "FuzzTargets", dependencies: [.product(name: "RelightRooms", package: "relight")],
            swiftSettings: settings),
        // The fuzzer's runtime has `main`.
        .executableTarget(
            name: "relight-fuzz", dependencies: ["FuzzTargets"],
            swiftSettings: settings + [.unsafeFlags(["-parse-as-library"])]),
    ],
    swiftLanguageModes: [.v6]
)
