// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # PartitionTables
///
/// Reads partition tables into `MachineModel.PartitionTable` values and is the only writer of their bytes.
///
/// Reading (``TableReader``) needs nothing but a `BlockSource`, checks both copies of a GPT, follows extended chains,
/// and says as findings what is odd. Writing (``TableWriter``) turns a value into the bytes of every sector the table
/// occupies, in the order in which a crash does least harm: backup copy, primary copy, sector 0. ``TableLayout`` moves
/// a table to a disk of another size without touching any disk.
///
/// ``Parted`` is the second opinion: libparted reads back what was written and must agree, knows what alignment a
/// device likes, and tells the kernel. libparted opens disks read-write first, so it is used on targets only.
///
/// What the room does not promise: it does not decide where partitions go, does not convert between sector sizes or
/// between MBR and GPT, and does not keep the boot code of extended boot records (unused since MS-DOS). Of an entry in
/// a GPT it keeps the 128 bytes the specification defines, not what a vendor puts behind them.
enum Room {}
