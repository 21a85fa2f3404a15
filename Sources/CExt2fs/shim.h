// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later
#ifndef CEXT2FS_SHIM_H
#define CEXT2FS_SHIM_H
#include <ext2fs/ext2fs.h>
#endif
