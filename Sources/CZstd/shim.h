// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later
#ifndef CZSTD_SHIM_H
#define CZSTD_SHIM_H
#include <zstd.h>
#endif
