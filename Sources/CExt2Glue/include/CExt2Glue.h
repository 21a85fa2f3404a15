// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

// libext2fs on top of a function that reads bytes: no path, no descriptor, and no way to write. Only what libext2fs says
// through macros and inline functions is here; every decision is made in FilesystemMaps.
#ifndef RELIGHT_EXT2_GLUE_H
#define RELIGHT_EXT2_GLUE_H

#include <stdint.h>

/// Fills `buffer` with `length` bytes from byte `offset` of the volume. 0, or an errno.
typedef int (*relight_ext_read)(void *context, uint64_t offset, void *buffer, uint64_t length);

/// Receives a run of blocks in use, in rising order.
typedef void (*relight_ext_run)(void *context, uint64_t first_block, uint64_t blocks);

/// Why no used map could be given though libext2fs opened the filesystem.
enum relight_ext_problem {
    RELIGHT_EXT_OK = 0,
    /// A group descriptor's checksum is wrong. `group` tells which.
    RELIGHT_EXT_DESCRIPTOR_CHECKSUM = 1,
    /// A group's bitmaps or inode table lie outside the filesystem.
    RELIGHT_EXT_OUTSIDE = 2,
    /// A group's own metadata are not marked as used.
    RELIGHT_EXT_METADATA_FREE = 3,
    /// The bitmaps have another number of free blocks than the group descriptors say.
    RELIGHT_EXT_FREE_COUNT = 4,
    /// Read-only compatible features that this libext2fs does not know.
    RELIGHT_EXT_UNKNOWN_FEATURES = 5,
};

struct relight_ext_summary {
    /// One of `relight_ext_problem`.
    int32_t problem;
    /// The group concerned.
    uint32_t group;
    /// Bytes in a block.
    uint32_t block_size;
    /// Blocks in an allocation cluster (bigalloc); else 1.
    uint32_t cluster_blocks;
    uint64_t blocks;
    /// Blocks that are free by the bitmaps, and by the group descriptors.
    uint64_t free_in_bitmaps;
    uint64_t free_in_descriptors;
};

/// Opens the filesystem that `read` reads, checks its groups, and hands each run of used blocks to `run`.
/// Returns 0, or an error of libext2fs (see `relight_ext_error`). The runs count only when the summary has no problem.
long relight_ext_map(relight_ext_read read, relight_ext_run run, void *context, struct relight_ext_summary *summary);

/// Whether `code` says that the filesystem has features libext2fs does not know.
int relight_ext_is_unsupported(long code);

/// The text of an error of libext2fs. Not to be freed.
const char *relight_ext_error(long code);

#endif
