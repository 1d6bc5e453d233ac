// Mapping and reading files. Signals and short reads are handled here, nowhere else.
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/map_guard.h"

static bool is_file(const struct stat *st, const char *path, struct err *e)
{
    if (S_ISREG(st->st_mode)) return true;
    return err_set(e, ERR_IO,
                   S_ISDIR(st->st_mode) ? "%s is a folder; name a file in it"
                                        : "%s is not a regular file",
                   path);
}

bool file_map(struct file_map *out, const char *path, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %s", path);
    if (fstat(fd, &st) != 0) {
        err_errno(e, ERR_IO, "cannot stat %s", path);
        goto fail;
    }
    if (!is_file(&st, path, e)) goto fail;
    struct file_map m = {.n = (size_t)st.st_size, .fd = fd};
    if (m.n > 0) {
        void *p = mmap(NULL, m.n, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            err_errno(e, ERR_IO, "cannot map %s (%zu bytes)", path, m.n);
            goto fail;
        }
        m.p = p;
        map_guard_add(p, m.n, path);
    }
    *out = m;
    return true;
fail:
    close(fd);
    return false;
}

void file_unmap(struct file_map *m)
{
    map_guard_remove(m->p);
    if (m->p != NULL) munmap((void *)(uintptr_t)m->p, m->n);
    if (m->fd > 0) close(m->fd);
    *m = (struct file_map){.fd = -1};
}

static bool read_fd(struct buf *out, int fd, const char *path, size_t max_bytes, struct err *e)
{
    const size_t start = out->n;
    for (;;) {
        if (!buf_reserve(out, 65536)) return err_set(e, ERR_MEMORY, "no memory to read %s", path);
        ssize_t n = read(fd, out->p + out->n, 65536);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno(e, ERR_IO, "cannot read %s", path);
        if (n == 0) return true;
        out->n += (size_t)n;
        if (out->n - start > max_bytes)
            return err_set(e, ERR_TOO_LARGE, "%s is larger than %zu bytes", path, max_bytes);
    }
}

bool file_read(struct buf *out, const char *path, size_t max_bytes, struct err *e)
{
    if (strcmp(path, "-") == 0) return read_fd(out, STDIN_FILENO, "standard input", max_bytes, e);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %s", path);
    bool ok = read_fd(out, fd, path, max_bytes, e);
    close(fd);
    return ok;
}

// At most max_bytes of fd.
static bool read_start(struct buf *out, int fd, const char *path, size_t max_bytes, struct err *e)
{
    const size_t end = out->n + max_bytes;
    while (out->n < end) {
        size_t want = end - out->n < 65536 ? end - out->n : 65536;
        if (!buf_reserve(out, want)) return err_set(e, ERR_MEMORY, "no memory to read %s", path);
        ssize_t n = read(fd, out->p + out->n, want);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno(e, ERR_IO, "cannot read %s", path);
        if (n == 0) break;
        out->n += (size_t)n;
    }
    return true;
}

static void make_plain(struct buf *b, size_t start)
{
    static const char mark[] = "\xef\xbb\xbf";
    size_t to = start, from = start;
    if (b->n - from >= 3 && memcmp(b->p + from, mark, 3) == 0) from += 3;
    if (from == start && memchr(b->p + start, '\r', b->n - start) == NULL) return;
    for (; from < b->n; from++)
        if (b->p[from] != '\r' || from + 1 == b->n || b->p[from + 1] != '\n')
            b->p[to++] = b->p[from];
    b->n = to;
}

bool file_read_text(struct buf *out, const char *path, size_t max_bytes, size_t *total,
                    struct err *e)
{
    struct stat st;
    const size_t start = out->n;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_errno(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %s", path);
    bool ok = fstat(fd, &st) == 0 || err_errno(e, ERR_IO, "cannot stat %s", path);
    ok = ok && is_file(&st, path, e);
    if (ok)
        ok = total != NULL ? read_start(out, fd, path, max_bytes, e)
                           : read_fd(out, fd, path, max_bytes, e);
    close(fd);
    if (!ok) {
        out->n = start;
        return false;
    }
    if (total != NULL)
        *total = (size_t)st.st_size > out->n - start ? (size_t)st.st_size : out->n - start;
    if (out->n > start) make_plain(out, start);
    return true;
}

// Makes the folders in front of the last slash.
bool file_make_parents(const char *path, struct err *e)
{
    char part[4096];
    const size_t n = strlen(path);
    if (n >= sizeof part) return err_set(e, ERR_INPUT, "the path is too long: %.100s", path);
    for (size_t i = 1; i < n; i++) {
        if (path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST)
            return err_errno(e, errno == EACCES ? ERR_DENIED : ERR_IO, "cannot make the folder %s",
                             part);
    }
    return true;
}

bool file_write_all(int fd, struct str text)
{
    while (text.n > 0) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        text = str_sub(text, (size_t)n, text.n);
    }
    return true;
}

bool file_replace(const char *path, struct str text, unsigned mode, struct err *e)
{
    struct buf temporary = {0};
    if (!file_make_parents(path, e)) return false;
    buf_printf(&temporary, "%s.new-%ld", path, (long)getpid());
    const char *name = buf_cstr(&temporary);
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    bool ok = fd >= 0 && file_write_all(fd, text) && fsync(fd) == 0;
    if (fd >= 0 && close(fd) != 0) ok = false;
    ok = ok && rename(name, path) == 0;
    if (!ok) {
        err_errno(e, errno == EACCES ? ERR_DENIED : ERR_IO, "cannot write %s", path);
        unlink(name);
    }
    buf_free(&temporary);
    return ok;
}
