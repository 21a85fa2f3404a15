// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

// What the files of this target share: libext2fs opened on top of a function that reads.
#ifndef RELIGHT_EXT2_CHANNEL_H
#define RELIGHT_EXT2_CHANNEL_H

#include "CExt2Glue.h"

#include <ext2fs/ext2fs.h>

/// What a channel reads from; must live as long as the filesystem.
struct relight_ext_reader {
    relight_ext_read read;
    void *context;
};

/// Opens the filesystem that `reader` reads.
errcode_t relight_ext_channel(struct relight_ext_reader *reader, ext2_filsys *result);

#endif
