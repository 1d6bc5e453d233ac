// The state names only pieces whose bytes are on disk: data is synced first. A state that cannot be read, or
// is of another file, is as good as none.
#include "host/download_part.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"

enum { SAVE_MS = 1000, READ_BYTES = 1 << 20, MAX_STATE = 4 << 20, MAX_PIECES = 1 << 20 };

static bool disk_error(struct part *p, struct err *e)
{
    const int error = errno;
    return err_set(e, ERR_IO, "cannot write %s: %s; what came is kept, %srun it again to go on",
                   buf_cstr(&p->data_path), strerror(error),
                   error == ENOSPC || error == EDQUOT ? "make room and " : "");
}

bool part_open(struct part *out, const char *path, struct err *e)
{
    struct part p = {.fd = -1};
    buf_z(&p.path, path);
    buf_printf(&p.data_path, "%s.part", path);
    buf_printf(&p.state_path, "%s.part.state", path);
    if (!file_make_parents(path, e)) goto fail;
    p.fd = open(buf_cstr(&p.data_path), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (p.fd < 0) {
        err_errno(e, ERR_IO, "cannot write %s", buf_cstr(&p.data_path));
        goto fail;
    }
    if (flock(p.fd, LOCK_EX | LOCK_NB) != 0) {
        err_set(e, ERR_FULL, "another process is fetching %s", path);
        goto fail;
    }
    buf_cstr(&p.path);
    sha256_init(&p.hash);
    *out = p;
    return true;
fail:
    part_close(&p);
    return false;
}

void part_close(struct part *p)
{
    if (p->fd >= 0 && p->data_path.n > 0) close(p->fd);
    free(p->done);
    free(p->have);
    buf_free(&p->path);
    buf_free(&p->data_path);
    buf_free(&p->state_path);
    *p = (struct part){.fd = -1};
}

uint64_t part_piece_size(const struct part *p, uint32_t piece)
{
    const uint64_t from = piece * p->piece_bytes, left = p->size_bytes - from;
    return left < p->piece_bytes ? left : p->piece_bytes;
}

uint64_t part_done_bytes(const struct part *p)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < p->n_pieces; i++) n += p->have[i];
    return n;
}

// ---- the state file: "submind-part 1 SIZE PIECE ETAG" and a line of 0 and 1 -----------------------

struct state {
    uint64_t size_bytes, piece_bytes;
    char etag[ETAG_BYTES];
    struct str bits;
};

static bool read_state(struct buf *text, struct state *s)
{
    int used = 0;
    struct str all = buf_view(text);
    buf_cstr(text);
    if (all.n == 0 || strlen(all.p) != all.n) return false;
    if (sscanf(all.p, "submind-part 1 %" SCNu64 " %" SCNu64 " %199s%n", &s->size_bytes,
               &s->piece_bytes, s->etag, &used) != 3)
        return false;
    s->bits = str_trim(str_sub(all, (size_t)used, all.n));
    if (strcmp(s->etag, "-") == 0) s->etag[0] = '\0';
    return s->piece_bytes > 0 && s->size_bytes > 0 &&
           s->bits.n == (s->size_bytes - 1) / s->piece_bytes + 1;
}

bool part_peek(const char *path, uint64_t *done_bytes, uint64_t *size_bytes)
{
    struct buf name = {0}, text = {0};
    struct state s;
    struct err ignored = {0};
    buf_printf(&name, "%s.part.state", path);
    bool ok = file_read(&text, buf_cstr(&name), MAX_STATE, &ignored) && read_state(&text, &s);
    uint64_t n = 0;
    for (size_t i = 0; ok && i < s.bits.n; i++) n += s.bits.p[i] == '1';
    if (ok) {
        n *= s.piece_bytes;
        *size_bytes = s.size_bytes;
        *done_bytes = n < s.size_bytes ? n : s.size_bytes;
    }
    buf_free(&name);
    buf_free(&text);
    return ok;
}

bool part_save(struct part *p, struct err *e)
{
    struct buf b = {0};
    if (p->n_pieces == 0) return true;
    if (fdatasync(p->fd) != 0) return disk_error(p, e);
    buf_printf(&b, "submind-part 1 %" PRIu64 " %" PRIu64 " %s\n", p->size_bytes, p->piece_bytes,
               p->etag[0] == '\0' ? "-" : p->etag);
    for (uint32_t i = 0; i < p->n_pieces; i++) buf_c(&b, p->done[i] ? '1' : '0');
    buf_c(&b, '\n');
    bool ok = !b.failed && file_replace(buf_cstr(&p->state_path), buf_view(&b), 0644, e);
    buf_free(&b);
    p->saved_ns = clock_ns();
    return ok;
}

// ---- pieces ---------------------------------------------------------------------------------------

static bool check_room(const struct part *p, struct err *e)
{
    struct statvfs fs;
    struct stat st;
    if (fstatvfs(p->fd, &fs) != 0 || fstat(p->fd, &st) != 0) return true;
    const uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize, there = (uint64_t)st.st_blocks * 512;
    if (p->size_bytes <= room + there) return true;
    return err_set(e, ERR_IO, "the disk has %.1f GB free, the file needs %.1f GB more: %s",
                   (double)room / 1e9, (double)(p->size_bytes - there) / 1e9, p->path.p);
}

static bool set_pieces(struct part *p, struct err *e)
{
    const uint64_t n = p->size_bytes == 0 ? 0 : (p->size_bytes - 1) / p->piece_bytes + 1;
    if (n > MAX_PIECES)
        return err_set(e, ERR_TOO_LARGE, "%" PRIu64 " bytes are too many", p->size_bytes);
    free(p->done);
    free(p->have);
    p->done = calloc(n + 1, sizeof *p->done);
    p->have = calloc(n + 1, sizeof *p->have);
    p->n_pieces = (uint32_t)n;
    p->n_done = 0;
    p->hashed_bytes = 0;
    p->resumed = false;
    sha256_init(&p->hash);
    if (p->done == NULL || p->have == NULL) return err_set(e, ERR_MEMORY, "no memory for pieces");
    return true;
}

static void take_over(struct part *p, const struct state *s)
{
    for (uint32_t i = 0; i < p->n_pieces; i++) {
        if (s->bits.p[i] != '1') continue;
        p->done[i] = 1;
        p->have[i] = part_piece_size(p, i);
        p->n_done++;
        p->resumed = true;
    }
}

bool part_fit(struct part *p, uint64_t size_bytes, const char *etag, uint64_t piece_bytes,
              struct err *e)
{
    struct buf text = {0};
    struct state s;
    struct stat st;
    struct err ignored = {0};
    const bool known = file_read(&text, buf_cstr(&p->state_path), MAX_STATE, &ignored) &&
                       read_state(&text, &s) && s.size_bytes == size_bytes &&
                       strcmp(s.etag, etag) == 0 && fstat(p->fd, &st) == 0 &&
                       (uint64_t)st.st_size == size_bytes;
    p->size_bytes = size_bytes;
    p->piece_bytes = known ? s.piece_bytes : piece_bytes;
    snprintf(p->etag, sizeof p->etag, "%s", etag);
    bool ok = set_pieces(p, e);
    if (ok && known) take_over(p, &s);
    ok = ok && check_room(p, e);
    if (ok && !known && (ftruncate(p->fd, 0) != 0 || ftruncate(p->fd, (off_t)size_bytes) != 0))
        ok = err_errno(e, ERR_IO, "cannot write %s", buf_cstr(&p->data_path));
    buf_free(&text);
    return ok;
}

bool part_write(struct part *p, uint32_t piece, const void *data, size_t n, struct err *e)
{
    const char *from = data;
    while (n > 0) {
        const off_t at = (off_t)(piece * p->piece_bytes + p->have[piece]);
        const ssize_t written = pwrite(p->fd, from, n, at);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return disk_error(p, e);
        from += written;
        n -= (size_t)written;
        p->have[piece] += (uint64_t)written;
    }
    return true;
}

bool part_hash(struct part *p, struct err *e)
{
    char *block = malloc(READ_BYTES);
    bool ok = block != NULL || err_set(e, ERR_MEMORY, "no memory to hash");
    while (ok && p->hashed_bytes < p->size_bytes) {
        const uint32_t piece = (uint32_t)(p->hashed_bytes / p->piece_bytes);
        const uint64_t left = piece * p->piece_bytes + part_piece_size(p, piece) - p->hashed_bytes;
        const size_t want = left < READ_BYTES ? (size_t)left : READ_BYTES;
        if (!p->done[piece]) break;
        const ssize_t n = pread(p->fd, block, want, (off_t)p->hashed_bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            ok = err_errno(e, ERR_IO, "cannot read %s", buf_cstr(&p->data_path));
            break;
        }
        sha256_add(&p->hash, block, (size_t)n);
        p->hashed_bytes += (uint64_t)n;
    }
    free(block);
    return ok;
}

bool part_finish_piece(struct part *p, uint32_t piece, struct err *e)
{
    p->done[piece] = 1;
    p->n_done++;
    return part_hash(p, e) && (clock_ms_since(p->saved_ns) < SAVE_MS || part_save(p, e));
}

void part_discard(struct part *p)
{
    unlink(buf_cstr(&p->state_path));
    if (ftruncate(p->fd, 0) != 0) unlink(buf_cstr(&p->data_path));
    p->n_pieces = 0;
}

void part_remove(struct part *p)
{
    unlink(buf_cstr(&p->state_path));
    unlink(buf_cstr(&p->data_path));
}

bool part_complete(struct part *p, struct err *e)
{
    if (fsync(p->fd) != 0 || rename(buf_cstr(&p->data_path), buf_cstr(&p->path)) != 0)
        return err_errno(e, ERR_IO, "cannot write %s", buf_cstr(&p->path));
    unlink(buf_cstr(&p->state_path));
    return true;
}
