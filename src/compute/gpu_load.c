// Weights on their way: workers read pieces of the file into pinned memory, copy them to the device
// and pack them there, each on a stream of its own, so that disk, bus and kernels work at once. Pieces
// are whole panels of rows. They are queued by alloc and done in batches of BATCH_BYTES, the rest by wait.
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "compute/gpu.h"

enum { N_WORKERS = 16, SLOTS = 2, PIECE_BYTES = 8 << 20, PIECES_MAX = 4096, HUGE_BYTES = 2 << 20 };
#define BATCH_BYTES ((uint64_t)4 << 30)

struct piece {
    struct weight_source source;
    uint64_t off; // in the tensor
    size_t n_bytes;
    gpu_ptr packed;
    enum fmt fmt;
    uint32_t n_rows, n_cols, panel0, n_panels;
};

struct slot {
    void *host;
    gpu_ptr device;
    size_t n_bytes;
    gpu_event done;
    bool busy;
};

struct gpu_loader {
    struct piece pieces[PIECES_MAX];
    uint32_t n_pieces;
    uint64_t n_bytes, all_bytes, busy_ns; // queued; of all batches, and how long these took
    atomic_uint next;                     // relaxed: only divides the pieces
    gpu_stream stream[N_WORKERS];
    struct slot slots[N_WORKERS][SLOTS];
    struct err errors[N_WORKERS];
};

static void slot_release(const struct gpu_api *a, struct slot *s)
{
    if (s->host) a->host_unregister(s->host);
    free(s->host);
    if (s->device) a->mem_free(s->device);
    s->host = NULL;
    s->device = 0;
    s->n_bytes = 0;
}

// Touched here, by all workers at once, before it is pinned: the driver would fault the pages in one by one and
// let nobody else in meanwhile.
static bool slot_take(const struct gpu_api *a, struct slot *s, size_t n, struct err *e)
{
    n = (n + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    void *const p = aligned_alloc(HUGE_BYTES, n);
    if (!p) return err_set(e, ERR_MEMORY, "no memory to load weights");
    madvise(p, n, MADV_HUGEPAGE);
    memset(p, 0, n);
    if (!gpu_ok(a, a->host_register(p, n, 0), "pinned memory to load weights", e)) {
        free(p);
        return false;
    }
    s->host = p;
    if (!gpu_ok(a, a->mem_alloc(&s->device, n), "device memory to load weights", e)) return false;
    s->n_bytes = n;
    return true;
}

static bool slot_reserve(struct gpu *g, struct slot *s, size_t n, struct err *e)
{
    const struct gpu_api *a = &g->api;
    if (s->busy && !gpu_ok(a, a->event_sync(s->done), "loading weights", e)) return false;
    s->busy = false;
    if (s->n_bytes >= n) return true;
    slot_release(a, s);
    if (!s->done && !gpu_ok(a, a->event_create(&s->done, GPU_EVENT_NO_TIMING), "an event", e))
        return false;
    return slot_take(a, s, n, e);
}

static bool read_piece(const struct piece *p, void *to, struct err *e)
{
    if (p->source.fd < 0) {
        memcpy(to, (const char *)p->source.map + p->off, p->n_bytes);
        return true;
    }
    for (size_t got = 0; got < p->n_bytes;) {
        const ssize_t n = pread(p->source.fd, (char *)to + got, p->n_bytes - got,
                                (off_t)(p->source.file_off + p->off + got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno(e, ERR_IO, "reading weights");
        if (n == 0) return err_set(e, ERR_IO, "the model file ends inside its weights");
        got += (size_t)n;
    }
    return true;
}

static bool load_piece(struct gpu *g, const struct piece *p, struct slot *s, gpu_stream stream,
                       struct err *e)
{
    const struct gpu_api *a = &g->api;
    if (!slot_reserve(g, s, p->n_bytes > PIECE_BYTES ? p->n_bytes : PIECE_BYTES, e) ||
        !read_piece(p, s->host, e) ||
        !gpu_ok(a, a->to_device(s->device, s->host, p->n_bytes, stream), "copying weights", e))
        return false;
    struct args_repack args = {.raw = (const void *)(uintptr_t)s->device,
                               .packed = (void *)(uintptr_t)p->packed,
                               .fmt = p->fmt,
                               .n_rows = p->n_rows,
                               .n_cols = p->n_cols,
                               .panel0 = p->panel0,
                               .n_panels = p->n_panels,
                               .row_bytes = (uint32_t)fmt_row_bytes(p->fmt, p->n_cols)};
    const enum gpu_kernel k =
        gpu_pick(GPU_OP_REPACK, (enum pack_kind)pack_kind_of((int)p->fmt), 0, false, NULL);
    s->busy = true;
    return gpu_run(g, k, row_stride(p->n_cols) / PACK_COLS, p->n_panels, 32, 0, &args, stream, e) &&
           gpu_ok(a, a->event_record(s->done, stream), "loading weights", e);
}

static void work(void *arg, uint32_t i, uint32_t n)
{
    struct gpu *g = arg;
    struct gpu_loader *l = g->loader;
    struct err *e = &l->errors[i];
    if (i >= N_WORKERS) return;
    (void)n;
    if (!gpu_ok(&g->api, g->api.ctx_set(g->ctx), "choosing the device", e)) return;
    if (!l->stream[i] &&
        !gpu_ok(&g->api, g->api.stream_create(&l->stream[i], GPU_STREAM_NON_BLOCKING), "a stream",
                e))
        return;
    for (uint32_t turn = 0;; turn++) {
        const uint32_t at = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed);
        if (at >= l->n_pieces) break;
        if (!load_piece(g, &l->pieces[at], &l->slots[i][turn % SLOTS], l->stream[i], e)) return;
    }
    gpu_ok(&g->api, g->api.stream_sync(l->stream[i]), "loading weights", e);
}

static bool flush(struct gpu *g, struct err *e)
{
    struct gpu_loader *l = g->loader;
    bool ok = true;
    if (!l || l->n_pieces == 0) return true;
    const uint64_t start = clock_ns();
    atomic_store_explicit(&l->next, 0, memory_order_relaxed);
    memset(l->errors, 0, sizeof l->errors);
    threads_run(g->threads, work, g);
    l->busy_ns += clock_ns() - start;
    l->all_bytes += l->n_bytes;
    for (uint32_t i = 0; i < N_WORKERS && ok; i++)
        if (l->errors[i].code) ok = err_set(e, l->errors[i].code, "%s", l->errors[i].msg);
    l->n_pieces = 0;
    l->n_bytes = 0;
    return ok;
}

bool gpu_load_weight(struct gpu *g, struct dbuf *d, const struct buf_desc *desc, struct err *e)
{
    if (desc->n_cols % fmt_info[desc->fmt].block)
        return err_set(e, ERR_FORMAT, "%s: rows of %u weights are not whole blocks of %s",
                       desc->name, desc->n_cols, fmt_info[desc->fmt].name);
    if (!g->loader && !(g->loader = calloc(1, sizeof *g->loader)))
        return err_set(e, ERR_MEMORY, "no memory for the loader");
    if (!g->threads && !threads_open(&g->threads, N_WORKERS, e)) return false;
    struct gpu_loader *l = g->loader;
    const size_t row_bytes = fmt_row_bytes(desc->fmt, desc->n_cols);
    const uint32_t n_panels = (desc->n_rows + 15) / 16;
    uint32_t each = (uint32_t)(PIECE_BYTES / (row_bytes * 16));
    if (each == 0) each = 1;
    for (uint32_t p = 0; p < n_panels; p += each) {
        if (l->n_pieces == PIECES_MAX && !flush(g, e)) return false;
        const uint32_t n = n_panels - p < each ? n_panels - p : each;
        const uint32_t row0 = p * 16,
                       end = (p + n) * 16 < desc->n_rows ? (p + n) * 16 : desc->n_rows;
        l->pieces[l->n_pieces++] = (struct piece){.source = desc->source,
                                                  .off = row0 * row_bytes,
                                                  .n_bytes = (end - row0) * row_bytes,
                                                  .packed = d->p,
                                                  .fmt = desc->fmt,
                                                  .n_rows = desc->n_rows,
                                                  .n_cols = desc->n_cols,
                                                  .panel0 = p,
                                                  .n_panels = n};
        l->n_bytes += (end - row0) * row_bytes;
    }
    gpu_large_count(&g->large.want, desc);
    if (!gpu_large_meet(g, d, e)) return false;
    return l->n_bytes < BATCH_BYTES || flush(g, e);
}

bool gpu_load_wait(struct gpu *g, struct err *e)
{
    return flush(g, e);
}

size_t gpu_load_bytes(void)
{
    return (size_t)N_WORKERS * SLOTS * PIECE_BYTES;
}

void gpu_load_close(struct gpu *g)
{
    struct gpu_loader *l = g->loader;
    if (!l) return;
    log_debug("cuda", "weights gb=%.2f ms=%.0f gb_s=%.1f", (double)l->all_bytes * 1e-9,
              (double)l->busy_ns * 1e-6, (double)l->all_bytes / (double)(l->busy_ns + 1));
    for (uint32_t i = 0; i < N_WORKERS; i++) {
        for (uint32_t s = 0; s < SLOTS; s++) {
            struct slot *slot = &l->slots[i][s];
            slot_release(&g->api, slot);
            if (slot->done) g->api.event_destroy(slot->done);
        }
        if (l->stream[i]) g->api.stream_destroy(l->stream[i]);
    }
    free(l);
    g->loader = NULL;
}
