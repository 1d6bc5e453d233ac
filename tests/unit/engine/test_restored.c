// What came back from disk equals what is computed, bit for bit, on the shipped model and the real
// forward pass: all logits, after hits of several lengths, over one engine and the next.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "engine/engine.h"

enum { N_CTX = 1024, LEN = 700, VOCAB_MAX = 8192 };

static char dir[64];
static float want[VOCAB_MAX], got[VOCAB_MAX];
static int32_t ids[LEN];

static int make_dir(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR);
    strcpy(dir, "/tmp/submind-restored-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static struct engine *open_engine(const char *device, const char *cache_dir, const char *kv_type)
{
    struct engine *en = NULL;
    struct err e = {0};
    char path[1024];
    const char *source = getenv("SUBMIND_SOURCE");
    snprintf(path, sizeof path, "%s/models/submind-demo-Q8_0.gguf", source == NULL ? "." : source);
    const struct engine_settings s = {.model_path = path,
                                      .device = device,
                                      .n_threads = 2,
                                      .n_ctx = N_CTX,
                                      .n_parallel = 4,
                                      .kv_type = kv_type,
                                      .cache_dir = cache_dir};
    if (!engine_open(&en, &s, &e)) fail_msg("%s", e.msg);
    assert_true(engine_info(en)->n_vocab <= VOCAB_MAX);
    return en;
}

static struct engine_stats logits(struct engine *en, uint32_t n, float *out)
{
    struct err e = {0};
    struct engine_stats st;
    if (!engine_logits(en, ids, n, out, &e)) fail_msg("%s", e.msg);
    engine_stats(en, &st);
    return st;
}

static void draw_tokens(const struct engine *en)
{
    for (uint32_t i = 0; i < LEN; i++)
        ids[i] = (int32_t)(hash64(&i, sizeof i, 42) % engine_info(en)->n_vocab);
}

// Computed by an engine without a cache, then by one that saves, then by one that only loads.
static void check(const char *device, uint32_t n)
{
    struct engine *en = open_engine(device, NULL, NULL);
    draw_tokens(en);
    logits(en, n, want);
    const size_t n_bytes = engine_info(en)->n_vocab * sizeof *want;
    engine_close(en);
    uint64_t n_disk = 0;
    for (int round = 0; round < 6 && n_disk < n - 1; round++) {
        memset(got, 0xff, sizeof got);
        en = open_engine(device, dir, NULL);
        const struct engine_stats st = logits(en, n, got);
        n_disk =
            st.tiers
                .disk_tokens; // some of it where the machine is busy and computing seems quicker
        assert_memory_equal(got, want, n_bytes);
        assert_true(round > 0 || n_disk == 0);
        assert_int_equal(st.prefill_tokens, n - n_disk);
        engine_close(en);
    }
    assert_int_equal(n_disk, n - 1); // the last page's beginning, too
}

static void restored_is_cold_on_the_cpu(void **state)
{
    (void)state;
    check("cpu", LEN);
}

static void restored_is_cold_on_the_reference(void **state)
{
    (void)state;
    check("ref", 150);
}

// A longer text goes on where a shorter one's pages end, and one that differs takes what is the same.
static void what_differs_is_computed(void **state)
{
    (void)state;
    struct engine *en = open_engine("cpu", dir, NULL);
    draw_tokens(en);
    const size_t n_bytes = engine_info(en)->n_vocab * sizeof *want;
    logits(en, 300, got);
    engine_close(en);
    en = open_engine("cpu", NULL, NULL);
    ids[200] ^= 1;
    logits(en, LEN, want);
    engine_close(en);
    en = open_engine("cpu", dir, NULL);
    const struct engine_stats st = logits(en, LEN, got);
    assert_memory_equal(got, want, n_bytes);
    assert_true(st.tiers.disk_tokens <= 200);
    engine_close(en);
}

// Other numerics, other folder: nothing of one is found by the other.
static void devices_do_not_share(void **state)
{
    (void)state;
    struct engine *en = open_engine("cpu", dir, NULL);
    draw_tokens(en);
    logits(en, 200, got);
    engine_close(en);
    en = open_engine("ref", dir, NULL);
    assert_int_equal(logits(en, 200, got).tiers.disk_tokens, 0);
    engine_close(en);
    en = open_engine("cpu:portable", dir, NULL);
    const struct engine_stats st = logits(en, 200, got);
    engine_close(en);
    en = open_engine("cpu:portable", NULL, NULL);
    logits(en, 200, want);
    assert_memory_equal(got, want, engine_info(en)->n_vocab * sizeof *want);
    assert_int_equal(st.tiers.disk_tokens, 0);
    engine_close(en);
}

static void every_page_verifies(void **state)
{
    (void)state;
    struct cache_check c;
    struct err e = {0};
    struct engine *en = open_engine("cpu", NULL, NULL);
    draw_tokens(en);
    assert_false(engine_cache_verify(en, &c, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    engine_close(en);
    en = open_engine("cpu", dir, NULL);
    logits(en, LEN, got);
    engine_close(en);
    en = open_engine("cpu", dir, NULL);
    assert_true(engine_cache_verify(en, &c, &e));
    const uint32_t page_tokens = engine_info(en)->page_tokens;
    assert_int_equal(c.pages, LEN / page_tokens + (LEN % page_tokens >= page_tokens / 4));
    assert_int_equal(c.bad, 0);
    engine_close(en);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(restored_is_cold_on_the_cpu), TEST(restored_is_cold_on_the_reference),
        TEST(what_differs_is_computed),    TEST(devices_do_not_share),
        TEST(every_page_verifies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
