// Cached equals cold, bit for bit, on the shipped model and the real forward pass: for hits of every
// length, steps of every size, pages that decode steps wrote, any company in the batch, any number of
// threads. Device "cpu" is what people run; "ref" is what defines it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "engine/loop.h"
#include "lib/fail_malloc.h"
#include "lib/outcome.h"
#include "model/gguf.h"

enum { N_CTX = 512, LEN = 200, MAX_ROWS = 256, PARALLEL = 8, VOCAB_MAX = 8192 };

struct real {
    struct gguf *gguf;
    struct model_config config;
    struct backend *backend;
    struct net *net;
    struct dbuf *kv;
    uint32_t page_tokens, n_pages;
    struct loop *loop;
};

static void real_open(struct real *r, const char *device, uint32_t n_threads)
{
    struct err e = {0};
    char path[1024];
    const char *source = getenv("SUBMIND_SOURCE");
    snprintf(path, sizeof path, "%s/models/submind-demo-Q8_0.gguf", source == NULL ? "." : source);
    *r = (struct real){0};
    const struct backend_settings bs = {
        .device = device, .n_threads = n_threads, .max_rows = MAX_ROWS, .max_out = PARALLEL};
    const struct net_settings ns = {
        .n_ctx = N_CTX, .max_rows = MAX_ROWS, .max_out = PARALLEL, .n_top = TOPK_MAX};
    if (!gguf_open(&r->gguf, path, &e) || !arch_read(&r->config, r->gguf, false, &e) ||
        !backend_open(&r->backend, &bs, &e) ||
        !net_open(&r->net, r->backend, r->gguf, &r->config, &ns, &e))
        fail_msg("%s", e.msg);
    assert_true(r->config.n_vocab <= VOCAB_MAX);
    struct backend_info info;
    r->backend->class->info(r->backend, &info);
    r->page_tokens = info.page_tokens;
    r->n_pages = 3 * N_CTX / info.page_tokens * 4;
    const struct buf_desc d = {.kind = BUF_KV,
                               .kv = {.n_pages = r->n_pages,
                                      .page_tokens = r->page_tokens,
                                      .n_layers = r->config.n_layers,
                                      .n_kv_heads = r->config.n_kv_heads,
                                      .head_dim = r->config.head_dim,
                                      .type = r->backend->class->kv_type},
                               .name = "KV pages"};
    if (!r->backend->class->alloc(r->backend, &d, &r->kv, &e)) fail_msg("%s", e.msg);
}

static void real_close(struct real *r)
{
    net_close(r->net);
    r->backend->class->free(r->backend, r->kv);
    r->backend->class->close(r->backend);
    gguf_close(r->gguf);
}

static bool copy_page(void *arg, uint32_t from, uint32_t to, struct err *e)
{
    const struct real *r = arg;
    return r->backend->class->page_copy(r->backend, r->kv, from, to, e);
}

// A new loop: an empty tree over the same pages. Steps have at most max_rows rows.
static void loop_begin(struct real *r, uint32_t max_rows)
{
    struct err e = {0};
    const struct page_io io = {.arg = r, .copy = copy_page};
    const struct loop_settings s = {.net = r->net,
                                    .kv = r->kv,
                                    .backend = r->backend,
                                    .n_vocab = r->config.n_vocab,
                                    .n_ctx = N_CTX,
                                    .n_pages = r->n_pages,
                                    .page_tokens = r->page_tokens,
                                    .n_parallel = max_rows < PARALLEL ? max_rows : PARALLEL,
                                    .n_queue = 64,
                                    .max_rows = max_rows,
                                    .prefill_rows = max_rows,
                                    .step_ms = 1000,
                                    .alone_ms = 100000,
                                    .tiers = {.io = io}};
    if (!loop_open(&r->loop, &s, &e)) fail_msg("%s", e.msg);
}

static struct stream *submit(struct real *r, const struct job *job, float *logits)
{
    struct stream *s = NULL;
    struct err e = {0};
    if (!loop_submit(r->loop, job, logits, &s, &e)) fail_msg("%s", e.msg);
    return s;
}

// Logits after ids; returns how many of them came from the tree.
static uint32_t logits_of(struct real *r, const int32_t *ids, uint32_t n, float *logits)
{
    const struct job job = greedy_job(ids, n, 0);
    struct outcome o = outcome_wait(submit(r, &job, logits));
    assert_int_equal(o.finish, FINISH_STOP);
    const uint32_t n_cached = o.status.n_cached;
    outcome_free(&o);
    return n_cached;
}

static void tokens_of(const struct real *r, int32_t *ids, uint32_t n, uint64_t seed)
{
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)(hash64(&i, sizeof i, seed) % r->config.n_vocab);
}

static float want[VOCAB_MAX], got[VOCAB_MAX];

static void cold(struct real *r, const int32_t *ids, uint32_t n)
{
    loop_begin(r, MAX_ROWS);
    assert_int_equal(logits_of(r, ids, n, want), 0);
    loop_close(r->loop);
}

static void expect_equal(const struct real *r)
{
    assert_memory_equal(got, want, r->config.n_vocab * sizeof *want);
}

static void steps_of_every_size(const char *device)
{
    static const uint32_t sizes[] = {1, 3, 8, 17, 31, 64, 65, 129};
    struct real r;
    int32_t ids[LEN];
    real_open(&r, device, 2);
    tokens_of(&r, ids, LEN, 1);
    cold(&r, ids, LEN);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        loop_begin(&r, sizes[i]);
        assert_int_equal(logits_of(&r, ids, LEN, got), 0);
        loop_close(r.loop);
        expect_equal(&r);
    }
    real_close(&r);
}

// What a run over the first n of these tokens leaves for one over all: whole pages, and the beginning of one (a quarter
// and more is copied); a token is left to compute.
static uint32_t hit_after(uint32_t n, uint32_t len, uint32_t page)
{
    const uint32_t most = n < len ? n : len - 1, whole = most / page * page;
    return most - whole < page / 4 ? whole : most;
}

static void hits_of_every_length(const char *device, uint32_t len)
{
    struct real r;
    int32_t ids[LEN];
    real_open(&r, device, 2);
    tokens_of(&r, ids, len, 2);
    cold(&r, ids, len);
    for (uint32_t n = 1; n <= len; n += n < len - 1 && n > 1 ? r.page_tokens / 2 - 1 : 1) {
        loop_begin(&r, MAX_ROWS);
        logits_of(&r, ids, n, got);
        const uint32_t n_cached = logits_of(&r, ids, len, got);
        assert_int_equal(n_cached, hit_after(n, len, r.page_tokens));
        loop_close(r.loop);
        expect_equal(&r);
    }
    real_close(&r);
}

// The other text has another token somewhere in a page: the rows before it are copied from that page.
static void texts_that_part_within_a_page(const char *device)
{
    static const uint32_t places[] = {2, 31, 32, 33, 34, 47, 63, 95, 127, 129, 150, 158, 159};
    enum { SOME = 160 };
    struct real r;
    int32_t ids[SOME], other[SOME];
    real_open(&r, device, 2);
    tokens_of(&r, ids, SOME, 5);
    cold(&r, ids, SOME);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        memcpy(other, ids, sizeof other);
        for (uint32_t k = places[i]; k < SOME; k++)
            other[k] = (ids[k] + 1) % (int32_t)r.config.n_vocab;
        loop_begin(&r, MAX_ROWS);
        assert_int_equal(logits_of(&r, other, SOME, got), 0);
        assert_int_equal(logits_of(&r, ids, SOME, got), hit_after(places[i], SOME, r.page_tokens));
        loop_close(r.loop);
        expect_equal(&r);
    }
    real_close(&r);
}

static void pages_written_by_decode(const char *device, uint32_t len)
{
    struct real r;
    int32_t ids[LEN];
    real_open(&r, device, 2);
    tokens_of(&r, ids, len, 3);
    const uint32_t n_prompt = 21;
    loop_begin(&r, MAX_ROWS);
    const struct job job = greedy_job(ids, n_prompt, len - n_prompt);
    struct outcome o = outcome_wait(submit(&r, &job, NULL));
    assert_int_equal(o.n, len - n_prompt);
    memcpy(ids + n_prompt, o.ids, o.n * sizeof *ids);
    outcome_free(&o);
    const uint32_t n_cached = logits_of(&r, ids, len, got);
    assert_int_equal(n_cached, hit_after(len - 1, len, r.page_tokens)); // the last has no keys yet
    loop_close(r.loop);
    cold(&r, ids, len);
    expect_equal(&r);
    real_close(&r);
}

// Six others decode and prefill in the same steps; two of them share a part of the prompt.
static void company_in_the_batch(const char *device)
{
    enum { OTHERS = 6 };
    struct real r;
    int32_t ids[LEN], others[OTHERS][LEN];
    struct stream *streams[OTHERS], *own;
    real_open(&r, device, 2);
    tokens_of(&r, ids, LEN, 4);
    cold(&r, ids, LEN);
    for (uint32_t rows = 20; rows <= 140; rows += 60) {
        loop_begin(&r, rows);
        for (uint32_t i = 0; i < OTHERS; i++) {
            tokens_of(&r, others[i], LEN, 10 + i);
            if (i < 2) memcpy(others[i], ids, r.page_tokens * (i + 1) * sizeof *ids);
            const struct job job = greedy_job(others[i], 30 + 25 * i, 60);
            streams[i] = submit(&r, &job, NULL);
        }
        const struct job job = greedy_job(ids, LEN, 0);
        own = submit(&r, &job, got);
        struct outcome o = outcome_wait(own);
        outcome_free(&o);
        for (uint32_t i = 0; i < OTHERS; i++) {
            o = outcome_wait(streams[i]);
            assert_int_equal(o.finish, FINISH_LENGTH);
            outcome_free(&o);
        }
        expect_equal(&r);
        logits_of(&r, ids, LEN, got); // and from the pages of mixed batches
        expect_equal(&r);
        loop_close(r.loop);
    }
    real_close(&r);
}

static void any_number_of_threads(const char *device)
{
    struct real r;
    int32_t ids[LEN];
    static float first[VOCAB_MAX];
    for (uint32_t n = 1; n <= 4; n++) {
        real_open(&r, device, n);
        tokens_of(&r, ids, LEN, 5);
        cold(&r, ids, LEN);
        if (n == 1) memcpy(first, want, sizeof first);
        assert_memory_equal(first, want, r.config.n_vocab * sizeof *want);
        real_close(&r);
    }
}

static void cpu_steps_of_every_size(void **state)
{
    (void)state;
    steps_of_every_size("cpu");
}

static void cpu_hits_of_every_length(void **state)
{
    (void)state;
    hits_of_every_length("cpu", LEN);
}

static void cpu_texts_that_part_within_a_page(void **state)
{
    (void)state;
    texts_that_part_within_a_page("cpu");
}

static void cpu_pages_written_by_decode(void **state)
{
    (void)state;
    pages_written_by_decode("cpu", LEN);
}

static void cpu_pages_written_by_a_short_decode(void **state)
{
    (void)state;
    pages_written_by_decode("cpu", 50);
}

static void cpu_company_in_the_batch(void **state)
{
    (void)state;
    company_in_the_batch("cpu");
}

static void cpu_any_number_of_threads(void **state)
{
    (void)state;
    any_number_of_threads("cpu");
}

static void ref_hits_of_every_length(void **state)
{
    (void)state;
    hits_of_every_length("ref", 70); // slow
}

static void ref_pages_written_by_decode(void **state)
{
    (void)state;
    pages_written_by_decode("ref", 70);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_steps_of_every_size),
        cmocka_unit_test(cpu_hits_of_every_length),
        cmocka_unit_test(cpu_texts_that_part_within_a_page),
        cmocka_unit_test(cpu_pages_written_by_decode),
        cmocka_unit_test(cpu_company_in_the_batch),
        cmocka_unit_test(cpu_any_number_of_threads),
        cmocka_unit_test(ref_hits_of_every_length),
        cmocka_unit_test(ref_pages_written_by_decode),
    };
    const struct CMUnitTest few[] = {
        cmocka_unit_test(cpu_pages_written_by_a_short_decode),
    };
    // Sanitizers, under which no allocation can be made to fail, take a hundred times as long.
    if (!fail_malloc_works()) return cmocka_run_group_tests(few, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
