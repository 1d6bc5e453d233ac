// Room and speed of the disks that models and cached pages lie on. Speed is read from files that are there, past
// the page cache, for a moment each: nothing is written. A recorded host holds submind/disk-free (bytes) and
// submind/model-mb-s, submind/cache-mb-s.
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
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

static uint64_t speed_below(const struct host *h, const char *below, const char *name)
{
    char dir[PATH_BYTES], path[PATH_BYTES];
    snprintf(dir, sizeof dir, "%s/%s", h->home, below);
    return h->home[0] != '/' || !largest(dir, name, path) ? 0 : (uint64_t)read_speed(path);
}

void host_look_disk(struct host *h, const struct root *r)
{
    struct statvfs fs;
    if (root_number(r, "submind/disk-free", &h->disk_free_bytes)) {
        h->disk_seen = true;
    } else if (r->live && statvfs(h->home[0] != '\0' ? h->home : "/", &fs) == 0) {
        h->disk_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
        h->disk_seen = true;
    }
    if (r->live) {
        h->model_mb_s = speed_below(h, ".local/share/submind/models", "*.gguf");
        h->cache_mb_s = speed_below(h, ".cache/submind", "*");
    } else {
        root_number(r, "submind/model-mb-s", &h->model_mb_s);
        root_number(r, "submind/cache-mb-s", &h->cache_mb_s);
    }
}
