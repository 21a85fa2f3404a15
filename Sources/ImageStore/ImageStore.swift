// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

/// # ImageStore
///
/// Image sets: packs of deduplicated, compressed units and sealed recovery points that say what was where. The format is
/// described in `docs/image-format.md`; that page changes with the code.
///
/// - ``ObjectStore`` is a place for immutable objects: ``FolderStore`` on any filesystem, ``MemoryStore`` for tests,
///   ``SpanStore`` over several places that hold one set, ``ArchiveStore`` in a tar file (made by ``ArchiveWriter``),
///   ``CatalogueStore`` where nothing can be listed.
/// - ``SetWriter`` makes one recovery point. Its ``StreamWriter``s hand out pieces; any number of threads, each with a
///   ``UnitWorker``, take whole pieces through mask, zero test, SHA-256, look-up, Zstandard and append.
/// - ``SetRepair`` puts back what damaged files held: from second copies, and from the parity inside packs.
/// - ``SetReader`` lists, opens and verifies. A ``PointStream`` is read here and there, or from front to back through a
///   ``PieceCursor`` by any number of threads, each with a ``PieceDecoder``.
/// - ``SetKeeper`` removes points and reclaims the space nothing needs any more.
///
/// Promised: a point exists only after everything it refers to is durable; nothing finished is ever changed; every byte
/// handed out was compared with its hash after decompression; a damaged frame costs that frame and no more; whatever a
/// file of the set says is bounded before memory is taken for it.
///
/// Not promised in this version: removing points and reclaiming space. The room knows bytes and streams, not disks or
/// filesystems.
