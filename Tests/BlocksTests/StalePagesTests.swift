// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import Blocks
import Geometry
import Glibc
import Testing
import Tools

private let losetup = Tool("losetup", package: "mount")
private let areLoopsAvailable = geteuid() == 0 && (try? losetup.check(["--find"])) != nil

/// A block device whose pages the kernel holds, since somebody has it open.
@Suite(.serialized, .enabled(if: areLoopsAvailable, "needs root and loop devices"))
struct StalePagesTests {
    /// Runs `body` with a file, the loop device over it, and a descriptor that keeps the device's pages.
    private func held(_ body: (_ file: String, _ device: String, _ descriptor: Int32) throws -> Void) throws {
        let file = try TemporaryFile([UInt8](repeating: 1, count: 1 << 20))
        let device = try losetup.check(["--find", "--show", file.path]).lastLine
        defer { _ = try? losetup.run(["--detach", device]) }
        let descriptor = unsafe open(device, O_RDWR | O_CLOEXEC)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        try body(file.path, device, descriptor)
        withExtendedLifetime(file) {}
    }

    @Test func whatChangedBelowAPageIsRead() throws {
        try held { file, device, descriptor in
            var before = [UInt8](repeating: 0, count: 1 << 20)
            try #require(unsafe pread(descriptor, &before, before.count, 0) == before.count)
            let other = unsafe open(file, O_WRONLY | O_CLOEXEC)
            try #require(unsafe pwrite(other, [UInt8](repeating: 2, count: 4096), 4096, 65536) == 4096)
            close(other)
            // The premise: through the device the old content is still seen.
            try #require(unsafe pread(descriptor, &before, 4096, 65536) == 4096)
            try #require(before[0] == 1)
            let source = try FileSource(path: device)
            let now = try source.bytes(at: ByteCount(65536), count: 4096)
            #expect(now.allSatisfy { $0 == 2 })
        }
    }
}
