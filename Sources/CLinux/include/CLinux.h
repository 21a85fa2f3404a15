// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

// The few things of Linux and glibc that Swift cannot say: variadic calls, macros, and code that runs before main.
#ifndef RELIGHT_CLINUX_H
#define RELIGHT_CLINUX_H

#include <stdint.h>
#include <sys/types.h>

/// Referenced by the executable so that the constructor that mounts /proc is linked in.
extern const int relight_early_anchor;

/// Makes standard output line-buffered and standard error unbuffered; pipes and serial lines are block-buffered else.
void relight_line_buffer_output(void);

/// Device size in bytes (BLKGETSIZE64). 0, or the negated errno.
int relight_block_size(int descriptor, uint64_t *bytes);
/// Logical sector size in bytes (BLKSSZGET). 0, or the negated errno.
int relight_logical_sector_size(int descriptor, uint32_t *bytes);
/// Physical sector size in bytes (BLKPBSZGET). 0, or the negated errno.
int relight_physical_sector_size(int descriptor, uint32_t *bytes);
/// Sets or clears the kernel's read-only mark (BLKROSET). 0, or the negated errno.
int relight_set_read_only(int descriptor, int read_only);
/// What a self-encrypting drive says of its lock (IOC_OPAL_GET_STATUS): OPAL_FL_* of linux/sed-opal.h. 0, or a negative errno:
/// ENOTTY or EOPNOTSUPP where the drive or the kernel knows nothing of Opal.
int relight_opal_status(int descriptor, uint32_t *flags);

/// Drops the kernel's cached pages of the device (BLKFLSBUF). 0, or the negated errno.
int relight_flush_buffers(int descriptor);
/// Has the kernel read the partition table again (BLKRRPART). 0, or the negated errno.
int relight_reread_partitions(int descriptor);
/// Discards a range (BLKDISCARD). 0, or the negated errno.
int relight_discard(int descriptor, uint64_t start, uint64_t length);
/// Zeroes a range (BLKZEROOUT). 0, or the negated errno.
int relight_zero_out(int descriptor, uint64_t start, uint64_t length);
/// Terminal size; 0 x 0 when unknown. 0, or the negated errno.
int relight_terminal_size(int descriptor, uint16_t *rows, uint16_t *columns);
/// Makes the terminal the controlling one of the calling session (TIOCSCTTY). 0, or the negated errno.
int relight_take_terminal(int descriptor);

/// Raises the soft limit of open files to the hard one; a set of many packs needs more than the usual 1024.
void relight_allow_many_files(void);

/// The flag SIGINT and SIGTERM set; 0 until then.
int relight_interrupted(void);
/// Installs handlers for SIGINT and SIGTERM that only set the flag, and ignores SIGPIPE.
void relight_catch_interrupts(void);
/// Sets the flag as a signal would (tests).
void relight_set_interrupted(int value);

/// A child process with nothing inherited but the three descriptors given (−1: /dev/null), in a new session when asked.
/// Everything from descriptor 3 up is closed. Returns 0 and the pid, or the negated errno.
int relight_spawn(const char *path, char *const *arguments, char *const *environment, int standard_input,
                  int standard_output, int standard_error, const char *directory, pid_t *pid);

/// pipe2(2) with O_CLOEXEC: ends[0] reads, ends[1] writes. 0, or the negated errno.
int relight_pipe(int *ends);

/// A descriptor that becomes readable when `pid` ends (pidfd_open). The descriptor, or the negated errno.
int relight_process_descriptor(pid_t pid);

/// fallocate(2) that punches a hole: the range reads as zeros and takes no space. 0, or the negated errno.
int relight_punch_hole(int descriptor, uint64_t start, uint64_t length);

/// open(2) with a mode; the descriptor, or the negated errno. O_CLOEXEC is added.
int relight_open(const char *path, int flags, unsigned mode);

/// Opens what `descriptor` is open on once more, for reading past the page cache; the descriptor, or the negated errno.
int relight_open_again_direct(int descriptor);

/// Renames a file without replacing another. 0, or the negated errno; -EINVAL where the filesystem cannot promise it.
int relight_rename_new(const char *from, const char *to);
/// The block of its medium at which an open file's content begins (FIBMAP, which takes the right CAP_SYS_RAWIO). 0, or the
/// negated errno.
int relight_first_block(int descriptor, unsigned *block);
/// Whether a lock made with fcntl, as those of a file server's clients are, is held on an open file. 1, 0, or the negated
/// errno.
int relight_is_record_locked(int descriptor);
/// Starts writing a file's dirty pages to the medium and returns at once (sync_file_range). 0, or the negated errno.
int relight_start_writeback(int descriptor, uint64_t start, uint64_t length);
/// Takes the mark away that keeps a file from being changed (FS_IMMUTABLE_FL), where it has it. 0, or the negated errno.
int relight_allow_changes(const char *path);
/// The filesystem's magic number (statfs f_type). 0, or the negated errno.
int relight_filesystem_type(const char *path, uint64_t *type);
/// Number of processors the calling thread may run on (sched_getaffinity); 0 where the kernel does not say.
int relight_usable_processors(void);
/// The largest file this process may write (RLIMIT_FSIZE); UINT64_MAX where there is no limit.
uint64_t relight_file_size_limit(void);

/// Restart, power off or halt (reboot(2)). Only returns on failure, with the negated errno.
int relight_reboot_restart(void);
int relight_reboot_power_off(void);
int relight_reboot_halt(void);

/// Reads the kernel's read-only mark (BLKROGET). 0, or the negated errno.
int relight_get_read_only(int descriptor, int *read_only);

/// mount(2) and umount2(2). 0, or the negated errno.
int relight_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data);
int relight_unmount(const char *target, int flags);

/// The two halves of a device number as stat(2) gives it.
unsigned relight_device_major(uint64_t device);
unsigned relight_device_minor(uint64_t device);

/// A child in a session of its own with `terminal` as its controlling terminal and its three descriptors; everything
/// from descriptor 3 up is closed. Returns 0 and the pid, or the negated errno.
int relight_spawn_on_terminal(const char *path, char *const *arguments, char *const *environment,
                              const char *terminal, pid_t *pid);

/// Blocks exactly the signals given and returns a descriptor they are read from, or the negated errno.
int relight_signal_descriptor(const int *signals, int count);
/// The next signal that came; 0 when none did.
int relight_read_signal(int descriptor);
/// When the calling process (PID 1) crashes, its program is executed again in the same process, with the word `resumed`:
/// the end of PID 1 would be the end of the kernel.
void relight_start_again_after_crash(void);

/// Sets the terminal's size (TIOCSWINSZ). 0, or the negated errno.
int relight_set_terminal_size(int descriptor, uint16_t rows, uint16_t columns);
/// Kernel messages below this level appear on the consoles (syslog(2), action 8). 0, or the negated errno.
int relight_kernel_messages_on_console(int level);
/// Copies the newest part of the kernel's log (syslog(2), action 3); its length, or the negated errno.
int relight_kernel_log(char *buffer, int size);
/// Brings a network interface up. 0, or the negated errno.
int relight_interface_up(const char *name);
/// A socket that receives the kernel's device events (netlink(7), NETLINK_KOBJECT_UEVENT), or the negated errno.
int relight_device_event_socket(void);
/// Receives one event; its length, 0 when it did not come from the kernel, or the negated errno.
int64_t relight_receive_device_event(int descriptor, char *buffer, uint64_t size);
/// Ctrl-Alt-Del sends SIGINT to PID 1 instead of restarting at once. 0, or the negated errno.
int relight_catch_ctrl_alt_del(void);
/// The calling process and its children leave no core dumps. 0, or the negated errno.
int relight_no_core_dumps(void);
/// Bounds the calling process's address space. 0, or the negated errno.
int relight_limit_memory(uint64_t bytes);

/// Bounds the calling process's processor time. 0, or the negated errno.
int relight_limit_processor_time(unsigned seconds);
/// Two sockets that are connected with each other, for bytes in both directions (socketpair(2)). 0, or the negated errno.
int relight_socket_pair(int *ends);
/// Gives up root's rights for good: no user, no group, no capability, none to be had by executing anything. Does nothing
/// for another user but the last. 0, or the negated errno.
int relight_drop_rights(void);
/// openat(2) without a mode; the descriptor, or the negated errno. O_CLOEXEC is added.
int relight_open_at(int folder, const char *name, int flags);
/// readlinkat(2). The target's length, or the negated errno.
int64_t relight_read_link_at(int folder, const char *name, void *target, uint64_t size);

/// A file in memory without a name in any folder (memfd_create). The descriptor, or the negated errno.
int relight_memory_file(const char *name);
/// A file without a name on the filesystem of `folder` (O_TMPFILE), for reading and writing. The descriptor, or the negated
/// errno; not every filesystem has such files.
int relight_open_unnamed(const char *folder);

/// Gives the calling thread, and the programs it starts, mounts of their own (unshare(2), CLONE_NEWNS). They go away with
/// the last of them, however they end. 0, or the negated errno.
int relight_private_mounts(void);

#endif
