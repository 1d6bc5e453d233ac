// Room and speed of the disks that models and cached pages lie on. Speed is read from files that are there, past
// the page cache, for a moment each: nothing is written. A recorded host holds submind/disk-free (bytes),
// submind/model-mb-s and -cache-mb-s, submind/model-disk and -cache-disk (enum disk_kind).
#include <fcntl.h>
#include <glob.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/str.h"
#include "host/look.h"

enum {
    PATH_BYTES = 640,
    PIECE_BYTES = 4 << 20,
    ALIGN_BYTES = 4096,
    LEAST_BYTES = 32 << 20, // of a file that is worth timing
    MOST_BYTES = 256 << 20,
    MOST_MS = 200,
    DEPTH = 5, // hf/OWNER/REPO/FILE below the folder of models
};

// The largest file below dir whose name fits, at most DEPTH folders deep; false when none is large enough.
static bool largest(const char *dir, const char *name, char path[PATH_BYTES])
{
    off_t most = LEAST_BYTES - 1;
    struct buf pattern = {0}, stars = {0};
    for (int depth = 0; depth < DEPTH; depth++) {
        glob_t found = {0};
        buf_clear(&pattern);
        buf_printf(&pattern, "%s/%s%s", dir, buf_cstr(&stars), name);
        if (glob(buf_cstr(&pattern), GLOB_NOSORT, NULL, &found) == 0) {
            for (size_t i = 0; i < found.gl_pathc; i++) {
                struct stat st;
                if (stat(found.gl_pathv[i], &st) != 0 || !S_ISREG(st.st_mode) || st.st_size <= most)
                    continue;
                most = st.st_size;
                snprintf(path, PATH_BYTES, "%s", found.gl_pathv[i]);
            }
        }
        globfree(&found);
        buf_z(&stars, "*/");
    }
    buf_free(&pattern);
    buf_free(&stars);
    return most >= LEAST_BYTES;
}

// MB/s of reading the file in order; 0 when the file system does not read past its cache.
static double read_speed(const char *path)
{
    void *piece = NULL;
    double speed = 0;
    size_t done = 0;
    ssize_t n = 0;
    const int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0) return 0;
    if (posix_memalign(&piece, ALIGN_BYTES, PIECE_BYTES) == 0) {
        const uint64_t start = clock_ns();
        while (done < MOST_BYTES && clock_ms_since(start) < MOST_MS &&
               (n = read(fd, piece, PIECE_BYTES)) > 0)
            done += (size_t)n;
        const double ms = clock_ms_since(start);
        if (n >= 0 && done > 0 && ms > 0) speed = (double)done / 1e3 / ms;
    }
    free(piece);
    close(fd);
    return speed;
}

static uint64_t speed_below(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    return dir == NULL || !largest(dir, name, path) ? 0 : (uint64_t)read_speed(path);
}

// A virtual machine's disk says that it rotates, whatever it is.
static bool is_virtual(const struct root *r, const char *uevent)
{
    struct buf b = {0};
    root_read(r, uevent, &b, ALIGN_BYTES);
    const bool is = str_find(buf_view(&b), STR("DEVNAME=vd"), 0) != SIZE_MAX ||
                    str_find(buf_view(&b), STR("DEVNAME=xvd"), 0) != SIZE_MAX;
    buf_free(&b);
    return is;
}

// What a folder lies on, or the nearest one above it that is there: for folders without a file to time.
static enum disk_kind disk_below(const struct root *r, const char *dir)
{
    static const unsigned long network[] = {NFS_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC,
                                            FUSE_SUPER_MAGIC};
    char path[PATH_BYTES], queue[PATH_BYTES];
    struct statfs fs;
    struct stat st;
    uint64_t rotates;
    if (dir == NULL || dir[0] != '/') return DISK_UNKNOWN;
    snprintf(path, sizeof path, "%s", dir);
    while (stat(path, &st) != 0 && strrchr(path, '/') != path) *strrchr(path, '/') = '\0';
    if (stat(path, &st) != 0 || statfs(path, &fs) != 0) return DISK_UNKNOWN;
    for (size_t i = 0; i < sizeof network / sizeof network[0]; i++)
        if ((unsigned long)fs.f_type == network[i]) return DISK_NETWORK;
    snprintf(queue, sizeof queue, "sys/dev/block/%u:%u/uevent", major(st.st_dev), minor(st.st_dev));
    if (is_virtual(r, queue)) return DISK_UNKNOWN;
    for (int up = 0; up < 2; up++) { // a partition's queue is that of its disk
        snprintf(queue, sizeof queue, "sys/dev/block/%u:%u/%squeue/rotational", major(st.st_dev),
                 minor(st.st_dev), up == 1 ? "../" : "");
        if (root_number(r, queue, &rotates)) return rotates != 0 ? DISK_ROTATING : DISK_SOLID;
    }
    return DISK_UNKNOWN;
}

void host_look_disk(struct host *h, const struct root *r, const struct look_wish *wish)
{
    struct statvfs fs;
    if (root_number(r, "submind/disk-free", &h->disk_free_bytes)) {
        h->disk_seen = true;
    } else if (r->live && statvfs(h->home[0] != '\0' ? h->home : "/", &fs) == 0) {
        h->disk_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        h->disk_seen = true;
    }
    if (r->live) {
        h->model_mb_s = speed_below(wish->models, "*.gguf");
        h->cache_mb_s = speed_below(wish->cache, "*");
        h->model_disk = disk_below(r, wish->models);
        h->cache_disk = disk_below(r, wish->cache);
    } else {
        uint64_t kind;
        if (root_number(r, "submind/model-disk", &kind) && kind <= DISK_NETWORK)
            h->model_disk = (enum disk_kind)kind;
        if (root_number(r, "submind/cache-disk", &kind) && kind <= DISK_NETWORK)
            h->cache_disk = (enum disk_kind)kind;
        if (root_number(r, "submind/nvidia-free-mib", &kind) && kind < 1 << 24)
            h->nvidia_free_bytes = kind << 20;
        root_number(r, "submind/model-mb-s", &h->model_mb_s);
        root_number(r, "submind/cache-mb-s", &h->cache_mb_s);
    }
}
