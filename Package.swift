// swift-tools-version: 6.2
// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later
//
// Every room is a target. Data flows one way, and a room may import only rooms listed before it;
// `make build` passes `--explicit-target-dependency-import-check error`, so an undeclared import fails.

import PackageDescription

let settings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    // A generic read across rooms is a hundred times slower when it cannot be inlined.
    .unsafeFlags(["-cross-module-optimization"], .when(configuration: .release)),
]

/// A room: a library target of this package.
func room(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, exclude: [], swiftSettings: settings)
}

/// The tests of one room, in `Tests/<Room>Tests`.
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(
        name: "\(name)Tests", dependencies: [.target(name: name), "TestSupport"] + dependencies,
        path: "Tests/\(name)Tests",
        swiftSettings: settings)
}

/// A Debian `-dev` package, linked statically into `relight`.
func debian(_ name: String, _ pkgConfig: String, _ package: String) -> Target {
    .systemLibrary(name: name, path: "Sources/\(name)", pkgConfig: pkgConfig, providers: [.apt([package])])
}

let package = Package(
    name: "relight",
    products: [
        .executable(name: "relight", targets: ["relight"]),
        // For the fuzzers, which are a package of their own (Tests/Fuzz).
        .library(
            name: "RelightRooms",
            targets: [
                "Geometry", "BinaryFields", "Findings", "MachineModel", "Blocks", "LinuxDisks", "PartitionTables",
                "VolumeStacks", "FilesystemMaps", "FileTrees", "WindowsHives", "InstalledSystems", "DiskSurvey",
                "ImageStore", "RestorePlanning",
                "Tools", "Operations", "BootEnvironment", "MediaBuilder", "Edits", "HardwareMatch",
            ]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2")
    ],
    targets: [
        // C libraries and the kernel.
        debian("CParted", "libparted", "libparted-dev"),
        debian("CBlkid", "blkid", "libblkid-dev"),
        debian("CZstd", "libzstd", "libzstd-dev"),
        debian("CExt2fs", "ext2fs", "libext2fs-dev"),
        debian("CCrypto", "libcrypto", "libssl-dev"),
        debian("CNtfs", "libntfs-3g", "ntfs-3g-dev"),
        .target(name: "CLinux"),
        .target(name: "CDeviceMapperStub"),
        .target(name: "CSHA256"),
        .target(
            name: "CUnpack",
            linkerSettings: [
                .linkedLibrary("z"), .linkedLibrary("lzma"), .linkedLibrary("zstd"), .linkedLibrary("lz4"),
            ]),
        .target(
            name: "CExt2Glue", dependencies: ["CExt2fs"],
            linkerSettings: [.linkedLibrary("ext2fs"), .linkedLibrary("com_err")]),
        .target(name: "CNtfsGlue", dependencies: ["CNtfs"], linkerSettings: [.linkedLibrary("ntfs-3g")]),

        // The rooms, in order.
        room("Geometry"),
        room("BinaryFields"),
        room("Findings", ["Geometry"]),
        room("Threads", ["Findings", "CLinux"]),
        room("MachineModel", ["Geometry", "BinaryFields", "Findings"]),
        room("Blocks", ["Geometry", "BinaryFields", "Findings", "CLinux"]),
        room("Tools", ["Geometry", "Findings", "CLinux"]),
        room(
            "LinuxDisks",
            ["Geometry", "BinaryFields", "Findings", "Threads", "MachineModel", "Blocks", "Tools", "CLinux"]),
        room(
            "PartitionTables",
            [
                "Geometry", "BinaryFields", "Findings", "MachineModel", "Blocks", "CParted", "CDeviceMapperStub",
            ]),
        room(
            "VolumeStacks",
            ["Geometry", "BinaryFields", "Findings", "Threads", "MachineModel", "Blocks", "Tools", "CCrypto", "CLinux"]),
        room(
            "FilesystemMaps",
            [
                "Geometry", "BinaryFields", "Findings", "MachineModel", "Blocks", "Threads", "CBlkid", "CCrypto",
                "CExt2Glue", "CLinux",
            ]),
        room("WindowsHives", ["BinaryFields", "Findings"]),
        room(
            "FileTrees",
            [
                "Geometry", "BinaryFields", "Findings", "Threads", "Blocks", "Tools", "FilesystemMaps", "CExt2Glue",
                "CNtfsGlue", "CLinux",
            ]),
        room(
            "InstalledSystems",
            [
                "Geometry", "BinaryFields", "Findings", "Threads", "MachineModel", "Blocks", "FilesystemMaps",
                "FileTrees", "WindowsHives",
            ]),
        room(
            "DiskSurvey",
            [
                "Geometry", "BinaryFields", "Findings", "Threads", "MachineModel", "Blocks", "PartitionTables",
                "VolumeStacks", "FilesystemMaps", "FileTrees", "InstalledSystems",
            ]),
        room(
            "ImageStore",
            [
                "Geometry", "BinaryFields", "Findings", "MachineModel", "CZstd", "Threads", "CCrypto", "CLinux",
                "CSHA256",
            ]),
        room("PointDisk", ["Geometry", "Findings", "MachineModel", "Blocks", "ImageStore", "CLinux"]),
        room(
            "Imaging",
            [
                "Geometry", "Threads", "BinaryFields", "Findings", "MachineModel", "Blocks", "FilesystemMaps",
                "DiskSurvey", "ImageStore", "PointDisk",
            ]),
        room(
            "FilesystemResize",
            [
                "Geometry", "BinaryFields", "Findings", "Threads", "MachineModel", "Blocks", "Tools", "LinuxDisks",
                "FilesystemMaps", "PointDisk",
            ]),
        room("RestorePlanning", ["Geometry", "BinaryFields", "Findings", "MachineModel", "PartitionTables"]),
        room(
            "Restoring",
            [
                "Geometry", "Threads", "BinaryFields", "Findings", "MachineModel", "Blocks", "Tools", "LinuxDisks",
                "PartitionTables", "FilesystemMaps", "ImageStore", "PointDisk", "FilesystemResize", "RestorePlanning",
            ]),
        room(
            "HardwareMatch", ["Findings", "LinuxDisks", "MachineModel", "CUnpack"]),
        room("Edits", ["BinaryFields", "Findings", "MachineModel", "CLinux"]),
        room(
            "Operations",
            [
                "Geometry", "Threads", "BinaryFields", "Findings", "MachineModel", "Blocks", "Tools", "LinuxDisks",
                "PartitionTables", "VolumeStacks", "FilesystemMaps", "FileTrees", "DiskSurvey", "ImageStore", "Imaging",
                "FilesystemResize", "PointDisk", "RestorePlanning", "Restoring",
            ]),
        room(
            "BootEnvironment", ["Geometry", "Findings", "MachineModel", "Tools", "LinuxDisks", "Operations", "CLinux"]),
        room(
            "MediaBuilder",
            ["Geometry", "Threads", "BinaryFields", "Findings", "MachineModel", "Tools", "CZstd", "CCrypto"]),
        room(
            "Commands",
            [
                "Geometry", "BinaryFields", "Findings", "MachineModel", "Blocks", "LinuxDisks", "DiskSurvey",
                "ImageStore", "Imaging", "PointDisk", "RestorePlanning", "Restoring", "Threads", "Operations",
                "BootEnvironment", "MediaBuilder", "FilesystemMaps", "FileTrees", "VolumeStacks", "WindowsHives",
                "Edits", "HardwareMatch",
                "CLinux",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),
        .executableTarget(name: "relight", dependencies: ["Commands", "CLinux"], swiftSettings: settings),

        // Benchmarks against the peers (`make bench`).
        .executableTarget(
            name: "relight-bench", dependencies: ["Geometry", "Findings", "Tools", "CLinux"], path: "Tests/Benchmarks",
            exclude: ["README.md"], swiftSettings: settings),

        // Tests.
        .target(name: "TestSupport", path: "Tests/Support", swiftSettings: settings),
        .executableTarget(
            name: "relight-vm",
            dependencies: [
                "Geometry", "BinaryFields", "Blocks", "Findings", "Tools", "MediaBuilder", "CLinux",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], path: "Tests/EndToEnd", swiftSettings: settings),
        tests("MediaBuilder", ["Findings", "Tools"]),
        tests("Geometry", []),
        tests("BinaryFields", []),
        tests("Findings", ["Geometry"]),
        tests("Blocks", ["Geometry", "Findings", "Tools"]),
        tests("Threads", ["Findings"]),
        tests("Tools", ["Findings"]),
        tests("RestorePlanning", ["BinaryFields", "Findings", "Geometry", "MachineModel"]),
        tests("LinuxDisks", ["Geometry", "Findings", "MachineModel", "Blocks", "Tools"]),
        tests("HardwareMatch", ["Findings", "LinuxDisks", "MachineModel", "Tools"]),
        tests("Edits", ["BinaryFields", "Findings", "MachineModel", "Tools"]),
        tests("Operations", ["Findings", "LinuxDisks"]),
        tests("BootEnvironment", ["Findings", "Geometry", "LinuxDisks", "MachineModel", "Operations", "Tools"]),
        tests(
            "PartitionTables", ["Geometry", "BinaryFields", "Findings", "MachineModel", "Blocks", "Tools"]),
        tests(
            "ImageStore",
            ["Geometry", "BinaryFields", "Findings", "MachineModel", "Threads", "CZstd", "CCrypto", "CLinux"]),
        tests("PointDisk", ["Geometry", "Findings", "MachineModel", "Blocks", "ImageStore"]),
        tests(
            "FilesystemResize",
            [
                "Geometry", "Findings", "MachineModel", "Blocks", "FilesystemMaps", "LinuxDisks", "PointDisk", "Tools",
            ]),
        tests(
            "FilesystemMaps", ["Geometry", "BinaryFields", "Findings", "MachineModel", "Blocks", "Tools"]),
        tests(
            "DiskSurvey",
            [
                "Geometry", "Findings", "MachineModel", "Blocks", "PartitionTables", "VolumeStacks", "FilesystemMaps",
                "FileTrees",
                "Tools",
            ]),
        tests("FileTrees", ["Findings", "Geometry", "Blocks", "Tools", "FilesystemMaps", "CLinux"]),
        tests("InstalledSystems", ["BinaryFields", "Findings", "Geometry", "MachineModel", "Blocks", "FileTrees"]),
        tests(
            "VolumeStacks", ["Geometry", "BinaryFields", "Findings", "MachineModel", "Blocks", "Tools", "CLinux"]),
        tests("WindowsHives", ["BinaryFields", "Findings", "Tools"]),
        tests("Commands", ["Findings", "Tools", "WindowsHives"]),
        tests(
            "Imaging",
            [
                "Blocks", "DiskSurvey", "FilesystemMaps", "Findings", "Geometry", "ImageStore", "MachineModel", "Tools",
            ]),
        tests(
            "Restoring",
            [
                "BinaryFields", "Blocks", "DiskSurvey", "Findings", "Geometry", "ImageStore", "Imaging", "MachineModel",
                "PartitionTables", "RestorePlanning", "Tools",
            ]),
        // The built program and its store among failures of every kind.
        .testTarget(
            name: "FaultTests", dependencies: ["Findings", "Geometry", "ImageStore", "MachineModel", "Tools"],
            path: "Tests/FaultTests", exclude: ["README.md"], swiftSettings: settings),
        // The fuzzers' targets fed with their committed inputs; the fuzzers themselves are a package of their own.
        .testTarget(
            name: "FuzzTests",
            dependencies: [
                "Geometry", "BinaryFields", "Findings", "MachineModel", "Blocks", "Tools", "LinuxDisks",
                "PartitionTables", "VolumeStacks", "FilesystemMaps", "FileTrees", "WindowsHives", "InstalledSystems",
                "DiskSurvey", "ImageStore",
                "RestorePlanning", "Operations", "BootEnvironment", "MediaBuilder", "Edits", "HardwareMatch",
            ], path: "Tests/Fuzz", exclude: ["Package.swift", "README.md", "Seeds", "Sources/relight-fuzz"],
            sources: ["SeedTests.swift", "Sources/FuzzTargets"], swiftSettings: settings),
    ],
    swiftLanguageModes: [.v6]
)
