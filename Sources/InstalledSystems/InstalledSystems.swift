// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # InstalledSystems
///
/// Which operating systems lie on disks: their files are read by `FileTrees` from the volumes that a survey found, nothing is
/// mounted outside of the booted environment, nothing is written.
///
/// A volume whose root has `etc` with an os-release (or an older distribution's file of that kind) is a Linux; its fstab is
/// resolved over all the volumes seen, so that a `/boot` and an EFI system partition of their own are looked into too.
/// A volume with a folder that has `System32/config` and a registry in it is a Windows, known by its hives, which are read
/// piece by piece where they lie. Of macOS and the BSDs only the partition's type is told. EFI system partitions are
/// listed with what each program on them is.
///
/// What is broken does not end the search: it is a finding that says what and where. Few files are read, and only of
/// filesystems that can hold a system.
///
/// What the room does not promise: that a system boots (it says what is set up, not whether that is sound), systems in
/// images and containers inside a filesystem, and `Windows.old`.
public import Blocks
public import FileTrees
public import Findings
import Geometry
public import MachineModel
import Threads

/// A volume that a survey found.
public struct SeenVolume: Sendable {
    /// Its place: `/dev/sda:3`, `vg0/root`.
    public var name: String
    /// Which of the disks its first bytes lie on.
    public var disk: Int
    /// Its bytes; `nil` where they cannot be reached.
    public var source: (any BlockSource)?
    /// What lies in it.
    public var kind: ContentKind
    /// The label of what lies in it.
    public var label: String?
    /// Its UUID or serial.
    public var uuid: String?
    /// States by name.
    public var states: [VolumeState]
    /// Its partition; `nil` in layers and on disks without a table.
    public var partition: Partition?
    /// The signature of the MBR the partition is in.
    public var signature: UInt32?

    /// A volume.
    public init(
        name: String, disk: Int, source: (any BlockSource)?, kind: ContentKind, label: String? = nil,
        uuid: String? = nil, states: [VolumeState] = [], partition: Partition? = nil, signature: UInt32? = nil
    ) {
        self.name = name
        self.disk = disk
        self.source = source
        self.kind = kind
        self.label = label
        self.uuid = uuid
        self.states = states
        self.partition = partition
        self.signature = signature
    }
}

/// What was found, with the disk each thing belongs to.
public struct SystemsSeen: Sendable {
    /// The systems.
    public var systems: [(disk: Int, system: InstalledSystem)] = []
    /// The EFI programs.
    public var programs: [(disk: Int, program: EFIProgram)] = []
    /// What was noticed.
    public var findings: [(disk: Int, finding: Finding)] = []
}

/// Looks for operating systems.
public enum InstalledSystems {
    /// Volumes looked into; of a volume group with thousands the others are told.
    static let mostVolumes = 96
    /// Volumes are begun with for as long as this.
    static let mostTime: Duration = .seconds(240)

    /// The systems on `volumes`, whose files `host` reads. Throws `interrupted` only.
    public static func look(at volumes: [SeenVolume], by host: ProbeHost) throws(Fault) -> SystemsSeen {
        try look(at: volumes) { (volume, source) throws(Fault) in
            try host.tree(of: source, kind: volume.kind.rawValue)
        }
    }

    /// The same with trees that `open` gives.
    static func look(at volumes: [SeenVolume], opening open: @escaping TreePool.Opening) throws(Fault) -> SystemsSeen {
        var search = Search(volumes, TreePool(volumes, open))
        try search.run()
        return search.seen
    }
}

/// One search.
private struct Search {
    let volumes: [SeenVolume]
    let trees: TreePool
    var seen = SystemsSeen()
    /// Windows' boot stores by volume.
    private var stores: [(disk: Int, store: BootStore)] = []
    private var espPrograms: [Int: [EFIProgram]] = [:]

    init(_ volumes: [SeenVolume], _ trees: TreePool) {
        self.volumes = volumes
        self.trees = trees
    }

    mutating func run() throws(Fault) {
        var roots: [(index: Int, root: String)] = []
        var windows: [(index: Int, folder: String)] = []
        var looked = 0
        let begun = ContinuousClock.now
        for index in volumes.indices {
            try Interruption.check()
            guard volumes[index].source != nil, TreeFormat(kind: volumes[index].kind.rawValue) != nil
            else { continue }
            looked += 1
            guard looked <= InstalledSystems.mostVolumes else {
                note(.notice, "system.too-many", "There are more volumes than are looked into for systems.", index)
                break
            }
            // Each volume has its own limits; a disk with many that use them up must not keep a backup waiting.
            guard begun.duration(to: .now) < InstalledSystems.mostTime else {
                note(
                    .warning, "system.too-slow", "The time to look for systems ended before this volume's turn.", index)
                break
            }
            try look(at: index, &roots, &windows)
        }
        for (index, root) in roots {
            let linux = try LinuxReader(
                volumes, at: index, root: root, trees: trees, programs: espPrograms, notes: Notes(volumes[index].name))
            seen.systems.append((volumes[index].disk, linux.system))
            for finding in linux.notes.findings { seen.findings.append((volumes[index].disk, finding)) }
        }
        for (index, folder) in windows {
            guard let tree = try trees.tree(index) else { continue }
            var reader = WindowsReader(volumes[index], folder, tree)
            try reader.read()
            let own = stores.filter { $0.disk == volumes[index].disk }
            reader.system.windows?.bootStores = (own.isEmpty ? stores : own).map(\.store)
            seen.systems.append((volumes[index].disk, reader.system))
            for finding in reader.notes.findings { seen.findings.append((volumes[index].disk, finding)) }
        }
        for volume in volumes {
            if let system = ForeignSystems.system(volume) { seen.systems.append((volume.disk, system)) }
        }
        let order = Dictionary(volumes.enumerated().map { ($1.name, $0) }) { first, _ in first }
        seen.systems.sort {
            (order[$0.system.volume] ?? 0, $0.system.root) < (order[$1.system.volume] ?? 0, $1.system.root)
        }
        for (index, fault) in trees.faults.sorted(by: { $0.key < $1.key }) {
            if fault.code == .unsupported {
                note(.notice, "system.not-looked-into", "It was not looked into for systems: \(fault.what)", index)
            } else {
                note(.warning, fault.code.rawValue, "It cannot be looked into for systems: \(fault.what)", index)
            }
        }
    }

    /// Notes what a volume has the signs of, and lets go of it where it has none.
    private mutating func look(
        at index: Int, _ roots: inout [(index: Int, root: String)], _ windows: inout [(index: Int, folder: String)]
    ) throws(Fault) {
        guard let tree = try trees.tree(index) else { return }
        let volume = volumes[index]
        var isOfUse = false
        do throws(Fault) {
            if tree.isCaseSensitive {
                let found = try LinuxRoots.all(in: tree)
                for root in found { roots.append((index, root)) }
                isOfUse = !found.isEmpty
            } else {
                for folder in try WindowsReader.folders(in: tree) {
                    windows.append((index, folder))
                    isOfUse = true
                }
                for (path, mode) in [("EFI/Microsoft/Boot/BCD", FirmwareMode.uefi), ("Boot/BCD", .bios)] {
                    guard let place = try tree.find(path), place.entry.kind == .file else { continue }
                    stores.append((volume.disk, BootStore(volume: volume.name, path: "/\(path)", firmware: mode)))
                }
                if volume.kind == .fat, try tree.holdsFolder("EFI") {
                    var reader = EFIPartition(volume.name, tree)
                    try reader.read()
                    espPrograms[index] = reader.programs
                    for program in reader.programs { seen.programs.append((volume.disk, program)) }
                    for finding in reader.notes.findings { seen.findings.append((volume.disk, finding)) }
                    isOfUse = true
                }
            }
        } catch {
            if error.code == .interrupted { throw error }
            trees.fail(index, error)
        }
        if !isOfUse { trees.release(index) }
    }

    private mutating func note(_ severity: Finding.Severity, _ code: String, _ what: String, _ index: Int) {
        seen.findings.append((volumes[index].disk, Finding(severity, code, what: what, place: volumes[index].name)))
    }
}

/// What goes wrong while a system is read: kept, and the reading goes on.
struct Notes {
    let place: String
    private(set) var findings: [Finding] = []

    init(_ place: String) { self.place = place }

    mutating func add(_ finding: Finding) {
        if findings.count < 16, !findings.contains(finding) { findings.append(finding) }
    }

    /// What `body` reads; `nil` where it cannot be read, which is then noted. Throws `interrupted` only.
    mutating func attempt<T>(_ body: () throws(Fault) -> T?) throws(Fault) -> T? {
        do throws(Fault) {
            return try body()
        } catch {
            if error.code == .interrupted { throw error }
            let place = error.place.isEmpty || error.place == place ? place : "\(self.place): \(error.place)"
            add(Finding(.warning, error.code.rawValue, what: error.what, place: place))
            return nil
        }
    }
}

/// Trees of volumes, opened when first asked for.
final class TreePool {
    /// Gives the files of a volume.
    typealias Opening = (SeenVolume, any BlockSource) throws(Fault) -> any FileTree

    private let volumes: [SeenVolume]
    private let opening: Opening
    private var open: [Int: any FileTree] = [:]
    /// Why volumes could not be looked into.
    private(set) var faults: [Int: Fault] = [:]

    init(_ volumes: [SeenVolume], _ opening: @escaping Opening) {
        self.volumes = volumes
        self.opening = opening
    }

    /// The files of volume `index`; `nil` where they cannot be read. Throws `interrupted` only.
    func tree(_ index: Int) throws(Fault) -> (any FileTree)? {
        if let known = open[index] { return known }
        guard faults[index] == nil, let source = volumes[index].source else { return nil }
        do throws(Fault) {
            let tree = try opening(volumes[index], source)
            open[index] = tree
            return tree
        } catch {
            if error.code == .interrupted { throw error }
            faults[index] = error
            return nil
        }
    }

    /// Notes that volume `index` cannot be read any further.
    func fail(_ index: Int, _ fault: Fault) {
        if faults[index] == nil { faults[index] = fault }
        open[index] = nil
    }

    func release(_ index: Int) { open[index] = nil }
}
