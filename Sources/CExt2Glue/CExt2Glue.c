// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

#include "CExt2Glue.h"
#include "Channel.h"

#include <errno.h>
#include <et/com_err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

// libext2fs opens a channel by name; what it shall read instead is handed over here, on the same thread.
static _Thread_local struct relight_ext_reader *opening;

static struct struct_io_manager manager;

static errcode_t channel_open(const char *name, int flags, io_channel *result) {
    if (flags & IO_FLAG_RW) return EROFS;
    io_channel channel = calloc(1, sizeof *channel);
    if (!channel) return ENOMEM;
    channel->name = strdup(name);
    if (!channel->name) {
        free(channel);
        return ENOMEM;
    }
    channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
    channel->manager = &manager;
    channel->block_size = 1024;
    channel->refcount = 1;
    channel->private_data = opening;
    *result = channel;
    return 0;
}

static errcode_t channel_close(io_channel channel) {
    if (--channel->refcount > 0) return 0;
    free(channel->name);
    free(channel);
    return 0;
}

static errcode_t channel_set_block_size(io_channel channel, int size) {
    channel->block_size = size;
    return 0;
}

static errcode_t channel_read64(io_channel channel, unsigned long long block, int count, void *data) {
    struct relight_ext_reader *reader = channel->private_data;
    uint64_t offset, length;
    // A negative count is a number of bytes.
    if (count < 0)
        length = (uint64_t)(-(int64_t)count);
    else if (__builtin_mul_overflow((uint64_t)count, (uint64_t)channel->block_size, &length))
        return EXT2_ET_SHORT_READ;
    if (__builtin_mul_overflow((uint64_t)block, (uint64_t)channel->block_size, &offset)) return EXT2_ET_SHORT_READ;
    return reader->read(reader->context, offset, data, length);
}

static errcode_t channel_read(io_channel channel, unsigned long block, int count, void *data) {
    return channel_read64(channel, block, count, data);
}

static errcode_t channel_write64(io_channel channel, unsigned long long block, int count, const void *data) {
    (void)channel, (void)block, (void)count, (void)data;
    return EROFS;
}

static errcode_t channel_write(io_channel channel, unsigned long block, int count, const void *data) {
    (void)channel, (void)block, (void)count, (void)data;
    return EROFS;
}

static errcode_t channel_write_byte(io_channel channel, unsigned long offset, int count, const void *data) {
    (void)channel, (void)offset, (void)count, (void)data;
    return EROFS;
}

static errcode_t channel_flush(io_channel channel) {
    (void)channel;
    return 0;
}

static struct struct_io_manager manager = {
    .magic = EXT2_ET_MAGIC_IO_MANAGER,
    .name = "relight",
    .open = channel_open,
    .close = channel_close,
    .set_blksize = channel_set_block_size,
    .read_blk = channel_read,
    .write_blk = channel_write,
    .flush = channel_flush,
    .write_byte = channel_write_byte,
    .read_blk64 = channel_read64,
    .write_blk64 = channel_write64,
};

static int lies_inside(ext2_filsys fs, blk64_t block, blk64_t count) {
    blk64_t first = fs->super->s_first_data_block, end = ext2fs_blocks_count(fs->super);
    return block >= first && block < end && count <= end - block;
}

/// What is wrong with a group's descriptor: its checksum, or that it names places outside the filesystem.
static int check_group(ext2_filsys fs, dgrp_t group, int checksums) {
    if (checksums && !ext2fs_group_desc_csum_verify(fs, group)) return RELIGHT_EXT_DESCRIPTOR_CHECKSUM;
    if (!lies_inside(fs, ext2fs_block_bitmap_loc(fs, group), 1) ||
        !lies_inside(fs, ext2fs_inode_bitmap_loc(fs, group), 1) ||
        !lies_inside(fs, ext2fs_inode_table_loc(fs, group), fs->inode_blocks_per_group))
        return RELIGHT_EXT_OUTSIDE;
    return RELIGHT_EXT_OK;
}

/// A descriptor that names nothing, of a group whose bitmap is not read.
static void forget_group(ext2_filsys fs, dgrp_t group) {
    ext2fs_block_bitmap_loc_set(fs, group, 0);
    ext2fs_inode_bitmap_loc_set(fs, group, 0);
    ext2fs_inode_table_loc_set(fs, group, 0);
    ext2fs_bg_free_blocks_count_set(fs, group, 0);
    ext2fs_bg_flags_zap(fs, group);
    if (ext2fs_has_group_desc_csum(fs)) {
        ext2fs_bg_flags_set(fs, group, EXT2_BG_BLOCK_UNINIT | EXT2_BG_INODE_UNINIT);
        ext2fs_group_desc_csum_set(fs, group);
    }
}

/// Every group's descriptor is sound and names places inside the filesystem; `broken` gets those of which that is not
/// so. Must come before the bitmaps are read, for libext2fs marks what the descriptors name without asking where it lies.
/// Returns what is wrong where it is wrong with too many: then the whole table is not to be believed.
static int check_groups(ext2_filsys fs, int places_only, uint8_t *broken, struct relight_ext_summary *summary) {
    int checksums = !places_only && ext2fs_has_group_desc_csum(fs), problem = RELIGHT_EXT_OK;
    for (dgrp_t group = 0; group < fs->group_desc_count; group++) {
        int wrong = check_group(fs, group, checksums);
        if (wrong) {
            if (!summary->broken_groups++) {
                problem = wrong;
                summary->group = group;
            }
            broken[group] = 1;
            forget_group(fs, group);
            continue;
        }
        uint32_t free_inodes = ext2fs_bg_free_inodes_count(fs, group);
        if (free_inodes < fs->super->s_inodes_per_group)
            summary->inodes_in_use += fs->super->s_inodes_per_group - free_inodes;
        summary->free_in_descriptors += EXT2FS_C2B(fs, (uint64_t)ext2fs_bg_free_blocks_count(fs, group));
    }
    return summary->broken_groups > fs->group_desc_count / 2 ? problem : RELIGHT_EXT_OK;
}

/// Marks all blocks of the groups in `broken` as used.
static void mark_broken(ext2_filsys fs, const uint8_t *broken) {
    for (dgrp_t group = 0; group < fs->group_desc_count; group++) {
        if (!broken[group]) continue;
        blk64_t first = ext2fs_group_first_block2(fs, group), last = ext2fs_group_last_block2(fs, group);
        ext2fs_mark_block_bitmap_range2(fs->block_map, first, (unsigned int)(last - first + 1));
    }
}

/// Every group's own metadata are marked as used.
static int check_metadata(ext2_filsys fs, const uint8_t *broken, struct relight_ext_summary *summary) {
    dgrp_t first = summary->group;
    for (dgrp_t group = 0; group < fs->group_desc_count; group++) {
        if (broken[group]) continue;
        summary->group = group;
        blk64_t table = ext2fs_inode_table_loc(fs, group);
        blk64_t last = table + (fs->inode_blocks_per_group ? fs->inode_blocks_per_group - 1 : 0);
        if (!ext2fs_test_block_bitmap2(fs->block_map, ext2fs_block_bitmap_loc(fs, group)) ||
            !ext2fs_test_block_bitmap2(fs->block_map, ext2fs_inode_bitmap_loc(fs, group)) ||
            !ext2fs_test_block_bitmap2(fs->block_map, table) || !ext2fs_test_block_bitmap2(fs->block_map, last))
            return RELIGHT_EXT_METADATA_FREE;
    }
    summary->group = first;
    return RELIGHT_EXT_OK;
}

/// Adds free blocks to the sum of their group. What a group has more of than its descriptor says is remembered: bitmaps
/// that were exchanged have the right sum together.
struct group_count {
    dgrp_t group;
    uint64_t free;
};

static void end_group(ext2_filsys fs, struct group_count *count, struct relight_ext_summary *summary) {
    if (!summary->problem && count->free > EXT2FS_C2B(fs, (uint64_t)ext2fs_bg_free_blocks_count(fs, count->group))) {
        summary->problem = RELIGHT_EXT_GROUP_FREE_COUNT;
        summary->group = count->group;
    }
    count->free = 0;
}

static void add_free(
    ext2_filsys fs, struct group_count *count, blk64_t first, blk64_t end, struct relight_ext_summary *summary) {
    while (first < end) {
        dgrp_t group = ext2fs_group_of_blk2(fs, first);
        if (group != count->group) {
            end_group(fs, count, summary);
            count->group = group;
        }
        blk64_t last = ext2fs_group_last_block2(fs, group);
        blk64_t stop = last < end - 1 ? last + 1 : end;
        count->free += stop - first;
        first = stop;
    }
}

/// Hands out the used runs and counts the free blocks between them.
static void walk(ext2_filsys fs, relight_ext_run run, void *context, struct relight_ext_summary *summary) {
    blk64_t end = ext2fs_blocks_count(fs->super), position = fs->super->s_first_data_block;
    struct group_count count = {0};
    while (position < end) {
        blk64_t first, next;
        if (ext2fs_find_first_set_block_bitmap2(fs->block_map, position, end - 1, &first) != 0 || first < position)
            first = end;
        summary->free_in_bitmaps += first - position;
        add_free(fs, &count, position, first, summary);
        if (first >= end) break;
        if (ext2fs_find_first_zero_block_bitmap2(fs->block_map, first, end - 1, &next) != 0 || next <= first) next = end;
        run(context, first, next - first);
        position = next;
    }
    end_group(fs, &count, summary);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void prepare(void) { initialize_ext2_error_table(); }

errcode_t relight_ext_channel(struct relight_ext_reader *reader, ext2_filsys *result) {
    pthread_once(&once, prepare);
    *result = NULL;
    opening = reader;
    errcode_t error =
        ext2fs_open2("volume", NULL, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES, 0, 0, &manager, result);
    opening = NULL;
    return error;
}

long relight_ext_map(
    relight_ext_read read, relight_ext_run run, void *context, int in_flux, struct relight_ext_summary *summary) {
    memset(summary, 0, sizeof *summary);
    struct relight_ext_reader reader = {.read = read, .context = context};
    ext2_filsys fs = NULL;
    errcode_t error = relight_ext_channel(&reader, &fs);
    if (error) return error;
    summary->block_size = fs->blocksize;
    summary->cluster_blocks = (uint32_t)EXT2FS_CLUSTER_RATIO(fs);
    summary->blocks = ext2fs_blocks_count(fs->super);
    summary->inodes_per_group = fs->super->s_inodes_per_group;
    summary->blocks_per_group = fs->super->s_blocks_per_group;
    if (fs->super->s_feature_ro_compat & ~(uint32_t)EXT2_LIB_FEATURE_RO_COMPAT_SUPP)
        summary->problem = RELIGHT_EXT_UNKNOWN_FEATURES;
    summary->groups = fs->group_desc_count;
    uint8_t *broken = calloc(fs->group_desc_count, 1);
    if (!broken) {
        ext2fs_free(fs);
        return ENOMEM;
    }
    if (!summary->problem) summary->problem = check_groups(fs, in_flux, broken, summary);
    if (!summary->problem) {
        if (in_flux) fs->flags |= EXT2_FLAG_IGNORE_CSUM_ERRORS;
        // One bit for each block, whatever the content: the tree of runs, libext2fs's other way, takes some 50 bytes for
        // each run, and libext2fs aborts where there is no memory left for one.
        fs->default_bitmap_type = EXT2FS_BMAP64_BITARRAY;
        error = ext2fs_read_block_bitmap(fs);
        if (!error) {
            mark_broken(fs, broken);
            if (!in_flux) summary->problem = check_metadata(fs, broken, summary);
            if (!summary->problem) walk(fs, run, context, summary);
            if (in_flux && summary->problem == RELIGHT_EXT_GROUP_FREE_COUNT) summary->problem = RELIGHT_EXT_OK;
            if (!in_flux && (!summary->problem || summary->problem == RELIGHT_EXT_GROUP_FREE_COUNT) &&
                summary->free_in_bitmaps > summary->free_in_descriptors)
                summary->problem = RELIGHT_EXT_FREE_COUNT;
        }
    }
    free(broken);
    ext2fs_free(fs);
    return error;
}

int relight_ext_is_unsupported(long code) {
    return code == EXT2_ET_UNSUPP_FEATURE || code == EXT2_ET_RO_UNSUPP_FEATURE;
}

const char *relight_ext_error(long code) {
    pthread_once(&once, prepare);
    return error_message(code);
}
