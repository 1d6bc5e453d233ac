// Pages that come back to the device: threads that read and verify them put the bytes piece by piece into pinned
// memory, from where they go over streams of their own while the next piece is read, of the same page or the next one,
// so that disk, processors and bus work at once and the engine's steps go on meanwhile.
// Invariant: a lane has one holder, from the first begin until all its pages have landed; a page's copies are complete
// when land returns, so no step that is submitted later needs to wait for them.
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

// A free lane, one that has its memory if there is one: taking that costs 2.5 ms a lane, under the driver's lock.
static struct gpu_lane *free_lane(struct gpu *g)
{
    struct gpu_lane *found = NULL;
    for (uint32_t i = GPU_LANES; i-- > 0;) {
        struct gpu_lane *l = &g->lanes[i];
        if (!l->taken && (found == NULL || l->box != NULL)) found = l;
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

// All that was sent is on the device.
static bool drain(struct gpu *g, struct gpu_lane *l, struct err *e)
{
    if (!l->going[0] && !l->going[1]) return true;
    l->going[0] = l->going[1] = false;
    return gpu_ok(&g->api, g->api.stream_sync(l->stream), "writing a page", e);
}

// Room for pieces of n bytes.
static bool reserve(struct gpu *g, struct gpu_lane *l, size_t n, struct err *e)
{
    const struct gpu_api *a = &g->api;
    const size_t least = (size_t)2 * LANE_HALF_BYTES, want = n > least ? n : least;
    const bool halves = n <= LANE_HALF_BYTES;
    if (l->box_bytes >= want && halves && l->half_bytes == LANE_HALF_BYTES) return true;
    if (!drain(g, l, e)) return false;
    if (l->box_bytes < want) {
        void *box;
        if (l->box) a->host_free(l->box);
        l->box = NULL;
        l->box_bytes = 0;
        if (!gpu_ok(a, a->host_alloc(&box, want), "pinned memory for a page", e)) return false;
        l->box = box;
        l->box_bytes = want;
    }
    l->half = 0;
    l->half_bytes = halves ? LANE_HALF_BYTES : l->box_bytes;
    return true;
}

// The half that is to be filled next is empty: what it held has gone.
static bool empty(struct gpu *g, struct gpu_lane *l, struct err *e)
{
    if (!l->going[l->half]) return true;
    l->going[l->half] = false;
    return gpu_ok(&g->api, g->api.event_sync(l->gone[l->half]), "writing a page", e);
}

// From then on the half's event says that all that was sent before is there.
static bool mark(struct gpu *g, struct page_way *w, struct err *e)
{
    struct gpu_lane *l = w->lane;
    w->n_sent++;
    w->i_box = l->half;
    l->going[l->half] = true;
    return gpu_ok(&g->api, g->api.event_record(l->gone[l->half], l->stream), "writing a page", e);
}

// What the half holds goes on its way; the next is put into the other.
static bool send(struct gpu *g, struct page_way *w, struct err *e)
{
    const struct gpu_api *a = &g->api;
    struct gpu_lane *l = w->lane;
    const size_t n = l->n_filled;
    if (n == 0) return true;
    l->n_filled = 0;
    const gpu_ptr to = w->kv->p + w->page * w->kv->page_bytes + w->n_put - n;
    const void *from = l->box + l->half * l->half_bytes;
    const bool ok =
        gpu_ok(a, a->to_device(to, from, n, l->stream), "writing a page", e) && mark(g, w, e);
    if (l->half_bytes < l->box_bytes) l->half = 1 - l->half;
    return ok;
}

bool gpu_page_begin(struct backend *b, struct dbuf *kv, uint32_t page, const struct page_way *after,
                    struct page_way *out, struct err *e)
{
    struct gpu *g = gpu_of(b);
    assert(page < kv->kv.n_pages);
    struct gpu_lane *l = after != NULL ? after->lane : take_lane(g);
    l->n_ways++;
    l->n_filled = 0;
    *out = (struct page_way){.kv = kv, .page = page, .lane = l};
    if (after != NULL || (prepare(g, l, e) && reserve(g, l, LANE_HALF_BYTES, e))) return true;
    l->n_ways = 0;
    give_lane(g, l);
    return false;
}

void *gpu_page_next(struct backend *b, struct page_way *w, size_t n, struct err *e)
{
    struct gpu *g = gpu_of(b);
    struct gpu_lane *l = w->lane;
    assert(n > 0 && w->n_put + n <= w->kv->page_bytes);
    if (w->n_put == 0 && !reserve(g, l, n, e)) return NULL;
    if (l->n_filled + n > l->half_bytes && !send(g, w, e)) return NULL;
    assert(n <= l->half_bytes); // the first piece is the longest
    if (l->n_filled == 0 && !empty(g, l, e)) return NULL;
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
    if (good) return send(g, w, e);
    l->n_filled = 0;
    if (w->n_sent == 0) return true;
    return gpu_ok(a, a->fill(at, 0, w->kv->page_bytes, l->stream), "clearing a page", e) &&
           mark(g, w, e);
}

// The half may hold a later page's piece by now: then that is waited for, too.
bool gpu_page_land(struct backend *b, struct page_way *w, struct err *e)
{
    struct gpu *g = gpu_of(b);
    struct gpu_lane *l = w->lane;
    const bool ok = w->n_sent == 0 ||
                    gpu_ok(&g->api, g->api.event_sync(l->gone[w->i_box]), "writing a page", e);
    if (--l->n_ways == 0) give_lane(g, l);
    return ok;
}
