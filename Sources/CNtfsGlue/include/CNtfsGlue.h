// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

// libntfs-3g on top of a function that reads bytes: no path of this system, no descriptor, and no way to write. The library
// is not proof against hostile bytes: who gives it a disk that is not his own does so in a process that may crash.
#ifndef RELIGHT_NTFS_GLUE_H
#define RELIGHT_NTFS_GLUE_H

#include <stdint.h>

/// Fills `buffer` with `length` bytes from byte `offset` of the volume. 0, or an errno.
typedef int (*relight_ntfs_fill)(void *context, uint64_t offset, void *buffer, uint64_t length);

/// An open volume.
struct relight_ntfs;

/// A file or folder.
struct relight_ntfs_entry {
    /// Number of its record in the master file table.
    uint64_t record;
    /// Bytes of its unnamed stream; 0 for a folder.
    uint64_t size;
    /// FILE_ATTRIBUTE_… as Windows shows them.
    uint32_t attributes;
    /// The tag of its reparse point; 0 where it has none.
    uint32_t reparse_tag;
    int32_t is_directory;
};

/// Opens the volume of `length` bytes that `fill` reads, for reading; `fill` and its context must stay valid until it is
/// closed. 0, or an errno.
int relight_ntfs_open(relight_ntfs_fill fill, void *context, uint64_t length, struct relight_ntfs **result);
void relight_ntfs_close(struct relight_ntfs *volume);

/// What lies at `path` (UTF-8, parts divided by `/`; upper and lower case do not matter). 0, or an errno.
int relight_ntfs_look(struct relight_ntfs *volume, const char *path, struct relight_ntfs_entry *entry);

/// Receives a name (UTF-8, ended by NUL) of a folder or a stream, with its record's number or its size. Not 0 ends the walk.
typedef int (*relight_ntfs_name)(void *context, const char *name, uint64_t number, int is_directory);

/// Hands out the names in the folder at `path`, without short names (8.3) of files that have a long one. 0, or an errno.
int relight_ntfs_list(struct relight_ntfs *volume, const char *path, relight_ntfs_name name, void *context);

/// Hands out the named streams of what lies at `path`, with their sizes. 0, or an errno.
int relight_ntfs_streams(struct relight_ntfs *volume, const char *path, relight_ntfs_name name, void *context);

/// Reads from byte `offset` of a stream of the file at `path` (NULL: the unnamed one), decompressed. The number of bytes,
/// less than `length` at the end only; or the negated errno.
int64_t relight_ntfs_read(struct relight_ntfs *volume, const char *path, const char *stream, uint64_t offset,
                          void *buffer, uint64_t length);

#endif
