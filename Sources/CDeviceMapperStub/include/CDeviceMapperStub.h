// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

#ifndef RELIGHT_DEVICE_MAPPER_STUB_H
#define RELIGHT_DEVICE_MAPPER_STUB_H

/// Referenced by PartitionTables so that the symbols libparted.a asks for are linked in.
extern const int relight_device_mapper_stub_anchor;

#endif
