// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later
#ifndef CPARTED_SHIM_H
#define CPARTED_SHIM_H
#include <parted/parted.h>
#endif
