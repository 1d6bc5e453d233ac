// Segments, their records and who may write them. A segment is records one behind the other; where its
// length is no multiple of a record's, the rest is what a crash left and is cut off by the next writer.
// What was used when: a segment's modification time (set by store_tick), so that a restart knows it.
//
// Invariants: an entry of the index lies inside its segment's n_slots; only the writer changes files,
// and only at the end of the last segment, but for the magic of a record that was found bad.
#include "base/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rundir.h"
#include "base/store_files.h"
#include "base/store_index.h"
#include "base/store_speed.h"

enum { RETRY_S = 300, STAMP_S = 60 };
#define SEGMENT_BYTES   ((uint64_t)64 << 20)
#define DEFAULT_CAP_MAX ((uint64_t)64 << 30)
#define MAGIC           UINT64_C(0x31304e4f47504b53) // a version: other layouts take another
static const double half_life_s = 86400;

struct segment {
    uint32_t id, n_slots;
    double uses;     // what its records' uses were worth, decayed to `used`
    int64_t used;    // Unix time
    int64_t stamped; // the modification time on disk
    bool seen;       // while the folder is read
    // While one to be dropped is looked for: the most uses of a segment whose records go on from its own.
    double behind;
};

struct store {
    struct store_shape shape;
    size_t record_bytes;
    uint64_t segment_slots;
    uint32_t retry_s;
    char *dir, *path; // of all families, of this one
    int dir_fd, lock_fd;

    pthread_mutex_t lock; // guards these; never held over I/O
    struct store_index index;
    struct segment *segments; // [n_segments], by id
    size_t n_segments, cap_segments;
    struct store_figures figures;
    bool writer;
    int64_t off_until; // Unix time; a write has failed

    // The writer's only.
    int tail_fd; // the segment that grows, -1 = none yet
    uint32_t tail_id;
    uint64_t tail_slots;
};

size_t store_record_bytes(const struct store_shape *s)
{
    const size_t n = sizeof(struct store_header) + s->n_ids * sizeof(int32_t) + s->data_bytes;
    return (n + STORE_ALIGN - 1) / STORE_ALIGN * STORE_ALIGN;
}

// ---- records ------------------------------------------------------------------------------------

static uint64_t head_sum(const struct store_header *h)
{
    const size_t skip = offsetof(struct store_header, magic);
    return hash64((const unsigned char *)h + skip, sizeof *h - skip, 0);
}

static struct hash128 record_sum(const void *record, size_t n)
{
    const size_t skip = offsetof(struct store_header, head_sum);
    return hash128((const unsigned char *)record + skip, n - skip, 0);
}

bool store_header_valid(const struct store_header *h, const struct store_shape *s)
{
    return h->magic == MAGIC && hash128_equal(h->family, s->family) && h->n_ids == s->n_ids &&
           h->data_bytes == s->data_bytes && h->encoding == s->encoding &&
           h->head_sum == head_sum(h);
}

static void seal(struct store *st, void *record)
{
    struct store_header *h = record;
    const size_t used = sizeof *h + st->shape.n_ids * sizeof(int32_t) + st->shape.data_bytes;
    memset((unsigned char *)record + used, 0, st->record_bytes - used);
    h->magic = MAGIC;
    h->family = st->shape.family;
    h->n_ids = st->shape.n_ids;
    h->data_bytes = st->shape.data_bytes;
    h->saved_unix = clock_unix();
    h->encoding = st->shape.encoding;
    h->marks = store_marks((const int32_t *)(const void *)(h + 1), st->shape.n_ids);
    h->head_sum = head_sum(h);
    h->sum = record_sum(record, st->record_bytes);
}

// ---- segments: all under the lock ---------------------------------------------------------------

static struct segment *find_segment(struct store *st, uint32_t id)
{
    size_t lo = 0, hi = st->n_segments;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (st->segments[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < st->n_segments && st->segments[lo].id == id ? &st->segments[lo] : NULL;
}

static struct segment *add_segment(struct store *st, const struct segment *s)
{
    if (st->n_segments == st->cap_segments) {
        const size_t cap = st->cap_segments == 0 ? 16 : 2 * st->cap_segments;
        struct segment *p = realloc(st->segments, cap * sizeof *p);
        if (p == NULL) return NULL;
        st->segments = p;
        st->cap_segments = cap;
    }
    size_t i = st->n_segments++;
    for (; i > 0 && st->segments[i - 1].id > s->id; i--) st->segments[i] = st->segments[i - 1];
    st->segments[i] = *s;
    return &st->segments[i];
}

static void forget_segment(struct store *st, uint32_t id)
{
    struct segment *s = find_segment(st, id);
    if (s == NULL) return;
    const size_t i = (size_t)(s - st->segments);
    memmove(s, s + 1, (st->n_segments - i - 1) * sizeof *s);
    st->n_segments--;
    store_index_drop_segment(&st->index, id);
}

static uint64_t own_bytes(const struct store *st)
{
    uint64_t n = 0;
    for (size_t i = 0; i < st->n_segments; i++) n += st->segments[i].n_slots;
    return n * st->record_bytes;
}

static double uses_now(const struct segment *s, int64_t now)
{
    return s->uses * exp2(-(double)(now - s->used) / half_life_s);
}

static void count_use(struct store *st, uint32_t id, double worth)
{
    struct segment *s = find_segment(st, id);
    if (s == NULL) return;
    const int64_t now = clock_unix();
    s->uses = uses_now(s, now) + worth;
    s->used = now;
}

// ---- reading the folder -------------------------------------------------------------------------

static int open_segment(const struct store *st, uint32_t id, int flags)
{
    char name[SEGMENT_NAME_MAX];
    segment_name(name, id);
    return openat(st->dir_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static bool index_record(struct store *st, const struct store_header *h, uint32_t id, uint32_t slot,
                         struct err *e)
{
    const struct store_entry entry = {.key = h->key,
                                      .parent = h->parent,
                                      .salt = h->salt,
                                      .depth = h->depth,
                                      .i_segment = id,
                                      .slot = slot,
                                      .marks = h->marks,
                                      .saved_unix = h->saved_unix};
    pthread_mutex_lock(&st->lock);
    const bool ok = store_index_add(&st->index, &entry);
    pthread_mutex_unlock(&st->lock);
    return ok || err_set(e, ERR_MEMORY, "no memory for the index of %s", st->path);
}

// Reads the headers of slots [first, end) of a segment.
static bool scan_slots(struct store *st, uint32_t id, uint32_t first, uint32_t end, struct err *e)
{
    const int fd = open_segment(st, id, O_RDONLY);
    bool ok = true;
    if (fd < 0) return true; // gone meanwhile
    for (uint32_t slot = first; ok && slot < end; slot++) {
        struct store_header h;
        if (!store_read_all(fd, &h, sizeof h, (uint64_t)slot * st->record_bytes)) break;
        if (store_header_valid(&h, &st->shape)) ok = index_record(st, &h, id, slot, e);
    }
    close(fd);
    return ok;
}

static bool scan_segment(struct store *st, uint32_t id, const struct stat *file, struct err *e)
{
    const uint64_t n = (uint64_t)file->st_size / st->record_bytes;
    const uint32_t n_slots = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    const struct segment fresh = {
        .id = id, .uses = n_slots, .used = file->st_mtim.tv_sec, .stamped = file->st_mtim.tv_sec};
    pthread_mutex_lock(&st->lock);
    struct segment *s = find_segment(st, id);
    if (s == NULL) s = add_segment(st, &fresh);
    const uint32_t first = s == NULL ? 0 : s->n_slots;
    if (s != NULL) {
        s->seen = true;
        s->n_slots = n_slots;
    }
    pthread_mutex_unlock(&st->lock);
    if (s == NULL) return err_set(e, ERR_MEMORY, "no memory for the index of %s", st->path);
    return first >= n_slots || scan_slots(st, id, first, n_slots, e);
}

static void forget_unseen(struct store *st)
{
    pthread_mutex_lock(&st->lock);
    for (size_t i = st->n_segments; i-- > 0;)
        if (!st->segments[i].seen) forget_segment(st, st->segments[i].id);
    for (size_t i = 0; i < st->n_segments; i++) st->segments[i].seen = false;
    pthread_mutex_unlock(&st->lock);
}

// Segments that are new or longer than known are read, those that are gone forgotten.
static bool scan_folder(struct store *st, struct err *e)
{
    const int fd = openat(st->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (d == NULL) {
        err_errno(e, ERR_IO, "cannot read %s", st->path);
        if (fd >= 0) close(fd);
        return false;
    }
    bool ok = true;
    for (struct dirent *f = readdir(d); ok && f != NULL; f = readdir(d)) {
        uint32_t id;
        struct stat file;
        if (!segment_id(f->d_name, &id)) continue;
        if (fstatat(st->dir_fd, f->d_name, &file, AT_SYMLINK_NOFOLLOW) != 0) continue;
        if (S_ISREG(file.st_mode)) ok = scan_segment(st, id, &file, e);
    }
    closedir(d);
    if (ok) forget_unseen(st);
    return ok;
}

// ---- becoming the writer ------------------------------------------------------------------------

// The last segment goes on growing where it has room; its torn end is cut off.
static void take_tail(struct store *st)
{
    st->tail_fd = -1;
    st->tail_slots = st->segment_slots;
    if (st->n_segments == 0) return;
    const struct segment last = st->segments[st->n_segments - 1];
    st->tail_id = last.id;
    if (last.n_slots >= st->segment_slots) return;
    const int fd = open_segment(st, last.id, O_RDWR);
    if (fd < 0) return;
    if (ftruncate(fd, (off_t)(last.n_slots * (uint64_t)st->record_bytes)) != 0) {
        close(fd);
        return;
    }
    st->tail_fd = fd;
    st->tail_slots = last.n_slots;
}

// True when this process writes from now on. A folder that cannot be written to is only read.
static bool try_to_write(struct store *st, struct err *why)
{
    struct buf path = {0};
    buf_printf(&path, "%s/lock", st->path);
    const enum lock_state state = rundir_lock(buf_cstr(&path), &st->lock_fd, why);
    buf_free(&path);
    return state == LOCK_TAKEN;
}

static void become_writer(struct store *st)
{
    take_tail(st);
    pthread_mutex_lock(&st->lock);
    st->writer = true;
    pthread_mutex_unlock(&st->lock);
}

// ---- uses, kept as the files' modification times -------------------------------------------------

// The next segment whose use is not on disk yet; 0 when there is none.
static uint32_t next_to_stamp(struct store *st, int64_t *used)
{
    uint32_t id = 0;
    pthread_mutex_lock(&st->lock);
    for (size_t i = 0; i < st->n_segments && id == 0; i++) {
        struct segment *s = &st->segments[i];
        if (s->used < s->stamped + STAMP_S) continue;
        s->stamped = s->used;
        *used = s->used;
        id = s->id;
    }
    pthread_mutex_unlock(&st->lock);
    return id;
}

static void stamp_uses(struct store *st)
{
    int64_t used = 0;
    char name[SEGMENT_NAME_MAX];
    for (uint32_t id = next_to_stamp(st, &used); id != 0; id = next_to_stamp(st, &used)) {
        const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = used}};
        segment_name(name, id);
        if (utimensat(st->dir_fd, name, times, AT_SYMLINK_NOFOLLOW) != 0) return;
    }
}

// ---- open and close -----------------------------------------------------------------------------

static void set_sizes(struct store *st, const struct store_settings *s)
{
    st->shape = s->shape;
    st->record_bytes = store_record_bytes(&s->shape);
    uint64_t cap = s->cap_bytes;
    if (cap == 0) {
        cap = store_free_bytes(s->dir) / 4 + own_bytes(st);
        if (cap > DEFAULT_CAP_MAX) cap = DEFAULT_CAP_MAX;
    }
    st->figures.cap_bytes = cap;
    const uint64_t bytes = cap / 4 < SEGMENT_BYTES ? cap / 4 : SEGMENT_BYTES;
    st->segment_slots = bytes / st->record_bytes;
    st->retry_s = s->retry_s > 0 ? s->retry_s : RETRY_S;
    if (st->segment_slots == 0) st->segment_slots = 1;
}

static bool open_folder(struct store *st, const struct store_settings *s, struct err *e)
{
    struct buf path = {0};
    store_family_path(&path, s->dir, s->shape.family);
    st->dir = strdup(s->dir);
    st->path = path.failed ? NULL : strdup(buf_cstr(&path));
    buf_free(&path);
    if (st->dir == NULL || st->path == NULL) return err_set(e, ERR_MEMORY, "no memory for a path");
    if (!store_make_dir(st->dir, e) || !store_make_dir(st->path, e)) return false;
    st->dir_fd = open(st->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return st->dir_fd >= 0 || err_errno(e, ERR_IO, "cannot open %s", st->path);
}

bool store_open(struct store **out, const struct store_settings *s, struct err *why, struct err *e)
{
    struct store *st = calloc(1, sizeof *st);
    if (st == NULL) return err_set(e, ERR_MEMORY, "no memory for a store");
    pthread_mutex_init(&st->lock, NULL);
    st->dir_fd = st->lock_fd = st->tail_fd = -1;
    st->shape = s->shape;
    st->record_bytes = store_record_bytes(&s->shape);
    if (!open_folder(st, s, e)) goto fail;
    const bool writer = try_to_write(st, why); // before the scan: nobody else changes it then
    if (!scan_folder(st, e)) goto fail;
    set_sizes(st, s);
    if (writer) become_writer(st);
    st->figures.other_bytes = store_other_families(st->dir, st->path, 0);
    *out = st;
    return true;
fail:
    store_close(st);
    return false;
}

void store_close(struct store *st)
{
    if (st == NULL) return;
    if (st->writer) stamp_uses(st);
    if (st->tail_fd >= 0) close(st->tail_fd);
    if (st->dir_fd >= 0) close(st->dir_fd);
    rundir_unlock(st->lock_fd);
    store_index_free(&st->index);
    pthread_mutex_destroy(&st->lock);
    free(st->segments);
    free(st->dir);
    free(st->path);
    free(st);
}

// ---- reading ------------------------------------------------------------------------------------

bool store_has(struct store *st, struct hash128 key)
{
    return store_use(st, key, 0);
}

bool store_use(struct store *st, struct hash128 key, double worth)
{
    pthread_mutex_lock(&st->lock);
    const struct store_entry *entry = store_index_find(&st->index, key);
    if (entry != NULL && worth > 0) count_use(st, entry->i_segment, worth);
    pthread_mutex_unlock(&st->lock);
    return entry != NULL;
}

bool store_child(struct store *st, struct hash128 parent, struct hash128 salt, uint32_t marks,
                 struct store_entry *out)
{
    enum { LOOKS = 256 };
    uint32_t most = 0, n = 0;
    pthread_mutex_lock(&st->lock);
    const struct store_entry *entry = store_index_newest(&st->index, parent);
    for (; entry != NULL && n < LOOKS; entry = store_index_older(&st->index, entry), n++) {
        if (entry->dead || !hash128_equal(entry->parent, parent)) continue;
        const uint32_t alike = store_marks_alike(entry->marks, marks);
        if (alike <= most || !hash128_equal(entry->salt, salt)) continue;
        most = alike;
        *out = *entry;
    }
    pthread_mutex_unlock(&st->lock);
    return most > 0;
}

void store_erase(struct store *st, const struct store_entry *where)
{
    const uint64_t zero = 0;
    pthread_mutex_lock(&st->lock);
    const bool writer = st->writer;
    pthread_mutex_unlock(&st->lock);
    const int fd = writer ? open_segment(st, where->i_segment, O_WRONLY) : -1;
    if (fd < 0) return;
    store_write_all(fd, &zero, sizeof zero,
                    (uint64_t)where->slot * st->record_bytes +
                        offsetof(struct store_header, magic));
    close(fd);
}

// Takes a bad one out of the index; the writer also makes its magic unreadable, so that no scan finds it. Where that
// fails, the sum still does.
static void bury(struct store *st, const struct store_entry *where)
{
    pthread_mutex_lock(&st->lock);
    struct store_entry *entry = store_index_find(&st->index, where->key);
    if (entry != NULL && entry->i_segment == where->i_segment && entry->slot == where->slot)
        store_index_kill(&st->index, entry);
    st->figures.n_bad++;
    pthread_mutex_unlock(&st->lock);
    store_erase(st, where);
}

// A record being read: its bytes are added up while the processor's cache holds them, so that memory is passed once.
struct reading {
    int fd;
    uint64_t off;
    struct hash_stream sum;
    bool no_place;
};

// The next n bytes, of which the first `skip` are not in the sum.
static bool read_on(struct reading *r, unsigned char *to, size_t n, size_t skip)
{
    if (!store_read_all(r->fd, to, n, r->off)) return false;
    hash_stream_add(&r->sum, to + skip, n - skip);
    r->off += n;
    return true;
}

static bool read_data(struct reading *r, const struct store_sink *sink, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes; at += STORE_PIECE_BYTES) {
        const size_t left = n_bytes - at, n = left < STORE_PIECE_BYTES ? left : STORE_PIECE_BYTES;
        void *to = sink->next(sink->arg, n);
        r->no_place = to == NULL;
        if (r->no_place || !read_on(r, to, n, 0)) return false;
    }
    return true;
}

// *sum is that of everything behind the header's own.
static bool read_record(const struct store *st, const struct store_entry *where, void *record,
                        const struct store_sink *data, struct hash128 *sum, bool *no_place)
{
    const size_t head = sizeof(struct store_header) + st->shape.n_ids * sizeof(int32_t);
    const size_t n = st->shape.data_bytes, pad = st->record_bytes - head - n;
    unsigned char padding[STORE_ALIGN];
    struct reading r = {.fd = open_segment(st, where->i_segment, O_RDONLY),
                        .off = (uint64_t)where->slot * st->record_bytes};
    *no_place = false;
    if (r.fd < 0) return false;
    if (!store_is_near(r.fd, r.off + st->record_bytes / 2)) // ask the disk for all of it at once
        posix_fadvise(r.fd, (off_t)r.off, (off_t)st->record_bytes, POSIX_FADV_WILLNEED);
    hash_stream_begin(&r.sum);
    const bool ok = read_on(&r, record, head, offsetof(struct store_header, head_sum)) &&
                    read_data(&r, data, n) && read_on(&r, padding, pad, 0);
    close(r.fd);
    *sum = hash_stream_end(&r.sum);
    *no_place = r.no_place;
    return ok;
}

static bool is_right(const struct store *st, const struct store_entry *where, struct hash128 parent,
                     const int32_t *ids, const void *record, struct hash128 sum)
{
    const struct store_header *h = record;
    return store_header_valid(h, &st->shape) && hash128_equal(h->key, where->key) &&
           hash128_equal(h->parent, parent) &&
           (ids == NULL || memcmp(h + 1, ids, st->shape.n_ids * sizeof *ids) == 0) &&
           hash128_equal(h->sum, sum);
}

enum store_result store_get_to(struct store *st, struct hash128 key, struct hash128 parent,
                               const int32_t *ids, void *record, const struct store_sink *data)
{
    pthread_mutex_lock(&st->lock);
    const struct store_entry *entry = store_index_find(&st->index, key);
    const struct store_entry where = entry == NULL ? (struct store_entry){0} : *entry;
    pthread_mutex_unlock(&st->lock);
    if (entry == NULL) return STORE_MISSING;
    struct hash128 sum;
    bool no_place;
    const bool there = read_record(st, &where, record, data, &sum, &no_place);
    if (no_place) return STORE_MISSING;
    if (there && is_right(st, &where, ids == NULL ? where.parent : parent, ids, record, sum))
        return STORE_OK;
    pthread_mutex_lock(&st->lock); // dropped meanwhile?
    const bool still = store_index_find(&st->index, key) != NULL;
    pthread_mutex_unlock(&st->lock);
    if (!still) return STORE_MISSING;
    bury(st, &where);
    return STORE_BAD;
}

// A sink that puts the data behind what it has: into the record itself.
static void *next_in_row(void *arg, size_t n)
{
    unsigned char **to = arg, *at = *to;
    *to = at + n;
    return at;
}

enum store_result store_get(struct store *st, struct hash128 key, struct hash128 parent,
                            const int32_t *ids, void *record)
{
    unsigned char *to = store_data(record, st->shape.n_ids);
    const struct store_sink own = {next_in_row, &to};
    return store_get_to(st, key, parent, ids, record, &own);
}

bool store_peek(struct store *st, struct hash128 key, int32_t *ids)
{
    struct store_header h;
    pthread_mutex_lock(&st->lock);
    const struct store_entry *entry = store_index_find(&st->index, key);
    const struct store_entry where = entry == NULL ? (struct store_entry){0} : *entry;
    pthread_mutex_unlock(&st->lock);
    const int fd = entry == NULL ? -1 : open_segment(st, where.i_segment, O_RDONLY);
    const uint64_t off = where.slot * (uint64_t)st->record_bytes;
    const bool ok = fd >= 0 && store_read_all(fd, &h, sizeof h, off) &&
                    store_header_valid(&h, &st->shape) && hash128_equal(h.key, key) &&
                    store_read_all(fd, ids, st->shape.n_ids * sizeof *ids, off + sizeof h);
    if (fd >= 0) close(fd);
    return ok;
}

// A quarter and three quarters into the record: what the system let go of begins at either end.
static bool is_record_near(const struct store *st, int fd, uint32_t slot)
{
    const uint64_t at = slot * (uint64_t)st->record_bytes, quarter = st->record_bytes / 4;
    return store_is_near(fd, at + quarter) && store_is_near(fd, at + 3 * quarter);
}

void store_near(struct store *st, const struct hash128 *keys, uint32_t n, bool *near)
{
    enum { LOOKS = 64 };
    const uint32_t stride = n / LOOKS + 1;
    uint32_t open_id = 0;
    int fd = -1;
    for (uint32_t i = 0; i < n; i++) {
        near[i] = true;
        if (i % stride != 0) {
            near[i] = near[i - 1];
            continue;
        }
        pthread_mutex_lock(&st->lock);
        const struct store_entry *entry = store_index_find(&st->index, keys[i]);
        const struct store_entry where = entry == NULL ? (struct store_entry){0} : *entry;
        pthread_mutex_unlock(&st->lock);
        if (entry == NULL) continue;
        if (fd < 0 || open_id != where.i_segment) { // neighbours mostly lie in one file
            if (fd >= 0) close(fd);
            fd = open_segment(st, where.i_segment, O_RDONLY);
            open_id = where.i_segment;
        }
        if (fd >= 0) near[i] = is_record_near(st, fd, where.slot);
    }
    if (fd >= 0) close(fd);
}

double store_read_speed(struct store *st, uint32_t ms)
{
    uint32_t n = 0, ids[STORE_SPEED_FILES];
    pthread_mutex_lock(&st->lock);
    for (size_t i = 0; i < st->n_segments && n < STORE_SPEED_FILES; i++)
        if (st->segments[i].n_slots > 0) ids[n++] = st->segments[i].id;
    pthread_mutex_unlock(&st->lock);
    const double bps = store_speed_of(st->dir_fd, ids, n, ms);
    if (bps > 0) log_debug("store", "disk gbps=%.2f", bps / 1e9);
    return bps;
}

// ---- writing ------------------------------------------------------------------------------------

bool store_writable(const struct store *cst)
{
    struct store *st = (struct store *)(uintptr_t)cst; // the mutex is not part of the value
    pthread_mutex_lock(&st->lock);
    const bool yes = st->writer && clock_unix() >= st->off_until;
    pthread_mutex_unlock(&st->lock);
    return yes;
}

// A record's parent may be in another segment: without that its own is never found again. Under the lock.
static void note_behind(struct store *st, const struct store_entry *entry, int64_t now)
{
    const struct store_entry *before =
        entry->dead ? NULL : store_index_find(&st->index, entry->parent);
    if (before == NULL || before->i_segment == entry->i_segment) return;
    struct segment *s = find_segment(st, before->i_segment);
    const struct segment *next = find_segment(st, entry->i_segment);
    const double uses = next == NULL ? 0 : uses_now(next, now);
    if (s != NULL && uses > s->behind) s->behind = uses;
}

// Only this thread adds and packs entries, so that the lock may be let go now and then: whoever reads waits for some of
// them at most.
static void find_behind(struct store *st, int64_t now)
{
    enum { AT_ONCE = 1024 };
    pthread_mutex_lock(&st->lock);
    const size_t n = st->index.n;
    for (size_t i = 0; i < st->n_segments; i++) st->segments[i].behind = 0;
    for (size_t at = 0; at < n; at++) {
        note_behind(st, &st->index.entries[at], now);
        if (at % AT_ONCE != AT_ONCE - 1) continue;
        pthread_mutex_unlock(&st->lock);
        pthread_mutex_lock(&st->lock);
    }
    pthread_mutex_unlock(&st->lock);
}

// The segment that is worth least, with what is behind it; the older of equal ones. NULL when there is none but the
// growing one; under the lock.
static const struct segment *least_worth(const struct store *st, int64_t now)
{
    const struct segment *least = NULL;
    double least_worth = 0;
    for (size_t i = 0; i < st->n_segments; i++) {
        const struct segment *s = &st->segments[i];
        const double worth = uses_now(s, now) + s->behind;
        if (st->tail_fd >= 0 && s->id == st->tail_id) continue;
        if (least != NULL && worth >= least_worth) continue;
        least = s;
        least_worth = worth;
    }
    return least;
}

static bool drop_one(struct store *st)
{
    const int64_t now = clock_unix();
    char name[SEGMENT_NAME_MAX];
    find_behind(st, now);
    pthread_mutex_lock(&st->lock);
    const struct segment *least = least_worth(st, now);
    const bool any = least != NULL;
    const uint32_t id = any ? least->id : 0;
    const uint64_t n_before = st->index.n_alive;
    if (any) forget_segment(st, id);
    st->figures.n_dropped += n_before - st->index.n_alive;
    pthread_mutex_unlock(&st->lock);
    if (!any) return false;
    segment_name(name, id);
    return unlinkat(st->dir_fd, name, 0) == 0 || errno == ENOENT;
}

// Room for one more segment under the cap: from families that nobody uses, then from this one.
static bool make_room(struct store *st, struct err *e)
{
    const uint64_t more = st->segment_slots * st->record_bytes, cap = st->figures.cap_bytes;
    pthread_mutex_lock(&st->lock);
    uint64_t own = own_bytes(st);
    pthread_mutex_unlock(&st->lock);
    uint64_t others = store_other_families(st->dir, st->path, 0);
    if (own + others + more > cap)
        others = store_other_families(st->dir, st->path, own + others + more - cap);
    while (own + others + more > cap) {
        if (!drop_one(st))
            return err_set(e, ERR_IO, "the cache on disk may have %.1f MB and has no room for more",
                           (double)cap / 1e6);
        pthread_mutex_lock(&st->lock);
        own = own_bytes(st);
        pthread_mutex_unlock(&st->lock);
    }
    pthread_mutex_lock(&st->lock);
    st->figures.other_bytes = others;
    pthread_mutex_unlock(&st->lock);
    return true;
}

static bool start_segment(struct store *st, struct err *e)
{
    if (st->tail_fd >= 0) close(st->tail_fd);
    st->tail_fd = -1;
    if (!make_room(st, e)) return false;
    const uint32_t id = st->tail_id + 1;
    const int fd = open_segment(st, id, O_RDWR | O_CREAT | O_EXCL);
    if (fd < 0) return err_errno(e, ERR_IO, "cannot make a file in %s", st->path);
    const int64_t now = clock_unix();
    const struct segment s = {.id = id, .used = now, .stamped = now};
    pthread_mutex_lock(&st->lock);
    const bool ok = add_segment(st, &s) != NULL;
    pthread_mutex_unlock(&st->lock);
    if (!ok) {
        close(fd);
        return err_set(e, ERR_MEMORY, "no memory for the index of %s", st->path);
    }
    st->tail_fd = fd;
    st->tail_id = id;
    st->tail_slots = 0;
    return true;
}

static bool append(struct store *st, void *record, double worth, struct err *e)
{
    if ((st->tail_fd < 0 || st->tail_slots >= st->segment_slots) && !start_segment(st, e))
        return false;
    const uint64_t off = st->tail_slots * st->record_bytes;
    seal(st, record);
    if (!store_write_all(st->tail_fd, record, st->record_bytes, off)) {
        err_errno(e, ERR_IO, "cannot write to %s", st->path);
        if (ftruncate(st->tail_fd, (off_t)off) != 0)
            st->tail_slots = st->segment_slots; // it stays torn: nothing goes behind that
        return false;
    }
    const uint32_t slot = (uint32_t)st->tail_slots++;
    pthread_mutex_lock(&st->lock);
    struct segment *s = find_segment(st, st->tail_id);
    if (s != NULL) s->n_slots = slot + 1;
    count_use(st, st->tail_id, worth);
    st->figures.n_saved++;
    pthread_mutex_unlock(&st->lock);
    return index_record(st, record, st->tail_id, slot, e);
}

bool store_put(struct store *st, void *record, double worth, struct err *e)
{
    if (!store_writable(st)) return err_set(e, ERR_IO, "%s is only read now", st->path);
    if (append(st, record, worth, e)) return true;
    pthread_mutex_lock(&st->lock);
    st->off_until = clock_unix() + st->retry_s;
    pthread_mutex_unlock(&st->lock);
    return false;
}

bool store_forget(struct store *st, struct hash128 key, struct store_entry *where)
{
    pthread_mutex_lock(&st->lock);
    struct store_entry *entry = store_index_find(&st->index, key);
    const bool found = entry != NULL;
    if (found) {
        *where = *entry;
        store_index_kill(&st->index, entry);
    }
    pthread_mutex_unlock(&st->lock);
    return found;
}

// ---- housekeeping -------------------------------------------------------------------------------

void store_tick(struct store *st)
{
    if (st->writer) { // changed by this thread only
        stamp_uses(st);
        return;
    }
    const bool writes = try_to_write(st, NULL);
    struct err e = {0};
    if (!scan_folder(st, &e)) log_debug("store", "%s", e.msg);
    if (!writes) return;
    become_writer(st);
    log_info("store", "the other process is gone; this one writes the cache from now on");
}

void store_figures(struct store *st, struct store_figures *out)
{
    pthread_mutex_lock(&st->lock);
    *out = st->figures;
    out->n_records = st->index.n_alive;
    out->bytes = own_bytes(st);
    out->writer = st->writer;
    pthread_mutex_unlock(&st->lock);
}

size_t store_list(struct store *st, size_t *next, struct store_entry *out, double *uses, size_t max)
{
    const int64_t now = clock_unix();
    size_t n = 0;
    pthread_mutex_lock(&st->lock);
    for (; *next < st->index.n && n < max; ++*next) {
        const struct store_entry *entry = &st->index.entries[*next];
        if (entry->dead) continue;
        const struct segment *s = find_segment(st, entry->i_segment);
        if (uses != NULL) uses[n] = s == NULL ? 0 : uses_now(s, now);
        out[n++] = *entry;
    }
    pthread_mutex_unlock(&st->lock);
    return n;
}

uint64_t store_changes(struct store *st)
{
    pthread_mutex_lock(&st->lock);
    const uint64_t n = st->index.n_changes;
    pthread_mutex_unlock(&st->lock);
    return n;
}

// ---- the memo -----------------------------------------------------------------------------------

bool store_memo_read(struct store *st, double out[STORE_MEMO])
{
    char text[256] = "";
    double v[STORE_MEMO];
    const int fd = openat(st->dir_fd, "memo", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    const ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    const char *p = text;
    for (int i = 0; i < STORE_MEMO; i++) {
        char *end;
        v[i] = strtod(p, &end);
        if (n <= 0 || end == p || !isfinite(v[i]) || v[i] < 0) return false;
        p = end;
    }
    memcpy(out, v, sizeof v);
    return true;
}

void store_memo_write(struct store *st, const double in[STORE_MEMO])
{
    struct buf b = {0};
    if (!store_writable(st)) return;
    for (int i = 0; i < STORE_MEMO; i++) buf_printf(&b, "%.9g\n", in[i]);
    const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    const int fd = b.failed ? -1 : openat(st->dir_fd, "memo.new", flags, 0600);
    const bool ok = fd >= 0 && store_write_all(fd, b.p, b.n, 0);
    if (fd >= 0) close(fd);
    if (ok && renameat(st->dir_fd, "memo.new", st->dir_fd, "memo") != 0)
        log_debug("store", "the memo of %s was not written", st->path);
    buf_free(&b);
}
