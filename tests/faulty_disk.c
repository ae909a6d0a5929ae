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
#include <stdlib.h>
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

/* What was written at a place, the latest first. It is doomed if the disk will not take it, and gone
   once an fsync has told so; what is on the disk has no size any more. */
static struct change {
    struct change *before;
    int fd, doomed, gone;
    off64_t at;
    off64_t size;
    char *old;
} *changes;

/* Memory is needed: what the disk did not take becomes zeros, or what was there before. Size and
   times stay. */
void disk_forget(void) {
    struct stat status;
    for (struct change *c = changes; c; c = c->before)
        if (c->size && (c->gone || c->doomed) && pwrite(c->fd, c->old, c->size, c->at) < 0) abort();
    for (struct change *c; (c = changes); free(c->old), free(c)) changes = c->before, close(c->fd);
    if (!fstat(lost, &status) && !ftruncate64(lost, 0) && !ftruncate64(lost, status.st_size))
        futimens(lost, (struct timespec[]){status.st_atim, status.st_mtim});
    close(lost), lost = -1;
}

static const char *link_of(int fd) {
    static __thread char link[32];
    return snprintf(link, sizeof link, "/proc/self/fd/%d", fd), link;
}

static int same(int fd, int other) {
    struct stat one, two;
    return !fstat(fd, &one) && !fstat(other, &two) && one.st_ino == two.st_ino;
}

static int is_lost(int fd) { return same(fd, lost); }

static void will_forget(int fd) {
    if (lost < 0) lost = REAL(open64)(link_of(fd), O_RDWR | O_CLOEXEC);
}

static int in(const char *path) { return *folder && !strncmp(path, folder, strlen(folder)); }
static int in_fd(int fd) {
    char path[4096] = "";
    return *folder && readlink(link_of(fd), path, sizeof path - 1) > 0 && in(path);
}

static int is_memory(int fd) {
    char path[4096] = "";
    return readlink(link_of(fd), path, sizeof path - 1) > 0 && strstr(path, "-shm");
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

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    int now = turn(in_fd(fd));
    size_t some = size;
    if (now && kind != LOST && (some = part(fd, now, size)) == size && fails(now)) return -1;
    if (in_fd(fd)) {
        int file = REAL(open64)(link_of(fd), O_RDWR | O_CLOEXEC);
        int doomed = now == 1 && kind == LOST && !is_memory(fd);
        struct change new = {changes, file, doomed, 0, at, some, calloc(1, some)};
        if (pread(file, new.old, some, at) < 0) abort();
        *(changes = malloc(sizeof new)) = new;
    }
    return REAL(pwrite64)(fd, data, some, at);
}

/* Whether something newer that reaches the disk now takes the whole place of `old`. */
static int replaced(struct change *old) {
    for (struct change *c = changes; c != old; c = c->before)
        if (!c->gone && same(c->fd, old->fd) && c->at <= old->at &&
            old->at + old->size <= c->at + c->size)
            return 1;
    return 0;
}

/* What was written at places of a file reaches the disk, but for what is doomed, or nothing does:
   then 1. -1 if nothing ever was written so. */
static int settle(int fd, int nothing) {
    int told = -1;
    for (struct change *c = changes; c; c = c->before)
        if (same(c->fd, fd)) {
            told = told < 0 ? nothing : told;
            if (c->size && !c->gone && (nothing || c->doomed)) c->gone = told = 1;
        }
    for (struct change *c = changes; c; c = c->before)
        if (same(c->fd, fd) && c->gone && replaced(c)) c->gone = c->size = 0;
    for (struct change *c = changes; c; c = c->before)
        if (same(c->fd, fd) && !c->gone) c->size = 0;
    return told;
}

static int synced(int fd, int (*really)(int)) {
    int refused = refuses(in_fd(fd)), told = *folder ? settle(fd, refused) : -1;
    if (told == 0 || (told < 0 && !refused && !(*folder && is_lost(fd)))) return really(fd);
    if (told < 0) will_forget(fd);
    return errno = error, -1;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

int close(int fd) {
    int bad = refuses(in_fd(fd) && fcntl(fd, F_GETFL) & O_ACCMODE), result = REAL(close)(fd);
    return bad ? -1 : result;
}

/* Who asks to read from the disk gets what the disk has. */
int posix_fadvise64(int fd, off64_t at, off64_t size, int advice) {
    if (advice == POSIX_FADV_DONTNEED && is_lost(fd)) disk_forget();
    return REAL(posix_fadvise64)(fd, at, size, advice);
}
