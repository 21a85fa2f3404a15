// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

@testable import BootEnvironment
import Findings
import FoundationEssentials
import Geometry
import Glibc
import LinuxDisks
import MachineModel
import Operations
import TestSupport
import Testing
import Tools

/// A folder of the test's own with files in it.
private final class Tree {
    let root: String
    var files: KernelFiles { KernelFiles(root: root) }

    init(_ content: [String: String]) throws {
        root = FileManager.default.temporaryDirectory.path() + "/relight-tree-\(UInt64.random(in: 0 ... .max))"
        for (path, text) in content {
            let full = "\(root)/\(path)"
            let folder = full.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(filePath: full))
        }
    }
    deinit { try? FileManager.default.removeItem(atPath: root) }
}

@Suite struct EnvironmentTests {
    @Test(arguments: [
        // What the kernel line names, in which order; what the machine has; what is used.
        ("tty0 ttyS0", ["tty0", "tty1", "tty2", "ttyS0"], ["ttyS0"], ["tty1", "ttyS0", "+tty2"]),
        ("ttyS0 tty0", ["tty0", "tty1", "tty2", "ttyS0"], ["ttyS0"], ["tty1", "ttyS0", "+tty2"]),
        ("tty0", ["tty0", "tty1", "tty2", "ttyS0"], ["ttyS0"], ["tty1", "ttyS0", "+tty2"]),
        ("tty0", ["tty0", "tty1", "tty2", "ttyS0"], [], ["tty1", "+tty2"]),
        ("hvc0", ["hvc0", "ttyS0", "ttyS1"], ["ttyS0", "ttyS1"], ["ttyS0", "hvc0", "+ttyS1"]),
        ("../../etc/passwd ttyS9", ["ttyS0"], ["ttyS0"], ["ttyS0"]),
    ])
    func screenAndSerialPortAreConsoles(active: String, devices: [String], ports: [String], expected: [String]) throws {
        var content = ["sys/class/tty/console/active": active + "\n"]
        for device in devices {
            content["dev/\(device)"] = ""
            content["sys/class/tty/\(device)/type"] = ports.contains(device) ? "4\n" : "0\n"
        }
        let tree = try Tree(content)
        let names = ConsoleDevice.find(tree.files).map { ($0.role == .shell ? "+" : "") + $0.name }
        #expect(names == expected)
    }

    @Test func terminalKindFollowsTheLine() {
        #expect(ConsoleDevice(name: "tty1", role: .main).terminal == "linux")
        #expect(ConsoleDevice(name: "ttyS0", role: .main).terminal == "vt220")
        #expect(ConsoleDevice(name: "hvc0", role: .main).terminal == "vt220")
    }

    @Test func aliasesOfAllBusesAreCollectedOnce() throws {
        let tree = try Tree([
            "sys/bus/pci/devices/0000:00:01.0/modalias": "pci:v00008086d00007010sv0sd0bc01sc01i80\n",
            "sys/bus/pci/devices/0000:00:02.0/modalias": "pci:v00008086d00007010sv0sd0bc01sc01i80\n",
            "sys/bus/virtio/devices/virtio0/modalias": "virtio:d00000002v00001AF4\n",
            "sys/bus/evil/devices/a/modalias": "-r\n", "sys/bus/evil/devices/b/modalias": "a b\n",
            "sys/bus/evil/devices/c/modalias": String(repeating: "x", count: 2000), "sys/bus/empty/devices/.keep": "",
        ])
        #expect(
            Drivers.aliases(tree.files) == ["pci:v00008086d00007010sv0sd0bc01sc01i80", "virtio:d00000002v00001AF4"])
    }

    @Test(arguments: [
        (["0:0:0:0/type": "0\n"], 3.0), (["0:0:0:0/type": "20\n"], 3.0), (["0:0:0:0/type": "5\n"], 3.0),
        (["0:0:0:0/type": "0\n", "0:0:0:0/block/sda/dev": "8:0\n"], 0.5),
        (["0:0:0:0/type": "0\n", "0:0:0:0/block/sda/dev": "8:0\n", "0:0:1:0/type": "0\n"], 3.0),
        // An enclosure, a RAID controller, a host.
        (["0:0:0:0/type": "13\n", "0:0:1:0/type": "12\n", "host0/uevent": ""], 0.5), ([:], 0.5),
    ])
    func aSCSIDiskWithoutItsBlockDeviceIsWaitedFor(devices: [String: String], seconds: Double) throws {
        var content = ["sys/bus/scsi/drivers_probe": ""]
        for (path, text) in devices { content["sys/bus/scsi/devices/\(path)"] = text }
        let tree = try Tree(content)
        #expect(Drivers.quietTime(tree.files) == seconds)
    }

    @Test func aUSBDiskWithoutATargetIsWaitedFor() throws {
        let interface = "sys/bus/usb/devices/1-1:1.0"
        let waiting = try Tree(["\(interface)/bInterfaceClass": "08\n"])
        #expect(Drivers.quietTime(waiting.files) == 3)
        let settled = try Tree(["\(interface)/bInterfaceClass": "08\n", "\(interface)/host6/target6:0:0/x": ""])
        #expect(Drivers.quietTime(settled.files) == 0.5)
    }

    @Test func afterACrashOnlyTheJobsConsolesAreLeftAlone() {
        let standing: [Supervisor.Role] = [
            .hotplug, .network, .console("tty1", .main), .console("ttyS0", .main), .console("tty2", .shell),
        ]
        let main: Set<String> = ["tty1", "ttyS0"]
        #expect(
            Supervisor.lost(standing, running: [.job], mainConsoles: main)
                == [.hotplug, .network, .console("tty2", .shell)])
        #expect(
            Supervisor.lost(standing, running: [.job, .hotplug, .console("tty2", .shell)], mainConsoles: main)
                == [.network])
        #expect(
            Supervisor.lost(standing, running: [.network, .console("tty1", .main)], mainConsoles: main)
                == [.hotplug, .console("ttyS0", .main), .console("tty2", .shell)])
    }

    @Test func theListOfExtraModulesHasRemarks() throws {
        let tree = try Tree(["etc/relight/modules": "# remark\nloop\n\n dm-mod # why\n--remove\n"])
        #expect(Drivers.extraModules(tree.files) == ["loop", "dm-mod"])
    }

    @Test(arguments: [
        ("add@/devices/x\0ACTION=add\0MODALIAS=usb:v0781\0SEQNUM=1\0", "usb:v0781"),
        ("remove@/devices/x\0ACTION=remove\0MODALIAS=usb:v0781\0", nil), ("add@/x\0ACTION=add\0SUBSYSTEM=block\0", nil),
        ("add@/x\0ACTION=add\0MODALIAS=--remove\0", nil), ("", nil), ("\0\0\0", nil),
    ])
    func deviceEventsAreRead(event: String, alias: String?) {
        #expect(Drivers.alias(event: Array(event.utf8)) == alias)
    }

    @Test func mutatedDeviceEventsNeverTrap() {
        let seed = Array("add@/devices/x\0ACTION=add\0MODALIAS=usb:v0781\0SEQNUM=1\0".utf8)
        var random = Seeded(9)
        for _ in 0..<20_000 { _ = Drivers.alias(event: random.mutated(seed)) }
    }

    @Test func missingFirmwareIsNamedOnce() {
        let log = """
            <4>[ 1.0] bnx2 0000:01:00.0: Direct firmware load for bnx2/bnx2-mips.fw failed with error -2
            <3>[ 1.1] tg3 0000:02:00.0: firmware: failed to load tigon/tg3.bin (-2)
            <3>[ 1.2] tg3 0000:02:00.0: firmware: failed to load tigon/tg3.bin (-2)
            <3>[ 1.3] systemd: failed to load configuration
            """
        #expect(Drivers.missingFirmware(log: log) == ["bnx2/bnx2-mips.fw", "tigon/tg3.bin"])
    }

    @Test func resolverTakesOnlyAddressesAndNames() {
        let lines = NetworkLease.resolverLines([
            "new_domain_name_servers": "10.0.0.1 $(reboot) 10.0.0.2 fe80::1 10.0.0.9",
            "nd1_rdnss1_servers": "2001:db8::1", "new_domain_name": "example.org `x`", "new_domain_search": "a.b -c",
            "new_host_name": "x",
        ])
        #expect(
            lines == ["nameserver 2001:db8::1", "nameserver 10.0.0.1", "nameserver 10.0.0.2", "search example.org a.b"])
        #expect(NetworkLease.resolverLines([:]) == [])
        #expect(NetworkLease.resolverLines(["new_domain_name_servers": "10.0.0.1\u{0}x"]) == [])
    }

    @Test func signalsAskForWhatTheySay() {
        #expect(Shutdown.asked(by: SIGINT) == .restart)
        #expect(Shutdown.asked(by: SIGTERM) == .restart)
        #expect(Shutdown.asked(by: SIGUSR1) == .halt)
        #expect(Shutdown.asked(by: SIGUSR2) == .powerOff)
        #expect(Shutdown.asked(by: SIGPWR) == .powerOff)
        #expect(Shutdown.asked(by: SIGHUP) == nil)
    }

    @Test func leavingIsOnlyAskedInTheEnvironment() throws {
        try #require(!MachineProbe.isEnvironment())
        for shutdown in Shutdown.allCases {
            #expect(try #require(throws: Fault.self) { try shutdown.request() }.code == .unsupported)
        }
    }

    @Test func backOffDoublesAndForgives() {
        var backOff = Supervisor.BackOff()
        #expect(backOff.pause(afterLifetime: 60) == 0.2)
        #expect([1, 2, 3, 4, 5, 6, 7].map { _ in backOff.pause(afterLifetime: 0) } == [1, 2, 4, 8, 16, 30, 30])
        #expect(backOff.pause(afterLifetime: 10) == 0.2)
        #expect(backOff.pause(afterLifetime: 0) == 1)
    }

    @Test func rolesSurviveTheListOfChildren() {
        let roles: [Supervisor.Role] = [
            .check, .coldplug, .hotplug, .network, .job, .console("ttyS0", .main), .console("tty2", .shell),
        ]
        for role in roles { #expect(Supervisor.Role(word: role.word) == role) }
        for word in ["", "x", "console", "console:tty1", "console:tty1:x"] {
            #expect(Supervisor.Role(word: word) == nil)
        }
    }

    @Test func stampsLookLikeTheKernels() {
        #expect(stamped("x", at: 3.456) == "[    3.45] x")
        #expect(stamped("x", at: 1234.05) == "[ 1234.05] x")
    }

    @Test func processesOneIsOnlyTheEnvironments() {
        #expect(!BootEnvironment.isInit(firstWord: "/init"))
    }

    @Test func everyMountHasAPlaceOfItsOwn() {
        let table = EarlySystem.standard
        #expect(Set(table.mounts.map(\.point)).count == table.mounts.count)
        #expect(table.mounts.first?.type == "proc")
        for mount in table.mounts { #expect(mount.flags & UInt(MS_NOSUID) != 0, "\(mount.point)") }
    }

    @Test(arguments: [
        ("36 1 8:1 / /mnt rw - ext4 /dev/sda1 rw", true), ("36 1 0:40 / /mnt rw - btrfs /dev/sda1 rw", true),
        ("36 1 0:41 / /mnt rw - nfs4 server:/x rw", true), ("36 1 0:5 / /run rw - tmpfs tmpfs rw", false),
        ("36 1 0:5 / /proc rw - proc proc rw", false),
    ])
    func diskMountsAreUnmountedAtTheEnd(line: String, isDisk: Bool) throws {
        #expect(Shutdown.isRealDisk(try #require(MountEntry(line: line))) == isDisk)
    }
}

@Suite struct MainScreenTests {
    static func disk(_ name: String, _ model: String?, _ serial: String?) throws -> AttachedDisk {
        let tree = try Tree([
            "sys/block/\(name)/dev": "8:0\n", "sys/block/\(name)/size": "1000215216\n",
            "sys/block/\(name)/device/model": model ?? "", "sys/block/\(name)/serial": serial ?? "",
        ])
        return try #require(DiskScan(tree.files).disks.first)
    }

    static func screen(disks: [AttachedDisk], media: Set<String> = [], serial: Bool = false) -> MainScreen {
        MainScreen(
            version: "1.2.3", time: "2026-11-21 03:04 UTC", machine: String(repeating: "Long Name ", count: 12),
            firmware: .uefi, memory: 1024, disks: disks, media: media,
            interfaces: [
                Network.Interface(
                    name: "enp3s0", hardwareAddress: "52:54:00:12:34:56", isUp: true, hasLink: true,
                    addresses: ["10.0.2.15"]),
                Network.Interface(
                    name: "enp4s0", hardwareAddress: "52:54:00:12:34:57", isUp: true, hasLink: true, addresses: []),
            ], missingFirmware: ["bnx2/x.fw"], isSerial: serial)
    }

    @Test func itFitsTheScreenAndNamesEverything() throws {
        let disks = [
            try Self.disk("sda", String(repeating: "Very Long Model ", count: 4), String(repeating: "S", count: 40)),
            try Self.disk("nvme0n1", "Samsung", "S4"),
        ]
        let text = Self.screen(disks: disks, media: ["nvme0n1"]).text(rows: 1000)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.allSatisfy { $0.count <= 80 })
        for part in [
            "Relight 1.2.3", "UEFI", "1024 MiB", "/dev/sda", "/dev/nvme0n1", "476.9 GiB", "this medium", "10.0.2.15",
            "asking for an address", "bnx2/x.fw", "guided wizard is not part", "relight backup", "Alt+F2",
            "relight plan", "points|show|verify|repair SET", "poweroff|reboot|help",
        ] { #expect(text.contains(part), "\(part)") }
        #expect(lines.count <= 40)
    }

    @Test(arguments: [1, 4, 6, 9, 30]) func itFitsASmallScreen(count: Int) throws {
        let disks = try (0..<count).map { try Self.disk("sd\(["a", "b", "c"][$0 % 3])", "Model", "S\($0)") }
        var screen = Self.screen(disks: disks)
        screen.missingFirmware = []
        let lines = screen.text(rows: 25).split(separator: "\n", omittingEmptySubsequences: false).dropLast()
        #expect(lines.count < 25)
        #expect(lines.filter { $0.contains("/dev/sd") }.count == min(count, 4) || count > 4)
        if count > 9 { #expect(lines.contains { $0.contains("more: `relight disks`") }) }
    }

    @Test func aMachineWithoutDisksGetsAdvice() {
        let text = Self.screen(disks: [], serial: true).text()
        #expect(text.contains("No disk was found"))
        #expect(!text.contains("Alt+F2"))
    }
}

@Suite struct JobRunnerTests {
    static func run(_ job: String, name: String = "relight.job") throws -> (status: Int32, output: String) {
        let tree = try Tree([name: job])
        let relight = try #require(Self.relight)
        let result = try Tool(relight, package: "relight").run(["job", "run", "\(tree.root)/\(name)"], seconds: 60)
        return (result.status, result.standardOutput + result.standardError)
    }

    /// The program built beside these tests.
    static let relight: String? = {
        let here = CommandLine.arguments[0]
        var folder = here.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        if let built = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"),
            !built.contains("swiftpm")
        {
            folder = built.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        }
        let path = folder + "/relight"
        return FileManager.default.isExecutableFile(atPath: path) ? path : nil
    }()

    @Test(arguments: [
        (Int32(0), JobRunner.Outcome.ok), (3, .ok), (1, .failed), (2, .refused), (4, .refused), (5, .failed),
        (7, .failed),
        (127, .failed), (130, .failed), (137, .crashed), (139, .crashed), (132, .crashed),
    ])
    func outcomeFollowsTheStatus(status: Int32, outcome: JobRunner.Outcome) {
        #expect(JobRunner.Outcome(status: status) == outcome)
        // What other programs mean by a status nobody knows.
        let other: JobRunner.Outcome = (1...128).contains(status) ? .failed : outcome
        #expect(JobRunner.Outcome(status: status, of: .run) == other)
    }

    @Test(.enabled(if: relight != nil, "needs the relight program beside the tests"))
    func stepsRunInOrderAndAreMarked() throws {
        let result = try Self.run(
            "{relight: 1, steps: [{run: 'echo one'}, {run: ['sh', '-c', 'echo two']}, {run: ['true']}]}")
        #expect(result.status == 0)
        let markers = result.output.split(separator: "\n").filter {
            $0.hasPrefix("RELIGHT-") || $0 == "one" || $0 == "two"
        }
        #expect(
            markers == [
                "one", "RELIGHT-STEP 1 ok 0 run", "two", "RELIGHT-STEP 2 ok 0 run", "RELIGHT-STEP 3 ok 0 run",
                "RELIGHT-JOB ok",
            ])
    }

    @Test(
        .enabled(if: relight != nil, "needs the relight program beside the tests"),
        arguments: [
            ("exit 1", "RELIGHT-STEP 1 failed 1 run", Int32(1)), ("exit 4", "RELIGHT-STEP 1 failed 4 run", 1),
            ("exit 3", "RELIGHT-STEP 1 failed 3 run", 1),
            ("kill -SEGV $$", "RELIGHT-STEP 1 crashed 139 run", 1),
        ])
    func aStepThatDoesNotEndWellEndsTheJob(command: String, marker: String, status: Int32) throws {
        let result = try Self.run("{relight: 1, steps: [{run: '\(command)'}, {run: 'echo never'}], after: 'poweroff'}")
        #expect(result.status == status)
        let lines = result.output.split(separator: "\n").map(String.init)
        #expect(lines.contains(marker))
        #expect(lines.contains("RELIGHT-JOB failed"))
        #expect(!lines.contains("never"))
        #expect(!result.output.contains("RELIGHT-STEP 2"))
    }

    @Test(.enabled(if: relight != nil, "needs the relight program beside the tests"))
    func aBadJobRunsNoStep() throws {
        let result = try Self.run(
            "{relight: 1, steps: [{run: 'echo ran'}, {restore: {from: '/s', to: ['/dev/sda'], confirm: true}}]}")
        #expect(result.status == 4)
        #expect(!result.output.contains("RELIGHT-STEP"))
        #expect(result.output.contains("RELIGHT-JOB failed"))
        #expect(result.output.contains("not pinned"))
    }

    @Test(.enabled(if: relight != nil, "needs the relight program beside the tests"))
    func aTargetThatIsNotThereRunsNoStep() throws {
        let result = try Self.run(
            "{relight: 1, steps: [{run: 'echo ran'}, {restore: {from: '/s', to: ['serial:NO-SUCH-DISK-1'], confirm: true}}]}"
        )
        #expect(result.status == 1)
        #expect(!result.output.contains("RELIGHT-STEP"))
        #expect(result.output.contains("Step 2 (restore)"))
    }

    @Test(.enabled(if: relight != nil, "needs the relight program beside the tests"))
    func aKeyThatNoCommandTakesRunsNoStep() throws {
        let result = try Self.run(
            "{relight: 1, steps: [{run: 'echo ran'}, {backup: {disks: ['a'], to: '/s', level: 'fast', sectorSize: 'many'}}]}"
        )
        #expect(result.status == 4)
        #expect(!result.output.contains("RELIGHT-STEP"))
        #expect(result.output.contains("Step 2 (backup)"))
        #expect(result.output.contains("RELIGHT-JOB failed"))
    }

    @Test(.enabled(if: relight != nil, "needs the relight program beside the tests"))
    func aStepHasItsTimeAndNoMore() throws {
        let result = try Self.run("{relight: 1, steps: [{run: {command: ['sleep', '50'], timeout: 1}}]}")
        #expect(result.output.contains("RELIGHT-STEP 1 failed 130 run"))
        #expect(result.status == 130)
    }

    @Test(.enabled(if: relight != nil, "needs the relight program beside the tests"))
    func aDaemonLeftBehindIsNotWaitedFor() throws {
        let result = try Self.run("{relight: 1, steps: [{run: 'sleep 30 & echo done'}]}")
        #expect(result.output.contains("RELIGHT-JOB ok"))
    }

    @Test(.enabled(if: relight != nil, "needs the relight program beside the tests"))
    func aStepCannotSteerTheTerminal() throws {
        let result = try Self.run("{relight: 1, steps: [{run: ['printf', 'a\\\\033[2Jb\\\\007\\\\n']}]}")
        #expect(result.output.contains("a[2Jb"))
        #expect(!result.output.contains("\u{1B}"))
    }

    @Test func aJobsOwnDiskIsKnownHoweverItIsNamed() throws {
        let tree = try Tree([
            "sys/block/sda/dev": "8:0\n", "sys/block/sda/size": "2048\n", "sys/block/sda/serial": "OLD1\n",
            "sys/block/sdb/dev": "8:16\n", "sys/block/sdb/size": "4096\n", "dev/sda": "", "dev/sdb": "",
        ])
        let scan = DiskScan(tree.files)
        func job(_ disk: String) throws -> JobFile {
            try JobFile(
                parsing: Array("{relight: 1, steps: [{backup: {disks: ['\(disk)'], to: '/s'}}]}".utf8), name: "x")
        }
        for name in ["serial:OLD1", "/dev/sda", "size:1M"] {
            #expect(JobSearch.namedDisk(try job(name), ["sda"], scan, { _ in nil }) == name)
            #expect(JobSearch.namedDisk(try job(name), ["sdb"], scan, { _ in nil }) == nil)
        }
        #expect(JobSearch.namedDisk(try job("serial:GONE"), ["sda"], scan, { _ in nil }) == nil)
    }
}
