// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

#include "CNtfsGlue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

// The library's headers need the ones above before them.
#include <ntfs-3g/attrib.h>
#include <ntfs-3g/device.h>
#include <ntfs-3g/dir.h>
#include <ntfs-3g/inode.h>
#include <ntfs-3g/layout.h>
#include <ntfs-3g/logging.h>
#include <ntfs-3g/misc.h>
#include <ntfs-3g/unistr.h>
#include <ntfs-3g/volume.h>

struct relight_ntfs {
    relight_ntfs_fill fill;
    void *context;
    int64_t length;
    int64_t position;
    ntfs_volume *volume;
    // The stream read last stays open: large files are read in pieces.
    char *path;
    char *stream;
    ntfs_inode *inode;
    ntfs_attr *data;
};

// MARK: The device

static int device_open(struct ntfs_device *device, int flags) {
    if ((flags & O_ACCMODE) != O_RDONLY) {
        errno = EROFS;
        return -1;
    }
    NDevSetReadOnly(device);
    NDevSetOpen(device);
    return 0;
}

static int device_close(struct ntfs_device *device) {
    NDevClearOpen(device);
    return 0;
}

static s64 device_seek(struct ntfs_device *device, s64 offset, int whence) {
    struct relight_ntfs *reader = device->d_private;
    s64 base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? reader->position : reader->length;
    s64 target;
    if (__builtin_add_overflow(base, offset, &target) || target < 0) {
        errno = EINVAL;
        return -1;
    }
    reader->position = target;
    return target;
}

static s64 device_pread(struct ntfs_device *device, void *buffer, s64 count, s64 offset) {
    struct relight_ntfs *reader = device->d_private;
    if (offset < 0 || count < 0) {
        errno = EINVAL;
        return -1;
    }
    if (offset >= reader->length) return 0;
    if (count > reader->length - offset) count = reader->length - offset;
    int problem = reader->fill(reader->context, (uint64_t)offset, buffer, (uint64_t)count);
    if (problem) {
        errno = problem;
        return -1;
    }
    return count;
}

static s64 device_read(struct ntfs_device *device, void *buffer, s64 count) {
    struct relight_ntfs *reader = device->d_private;
    s64 got = device_pread(device, buffer, count, reader->position);
    if (got > 0) reader->position += got;
    return got;
}

static s64 device_write(struct ntfs_device *device, const void *buffer, s64 count) {
    (void)device, (void)buffer, (void)count;
    errno = EROFS;
    return -1;
}

static s64 device_pwrite(struct ntfs_device *device, const void *buffer, s64 count, s64 offset) {
    (void)device, (void)buffer, (void)count, (void)offset;
    errno = EROFS;
    return -1;
}

static int device_sync(struct ntfs_device *device) {
    (void)device;
    return 0;
}

static int device_stat(struct ntfs_device *device, struct stat *status) {
    struct relight_ntfs *reader = device->d_private;
    memset(status, 0, sizeof *status);
    status->st_mode = S_IFREG | S_IRUSR;
    status->st_size = reader->length;
    return 0;
}

static int device_ioctl(struct ntfs_device *device, unsigned long request, void *argument) {
    (void)device, (void)request, (void)argument;
    errno = EOPNOTSUPP;
    return -1;
}

static struct ntfs_device_operations operations = {
    .open = device_open,
    .close = device_close,
    .seek = device_seek,
    .read = device_read,
    .write = device_write,
    .pread = device_pread,
    .pwrite = device_pwrite,
    .sync = device_sync,
    .stat = device_stat,
    .ioctl = device_ioctl,
};

// MARK: The volume

/// The errno of a failure just seen; the library does not always set one.
static int problem(void) { return errno ? errno : EIO; }

int relight_ntfs_open(relight_ntfs_fill fill, void *context, uint64_t length, struct relight_ntfs **result) {
    *result = NULL;
    if (length > INT64_MAX) return EFBIG;
    struct relight_ntfs *reader = calloc(1, sizeof *reader);
    if (!reader) return ENOMEM;
    reader->fill = fill;
    reader->context = context;
    reader->length = (int64_t)length;
    ntfs_log_set_handler(ntfs_log_handler_null);
    struct ntfs_device *device = ntfs_device_alloc("volume", 0, &operations, reader);
    if (!device) {
        free(reader);
        return ENOMEM;
    }
    errno = 0;
    reader->volume = ntfs_device_mount(device, NTFS_MNT_RDONLY | NTFS_MNT_FORENSIC);
    if (!reader->volume) {
        int failure = problem();
        NDevClearOpen(device);
        ntfs_device_free(device);
        free(reader);
        return failure;
    }
    if (ntfs_set_ignore_case(reader->volume)) {
        int failure = problem();
        relight_ntfs_close(reader);
        return failure;
    }
    *result = reader;
    return 0;
}

static void forget(struct relight_ntfs *reader) {
    if (reader->data) ntfs_attr_close(reader->data);
    if (reader->inode) ntfs_inode_close(reader->inode);
    free(reader->path);
    free(reader->stream);
    reader->data = NULL;
    reader->inode = NULL;
    reader->path = reader->stream = NULL;
}

void relight_ntfs_close(struct relight_ntfs *reader) {
    if (!reader) return;
    forget(reader);
    ntfs_umount(reader->volume, TRUE);
    free(reader);
}

static ntfs_inode *open_path(struct relight_ntfs *reader, const char *path) {
    // One inode at a time: the library does not expect the same one to be open twice.
    forget(reader);
    errno = 0;
    return ntfs_pathname_to_inode(reader->volume, NULL, path);
}

static uint32_t reparse_tag(ntfs_inode *inode) {
    if (!(inode->flags & FILE_ATTR_REPARSE_POINT)) return 0;
    s64 size = 0;
    uint8_t *value = ntfs_attr_readall(inode, AT_REPARSE_POINT, NULL, 0, &size);
    uint32_t tag = 0;
    if (value && size >= 4)
        tag = (uint32_t)value[0] | (uint32_t)value[1] << 8 | (uint32_t)value[2] << 16 | (uint32_t)value[3] << 24;
    free(value);
    return tag;
}

int relight_ntfs_look(struct relight_ntfs *reader, const char *path, struct relight_ntfs_entry *entry) {
    memset(entry, 0, sizeof *entry);
    ntfs_inode *inode = open_path(reader, path);
    if (!inode) return problem();
    entry->record = inode->mft_no;
    entry->attributes = le32_to_cpu(inode->flags);
    entry->is_directory = (inode->mrec->flags & MFT_RECORD_IS_DIRECTORY) != 0;
    entry->reparse_tag = reparse_tag(inode);
    if (!entry->is_directory && inode->data_size > 0) entry->size = (uint64_t)inode->data_size;
    ntfs_inode_close(inode);
    return 0;
}

struct listing {
    relight_ntfs_name name;
    void *context;
    int has_ended;
};

static int hand_out(struct listing *listing, const ntfschar *name, int length, uint64_t number, int is_directory) {
    char *text = NULL;
    // What is no UTF-16 has no name here.
    if (ntfs_ucstombs(name, length, &text, 0) < 0 || !text) return 0;
    listing->has_ended = listing->name(listing->context, text, number, is_directory) != 0;
    free(text);
    return listing->has_ended;
}

static int each_name(void *context, const ntfschar *name, const int length, const int kind, const s64 position,
                     const MFT_REF reference, const unsigned type) {
    (void)position;
    if (kind == FILE_NAME_DOS) return 0;
    return hand_out(context, name, length, MREF(reference), type == NTFS_DT_DIR);
}

int relight_ntfs_list(struct relight_ntfs *reader, const char *path, relight_ntfs_name name, void *context) {
    ntfs_inode *inode = open_path(reader, path);
    if (!inode) return problem();
    int failure = 0;
    if (!(inode->mrec->flags & MFT_RECORD_IS_DIRECTORY)) {
        failure = ENOTDIR;
    } else {
        struct listing listing = {name, context, 0};
        s64 position = 0;
        // Where case does not matter the library hands out all names in lower case.
        NVolSetCaseSensitive(reader->volume);
        errno = 0;
        if (ntfs_readdir(inode, &position, &listing, each_name) < 0 && !listing.has_ended) failure = problem();
        NVolClearCaseSensitive(reader->volume);
    }
    ntfs_inode_close(inode);
    return failure;
}

int relight_ntfs_streams(struct relight_ntfs *reader, const char *path, relight_ntfs_name name, void *context) {
    ntfs_inode *inode = open_path(reader, path);
    if (!inode) return problem();
    int failure = 0;
    ntfs_attr_search_ctx *search = ntfs_attr_get_search_ctx(inode, NULL);
    if (!search) {
        failure = problem();
    } else {
        struct listing listing = {name, context, 0};
        errno = 0;
        while (!ntfs_attr_lookup(AT_DATA, NULL, 0, CASE_SENSITIVE, 0, NULL, 0, search)) {
            ATTR_RECORD *record = search->attr;
            // Later pieces of an attribute have no size of their own.
            if (!record->name_length || (record->non_resident && record->lowest_vcn)) continue;
            s64 size = ntfs_get_attribute_value_length(record);
            const ntfschar *text = (const ntfschar *)((const uint8_t *)record + le16_to_cpu(record->name_offset));
            if (hand_out(&listing, text, record->name_length, size > 0 ? (uint64_t)size : 0, 0)) break;
            errno = 0;
        }
        if (errno && errno != ENOENT) failure = errno;
        ntfs_attr_put_search_ctx(search);
    }
    ntfs_inode_close(inode);
    return failure;
}

static int same(const char *one, const char *other) {
    return one && other ? strcmp(one, other) == 0 : one == other;
}

int64_t relight_ntfs_read(struct relight_ntfs *reader, const char *path, const char *stream, uint64_t offset,
                          void *buffer, uint64_t length) {
    if (offset > INT64_MAX || length > INT64_MAX) return -EINVAL;
    if (!reader->data || !same(reader->path, path) || !same(reader->stream, stream)) {
        ntfs_inode *inode = open_path(reader, path);
        if (!inode) return -problem();
        ntfschar *name = AT_UNNAMED;
        int name_length = 0;
        if (stream) {
            name = NULL;
            name_length = ntfs_mbstoucs(stream, &name);
            if (name_length <= 0) {
                ntfs_inode_close(inode);
                return -EINVAL;
            }
        }
        errno = 0;
        ntfs_attr *data = ntfs_attr_open(inode, AT_DATA, name, (u32)name_length);
        int failure = problem();
        if (stream) free(name);
        if (!data) {
            ntfs_inode_close(inode);
            return -failure;
        }
        reader->inode = inode;
        reader->data = data;
        reader->path = strdup(path);
        reader->stream = stream ? strdup(stream) : NULL;
        if (!reader->path || (stream && !reader->stream)) {
            forget(reader);
            return -ENOMEM;
        }
    }
    uint64_t done = 0;
    while (done < length) {
        errno = 0;
        s64 got = ntfs_attr_pread(reader->data, (s64)(offset + done), (s64)(length - done), (uint8_t *)buffer + done);
        if (got < 0) return -problem();
        if (got == 0) break;
        done += (uint64_t)got;
    }
    return (int64_t)done;
}
