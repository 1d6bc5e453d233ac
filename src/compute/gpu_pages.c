// Pages that come back to the device: threads that read and verify them put the bytes piece by piece into pinned
// memory, from where they go over streams of their own while the next piece is read, so that disk, processors and
// bus work at once and the engine's steps go on meanwhile.
// Invariant: a lane has one holder, from begin to end; its copies are complete when end returns, so no step
// that is submitted later needs to wait for them.
#include <assert.h>

#include "compute/gpu.h"

void gpu_pages_open(struct gpu *g)
{
    pthread_mutex_init(&g->pages_lock, NULL);
    pthread_cond_init(&g->pages_free, NULL);
}

void gpu_pages_close(struct gpu *g)
{
    for (uint32_t i = 0; i < GPU_LANES; i++) {
        struct gpu_lane *l = &g->lanes[i];
        assert(!l->taken);
        if (l->stream) g->api.stream_destroy(l->stream);
        for (int k = 0; k < 2; k++)
            if (l->gone[k]) g->api.event_destroy(l->gone[k]);
        if (l->box) g->api.host_free(l->box);
        *l = (struct gpu_lane){0};
    }
}

// A free lane; one without memory first, so that all have theirs before anybody waits for them.
static struct gpu_lane *free_lane(struct gpu *g)
{
    struct gpu_lane *found = NULL;
    for (uint32_t i = 0; i < GPU_LANES; i++) {
        struct gpu_lane *l = &g->lanes[i];
        if (!l->taken && (found == NULL || l->box == NULL)) found = l;
    }
    return found;
}

static struct gpu_lane *take_lane(struct gpu *g)
{
    pthread_mutex_lock(&g->pages_lock);
    struct gpu_lane *l = free_lane(g);
    for (; l == NULL; l = free_lane(g)) pthread_cond_wait(&g->pages_free, &g->pages_lock);
    l->taken = true;
    g->large.room = 0, g->large.room_bytes = 0; // a page is in use
    pthread_mutex_unlock(&g->pages_lock);
    return l;
}

static void give_lane(struct gpu *g, struct gpu_lane *l)
{
    pthread_mutex_lock(&g->pages_lock);
    l->taken = false;
    pthread_cond_signal(&g->pages_free);
    pthread_mutex_unlock(&g->pages_lock);
}

static bool prepare(struct gpu *g, struct gpu_lane *l, struct err *e)
{
    const struct gpu_api *a = &g->api;
    if (!gpu_ok(a, a->ctx_set(g->ctx), "choosing the device", e)) return false;
    if (!l->stream &&
        !gpu_ok(a, a->stream_create(&l->stream, GPU_STREAM_NON_BLOCKING), "a stream", e))
        return false;
    for (int i = 0; i < 2; i++)
        if (!l->gone[i] &&
            !gpu_ok(a, a->event_create(&l->gone[i], GPU_EVENT_NO_TIMING), "an event", e))
            return false;
    return true;
}

// Room for pieces of n bytes; nothing is on its way.
static bool reserve(struct gpu *g, struct gpu_lane *l, size_t n, struct err *e)
{
    const struct gpu_api *a = &g->api;
    const size_t least = (size_t)2 * LANE_HALF_BYTES, want = n > least ? n : least;
    if (l->box_bytes < want) {
        void *box;
        if (l->box) a->host_free(l->box);
        l->box = NULL;
        l->box_bytes = 0;
        if (!gpu_ok(a, a->host_alloc(&box, want), "pinned memory for a page", e)) return false;
        l->box = box;
        l->box_bytes = want;
    }
    l->half_bytes = n <= LANE_HALF_BYTES ? LANE_HALF_BYTES : l->box_bytes;
    return true;
}

// What the half holds goes on its way.
static bool send(struct gpu *g, struct page_way *w, struct err *e)
{
    const struct gpu_api *a = &g->api;
    struct gpu_lane *l = w->lane;
    const size_t n = l->n_filled;
    if (n == 0) return true;
    l->n_filled = 0;
    l->n_sent++;
    return gpu_ok(a,
                  a->to_device(w->kv->p + w->page * w->kv->page_bytes + w->n_put - n,
                               l->box + l->half * l->half_bytes, n, l->stream),
                  "writing a page", e) &&
           gpu_ok(a, a->event_record(l->gone[l->half], l->stream), "writing a page", e);
}

// The other half, as soon as what it held is gone.
static bool turn(struct gpu *g, struct page_way *w, struct err *e)
{
    struct gpu_lane *l = w->lane;
    assert(l->half_bytes < l->box_bytes); // the first piece is the longest
    if (!send(g, w, e)) return false;
    l->half = 1 - l->half;
    return l->n_sent < 2 ||
           gpu_ok(&g->api, g->api.event_sync(l->gone[l->half]), "writing a page", e);
}

bool gpu_page_begin(struct backend *b, struct dbuf *kv, uint32_t page, struct page_way *out,
                    struct err *e)
{
    struct gpu *g = gpu_of(b);
    assert(page < kv->kv.n_pages);
    struct gpu_lane *l = take_lane(g);
    l->half = l->n_sent = 0;
    l->n_filled = 0;
    *out = (struct page_way){.kv = kv, .page = page, .lane = l};
    if (prepare(g, l, e) && reserve(g, l, LANE_HALF_BYTES, e)) return true;
    give_lane(g, l);
    return false;
}

void *gpu_page_next(struct backend *b, struct page_way *w, size_t n, struct err *e)
{
    struct gpu *g = gpu_of(b);
    struct gpu_lane *l = w->lane;
    assert(n > 0 && w->n_put + n <= w->kv->page_bytes);
    if (w->n_put == 0 && !reserve(g, l, n, e)) return NULL;
    if (l->n_filled + n > l->half_bytes && !turn(g, w, e)) return NULL;
    char *at = l->box + l->half * l->half_bytes + l->n_filled;
    l->n_filled += n;
    w->n_put += n;
    return at;
}

// Pages of another sequence may be written behind what a bad one left: so that is cleared, for a step multiplies
// rows that are not there yet by zero, and a number that is none would stay.
bool gpu_page_end(struct backend *b, struct page_way *w, bool good, struct err *e)
{
    struct gpu *g = gpu_of(b);
    const struct gpu_api *a = &g->api;
    struct gpu_lane *l = w->lane;
    const gpu_ptr at = w->kv->p + w->page * w->kv->page_bytes;
    bool ok = true;
    if (good)
        ok = send(g, w, e);
    else if (l->n_sent > 0)
        ok = gpu_ok(a, a->fill(at, 0, w->kv->page_bytes, l->stream), "clearing a page", e);
    if (l->n_sent > 0)
        ok = gpu_ok(a, a->stream_sync(l->stream), "writing a page", ok ? e : NULL) && ok;
    give_lane(g, l);
    return ok;
}
