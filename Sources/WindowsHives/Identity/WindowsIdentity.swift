// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

public import Findings

/// Which Windows is installed, as its own hives tell. What they do not tell is `nil`.
///
/// Source: the values of `Microsoft\Windows NT\CurrentVersion` in SOFTWARE, and of `Select` and the current control set in
/// SYSTEM.
public struct WindowsIdentity: Hashable, Sendable, Codable {
    /// `Windows 11 Pro`. Windows 11 still calls itself 10 in its hive: builds from 22000 on are told as what they are.
    public var productName: String?
    /// EditionID: `Professional`, `ServerStandard`.
    public var edition: String?
    /// `Client`, `Server`, `Server Core`.
    public var installationType: String?
    /// `10.0`, `6.1`.
    public var version: String?
    /// `22631`.
    public var build: UInt32?
    /// The number after the build's, raised by every monthly update.
    public var updateRevision: UInt32?
    /// `23H2`, `1809`, `Service Pack 1`.
    public var displayVersion: String?
    /// `amd64`, `x86`, `arm64`, `arm`, `ia64`.
    public var architecture: String?
    /// `C:\Windows`, with the letter Windows itself gives the volume.
    public var systemRoot: String?
    /// The computer's name.
    public var computerName: String?
    /// The control sets of SYSTEM.
    public var controlSets: ControlSets?
    /// What could not be read.
    public var findings: [Finding]

    /// Reads what `system` and `software` tell; either may be missing. A damaged hive gives a finding and what can be read
    /// of the rest.
    public init(system: Hive?, software: Hive?) {
        findings = []
        for hive in [system, software] {
            guard let hive, case .dirty(let why) = hive.state else { continue }
            findings.append(
                Finding(
                    .warning, "hive.dirty",
                    what: "The registry hive was not written completely: \(why). It is read as it lies there.",
                    place: hive.name))
        }
        if let software { note { (identity) throws(Fault) in try identity.read(software: software) } }
        if let system { note { (identity) throws(Fault) in try identity.read(system: system) } }
        if productName != nil, let corrected { productName = corrected }
    }

    private mutating func note(_ work: (inout WindowsIdentity) throws(Fault) -> Void) {
        do throws(Fault) {
            try work(&self)
        } catch {
            findings.append(
                Finding(.warning, error.code.rawValue, what: "\(error.what) \(error.remedy)", place: error.place))
        }
    }

    private mutating func read(software: Hive) throws(Fault) {
        guard let key = try software.key("Microsoft\\Windows NT\\CurrentVersion") else { return }
        productName = try key.text("ProductName")
        edition = try key.text("EditionID")
        installationType = try key.text("InstallationType")
        systemRoot = try key.text("SystemRoot", "PathName")
        // Windows XP has words in CurrentBuild.
        build = try key.text("CurrentBuildNumber", "CurrentBuild").flatMap { UInt32($0) }
        updateRevision = try key.dword("UBR")
        if let major = try key.dword("CurrentMajorVersionNumber") {
            version = "\(major).\(try key.dword("CurrentMinorVersionNumber") ?? 0)"
        } else {
            version = try key.text("CurrentVersion")
        }
        displayVersion = try key.text("DisplayVersion", "ReleaseId", "CSDVersion")
        // `22621.1.amd64fre.ni_release.220506-1250`
        let laboratory = try key.text("BuildLabEx", "BuildLab") ?? ""
        for part in laboratory.split(separator: ".") {
            for name in ["amd64", "x86", "arm64", "arm", "ia64"] where part == "\(name)fre" || part == "\(name)chk" {
                architecture = name
            }
        }
    }

    private mutating func read(system: Hive) throws(Fault) {
        controlSets = try system.controlSets()
        guard let set = try system.currentControlSet() else { return }
        computerName = try set.key("Control\\ComputerName\\ComputerName")?.text("ComputerName")
        if computerName == nil { computerName = try set.key("Services\\Tcpip\\Parameters")?.text("Hostname") }
        if let name = try set.key("Control\\Session Manager\\Environment")?.text("PROCESSOR_ARCHITECTURE") {
            architecture = name.lowercased()
        }
        // SOFTWARE tells better, if it is there.
        if build == nil, let text = try set.key("Control\\ProductOptions")?.text("ProductType") {
            installationType = installationType ?? (text == "WinNT" ? "Client" : "Server")
        }
    }

    /// The name with the 11 that the hive does not know of.
    private var corrected: String? {
        let wrong = "Windows 10"
        guard let productName, productName.hasPrefix(wrong), let build, build >= 22_000 else { return nil }
        return "Windows 11" + productName.dropFirst(wrong.count)
    }

    /// Whether it is a server; `nil` when that is not told.
    public var isServer: Bool? {
        if let installationType { return installationType.hasPrefix("Server") }
        return productName.map { $0.contains("Server") }
    }

    /// `Windows 11 Pro 23H2 (build 22631.3007, amd64)`.
    public var summary: String {
        var text = productName ?? "Windows"
        if let displayVersion { text += " \(displayVersion)" }
        var details: [String] = []
        if let build { details.append("build \(build)\(updateRevision.map { ".\($0)" } ?? "")") }
        if let architecture { details.append(architecture) }
        if !details.isEmpty { text += " (\(details.joined(separator: ", ")))" }
        return text
    }
}

extension HiveKey {
    /// The text of the first of the values `names` that has one.
    fileprivate func text(_ names: String...) throws(Fault) -> String? {
        for name in names {
            if let text = try string(name), !text.isEmpty { return text }
        }
        return nil
    }
}
