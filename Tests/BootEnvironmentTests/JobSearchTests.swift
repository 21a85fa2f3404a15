// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

@testable import BootEnvironment
import Findings
import FoundationEssentials
@testable import LinuxDisks
import Operations
import Testing

/// Three disks: `sda` (serial OLD1), `sdb` (NEW1) and `sdc` (JOB1), one partition each, with what a test puts on them.
private final class Machine {
    let root: String
    var labels: [String: String] = ["sda1": "SYSTEM", "sdb1": "OTHER", "sdc1": "DATA"]
    /// Job files by partition.
    var jobs: [String: String] = [:]

    init(media: [String] = []) throws {
        root = FileManager.default.temporaryDirectory.path() + "/relight-jobs-\(UInt64.random(in: 0 ... .max))"
        var descriptor = [UInt8](repeating: 0x20, count: 2048)
        descriptor.replaceSubrange(0..<6, with: [1] + Array("CD001".utf8))
        descriptor.replaceSubrange(40..<47, with: Array("RELIGHT".utf8))
        for (index, (disk, serial)) in [("sda", "OLD1"), ("sdb", "NEW1"), ("sdc", "JOB1")].enumerated() {
            let folder = "sys/block/\(disk)"
            let content: [String: [UInt8]] = [
                "\(folder)/dev": Array("8:\(index * 16)\n".utf8), "\(folder)/size": Array("\(2048 + index)\n".utf8),
                "\(folder)/serial": Array("\(serial)\n".utf8),
                "\(folder)/\(disk)1/dev": Array("8:\(index * 16 + 1)\n".utf8),
                "\(folder)/\(disk)1/partition": Array("1\n".utf8), "\(folder)/\(disk)1/start": Array("8\n".utf8),
                "\(folder)/\(disk)1/size": Array("1024\n".utf8), "dev/\(disk)1": [],
                "dev/\(disk)": media.contains(disk) ? [UInt8](repeating: 0, count: 32_768) + descriptor : [],
            ]
            for (path, bytes) in content {
                let place = URL(filePath: "\(root)/\(path)")
                try FileManager.default.createDirectory(
                    atPath: place.deletingLastPathComponent().path(), withIntermediateDirectories: true)
                try Data(bytes).write(to: place)
            }
        }
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }

    var scan: DiskScan { DiskScan(KernelFiles(root: root)) }

    var identify: VolumeIdentity.Identifier {
        let labels = labels
        return { path in
            labels[String(path.split(separator: "/").last ?? "")].map { VolumeIdentity(kind: "ext4", label: $0) }
        }
    }

    func find(_ place: String?) throws -> FoundJob {
        let jobs = jobs
        let sight = JobSight(
            scan: scan, identify: identify,
            read: { volume, _ in jobs[String(volume.path.dropFirst("/dev/".count))].map { Array($0.utf8) } },
            marker: { _ in nil })
        return try JobSearch.find(place, say: { _ in }, in: sight)
    }

    static func backup(_ disk: String) -> String {
        "{relight: 1, steps: [{backup: {disks: ['\(disk)'], to: 'label:STORE/s'}}]}"
    }
    static func restore(_ disk: String) -> String {
        "{relight: 1, steps: [{restore: {from: 'label:STORE/s', to: ['\(disk)'], confirm: true}}]}"
    }
    static let harmless = "{relight: 1, steps: [{run: ['true']}]}"
    static func job(_ text: String) throws -> JobFile { try JobFile(parsing: Array(text.utf8), name: "x") }
}

@Suite struct JobSearchTests {
    @Test func aNamedJobOnItsTargetIsRefused() throws {
        let machine = try Machine()
        machine.jobs["sdc1"] = Machine.restore("serial:JOB1")
        let fault = try #require(throws: Fault.self) { try machine.find("label:DATA/relight.job") }
        #expect(fault.code == .jobOnTarget)
        #expect(fault.code.exit == .refused)
        #expect(fault.what.contains("serial:JOB1"))
    }

    @Test func aNamedJobOnAnotherDiskIsTaken() throws {
        let machine = try Machine()
        machine.jobs["sdc1"] = Machine.restore("serial:NEW1")
        let found = try machine.find("label:DATA/jobs/relight.job")
        #expect(found.disks == ["sdc"])
        #expect(JobDisks(found.job, machine.scan, machine.identify).objection(to: found.disks) == nil)
    }

    @Test func aNamedJobOnADiskItImagesRunsAndKeepsNoLogThere() throws {
        let machine = try Machine()
        for name in ["serial:JOB1", "label:DATA", "/dev/sdc", "/dev/sdc1"] {
            machine.jobs["sdc1"] = Machine.backup(name)
            let found = try machine.find("label:DATA/relight.job")
            let disks = JobDisks(found.job, machine.scan, machine.identify)
            #expect(disks.objection(to: found.disks)?.contains("images (\(name))") == true)
        }
    }

    @Test func aJobOnTheMediumItRestoresToIsRefused() throws {
        let machine = try Machine(media: ["sdc"])
        machine.jobs["sdc1"] = Machine.restore("serial:JOB1")
        #expect(try #require(throws: Fault.self) { try machine.find(nil) }.code == .jobOnTarget)
        machine.jobs["sdc1"] = Machine.restore("serial:NEW1")
        #expect(try machine.find(nil).name.contains("on the medium (/dev/sdc1)"))
    }

    @Test func jobsOnTwoMediaAreNone() throws {
        let machine = try Machine(media: ["sdb", "sdc"])
        machine.jobs["sdb1"] = Machine.harmless
        #expect(try machine.find(nil).name.contains("/dev/sdb1"))
        for other in [Machine.harmless, "{broken"] {
            machine.jobs["sdc1"] = other
            let fault = try #require(throws: Fault.self) { try machine.find(nil) }
            #expect(fault.code == .ambiguousJob)
            #expect(fault.what.contains("/dev/sdb1") && fault.what.contains("/dev/sdc1"))
        }
    }

    @Test func theMediumComesBeforeLabelledDisks() throws {
        let machine = try Machine(media: ["sdb"])
        machine.labels["sdc1"] = "RELIGHT-JOBS"
        machine.jobs["sdc1"] = Machine.harmless
        #expect(try machine.find(nil).name.contains("/dev/sdc1 (label RELIGHT-JOBS)"))
        machine.jobs["sdb1"] = Machine.harmless
        #expect(try machine.find(nil).name.contains("on the medium (/dev/sdb1)"))
    }

    @Test func aLabelledDiskTheJobNamesIsPassedOver() throws {
        let machine = try Machine()
        machine.labels["sdc1"] = "RELIGHT"
        for job in [Machine.restore("serial:JOB1"), Machine.backup("serial:JOB1")] {
            machine.jobs["sdc1"] = job
            #expect(try #require(throws: Fault.self) { try machine.find(nil) }.code == .missing)
        }
    }

    @Test func nothingIsKeptOnARestoredDisk() throws {
        let machine = try Machine()
        let disks = JobDisks(try Machine.job(Machine.restore("serial:NEW1")), machine.scan, machine.identify)
        #expect(disks.objection(to: ["sdb"])?.contains("restores to (serial:NEW1)") == true)
        #expect(disks.objection(to: ["sdb"], isWritten: true) != nil)
        #expect(disks.objection(to: ["sda", "sdc"]) == nil)
        #expect(disks.objection(to: []) == nil)
    }

    @Test func anImagedDiskIsWrittenToOnlyWhereABackupDoes() throws {
        let machine = try Machine()
        let disks = JobDisks(try Machine.job(Machine.backup("serial:OLD1")), machine.scan, machine.identify)
        #expect(disks.objection(to: ["sda"]) != nil)
        #expect(disks.objection(to: ["sda"], isWritten: true) == nil)
    }

    /// After a restore a label fits two disks, and so resolves to none.
    @Test func whatWasKnownBeforeTheJobStaysKnown() throws {
        let machine = try Machine()
        let job = try Machine.job(Machine.backup("label:SYSTEM"))
        let before = JobDisks(job, machine.scan, machine.identify)
        machine.labels["sdb1"] = "SYSTEM"
        var after = JobDisks(job, machine.scan, machine.identify)
        #expect(after.objection(to: ["sda"]) == nil)
        after.add(before)
        #expect(after.objection(to: ["sda"]) != nil)
    }

    @Test(arguments: [
        (Machine.backup("serial:OLD1"), "label:STORE"), (Machine.backup("serial:LATE"), "serial:LATE"),
        (Machine.restore("serial:LATE"), "serial:LATE"), (Machine.backup("label:LATE"), "label:LATE"),
    ])
    private func whatIsNotThereYetIsNamed(job: String, absent: String) throws {
        let machine = try Machine()
        let fault = JobRunner.absent(try Machine.job(job), machine.scan, machine.identify)
        #expect(fault?.code == (absent == "label:STORE" ? .storeMissing : .missing))
        #expect(fault?.what.contains(absent) == true)
    }

    @Test func nothingIsWaitedForWhenAllIsThere() throws {
        let machine = try Machine()
        machine.labels["sdb1"] = "STORE"
        for job in [Machine.backup("serial:OLD1"), Machine.harmless] {
            #expect(JobRunner.absent(try Machine.job(job), machine.scan, machine.identify) == nil)
        }
    }

    @Test func onlyWhatIsMissingIsWaitedForAndNotForEver() {
        let patience = JobRunner.Patience(deadline: 60)
        let missing = Fault(.missing, what: "x", remedy: "y")
        #expect(patience.looksAgain(after: missing, now: 59))
        #expect(patience.looksAgain(after: Fault(.storeMissing, what: "x", remedy: "y"), now: 59))
        #expect(!patience.looksAgain(after: missing, now: 60))
        #expect(!patience.looksAgain(after: Fault(.ambiguousJob, what: "x", remedy: "y"), now: 1))
    }
}
