/* A disk that fails: preloaded into a process, has the FAIL_AT-th write, fsync or rename below FAIL_UNDER fail with
   FAIL_ERRNO; with FAIL_ON=1 every later one, too. What failed is said in the file FAIL_LOG. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long passed;

static int fails(const char *what, const char *path) {
    const char *under = getenv("FAIL_UNDER"), *at = getenv("FAIL_AT"), *log = getenv("FAIL_LOG");
    if (!under || !at || !path || strncmp(path, under, strlen(under)) != 0) return 0;
    long number = atomic_fetch_add(&passed, 1) + 1, wanted = atol(at);
    const char *on = getenv("FAIL_ON");
    if (number != wanted && !(on && *on == '1' && number > wanted)) return 0;
    if (log && number == wanted) {
        int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        char line[PATH_MAX + 32];
        int length = snprintf(line, sizeof line, "%s %s\n", what, path);
        if (file >= 0) {
            syscall(SYS_write, file, line, length);
            syscall(SYS_close, file);
        }
    }
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

static int fails_fd(const char *what, int descriptor) {
    char link[64], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(what, path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int descriptor, const void *data, size_t size) {
    return fails_fd("write", descriptor) ? -1 : NEXT(write)(descriptor, data, size);
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return fails_fd("write", descriptor) ? -1 : NEXT(pwrite)(descriptor, data, size, offset);
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    return fails_fd("write", descriptor) ? -1 : NEXT(pwrite64)(descriptor, data, size, offset);
}
int fsync(int descriptor) { return fails_fd("fsync", descriptor) ? -1 : NEXT(fsync)(descriptor); }
int fdatasync(int descriptor) { return fails_fd("fsync", descriptor) ? -1 : NEXT(fdatasync)(descriptor); }
int rename(const char *from, const char *to) { return fails("rename", from) ? -1 : NEXT(rename)(from, to); }
int renameat(int old, const char *from, int new, const char *to) {
    return fails_fd("rename", old) ? -1 : NEXT(renameat)(old, from, new, to);
}
