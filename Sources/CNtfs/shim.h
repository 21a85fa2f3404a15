// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later
#ifndef CNTFS_SHIM_H
#define CNTFS_SHIM_H
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

// The library's headers need the ones above before them.
#include <ntfs-3g/volume.h>
#endif
