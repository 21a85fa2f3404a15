// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

// Debian ships no static libdevmapper, and libparted.a refers to it for partitions on device-mapper nodes (multipath,
// dmraid). These functions fail honestly: no task can be made, so libparted reports such nodes as not partitionable.
// Relight partitions whole disks and image files, never device-mapper nodes, through libparted.
// They are weak: a dynamically linked test build finds the real library first.
#include "CDeviceMapperStub.h"

#include <stddef.h>
#include <stdint.h>

const int relight_device_mapper_stub_anchor = 1;

#define WEAK __attribute__((weak))

struct dm_task;

WEAK struct dm_task *dm_task_create(int type) { (void)type; return NULL; }
WEAK void dm_task_destroy(struct dm_task *task) { (void)task; }
WEAK int dm_task_add_target(struct dm_task *task, uint64_t start, uint64_t size, const char *type, const char *parameters) {
    (void)task; (void)start; (void)size; (void)type; (void)parameters; return 0;
}
WEAK void *dm_task_get_deps(struct dm_task *task) { (void)task; return NULL; }
WEAK int dm_task_get_info(struct dm_task *task, void *info) { (void)task; (void)info; return 0; }
WEAK const char *dm_task_get_name(const struct dm_task *task) { (void)task; return NULL; }
WEAK const char *dm_task_get_uuid(const struct dm_task *task) { (void)task; return NULL; }
WEAK int dm_task_no_open_count(struct dm_task *task) { (void)task; return 0; }
WEAK int dm_task_retry_remove(struct dm_task *task) { (void)task; return 0; }
WEAK int dm_task_run(struct dm_task *task) { (void)task; return 0; }
WEAK int dm_task_set_cookie(struct dm_task *task, uint32_t *cookie, uint16_t flags) {
    (void)task; (void)cookie; (void)flags; return 0;
}
WEAK int dm_task_set_major_minor(struct dm_task *task, int major, int minor, int allow_default_major_fallback) {
    (void)task; (void)major; (void)minor; (void)allow_default_major_fallback; return 0;
}
WEAK int dm_task_set_name(struct dm_task *task, const char *name) { (void)task; (void)name; return 0; }
WEAK int dm_task_set_uuid(struct dm_task *task, const char *uuid) { (void)task; (void)uuid; return 0; }
WEAK void dm_task_update_nodes(void) {}
WEAK void dm_udev_set_sync_support(int sync_with_udev) { (void)sync_with_udev; }
WEAK int dm_udev_wait(uint32_t cookie) { (void)cookie; return 0; }
WEAK int dm_set_dev_dir(const char *directory) { (void)directory; return 0; }
WEAK void *dm_get_next_target(struct dm_task *task, void *next, uint64_t *start, uint64_t *length, char **type,
                              char **parameters) {
    (void)task; (void)next; (void)start; (void)length; (void)type; (void)parameters; return NULL;
}
