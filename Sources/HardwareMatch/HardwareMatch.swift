// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # HardwareMatch
///
/// What hardware a machine has, as a value that can be stored and taken elsewhere (``HardwareProfile``); which of a
/// kernel's modules drive it (``ModuleIndex``); and what lies in an initramfs (``InitramfsImage``). From the three follows
/// whether a kernel finds its root disk on a machine.
///
/// Devices name themselves by a modalias, modules name the devices they drive by patterns (`modules.alias`, written by
/// depmod(8)); the kernel and modprobe match the two, and so does this room. It reads text and images that others give it
/// and runs nothing but decompressors.
///
/// What it does not promise: that a driver works with a device it names; that a device comes up in time; anything about
/// modules outside the kernel's own folder that no index names.
public import Findings

extension FaultCode {
    /// An initramfs is cut off or contradicts itself.
    public static let initramfsDamaged = FaultCode("initramfs.damaged", exit: .damaged)
}
