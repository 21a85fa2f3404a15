// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

import FoundationEssentials
import Testing

/// `relight efi` on a folder in the form of efivarfs.
@Suite struct EFITests {
    /// A folder for variables, and a disk of two partitions.
    static func place() throws -> (folder: Scratch, vars: String, disk: String) {
        let folder = try Scratch()
        let disk = try folder.file("disk.img", "64M")
        try folder.sh("mkdir vars; printf 'label: gpt\\n2048,20480,U\\n22528,20480\\n' | sfdisk -q disk.img")
        return (folder, folder.path + "/vars", disk)
    }

    struct Document: Decodable {
        struct Entry: Decodable {
            var id: String
            var label: String
            var loader: String
            var active: Bool
        }
        var order: [String]
        var next: String?
        var entries: [Entry]
        var applied: Bool?
    }

    static func list(_ vars: String) throws -> Document {
        try JSONDecoder().decode(
            Document.self, from: Data(try Program.run("--json", "efi", "list", "--vars", vars).out.utf8))
    }

    @Test func anEntryIsAddedShownAndTakenBack() throws {
        let (folder, vars, disk) = try Self.place()
        let undo = folder.path + "/undo.json"
        let added = try Program.run(
            "efi", "add", disk + ":1", "/EFI/debian/shimx64.efi", "--label", "debian", "--vars", vars, "--undo-to", undo
        )
        #expect(added.status == 0 && added.out.contains("make Boot0000"))
        let list = try Self.list(vars)
        #expect(list.order == ["0000"] && list.entries.map(\.label) == ["debian"])
        #expect(list.entries.map(\.loader) == [#"\EFI\debian\shimx64.efi"#] && list.entries.allSatisfy(\.active))
        // Done twice, nothing is added.
        let again = try Program.run(
            "efi", "add", disk + ":1", #"\EFI\debian\shimx64.efi"#, "--label", "debian", "--vars", vars)
        #expect(again.status == 0 && again.out.contains("Nothing to change"))
        #expect(try Program.run("efi", "undo", undo, "--vars", vars).status == 0)
        #expect(try Self.list(vars).entries.isEmpty)
        #expect(try folder.sh("ls -A vars").isEmpty)
    }

    @Test func whatChangedSinceIsNotTakenBack() throws {
        let (folder, vars, disk) = try Self.place()
        let undo = folder.path + "/undo.json"
        _ = try Program.run("efi", "add", disk + ":1", "/a.efi", "--label", "a", "--vars", vars, "--undo-to", undo)
        _ = try Program.run("efi", "add", disk + ":2", "/b.efi", "--label", "b", "--vars", vars)
        let refused = try Program.run("efi", "undo", undo, "--vars", vars)
        #expect(refused.status == 4 && refused.err.contains("BootOrder is no longer what it was"))
        #expect(try Self.list(vars).order == ["0001", "0000"])
    }

    @Test func orderNextAndRemovalAreWritten() throws {
        let (folder, vars, disk) = try Self.place()
        for name in ["a", "b", "c"] {
            _ = try Program.run("efi", "add", disk + ":1", "/\(name).efi", "--label", name, "--vars", vars, "--last")
        }
        _ = try Program.run("efi", "order", "2,0", "1", "--vars", vars)
        _ = try Program.run("efi", "next", "Boot0001", "--vars", vars)
        var list = try Self.list(vars)
        #expect(list.order == ["0002", "0000", "0001"] && list.next == "0001")
        _ = try Program.run("efi", "remove", "1", "--vars", vars)
        list = try Self.list(vars)
        #expect(try folder.sh("ls -A vars").contains("BootOrder-"))
        #expect(list.order == ["0002", "0000"] && list.next == nil && list.entries.map(\.label) == ["a", "c"])
    }

    @Test func aDryRunChangesNothing() throws {
        let (folder, vars, disk) = try Self.place()
        let run = try Program.run(
            "efi", "add", disk + ":1", "/a.efi", "--label", "a", "--vars", vars, "--dry-run", "--undo-to",
            folder.path + "/undo")
        #expect(run.status == 0 && run.out.contains("would make Boot0000"))
        #expect(try folder.sh("ls -A vars; ls undo 2>/dev/null || true").isEmpty)
    }

    @Test(
        arguments: [
            (["add", "DISK", "/a.efi", "--label", "a"], 2), (["add", "DISK:3", "/a.efi", "--label", "a"], 1),
            (["add", "DISK:1", "/a.efi", "--label", ""], 2), (["add", "DISK:1", "", "--label", "a"], 2),
            (["remove", "x"], 2), (["remove", "0001"], 1), (["order", "0001"], 1), (["next", "12345"], 2),
            (["undo", "DISK"], 1), (["undo", "/dev/null"], 1),
            (["add", "DISK:1", "/a.efi", "--label", "a", "--undo-to", "/dev/null"], 1),
        ] as [([String], Int32)])
    func whatCannotBeIsSaidAndNothingChanges(words: [String], status: Int32) throws {
        let (folder, vars, disk) = try Self.place()
        let run = try Program.run(["efi"] + words.map { $0.replacing("DISK", with: disk) } + ["--vars", vars])
        #expect(run.status == status, "\(run.err)")
        #expect(run.err.hasPrefix("relight: ") && run.err.contains("."))
        #expect(try folder.sh("ls -A vars").isEmpty)
    }

    @Test func withoutVariablesItSaysWhatToDo() throws {
        let run = try Program.run("efi", "list", "--vars", "/nonexistent")
        #expect(run.status == 1 && run.err.contains("There are no firmware variables"))
    }
}
