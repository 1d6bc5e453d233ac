// See rig.h.
#include "lib/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/log.h"

// The network's slots are hashes. Where pages are encoded, their bytes are f16s: a slot's groups of 4 bits as numbers from
// 0 to 15, which are still the nearest ones when they come back.
enum { SLOT_VALUES = 16 };

static size_t rig_page_bytes(const struct rig *r)
{
    return r->net->page_tokens *
           (r->settings.encoded ? SLOT_VALUES * sizeof(uint16_t) : sizeof *r->net->slots);
}

static void page_from_slots(const struct rig *r, uint32_t page, void *out)
{
    const struct net *n = r->net;
    const uint64_t *slots = n->slots + (size_t)page * n->page_tokens;
    if (!r->settings.encoded) {
        memcpy(out, slots, rig_page_bytes(r));
        return;
    }
    uint16_t *half = out;
    for (uint32_t i = 0; i < n->page_tokens * SLOT_VALUES; i++)
        half[i] = f32_to_f16((float)(slots[i / SLOT_VALUES] >> i % SLOT_VALUES * 4 & 15));
}

static void page_to_slots(const struct rig *r, uint32_t page, const void *from)
{
    const struct net *n = r->net;
    uint64_t *slots = n->slots + (size_t)page * n->page_tokens;
    if (!r->settings.encoded) {
        memcpy(slots, from, rig_page_bytes(r));
        return;
    }
    const uint16_t *half = from;
    memset(slots, 0, n->page_tokens * sizeof *slots);
    for (uint32_t i = 0; i < n->page_tokens * SLOT_VALUES; i++)
        slots[i / SLOT_VALUES] |= (uint64_t)(f16_to_f32(half[i]) + 0.5f) << i % SLOT_VALUES * 4;
}

static bool read_page(void *arg, uint32_t page, void *out, struct err *e)
{
    struct rig *r = arg;
    (void)e;
    atomic_fetch_add(&r->n_page_reads, 1);
    page_from_slots(r, page, out);
    return true;
}

static bool copy_page(void *arg, uint32_t from, uint32_t to, struct err *e)
{
    struct rig *r = arg;
    const size_t n = r->net->page_tokens;
    assert_int_equal(r->net->n_held, 0); // no step is under way
    if (atomic_load(&r->n_copy_failures) > 0) {
        atomic_fetch_sub(&r->n_copy_failures, 1);
        return err_set(e, ERR_DEVICE, "fake failure");
    }
    memcpy(r->net->slots + to * n, r->net->slots + from * n, n * sizeof *r->net->slots);
    return true;
}

// Through a box, where pages have another form or are not mapped: then as to a device with memory of its own, and there
// when the page has landed.
static bool begin_page(void *arg, uint32_t page, const struct page_way *after, struct page_way *out,
                       struct err *e)
{
    struct rig *r = arg;
    if (after != NULL) assert_non_null(after->lane); // has not landed
    *out = (struct page_way){.page = page};
    const unsigned n = atomic_fetch_add(&r->n_coming, 1) + 1;
    if (n > atomic_load(&r->n_coming_most)) atomic_store(&r->n_coming_most, n);
    if (r->settings.mapped && !r->settings.encoded) return true;
    out->lane = malloc(rig_page_bytes(r));
    return out->lane != NULL || err_set(e, ERR_MEMORY, "no memory for a box");
}

static void *next_piece(void *arg, struct page_way *w, size_t n, struct err *e)
{
    const struct rig *r = arg;
    const struct net *net = r->net;
    char *to = w->lane;
    (void)e;
    if (to == NULL) to = (char *)(net->slots + (size_t)w->page * net->page_tokens);
    to += w->n_put;
    w->n_put += n;
    assert_true(w->n_put <= rig_page_bytes(r));
    return to;
}

// What has not failed and lies in a box.
static bool land_page(void *arg, struct page_way *w, struct err *e)
{
    (void)e;
    if (w->n_sent > 0 && w->lane != NULL) page_to_slots(arg, w->page, w->lane);
    free(w->lane);
    w->lane = NULL;
    return true;
}

static bool end_page(void *arg, struct page_way *w, bool good, struct err *e)
{
    struct rig *r = arg;
    bool ok = true;
    const struct timespec delay = {.tv_nsec = r->settings.page_delay_us * 1000L};
    if (delay.tv_nsec > 0) nanosleep(&delay, NULL);
    if (good) assert_int_equal(w->n_put, rig_page_bytes(r));
    atomic_fetch_sub(&r->n_coming, 1);
    if (good && atomic_load(&r->n_page_failures) > 0) {
        atomic_fetch_sub(&r->n_page_failures, 1);
        ok = err_set(e, ERR_DEVICE, "fake failure");
    }
    w->n_sent = ok && good;
    return r->settings.mapped ? land_page(arg, w, e) && ok : ok;
}

static void prepare_pages(void *arg, uint32_t first, uint32_t n)
{
    struct rig *r = arg;
    assert_int_equal(first, atomic_load(&r->n_prepared));
    atomic_fetch_add(&r->n_prepared, n);
}

static struct page_code code_of(const struct rig *r)
{
    struct page_code c;
    struct err e = {0};
    const size_t n = rig_page_bytes(r);
    const struct page_form form = {PAGE_F16, n / sizeof(uint16_t)};
    if (!page_code_from(r->settings.encoded ? "q8_0" : "exact", &form, n, &c, &e))
        fail_msg("%s", e.msg);
    return c;
}

void rig_attach(struct rig *r)
{
    struct err e = {0};
    struct store *store;
    const struct store_settings s = {
        .dir = r->settings.cache_dir,
        .cap_bytes = r->settings.cap_bytes > 0 ? r->settings.cap_bytes : 1 << 26,
        .retry_s = r->settings.retry_s,
        .shape = {.family = {3, 4},
                  .n_ids = r->net->page_tokens,
                  .encoding = r->settings.encoded ? PAGES_Q8_0 : PAGES_EXACT,
                  .data_bytes = code_of(r).stored_bytes}};
    if (!store_open(&store, &s, NULL, &e)) fail_msg("%s", e.msg);
    loop_attach(r->loop, store);
}

void rig_open(struct rig *r, const struct rig_settings *s)
{
    log_set_level(LOG_ERROR);
    const uint32_t n_pages = s->n_pages > 0 ? s->n_pages : 512;
    const uint32_t page_tokens = s->page_tokens > 0 ? s->page_tokens : 4;
    r->net = fake_net_open(n_pages, page_tokens);
    r->settings = *s;
    atomic_store(&r->net->delay_us, s->delay_us);
    atomic_init(&r->n_page_failures, 0);
    atomic_init(&r->n_copy_failures, 0);
    atomic_init(&r->n_prepared, 0);
    atomic_init(&r->n_page_reads, 0);
    atomic_init(&r->n_coming, 0);
    atomic_init(&r->n_coming_most, 0);
    const struct loop_settings ls = {
        .net = r->net,
        .tok = s->tok,
        .n_vocab = FAKE_VOCAB,
        .n_ctx = s->n_ctx > 0 ? s->n_ctx : 1024,
        .n_pages = n_pages,
        .page_tokens = page_tokens,
        .n_parallel = s->n_parallel > 0 ? s->n_parallel : 8,
        .n_queue = s->n_queue > 0 ? s->n_queue : 64,
        .max_rows = 128,
        .prefill_rows = s->prefill_rows > 0 ? s->prefill_rows : 64,
        .step_ms = 100,
        .alone_ms = 1000,
        .tiers = {.io = {.arg = r,
                         .read = read_page,
                         .copy = copy_page,
                         .begin = begin_page,
                         .next = next_piece,
                         .end = end_page,
                         .land = s->mapped ? NULL : land_page,
                         .prepare = prepare_pages},
                  .code = code_of(r),
                  .ram_bytes = s->ram_bytes,
                  .patience_ms = s->patience_ms,
                  .far_at_once = s->far_at_once,
                  .disk = s->cache_dir != NULL,
                  .warm = s->warm,
                  .judge_ms = s->judge_ms},
        .call_end_token = -1,
    };
    struct err e = {0};
    if (!loop_open(&r->loop, &ls, &e)) fail_msg("%s", e.msg);
    if (s->cache_dir != NULL && !s->late) rig_attach(r);
}

void rig_close(struct rig *r)
{
    loop_stop(r->loop);
    assert_int_equal(r->loop->n_live, 0);
    assert_int_equal(r->loop->pool.n_free + r->loop->tree.n_nodes, r->loop->pool.n_pages);
    assert_int_equal(r->loop->tree.n_idle, r->loop->tree.n_nodes);
    loop_close(r->loop);
    assert_int_equal(atomic_load(&r->net->n_wrong), 0);
    fake_net_close(r->net);
}

struct stream *rig_submit(struct rig *r, const struct job *job)
{
    struct stream *s = NULL;
    struct err e = {0};
    if (!loop_submit(r->loop, job, NULL, &s, &e)) fail_msg("submit: %s", e.msg);
    return s;
}

struct outcome rig_run(struct rig *r, const struct job *job)
{
    return outcome_wait(rig_submit(r, job));
}

static void nap(void)
{
    const struct timespec t = {.tv_nsec = 200000};
    nanosleep(&t, NULL);
}

struct engine_stats rig_stats(const struct rig *r)
{
    struct engine_stats st;
    loop_stats(r->loop, &st);
    return st;
}

void wait_steps(const struct net *n, uint32_t n_steps)
{
    const uint64_t start = clock_ns();
    while (atomic_load(&n->n_steps) < n_steps) {
        if (clock_ms_since(start) > 60000) fail_msg("fewer than %u steps after 60 s", n_steps);
        nap();
    }
}

void wait_held(const struct net *n)
{
    const uint64_t start = clock_ns();
    while (atomic_load(&n->n_held) == 0) {
        if (clock_ms_since(start) > 60000) fail_msg("no step after 60 s");
        nap();
    }
}

bool outcome_is_alone(const struct outcome *o, const int32_t *ids, size_t n_ids)
{
    int32_t *want = calloc(o->n + 1, sizeof *want);
    assert_non_null(want);
    fake_answer(ids, n_ids, o->n, want);
    const bool same = o->n == 0 || memcmp(want, o->ids, o->n * sizeof *want) == 0;
    free(want);
    return same;
}

void expect_alone(struct outcome o, const int32_t *ids, size_t n_ids, uint32_t n_new)
{
    assert_int_equal(o.error.code, ERR_NONE);
    assert_int_equal(o.n, n_new);
    assert_int_equal(o.finish, FINISH_LENGTH);
    assert_true(outcome_is_alone(&o, ids, n_ids));
    outcome_free(&o);
}

void fill_tokens(int32_t *ids, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)(hash64(&i, sizeof i, seed) % FAKE_VOCAB);
}
