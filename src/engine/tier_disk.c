// See tier_disk.h. Invariant: no store is opened before the fingerprint of all weights is known.
#include "engine/tier_disk.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/store_files.h"

#define FEW_BYTES ((size_t)256 << 20) // hashed at once: some tens of milliseconds

struct disk {
    struct disk_settings cfg;
    char *dir;
    pthread_t thread;
    bool has_thread;
    atomic_bool stop;
};

// One warning, with what can be done about it; the server works without.
static void warn_nothing_kept(const char *why)
{
    log_warn("cache", "nothing is kept on disk: %s (--cache-dir takes another folder, or off)",
             why);
}

// A prompt that has no room as a whole comes back in part, and what others left goes for it.
static void warn_little_room(const struct disk *d, const struct store_shape *shape,
                             uint64_t cap_bytes)
{
    const uint64_t tokens = cap_bytes / store_record_bytes(shape) * shape->n_ids;
    if (tokens >= d->cfg.about.n_ctx) return;
    log_warn("cache",
             "on disk there is room for %llu tokens (%llu MB), a request may have %u: --cache-disk "
             "gives more, --cache-dir takes another disk",
             (unsigned long long)tokens, (unsigned long long)(cap_bytes / 1000000),
             d->cfg.about.n_ctx);
}

static void open_store(struct disk *d, struct hash128 weights)
{
    const struct fingerprint_about *a = &d->cfg.about;
    struct store_settings s = {.dir = d->dir,
                               .cap_bytes = d->cfg.cap_bytes,
                               .shape = {.n_ids = a->shape.page_tokens,
                                         .encoding = (uint32_t)a->code->encoding,
                                         .data_bytes = a->code->stored_bytes}};
    struct store *store;
    struct err e = {0}, why = {0};
    if (!fingerprint_of(weights, a, &s.shape.family, &e) || !store_open(&store, &s, &why, &e)) {
        warn_nothing_kept(e.msg);
        return;
    }
    struct store_figures f;
    store_figures(store, &f);
    log_info("cache", "on disk dir=%s pages=%llu bytes=%llu cap=%llu%s", d->dir,
             (unsigned long long)f.n_records, (unsigned long long)f.bytes,
             (unsigned long long)f.cap_bytes,
             f.writer               ? ""
             : why.code == ERR_NONE ? " (read only: another process writes)"
                                    : " (read only)");
    if (f.writer) warn_little_room(d, &s.shape, f.cap_bytes);
    if (why.code != ERR_NONE) log_warn("cache", "pages are read but not saved: %s", why.msg);
    loop_attach(d->cfg.loop, store);
}

static void *find_and_open(void *arg)
{
    struct disk *d = arg;
    const uint64_t start = clock_ns();
    struct hash128 weights;
    if (!fingerprint_weights(d->cfg.gguf, &d->stop, &weights)) {
        if (!atomic_load_explicit(&d->stop, memory_order_relaxed))
            log_warn("cache",
                     "nothing is kept on disk: the model's file changed while it was read");
        return NULL;
    }
    log_debug("cache", "weights hashed bytes=%zu ms=%.0f", gguf_file_bytes(d->cfg.gguf),
              clock_ms_since(start));
    if (d->has_thread) fingerprint_remember(d->dir, d->cfg.gguf, weights); // worth the line
    open_store(d, weights);
    return NULL;
}

bool disk_open(struct disk **out, const struct disk_settings *s, struct err *e)
{
    struct hash128 weights;
    struct err why = {0};
    struct disk *d = calloc(1, sizeof *d);
    if (d != NULL) d->dir = strdup(s->dir);
    if (d == NULL || d->dir == NULL) {
        free(d);
        return err_set(e, ERR_MEMORY, "no memory for a path");
    }
    d->cfg = *s;
    atomic_init(&d->stop, false);
    *out = d;
    if (!store_make_dir(d->dir, &why))
        warn_nothing_kept(why.msg);
    else if (fingerprint_recall(d->dir, s->gguf, &weights))
        open_store(d, weights);
    else if (gguf_file_bytes(s->gguf) <= FEW_BYTES)
        find_and_open(d);
    else {
        d->has_thread = true; // before it starts, for it reads this
        d->has_thread = pthread_create(&d->thread, NULL, find_and_open, d) == 0;
    }
    return true;
}

void disk_close(struct disk *d)
{
    if (d == NULL) return;
    atomic_store(&d->stop, true);
    if (d->has_thread) pthread_join(d->thread, NULL);
    free(d->dir);
    free(d);
}
