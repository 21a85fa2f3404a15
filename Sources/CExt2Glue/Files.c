// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

#include "CExt2Glue.h"
#include "Channel.h"

#include <stdlib.h>
#include <string.h>

struct relight_ext {
    struct relight_ext_reader reader;
    ext2_filsys fs;
    /// The inode read last, with room for the longest.
    uint32_t number;
    int inode_size;
    struct ext2_inode_large *inode;
};

void relight_ext_close(struct relight_ext *volume) {
    if (!volume) return;
    if (volume->fs) ext2fs_free(volume->fs);
    free(volume->inode);
    free(volume);
}

long relight_ext_open(
    relight_ext_read read, void *context, struct relight_ext **result, struct relight_ext_facts *facts) {
    *result = NULL;
    memset(facts, 0, sizeof *facts);
    struct relight_ext *volume = calloc(1, sizeof *volume);
    if (!volume) return ENOMEM;
    volume->reader = (struct relight_ext_reader){.read = read, .context = context};
    errcode_t error = relight_ext_channel(&volume->reader, &volume->fs);
    if (error) {
        volume->fs = NULL;
        relight_ext_close(volume);
        return error;
    }
    ext2_filsys fs = volume->fs;
    struct ext2_super_block *super = fs->super;
    uint64_t size = EXT2_INODE_SIZE(super);
    // Every inode lies in its group's table, and a table in the blocks counted for it.
    if (size < EXT2_GOOD_OLD_INODE_SIZE || size > fs->blocksize || (size & (size - 1)) != 0 ||
        super->s_inodes_per_group == 0 ||
        (uint64_t)super->s_inodes_per_group * size > (uint64_t)fs->inode_blocks_per_group * fs->blocksize ||
        (uint64_t)fs->group_desc_count * super->s_inodes_per_group != super->s_inodes_count) {
        relight_ext_close(volume);
        return EXT2_ET_CORRUPT_SUPERBLOCK;
    }
    volume->inode_size = (int)(size < sizeof *volume->inode ? sizeof *volume->inode : size);
    volume->inode = calloc(1, (size_t)volume->inode_size);
    if (!volume->inode) {
        relight_ext_close(volume);
        return ENOMEM;
    }
    facts->block_size = fs->blocksize;
    facts->inode_size = (uint32_t)size;
    facts->groups = fs->group_desc_count;
    facts->inodes_per_group = super->s_inodes_per_group;
    facts->inodes = super->s_inodes_count;
    facts->first_inode = EXT2_FIRST_INODE(super);
    facts->first_data_block = super->s_first_data_block;
    facts->journal_inode = super->s_journal_inum;
    facts->orphan_inode = super->s_orphan_file_inum;
    facts->quota_inodes[0] = super->s_usr_quota_inum;
    facts->quota_inodes[1] = super->s_grp_quota_inum;
    facts->quota_inodes[2] = super->s_prj_quota_inum;
    facts->compatible = super->s_feature_compat;
    facts->incompatible = super->s_feature_incompat;
    facts->read_only_compatible = super->s_feature_ro_compat;
    facts->blocks = ext2fs_blocks_count(super);
    memcpy(facts->uuid, super->s_uuid, 16);
    *result = volume;
    return 0;
}

static int inside(ext2_filsys fs, uint64_t block, uint64_t count) {
    uint64_t end = ext2fs_blocks_count(fs->super);
    return block >= fs->super->s_first_data_block && block < end && count <= end - block;
}

int relight_ext_group(struct relight_ext *volume, uint32_t group, struct relight_ext_group *result) {
    ext2_filsys fs = volume->fs;
    memset(result, 0, sizeof *result);
    if (group >= fs->group_desc_count) return 0;
    blk64_t super = 0, old = 0, new = 0;
    if (ext2fs_super_and_bgd_loc2(fs, group, &super, &old, &new, NULL) == 0) {
        if (ext2fs_bg_has_super(fs, group)) {
            result->superblock = super;
            result->superblock_blocks = 1;
        }
        if (old) {
            result->descriptors = old;
            result->descriptor_blocks = ext2fs_has_feature_meta_bg(fs->super)
                ? fs->super->s_first_meta_bg
                : (uint64_t)fs->desc_blocks + fs->super->s_reserved_gdt_blocks;
        } else if (new) {
            result->descriptors = new;
            result->descriptor_blocks = 1;
        }
    }
    result->block_bitmap = ext2fs_block_bitmap_loc(fs, group);
    result->inode_bitmap = ext2fs_inode_bitmap_loc(fs, group);
    result->inode_table = ext2fs_inode_table_loc(fs, group);
    result->inode_table_blocks = fs->inode_blocks_per_group;
    result->is_inside = inside(fs, result->block_bitmap, 1) && inside(fs, result->inode_bitmap, 1) &&
        inside(fs, result->inode_table, result->inode_table_blocks);
    result->inodes = fs->super->s_inodes_per_group;
    if (ext2fs_has_group_desc_csum(fs) && ext2fs_group_desc_csum_verify(fs, group)) {
        uint32_t unused = ext2fs_bg_itable_unused(fs, group);
        if (ext2fs_bg_flags_test(fs, group, EXT2_BG_INODE_UNINIT)) unused = result->inodes;
        result->inodes -= unused < result->inodes ? unused : result->inodes;
    }
    return 1;
}

static int64_t seconds(uint32_t low, uint32_t extra, int wide) {
    return (int64_t)(int32_t)low + (wide ? (int64_t)(extra & 3) << 32 : 0);
}

long relight_ext_inode(struct relight_ext *volume, uint32_t number, struct relight_ext_inode *result) {
    memset(result, 0, sizeof *result);
    volume->number = 0;
    memset(volume->inode, 0, (size_t)volume->inode_size);
    struct ext2_inode_large *inode = volume->inode;
    errcode_t error =
        ext2fs_read_inode_full(volume->fs, number, (struct ext2_inode *)inode, volume->inode_size);
    if (error) return error;
    volume->number = number;
    struct ext2_inode *small = (struct ext2_inode *)inode;
    int wide = EXT2_INODE_SIZE(volume->fs->super) > EXT2_GOOD_OLD_INODE_SIZE && inode->i_extra_isize >= 24;
    result->size = EXT2_I_SIZE(inode);
    result->xattr_block = ext2fs_file_acl_block(volume->fs, small);
    result->blocks = ext2fs_get_stat_i_blocks(volume->fs, small);
    result->version = inode->osd1.linux1.l_i_version;
    if (EXT2_INODE_SIZE(volume->fs->super) > EXT2_GOOD_OLD_INODE_SIZE && inode->i_extra_isize >= 28)
        result->version |= (uint64_t)inode->i_version_hi << 32;
    result->changed = seconds(inode->i_ctime, inode->i_ctime_extra, wide);
    result->modified = seconds(inode->i_mtime, inode->i_mtime_extra, wide);
    result->changed_nanoseconds = wide ? inode->i_ctime_extra >> 2 : 0;
    result->modified_nanoseconds = wide ? inode->i_mtime_extra >> 2 : 0;
    result->has_nanoseconds = wide != 0;
    result->flags = inode->i_flags;
    result->generation = inode->i_generation;
    result->deleted = inode->i_dtime;
    result->links = inode->i_links_count;
    result->mode = inode->i_mode;
    result->has_blocks = ext2fs_inode_has_valid_blocks2(volume->fs, small) != 0;
    memcpy(result->map, inode->i_block, sizeof result->map);
    return 0;
}

/// Joins the blocks of a block map into runs.
struct runs {
    relight_ext_piece piece;
    void *context;
    uint64_t left;
    uint64_t first, count, logical;
    int ended;
};

static void hand_out(struct runs *runs, int kind, uint64_t first, uint64_t count, uint64_t logical) {
    if (runs->ended || count == 0) return;
    if (runs->left == 0 || runs->piece(runs->context, kind, first, count, logical) != 0)
        runs->ended = 1;
    else
        runs->left--;
}

static int block(ext2_filsys fs, blk64_t *number, e2_blkcnt_t logical, blk64_t parent, int offset, void *context) {
    (void)fs, (void)parent, (void)offset;
    struct runs *runs = context;
    if (logical >= 0 && runs->count && *number == runs->first + runs->count &&
        (uint64_t)logical == runs->logical + runs->count) {
        runs->count++;
        return 0;
    }
    hand_out(runs, RELIGHT_EXT_DATA, runs->first, runs->count, runs->logical);
    runs->count = 0;
    if (logical < 0) {
        hand_out(runs, RELIGHT_EXT_TREE, *number, 1, 0);
    } else {
        runs->first = *number;
        runs->count = 1;
        runs->logical = (uint64_t)logical;
    }
    return runs->ended ? BLOCK_ABORT : 0;
}

static errcode_t extents(struct relight_ext *volume, struct runs *runs) {
    ext2_extent_handle_t handle = NULL;
    errcode_t error =
        ext2fs_extent_open2(volume->fs, volume->number, (struct ext2_inode *)volume->inode, &handle);
    if (error) return error;
    errcode_t first = 0;
    struct ext2fs_extent extent;
    int operation = EXT2_EXTENT_ROOT;
    // Every step costs one, so that a tree that leads back into itself ends.
    for (uint64_t steps = runs->left; !runs->ended; steps--) {
        if (steps == 0) {
            runs->ended = 1;
            break;
        }
        error = ext2fs_extent_get(handle, operation, &extent);
        if (error == EXT2_ET_EXTENT_NO_NEXT || error == EXT2_ET_NO_CURRENT_NODE) break;
        if (error) {
            if (!first) first = error;
            // What lies below this entry cannot be read; its neighbour may.
            if (operation == EXT2_EXTENT_ROOT || operation == EXT2_EXTENT_NEXT_SIB) break;
            operation = EXT2_EXTENT_NEXT_SIB;
            continue;
        }
        operation = EXT2_EXTENT_NEXT;
        if (extent.e_flags & EXT2_EXTENT_FLAGS_SECOND_VISIT) continue;
        if (extent.e_flags & EXT2_EXTENT_FLAGS_LEAF)
            hand_out(
                runs, extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT ? RELIGHT_EXT_UNWRITTEN : RELIGHT_EXT_DATA,
                extent.e_pblk, extent.e_len, extent.e_lblk);
        else
            hand_out(runs, RELIGHT_EXT_TREE, extent.e_pblk, 1, extent.e_lblk);
    }
    ext2fs_extent_free(handle);
    return first;
}

long relight_ext_blocks(struct relight_ext *volume, uint64_t most, relight_ext_piece piece, void *context) {
    struct ext2_inode *inode = (struct ext2_inode *)volume->inode;
    struct runs runs = {.piece = piece, .context = context, .left = most};
    errcode_t error = 0;
    if (!volume->number) return EXT2_ET_BAD_INODE_NUM;
    if (!ext2fs_inode_has_valid_blocks2(volume->fs, inode)) return 0;
    if (inode->i_flags & EXT4_EXTENTS_FL) {
        error = extents(volume, &runs);
    } else {
        error = ext2fs_block_iterate3(volume->fs, volume->number, BLOCK_FLAG_READ_ONLY, NULL, block, &runs);
        hand_out(&runs, RELIGHT_EXT_DATA, runs.first, runs.count, runs.logical);
    }
    if (!error && runs.ended) error = EXT2_ET_CANCEL_REQUESTED;
    return error;
}

long relight_ext_inline_data(struct relight_ext *volume, uint32_t number, void *buffer, uint64_t *length) {
    size_t size = 0;
    errcode_t error = ext2fs_inline_data_size(volume->fs, number, &size);
    if (error) return error;
    if (size > *length) return EXT2_ET_INLINE_DATA_NO_SPACE;
    error = ext2fs_inline_data_get(volume->fs, number, NULL, buffer, &size);
    *length = size;
    return error;
}

long relight_ext_load_bitmap(struct relight_ext *volume) {
    ext2_filsys fs = volume->fs;
    if (fs->block_map) return 0;
    // libext2fs marks what the descriptors name without asking where it lies.
    for (dgrp_t group = 0; group < fs->group_desc_count; group++) {
        struct relight_ext_group places;
        if (!relight_ext_group(volume, group, &places) || !places.is_inside) return EXT2_ET_GDESC_BAD_BLOCK_MAP;
    }
    // As for the map: one bit for each block.
    fs->default_bitmap_type = EXT2FS_BMAP64_BITARRAY;
    return ext2fs_read_block_bitmap(fs);
}

int relight_ext_is_used(struct relight_ext *volume, uint64_t number) {
    ext2_filsys fs = volume->fs;
    if (!fs->block_map || !inside(fs, number, 1)) return 1;
    return ext2fs_test_block_bitmap2(fs->block_map, number) != 0;
}
