// Paths, sizes and the segments that other families left behind.
// Invariant: nothing is removed in a family that another process has locked.
#include "base/store_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/rundir.h"

void segment_name(char out[SEGMENT_NAME_MAX], uint32_t id)
{
    snprintf(out, SEGMENT_NAME_MAX, "seg-%08x", id);
}

bool segment_id(const char *name, uint32_t *id)
{
    char again[SEGMENT_NAME_MAX];
    if (strncmp(name, "seg-", 4) != 0) return false;
    *id = (uint32_t)strtoul(name + 4, NULL, 16);
    segment_name(again, *id);
    return strcmp(again, name) == 0;
}

bool store_make_dir(const char *path, struct err *e)
{
    struct buf parent = {0};
    for (const char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        buf_clear(&parent);
        buf_put(&parent, path, (size_t)(slash - path));
        mkdir(buf_cstr(&parent), 0700); // what is wrong with it shows below
    }
    buf_free(&parent);
    return rundir_make(path, e);
}

void store_family_path(struct buf *out, const char *dir, struct hash128 family)
{
    buf_printf(out, "%s/%016llx%016llx", dir, (unsigned long long)family.hi,
               (unsigned long long)family.lo);
}

uint64_t store_free_bytes(const char *dir)
{
    struct statvfs v;
    return statvfs(dir, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : 0;
}

bool store_write_all(int fd, const void *p, size_t n, uint64_t off)
{
    const unsigned char *q = p;
    while (n > 0) {
        const ssize_t m = pwrite(fd, q, n, (off_t)off);
        if (m < 0 && errno == EINTR) continue;
        if (m == 0) errno = ENOSPC;
        if (m <= 0) return false;
        q += m;
        off += (uint64_t)m;
        n -= (size_t)m;
    }
    return true;
}

bool store_read_all(int fd, void *p, size_t n, uint64_t off)
{
    unsigned char *q = p;
    while (n > 0) {
        const ssize_t m = pread(fd, q, n, (off_t)off);
        if (m < 0 && errno == EINTR) continue;
        if (m == 0) errno = EIO; // shorter than it should be
        if (m <= 0) return false;
        q += m;
        off += (uint64_t)m;
        n -= (size_t)m;
    }
    return true;
}

// ---- other families -----------------------------------------------------------------------------

struct other {
    uint32_t i_family;
    uint32_t id;
    int64_t used;
    uint64_t bytes;
};

struct others {
    struct other *list;
    size_t n, cap;
    uint64_t bytes;
};

static void add_other(struct others *o, const struct other *one)
{
    o->bytes += one->bytes;
    if (o->n == o->cap) {
        const size_t cap = o->cap == 0 ? 64 : 2 * o->cap;
        struct other *p = realloc(o->list, cap * sizeof *p);
        if (p == NULL) return; // counted, not removable now
        o->list = p;
        o->cap = cap;
    }
    o->list[o->n++] = *one;
}

static void look_into(const char *path, uint32_t i_family, struct others *o)
{
    DIR *d = opendir(path);
    if (d == NULL) return;
    for (struct dirent *f = readdir(d); f != NULL; f = readdir(d)) {
        struct other one = {.i_family = i_family};
        struct stat st;
        if (!segment_id(f->d_name, &one.id)) continue;
        if (fstatat(dirfd(d), f->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
            continue;
        one.used = st.st_mtim.tv_sec;
        one.bytes = (uint64_t)st.st_size;
        add_other(o, &one);
    }
    closedir(d);
}

static int by_age(const void *pa, const void *pb)
{
    const struct other *a = pa, *b = pb;
    return (a->used > b->used) - (a->used < b->used);
}

static bool is_family(const char *name)
{
    return strlen(name) == 32 && strspn(name, "0123456789abcdef") == 32;
}

// Removes one segment unless a process has the family open.
static bool remove_other(const char *family, uint32_t id)
{
    struct buf path = {0};
    char name[SEGMENT_NAME_MAX];
    int lock = -1;
    segment_name(name, id);
    buf_printf(&path, "%s/lock", family);
    bool ok = rundir_lock(buf_cstr(&path), &lock, &(struct err){0}) == LOCK_TAKEN;
    buf_clear(&path);
    buf_printf(&path, "%s/%s", family, name);
    ok = ok && unlink(buf_cstr(&path)) == 0;
    rundir_unlock(lock);
    buf_free(&path);
    return ok;
}

enum { FAMILIES_MAX = 256 }; // in one folder; more are left alone

uint64_t store_other_families(const char *dir, const char *own, uint64_t want)
{
    struct buf paths[FAMILIES_MAX] = {{0}};
    uint32_t n_families = 0;
    struct others o = {0};
    DIR *d = opendir(dir);
    if (d == NULL) return 0;
    for (struct dirent *f = readdir(d); f != NULL && n_families < FAMILIES_MAX; f = readdir(d)) {
        struct buf *path = &paths[n_families];
        if (!is_family(f->d_name)) continue;
        buf_clear(path);
        buf_printf(path, "%s/%s", dir, f->d_name);
        if (strcmp(buf_cstr(path), own) == 0) continue;
        look_into(buf_cstr(path), n_families++, &o);
    }
    closedir(d);
    uint64_t removed = 0;
    if (want > 0 && o.n > 0) qsort(o.list, o.n, sizeof *o.list, by_age);
    for (size_t i = 0; i < o.n && removed < want; i++)
        if (remove_other(buf_cstr(&paths[o.list[i].i_family]), o.list[i].id))
            removed += o.list[i].bytes;
    for (uint32_t i = 0; i < FAMILIES_MAX; i++) buf_free(&paths[i]);
    free(o.list);
    return o.bytes - removed;
}
