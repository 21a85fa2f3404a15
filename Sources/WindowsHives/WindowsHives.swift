// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # WindowsHives
///
/// Reads the files the Windows registry lies in: hives (`regf`, versions 1.3 to 1.6) and their transaction logs. SYSTEM,
/// SOFTWARE and the like are hives, and so is a BCD store. ``WindowsIdentity`` tells from SYSTEM and SOFTWARE which Windows
/// is installed.
///
/// A ``Hive`` is opened from a ``HiveSource``, which is any random access to bytes. Opening reads the base block and, when
/// the hive is dirty, its logs; keys, lists and data are read when they are asked for, through a cache of 4 MiB. A hive of
/// hundreds of megabytes takes no more memory than a small one.
///
/// **Logs.** Windows writes changes to a log first. When it stopped before they reached the hive, the hive is dirty: its
/// two sequence numbers differ, or the checksum of its base block is wrong. What the logs hold is then laid over the hive
/// in memory, by the rules Windows follows, and every read sees the recovered content. ``Hive/state`` says what was
/// done, or why nothing could be.
///
/// **Hostile bytes.** Every offset, size and count is checked against the hive before it is used. A key's parent must be
/// the key whose list names it, and no list may name a key twice, so that a walk meets every key once and ends; keys below
/// the 512th level are refused, as Windows refuses to make them.
///
/// What the room does not promise: it writes nothing, neither to hives nor to logs. It does not look at cells nobody asks
/// for, so that a hive read without a fault is not proved to be whole. Volatile keys are not in a file, and symbolic links
/// are told but not followed. Transactions of CLFS (`.regtrans-ms`) and layered keys of containers are not applied.
/// Names are compared by the simple upper case of Unicode, which differs from the table of Windows for a few letters that no
/// known key uses; for ASCII they are the same.
///
/// Source: M. Suhanov, *Windows registry file format specification*; sections are named by their headings.
public import Findings

extension FaultCode {
    /// The file is no registry hive.
    public static let notAHive = FaultCode("hive.not-a-hive", exit: .failed)
    /// A hive of a version or kind that is not read.
    public static let hiveUnsupported = FaultCode("hive.unsupported", exit: .failed)
    /// Something in a hive contradicts itself or points outside.
    public static let hiveDamaged = FaultCode("hive.damaged", exit: .damaged)
    /// A value is larger than the caller takes.
    public static let hiveValueTooLarge = FaultCode("hive.value-too-large", exit: .failed)
}
