/* A disk that fails on purpose, for the process that this is preloaded into.

   Calls that change something in one folder are counted, and the N-th goes wrong: it fails, or it
   and all later ones fail, or it writes only half, or what it writes does not reach the disk. Then
   the next fsync tells of it, and the bytes are gone when memory is needed for something else. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
enum { ONCE, FROM_THEN_ON, HALF, LOST };
static char folder[4096]; /* empty: nothing is counted */
static int kind, nth, error, count, lost = -1;

void disk_fault(const char *where, int what, int number, int code) {
    strncpy(folder, where, sizeof folder - 1);
    kind = what, nth = number, error = code, count = 0;
}

/* Nothing fails from now on; how many calls there were. */
int disk_mended(void) { return *folder = 0, count; }

/* Memory is needed: what the disk did not take becomes zeros. Size and times stay. */
void disk_forget(void) {
    struct stat status;
    if (!fstat(lost, &status) && !ftruncate64(lost, 0) && !ftruncate64(lost, status.st_size))
        futimens(lost, (struct timespec[]){status.st_atim, status.st_mtim});
    close(lost), lost = -1;
}

static const char *link_of(int fd) {
    static __thread char link[32];
    return snprintf(link, sizeof link, "/proc/self/fd/%d", fd), link;
}

static int is_lost(int fd) {
    struct stat one, other;
    return !fstat(fd, &one) && !fstat(lost, &other) && one.st_ino == other.st_ino;
}

static void will_forget(int fd) {
    if (lost < 0) lost = REAL(open64)(link_of(fd), O_RDWR | O_CLOEXEC);
}

static int in(const char *path) { return *folder && !strncmp(path, folder, strlen(folder)); }
static int in_fd(int fd) {
    char path[4096] = "";
    return *folder && readlink(link_of(fd), path, sizeof path - 1) > 0 && in(path);
}

/* 1 for the N-th call, 2 for those after it. */
static int turn(int counts) { return !counts || ++count < nth ? 0 : count == nth ? 1 : 2; }

static int fails(int turn) {
    return (turn && kind == FROM_THEN_ON) || (turn == 1 && kind == ONCE) ? errno = error, 1 : 0;
}

/* For what does not write, and is done or not done. */
static int refuses(int counts) { return fails(turn(kind < HALF && counts)); }

/* How much of `size` is written. */
static size_t part(int fd, int turn, size_t size) {
    if (turn == 1 && kind == LOST) will_forget(fd);
    return turn == 1 && (kind == HALF || kind == FROM_THEN_ON) && size > 1 ? size / 2 : size;
}

#define CALL(name, counts, parameters, ...) \
    int name parameters { return refuses(counts) ? -1 : REAL(name)(__VA_ARGS__); }
CALL(rename, in(to), (const char *from, const char *to), from, to)
CALL(symlink, in(path), (const char *to, const char *path), to, path)
CALL(mkdir, in(path), (const char *path, mode_t mode), path, mode)
CALL(unlink, in(path), (const char *path), path)
CALL(unlinkat, in(path) || in_fd(fd), (int fd, const char *path, int how), fd, path, how)
CALL(rmdir, in(path), (const char *path), path)
CALL(fchmod, in_fd(fd), (int fd, mode_t mode), fd, mode)
CALL(ftruncate64, in_fd(fd), (int fd, off64_t size), fd, size)

#define WRITE(name, to, parameters, ...) \
    ssize_t name parameters { \
        int now = turn(in_fd(to)); \
        size_t some = part(to, now, size); \
        return some == size && fails(now) ? -1 : REAL(name)(__VA_ARGS__, some); \
    }
WRITE(write, fd, (int fd, const void *data, size_t size), fd, data)
WRITE(sendfile64, to, (int to, int from, off64_t *at, size_t size), to, from, at)

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (refuses((flags & O_ACCMODE) && in(path))) return -1;
    int fd = REAL(open64)(path, flags, mode);
    if (flags & O_TRUNC && is_lost(fd)) close(lost), lost = -1;
    return fd;
}

int fsync(int fd) {
    if (!refuses(in_fd(fd)) && !(*folder && is_lost(fd))) return REAL(fsync)(fd);
    will_forget(fd);
    return errno = error, -1;
}

int close(int fd) {
    int bad = refuses(in_fd(fd) && fcntl(fd, F_GETFL) & O_ACCMODE), result = REAL(close)(fd);
    return bad ? -1 : result;
}

/* Who asks to read from the disk gets what the disk has. */
int posix_fadvise64(int fd, off64_t at, off64_t size, int advice) {
    if (advice == POSIX_FADV_DONTNEED && is_lost(fd)) disk_forget();
    return REAL(posix_fadvise64)(fd, at, size, advice);
}
