// Pages that come back to the device: threads that read and verify them put the bytes into pinned memory
// and copy them over streams of their own, so that disk, processors and bus work at once and the engine's
// steps go on meanwhile.
// Invariant: a lane has one holder, from begin to end; its copy is complete when end returns, so no step
// that is submitted later needs to wait for it.
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

// The box is set under the lock, for others compare theirs with it.
static void set_box(struct gpu *g, struct gpu_lane *l, void *box, size_t n)
{
    pthread_mutex_lock(&g->pages_lock);
    l->box = box;
    l->box_bytes = n;
    pthread_mutex_unlock(&g->pages_lock);
}

static bool prepare(struct gpu *g, struct gpu_lane *l, size_t n, struct err *e)
{
    const struct gpu_api *a = &g->api;
    void *box = l->box;
    if (!gpu_ok(a, a->ctx_set(g->ctx), "choosing the device", e)) return false;
    if (!l->stream &&
        !gpu_ok(a, a->stream_create(&l->stream, GPU_STREAM_NON_BLOCKING), "a stream", e))
        return false;
    if (l->box_bytes >= n) return true;
    set_box(g, l, NULL, 0);
    if (box) a->host_free(box);
    if (!gpu_ok(a, a->host_alloc(&box, n), "pinned memory for a page", e)) return false;
    set_box(g, l, box, n);
    return true;
}

static struct gpu_lane *lane_of(struct gpu *g, const void *box)
{
    uint32_t i = 0;
    pthread_mutex_lock(&g->pages_lock);
    while (i < GPU_LANES - 1 && g->lanes[i].box != box) i++;
    assert(g->lanes[i].box == box && g->lanes[i].taken);
    pthread_mutex_unlock(&g->pages_lock);
    return &g->lanes[i];
}

void *gpu_page_begin(struct backend *b, struct dbuf *kv, uint32_t page, struct err *e)
{
    struct gpu *g = gpu_of(b);
    assert(page < kv->kv.n_pages);
    (void)page;
    struct gpu_lane *l = take_lane(g);
    if (prepare(g, l, kv->page_bytes, e)) return l->box;
    give_lane(g, l);
    return NULL;
}

bool gpu_page_end(struct backend *b, struct dbuf *kv, uint32_t page, void *at, bool good,
                  struct err *e)
{
    struct gpu *g = gpu_of(b);
    const struct gpu_api *a = &g->api;
    struct gpu_lane *l = lane_of(g, at);
    bool ok = true;
    if (good)
        ok = gpu_ok(a, a->ctx_set(g->ctx), "choosing the device", e) &&
             gpu_ok(a, a->to_device(kv->p + page * kv->page_bytes, at, kv->page_bytes, l->stream),
                    "writing a page", e) &&
             gpu_ok(a, a->stream_sync(l->stream), "writing a page", e);
    give_lane(g, l);
    return ok;
}
