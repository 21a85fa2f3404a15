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
    /// The checksums of most group descriptors are wrong, or of the only one. `group` tells the first.
    RELIGHT_EXT_DESCRIPTOR_CHECKSUM = 1,
    /// The bitmaps or inode tables of most groups lie outside the filesystem.
    RELIGHT_EXT_OUTSIDE = 2,
    /// A group's own metadata are not marked as used.
    RELIGHT_EXT_METADATA_FREE = 3,
    /// The bitmaps have another number of free blocks than the group descriptors say.
    RELIGHT_EXT_FREE_COUNT = 4,
    /// Read-only compatible features that this libext2fs does not know.
    RELIGHT_EXT_UNKNOWN_FEATURES = 5,
    /// A group's bitmap has more free blocks than its descriptor says.
    RELIGHT_EXT_GROUP_FREE_COUNT = 6,
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
    /// Inodes in use by the group descriptors, and what a group has of inodes and blocks.
    uint64_t inodes_in_use;
    uint32_t inodes_per_group;
    uint32_t blocks_per_group;
    /// Groups, and how many of them count as in use since their descriptors are damaged; `group` is the first.
    uint32_t groups;
    uint32_t broken_groups;
};

/// Opens the filesystem that `read` reads, checks its groups, and hands each run of used blocks to `run`.
/// Returns 0, or an error of libext2fs (see `relight_ext_error`). The runs count only when the summary has no problem.
/// Where `in_flux` is not 0 the bitmaps are taken as they are, without comparing them with anything: before a journal was
/// replayed they and their checksums are of different moments.
long relight_ext_map(
    relight_ext_read read, relight_ext_run run, void *context, int in_flux, struct relight_ext_summary *summary);

/// An open filesystem.
struct relight_ext;

/// What the superblock says.
struct relight_ext_facts {
    uint32_t block_size;
    uint32_t inode_size;
    uint32_t groups;
    uint32_t inodes_per_group;
    uint32_t inodes;
    uint32_t first_inode;
    uint32_t first_data_block;
    uint32_t journal_inode;
    uint32_t orphan_inode;
    uint32_t quota_inodes[3];
    uint32_t compatible;
    uint32_t incompatible;
    uint32_t read_only_compatible;
    uint64_t blocks;
    uint8_t uuid[16];
};

/// Where a group's own metadata lie; a place of 0 blocks is none.
struct relight_ext_group {
    uint64_t superblock;
    uint64_t superblock_blocks;
    uint64_t descriptors;
    uint64_t descriptor_blocks;
    uint64_t block_bitmap;
    uint64_t inode_bitmap;
    uint64_t inode_table;
    uint64_t inode_table_blocks;
    /// Inodes from the group's first on that may be in use.
    uint32_t inodes;
    /// Whether what the descriptor names lies inside the filesystem.
    int32_t is_inside;
};

/// An inode.
struct relight_ext_inode {
    uint64_t size;
    uint64_t xattr_block;
    /// i_blocks in 512-byte units, or in blocks where the huge_file flag says so.
    uint64_t blocks;
    /// i_version, counted up at each change by kernels that do so.
    uint64_t version;
    /// Seconds since 1970, with the epoch bits.
    int64_t changed;
    int64_t modified;
    uint32_t changed_nanoseconds;
    uint32_t modified_nanoseconds;
    uint32_t flags;
    uint32_t generation;
    uint32_t deleted;
    uint32_t links;
    uint16_t mode;
    /// Whether the inode has blocks: not a device, a short symbolic link, or data kept in the inode.
    uint8_t has_blocks;
    /// Whether the times have nanoseconds.
    uint8_t has_nanoseconds;
    /// i_block, as stored.
    uint8_t map[60];
};

/// What a run of an inode's blocks is.
enum relight_ext_piece_kind {
    RELIGHT_EXT_DATA = 0,
    /// Allocated, but reads as zeros whatever the blocks hold.
    RELIGHT_EXT_UNWRITTEN = 1,
    /// A block of the extent tree or an indirect block.
    RELIGHT_EXT_TREE = 2,
};

/// Receives a run of blocks of an inode. `logical` is the first block's place in the file. Not 0 ends the walk.
typedef int (*relight_ext_piece)(void *context, int kind, uint64_t first_block, uint64_t blocks, uint64_t logical);

/// Opens the filesystem that `read` reads; `read` and its context must stay valid until it is closed.
long relight_ext_open(
    relight_ext_read read, void *context, struct relight_ext **result, struct relight_ext_facts *facts);
void relight_ext_close(struct relight_ext *volume);

/// Group `group`, which must be below the number of groups. 0 when there is no such group.
int relight_ext_group(struct relight_ext *volume, uint32_t group, struct relight_ext_group *result);

/// Inode `number`; checks its checksum. Returns 0 or an error of libext2fs.
long relight_ext_inode(struct relight_ext *volume, uint32_t number, struct relight_ext_inode *result);

/// Hands out the blocks of the inode that `relight_ext_inode` read last. Where a part of the tree cannot be read the
/// walk goes on behind it and the error is returned at the end. At most `most` runs.
long relight_ext_blocks(struct relight_ext *volume, uint64_t most, relight_ext_piece piece, void *context);

/// Copies the data that inode `number` keeps in itself. Returns 0 or an error; `length` is capacity, then size.
long relight_ext_inline_data(struct relight_ext *volume, uint32_t number, void *buffer, uint64_t *length);

/// Reads the block bitmap. Returns 0 or an error.
long relight_ext_load_bitmap(struct relight_ext *volume);
/// Whether a block is in use by the bitmap that was loaded; 1 for a block outside.
int relight_ext_is_used(struct relight_ext *volume, uint64_t block);

/// Whether `code` says that the filesystem has features libext2fs does not know.
int relight_ext_is_unsupported(long code);

/// The text of an error of libext2fs. Not to be freed.
const char *relight_ext_error(long code);

#endif
