// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

const int relight_early_anchor = 1;

// The statically linked Swift runtime looks itself up in /proc before main and aborts where it is not mounted, which
// is how PID 1 starts. So the mount is done here, before the runtime's own constructors.
__attribute__((constructor(101), used)) static void relight_mount_proc(void) {
    if (getpid() != 1 || access("/proc/self", F_OK) == 0) return;
    mkdir("/proc", 0555);
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
}

static int result(int value) { return value < 0 ? -errno : 0; }

void relight_line_buffer_output(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stderr, NULL, _IONBF, 0);
}

int relight_block_size(int descriptor, uint64_t *bytes) { return result(ioctl(descriptor, BLKGETSIZE64, bytes)); }

int relight_logical_sector_size(int descriptor, uint32_t *bytes) {
    int value = 0;
    int status = result(ioctl(descriptor, BLKSSZGET, &value));
    *bytes = (uint32_t)value;
    return status;
}

int relight_physical_sector_size(int descriptor, uint32_t *bytes) {
    unsigned value = 0;
    int status = result(ioctl(descriptor, BLKPBSZGET, &value));
    *bytes = value;
    return status;
}

int relight_set_read_only(int descriptor, int read_only) { return result(ioctl(descriptor, BLKROSET, &read_only)); }
int relight_flush_buffers(int descriptor) { return result(ioctl(descriptor, BLKFLSBUF, 0)); }
int relight_reread_partitions(int descriptor) { return result(ioctl(descriptor, BLKRRPART, 0)); }

int relight_discard(int descriptor, uint64_t start, uint64_t length) {
    uint64_t range[2] = {start, length};
    return result(ioctl(descriptor, BLKDISCARD, range));
}

int relight_zero_out(int descriptor, uint64_t start, uint64_t length) {
    uint64_t range[2] = {start, length};
    return result(ioctl(descriptor, BLKZEROOUT, range));
}

int relight_terminal_size(int descriptor, uint16_t *rows, uint16_t *columns) {
    struct winsize size = {0};
    int status = result(ioctl(descriptor, TIOCGWINSZ, &size));
    *rows = size.ws_row;
    *columns = size.ws_col;
    return status;
}

int relight_take_terminal(int descriptor) { return result(ioctl(descriptor, TIOCSCTTY, 1)); }

static volatile sig_atomic_t interrupted = 0;

static void note_interrupt(int signal) {
    (void)signal;
    interrupted = 1;
}

int relight_interrupted(void) { return interrupted; }
void relight_set_interrupted(int value) { interrupted = value; }

void relight_catch_interrupts(void) {
    struct sigaction action = {.sa_handler = note_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

int relight_spawn(const char *path, char *const *arguments, char *const *environment, int standard_input,
                  int standard_output, int standard_error, const char *directory, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int status = posix_spawn_file_actions_init(&actions);
    if (status != 0) return -status;
    status = posix_spawnattr_init(&attributes);
    if (status != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return -status;
    }
    int wanted[3] = {standard_input, standard_output, standard_error};
    for (int target = 0; target < 3 && status == 0; target++) {
        if (wanted[target] < 0)
            status = posix_spawn_file_actions_addopen(&actions, target, "/dev/null", O_RDWR, 0);
        else
            status = posix_spawn_file_actions_adddup2(&actions, wanted[target], target);
    }
    if (status == 0) status = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    if (status == 0 && directory) status = posix_spawn_file_actions_addchdir_np(&actions, directory);
    sigset_t none, defaults;
    sigemptyset(&none);
    sigfillset(&defaults);
    if (status == 0) status = posix_spawnattr_setsigmask(&attributes, &none);
    if (status == 0) status = posix_spawnattr_setsigdefault(&attributes, &defaults);
    if (status == 0)
        status = posix_spawnattr_setflags(
            &attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (status == 0) status = posix_spawn(pid, path, &actions, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return -status;
}

int relight_pipe(int *ends) { return result(pipe2(ends, O_CLOEXEC)); }

int relight_process_descriptor(pid_t pid) {
    long descriptor = syscall(SYS_pidfd_open, pid, 0);
    return descriptor < 0 ? -errno : (int)descriptor;
}

int relight_punch_hole(int descriptor, uint64_t start, uint64_t length) {
    return result(fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start, (off_t)length));
}

int relight_open(const char *path, int flags, unsigned mode) {
    int descriptor = open(path, flags | O_CLOEXEC, mode);
    return descriptor < 0 ? -errno : descriptor;
}

int relight_rename_new(const char *from, const char *to) {
    return result(renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE));
}

int relight_start_writeback(int descriptor, uint64_t start, uint64_t length) {
    return result(sync_file_range(descriptor, (off_t)start, (off_t)length, SYNC_FILE_RANGE_WRITE));
}

int relight_filesystem_type(const char *path, uint64_t *type) {
    struct statfs status = {0};
    int outcome = result(statfs(path, &status));
    *type = (uint64_t)status.f_type;
    return outcome;
}

int relight_reboot_restart(void) { return result(reboot(RB_AUTOBOOT)); }
int relight_reboot_power_off(void) { return result(reboot(RB_POWER_OFF)); }
int relight_reboot_halt(void) { return result(reboot(RB_HALT_SYSTEM)); }

int relight_get_read_only(int descriptor, int *read_only) { return result(ioctl(descriptor, BLKROGET, read_only)); }

int relight_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    return result(mount(source, target, type, flags, data));
}

int relight_unmount(const char *target, int flags) { return result(umount2(target, flags)); }

unsigned relight_device_major(uint64_t device) { return major(device); }
unsigned relight_device_minor(uint64_t device) { return minor(device); }
