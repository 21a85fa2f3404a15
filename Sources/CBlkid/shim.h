// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later
#ifndef CBLKID_SHIM_H
#define CBLKID_SHIM_H
#include <blkid/blkid.h>
#endif
