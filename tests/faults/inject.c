/* Makes the file system fail, or kills the process, at a chosen call. LD_PRELOAD loads it into the program under
 * test.
 *
 * FAULT_FOLDER  only files below this folder count (an absolute path)
 * FAULT_CALL    open | create | write | fsync | rename: the call that is counted
 * FAULT_AT      the call, counted from 1, at which the fault happens
 * FAULT_ERROR   the error number that the call then returns; 0 kills the process instead
 * FAULT_LASTS   if set, every later call fails as well
 * FAULT_ROOM    total bytes that may be written; a write beyond them is cut short, and later writes fail with
 *               ENOSPC
 * FAULT_COUNTS  a file that receives "call number" lines when the process ends
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum call { OPEN, CREATE, WRITE, FSYNC, RENAME, CALLS };
static const char *const NAMES[CALLS] = {"open", "create", "write", "fsync", "rename"};

static atomic_long counts[CALLS];
static atomic_long room;
static const char *folder;
static int chosen = -1, failure, lasts, has_room;
static long at;

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

__attribute__((constructor)) static void begin(void) {
    folder = getenv("FAULT_FOLDER");
    const char *call = getenv("FAULT_CALL");
    for (int i = 0; call && i < CALLS; i++)
        if (!strcmp(call, NAMES[i])) chosen = i;
    at = number("FAULT_AT", 0);
    failure = (int)number("FAULT_ERROR", 0);
    lasts = getenv("FAULT_LASTS") != NULL;
    has_room = getenv("FAULT_ROOM") != NULL;
    atomic_store(&room, number("FAULT_ROOM", 0));
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("FAULT_COUNTS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    for (int i = 0; i < CALLS; i++) fprintf(file, "%s %ld\n", NAMES[i], atomic_load(&counts[i]));
    fclose(file);
}

static int counts_path(const char *path) { return folder && path && !strncmp(path, folder, strlen(folder)); }

static int counts_file(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return counts_path(path);
}

/* Counts a call; returns whether it must fail, with errno set. */
static int fails(enum call call) {
    long n = atomic_fetch_add(&counts[call], 1) + 1;
    if ((int)call != chosen || (lasts ? n < at : n != at)) return 0;
    if (!failure) kill(getpid(), SIGKILL);
    errno = failure;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int open_fails(const char *path, int flags) {
    if (!counts_path(path)) return 0;
    int failed = fails(OPEN);
    if (flags & O_CREAT) failed |= fails(CREATE);
    return failed;
}

#define MODE(flags, last)                                                                                                        \
    mode_t mode = 0;                                                                                                             \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                                       \
        va_list list;                                                                                                            \
        va_start(list, last);                                                                                                    \
        mode = (mode_t)va_arg(list, int);                                                                                        \
        va_end(list);                                                                                                            \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_fails(path, flags) ? -1 : REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_fails(path, flags) ? -1 : REAL(open64)(path, flags, mode);
}
int openat(int at_folder, const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_fails(path, flags) ? -1 : REAL(openat)(at_folder, path, flags, mode);
}
int openat64(int at_folder, const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_fails(path, flags) ? -1 : REAL(openat64)(at_folder, path, flags, mode);
}

/* Returns how many of `length` bytes may be written: all, fewer if the room ends, or -1 with errno set if none may
 * be written. */
static ssize_t allowed(int file, size_t length) {
    if (!counts_file(file)) return (ssize_t)length;
    if (fails(WRITE)) return -1;
    if (!has_room || !length) return (ssize_t)length;
    long left = atomic_load(&room);
    if (left <= 0) {
        errno = ENOSPC;
        return -1;
    }
    ssize_t most = (ssize_t)length < left ? (ssize_t)length : left;
    atomic_fetch_sub(&room, most);
    return most;
}

ssize_t write(int file, const void *bytes, size_t length) {
    ssize_t most = allowed(file, length);
    return most < 0 ? -1 : REAL(write)(file, bytes, (size_t)most);
}
ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
    ssize_t most = allowed(file, length);
    return most < 0 ? -1 : REAL(pwrite64)(file, bytes, (size_t)most, offset);
}
ssize_t writev(int file, const struct iovec *parts, int count) {
    if (count > 0 && counts_file(file)) return write(file, parts[0].iov_base, parts[0].iov_len);
    return REAL(writev)(file, parts, count);
}

int fsync(int file) { return counts_file(file) && fails(FSYNC) ? -1 : REAL(fsync)(file); }
int fdatasync(int file) { return counts_file(file) && fails(FSYNC) ? -1 : REAL(fdatasync)(file); }

int rename(const char *from, const char *to) { return counts_path(to) && fails(RENAME) ? -1 : REAL(rename)(from, to); }
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    return counts_path(to) && fails(RENAME) ? -1 : REAL(renameat)(from_folder, from, to_folder, to);
}
