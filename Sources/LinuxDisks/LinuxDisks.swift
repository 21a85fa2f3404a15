// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # LinuxDisks
///
/// The disks this machine has, as the kernel tells it in sysfs and procfs: what each is, what holds it, what is mounted
/// from it; how a user names one (``DiskSelector``); where an image set lies (``StoreLocation``); on which disks a path
/// lies, through device-mapper, RAID and loop devices; the kernel's read-only mark; waiting for partition nodes.
///
/// The room never reads a disk's content, except through the identifier a caller gives it (or the `blkid` program) and
/// the one sector that names a Relight medium. No udev is needed: names come from sysfs, nodes from devtmpfs.
///
/// It does not promise that nothing else uses a disk: mounts made in another mount namespace are not seen. Only the
/// exclusive claim of `WritableDisk` settles that.
