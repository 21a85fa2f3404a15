// Relight: recovery environment toolkit.
// SPDX-License-Identifier: GPL-3.0-or-later

#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <linux/sed-opal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
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
int relight_opal_status(int descriptor, uint32_t *flags) {
#ifdef IOC_OPAL_GET_STATUS
    struct opal_status status = {0};
    int answer = result(ioctl(descriptor, IOC_OPAL_GET_STATUS, &status));
    if (answer == 0) *flags = status.flags;
    return answer;
#else
    (void)descriptor, (void)flags;
    return -ENOTTY;
#endif
}

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

void relight_allow_many_files(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

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

// The end of every spawn: a session of its own, default signals, nothing inherited. Releases what was prepared.
static int spawn_in_session(int status, const char *path, char *const *arguments, char *const *environment,
                            posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes, pid_t *pid) {
    sigset_t none, defaults;
    sigemptyset(&none);
    sigfillset(&defaults);
    if (status == 0) status = posix_spawnattr_setsigmask(attributes, &none);
    if (status == 0) status = posix_spawnattr_setsigdefault(attributes, &defaults);
    if (status == 0)
        status = posix_spawnattr_setflags(
            attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (status == 0) status = posix_spawn(pid, path, actions, attributes, arguments, environment);
    posix_spawnattr_destroy(attributes);
    posix_spawn_file_actions_destroy(actions);
    return -status;
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
    return spawn_in_session(status, path, arguments, environment, &actions, &attributes, pid);
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

int relight_open_again_direct(int descriptor) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    return relight_open(path, O_RDONLY | O_NONBLOCK | O_DIRECT, 0);
}

int relight_rename_new(const char *from, const char *to) {
    return result(renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE));
}

int relight_first_block(int descriptor, unsigned *block) {
    int number = 0;
    int outcome = result(ioctl(descriptor, FIBMAP, &number));
    *block = (unsigned)number;
    return outcome;
}

int relight_is_record_locked(int descriptor) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int outcome = result(fcntl(descriptor, F_OFD_GETLK, &lock));
    return outcome < 0 ? outcome : lock.l_type != F_UNLCK;
}

int relight_start_writeback(int descriptor, uint64_t start, uint64_t length) {
    return result(sync_file_range(descriptor, (off_t)start, (off_t)length, SYNC_FILE_RANGE_WRITE));
}

int relight_allow_changes(const char *path) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return -errno;
    int flags = 0;
    int outcome = result(ioctl(descriptor, FS_IOC_GETFLAGS, &flags));
    if (outcome == 0 && flags & FS_IMMUTABLE_FL) {
        flags &= ~FS_IMMUTABLE_FL;
        outcome = result(ioctl(descriptor, FS_IOC_SETFLAGS, &flags));
    }
    close(descriptor);
    return outcome;
}

int relight_filesystem_type(const char *path, uint64_t *type) {
    struct statfs status = {0};
    int outcome = result(statfs(path, &status));
    *type = (uint64_t)status.f_type;
    return outcome;
}

int relight_usable_processors(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

uint64_t relight_file_size_limit(void) {
    struct rlimit limit = {0};
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return (uint64_t)limit.rlim_cur;
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

int relight_spawn_on_terminal(const char *path, char *const *arguments, char *const *environment,
                              const char *terminal, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int status = posix_spawn_file_actions_init(&actions);
    if (status != 0) return -status;
    status = posix_spawnattr_init(&attributes);
    if (status != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return -status;
    }
    // A session leader without a terminal gets the first one it opens.
    status = posix_spawn_file_actions_addopen(&actions, 0, terminal, O_RDWR, 0);
    for (int target = 1; target < 3 && status == 0; target++)
        status = posix_spawn_file_actions_adddup2(&actions, 0, target);
    if (status == 0) status = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    return spawn_in_session(status, path, arguments, environment, &actions, &attributes, pid);
}

int relight_signal_descriptor(const int *signals, int count) {
    sigset_t set;
    sigemptyset(&set);
    for (int index = 0; index < count; index++) sigaddset(&set, signals[index]);
    // Exactly these: a program started out of a signal handler finds that handler's signal blocked.
    if (sigprocmask(SIG_SETMASK, &set, NULL) < 0) return -errno;
    int descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

int relight_read_signal(int descriptor) {
    struct signalfd_siginfo info;
    ssize_t got = read(descriptor, &info, sizeof info);
    return got == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

static void start_again(int signal) {
    static const char text[] = "\nRelight: the supervisor failed and is started again.\n";
    (void)signal;
    if (write(2, text, sizeof text - 1) < 0) { /* nothing else to tell it to */ }
    sleep(1);
    char *const arguments[] = {"/init", "resumed", NULL};
    execve("/proc/self/exe", arguments, environ);
    for (;;) pause();
}

void relight_start_again_after_crash(void) {
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_handler = start_again, .sa_flags = SA_ONSTACK};
    sigfillset(&action.sa_mask);
    int signals[] = {SIGSEGV, SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGABRT};
    for (unsigned index = 0; index < sizeof signals / sizeof *signals; index++)
        sigaction(signals[index], &action, NULL);
}

int relight_set_terminal_size(int descriptor, uint16_t rows, uint16_t columns) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    return result(ioctl(descriptor, TIOCSWINSZ, &size));
}

int relight_kernel_messages_on_console(int level) { return result(klogctl(8, NULL, level)); }

int relight_kernel_log(char *buffer, int size) {
    int got = klogctl(3, buffer, size);
    return got < 0 ? -errno : got;
}

int relight_interface_up(const char *name) {
    int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) return -errno;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strncpy(request.ifr_name, name, sizeof request.ifr_name - 1);
    int status = result(ioctl(descriptor, SIOCGIFFLAGS, &request));
    if (status == 0) {
        request.ifr_flags |= IFF_UP;
        status = result(ioctl(descriptor, SIOCSIFFLAGS, &request));
    }
    close(descriptor);
    return status;
}

int relight_device_event_socket(void) {
    int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (descriptor < 0) return -errno;
    int size = 8 << 20;
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    if (bind(descriptor, (struct sockaddr *)&address, sizeof address) < 0) {
        int problem = errno;
        close(descriptor);
        return -problem;
    }
    return descriptor;
}

int64_t relight_receive_device_event(int descriptor, char *buffer, uint64_t size) {
    struct sockaddr_nl sender;
    socklen_t length = sizeof sender;
    ssize_t got = recvfrom(descriptor, buffer, size, 0, (struct sockaddr *)&sender, &length);
    if (got < 0) return -errno;
    // Anyone may send to a netlink group; only the kernel's own messages count.
    return length >= sizeof sender && sender.nl_pid == 0 ? got : 0;
}

int relight_catch_ctrl_alt_del(void) { return result(reboot(RB_DISABLE_CAD)); }

int relight_no_core_dumps(void) {
    struct rlimit limit = {0, 0};
    return result(setrlimit(RLIMIT_CORE, &limit));
}

int relight_limit_memory(uint64_t bytes) {
    struct rlimit limit = {bytes, bytes};
    return result(setrlimit(RLIMIT_AS, &limit));
}

int relight_memory_file(const char *name) {
    int descriptor = memfd_create(name, MFD_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

int relight_limit_processor_time(unsigned seconds) {
    struct rlimit limit = {.rlim_cur = seconds, .rlim_max = seconds};
    return result(setrlimit(RLIMIT_CPU, &limit));
}

int relight_socket_pair(int *ends) { return result(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)); }

int relight_drop_rights(void) {
    if (geteuid() == 0) {
        gid_t nobody = 65534;
        if (setgroups(0, NULL) != 0 || setresgid(nobody, nobody, nobody) != 0 || setresuid(nobody, nobody, nobody) != 0)
            return -errno;
    }
    return result(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

int relight_open_at(int folder, const char *name, int flags) {
    int descriptor = openat(folder, name, flags | O_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

int64_t relight_read_link_at(int folder, const char *name, void *target, uint64_t size) {
    ssize_t length = readlinkat(folder, name, target, size);
    return length < 0 ? -errno : length;
}

int relight_open_unnamed(const char *folder) {
    int descriptor = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return descriptor < 0 ? -errno : descriptor;
}

int relight_private_mounts(void) {
    if (unshare(CLONE_NEWNS) < 0) return -errno;
    // What is mounted from here on is seen here only; what others unmount goes here too.
    return result(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
}
