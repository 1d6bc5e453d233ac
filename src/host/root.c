// openat2 with RESOLVE_IN_ROOT keeps a recorded machine's absolute links inside its folder. The
// invariant: every read is bounded and never blocks (a FIFO or a device is not a regular file).
#include "host/root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_below(const struct root *r, const char *path, int flags)
{
    flags |= O_CLOEXEC;
    if ((flags & O_PATH) == 0) flags |= O_NONBLOCK | O_NOCTTY; // openat2 refuses them beside O_PATH
    if (r->live) return openat(r->fd, path, flags);
    struct open_how how = {.flags = (uint64_t)(unsigned)flags, .resolve = RESOLVE_IN_ROOT};
    long fd = syscall(SYS_openat2, r->fd, path, &how, sizeof how);
    if (fd < 0 && errno == ENOSYS) fd = openat(r->fd, path, flags | O_NOFOLLOW); // before 5.6
    return (int)fd;
}

bool root_open(struct root *out, const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, ERR_INPUT, "cannot read the host's root folder %s; give a folder",
                         path);
    *out = (struct root){.fd = fd, .live = strcmp(path, "/") == 0};
    return true;
}

void root_close(struct root *r)
{
    if (r->fd > 0) close(r->fd);
    *r = (struct root){0};
}

bool root_exists(const struct root *r, const char *path)
{
    int fd = open_below(r, path, O_PATH);
    if (fd < 0) return false;
    close(fd);
    return true;
}

bool root_read(const struct root *r, const char *path, struct buf *out, size_t max_bytes)
{
    struct stat st;
    int fd = open_below(r, path, O_RDONLY);
    if (fd < 0) return false;
    bool ok = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    size_t done = 0;
    while (ok && done < max_bytes) {
        char part[4096];
        size_t want = max_bytes - done < sizeof part ? max_bytes - done : sizeof part;
        ssize_t got = read(fd, part, want);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) ok = done > 0; // some files of /sys end in an error
        if (got <= 0) break;
        buf_put(out, part, (size_t)got);
        done += (size_t)got;
    }
    close(fd);
    return ok && !out->failed;
}

void root_clean(struct str s, char *out, size_t n)
{
    size_t m = s.n < n - 1 ? s.n : n - 1;
    for (size_t i = 0; i < m; i++) out[i] = s.p[i] >= 0x20 && s.p[i] < 0x7f ? s.p[i] : '?';
    out[m] = '\0';
}

bool root_line(const struct root *r, const char *path, char *out, size_t n)
{
    struct buf b = {0};
    out[0] = '\0';
    bool ok = root_read(r, path, &b, 4096);
    if (ok) {
        struct str s = buf_view(&b);
        size_t end = str_find(s, STR("\n"), 0);
        s = str_trim(str_sub(s, 0, end));
        root_clean(s, out, n);
        ok = s.n > 0;
    }
    buf_free(&b);
    return ok;
}

bool root_number(const struct root *r, const char *path, uint64_t *out)
{
    char text[64], *end;
    if (!root_line(r, path, text, sizeof text) || text[0] == '-') return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    if (end == text || *end != '\0' || errno != 0) return false;
    *out = v;
    return true;
}

bool root_link(const struct root *r, const char *folder, const char *name, char *out, size_t n)
{
    const int fd = open_below(r, folder, O_PATH | O_DIRECTORY);
    if (fd < 0) return false;
    const ssize_t got = readlinkat(fd, name, out, n - 1);
    close(fd);
    out[got > 0 ? got : 0] = '\0';
    return got > 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

size_t root_list(const struct root *r, const char *path, const char *prefix, const char *suffix,
                 root_name *names, size_t max)
{
    int fd = open_below(r, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return 0;
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        return 0;
    }
    size_t n = 0;
    for (struct dirent *d = readdir(dir); d != NULL && n < max; d = readdir(dir)) {
        struct str name = str_from(d->d_name);
        bool fits = name.n < ROOT_NAME_BYTES && d->d_name[0] != '.';
        if (!fits || !str_starts(name, str_from(prefix)) || !str_ends(name, str_from(suffix)))
            continue;
        root_clean(name, names[n++], ROOT_NAME_BYTES);
    }
    closedir(dir);
    qsort(names, n, sizeof names[0], by_name);
    return n;
}
