// engine/plan: how much KV memory is taken, and what is said when it does not fit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/plan.h"

// A page of 64 tokens with 1 MiB; 4,096 tokens of context are 64 pages.
static struct plan_input usual(void)
{
    return (struct plan_input){.free_bytes = 1ull << 30,
                               .network_bytes = 100ull << 20,
                               .page_bytes = 1ull << 20,
                               .page_tokens = 64,
                               .n_ctx = 4096,
                               .n_parallel = 4};
}

static void by_default_two_long_requests_and_some(void **state)
{
    (void)state;
    struct plan_input in = usual();
    uint32_t n = 0;
    struct err e = {0};
    assert_true(plan_pages(&in, &n, &e));
    assert_int_equal(n, 2 * 64 + 4 * 32);
}

static void at_most_half_of_what_is_free_but_one_request(void **state)
{
    (void)state;
    struct plan_input in = usual();
    uint32_t n = 0;
    struct err e = {0};
    in.free_bytes = 300ull << 20;
    assert_true(plan_pages(&in, &n, &e));
    assert_int_equal(n, 100);
    in.free_bytes = 180ull << 20; // half of the rest is 40 pages: one request needs 65
    assert_true(plan_pages(&in, &n, &e));
    assert_int_equal(n, 65);
    in.free_bytes = 164ull << 20;
    assert_false(plan_pages(&in, &n, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(strstr(e.msg, "164 MiB are free: --ctx 4032 is the most")); // 63 of 64 pages
    in.n_ctx = 4032;
    assert_true(plan_pages(&in, &n, &e));
}

static void what_steps_take_is_counted(void **state)
{
    (void)state;
    struct plan_input in = usual();
    uint32_t n = 0;
    struct err e = {0};
    in.scratch_bytes = 700ull << 20; // leaves 224 MiB: half of them for pages
    assert_true(plan_pages(&in, &n, &e));
    assert_int_equal(n, 112);
    in.scratch_bytes = 900ull << 20;
    assert_false(plan_pages(&in, &n, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(strstr(e.msg, "100 MiB for weights and activations, 900 MiB for scratch"));
    assert_non_null(strstr(e.msg, "65 MiB for 4160 tokens"));
    in.scratch_bytes = UINT64_MAX; // a count that overflowed
    assert_false(plan_pages(&in, &n, &e));
}

static void a_given_size_is_taken_or_refused(void **state)
{
    (void)state;
    struct plan_input in = usual();
    uint32_t n = 0;
    struct err e = {0};
    in.kv_bytes = 200ull << 20;
    assert_true(plan_pages(&in, &n, &e));
    assert_int_equal(n, 200);
    in.kv_bytes = 64ull << 20; // one page short of a request of full length
    assert_false(plan_pages(&in, &n, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(strstr(e.msg, "--kv-memory of 64 MiB holds 4096 tokens, but a request may have "
                                  "4096: raise it to 65 MiB"));
    e = (struct err){0};
    in.kv_bytes = 1000ull << 20; // more than there is: 924 MiB are left
    assert_false(plan_pages(&in, &n, &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_non_null(strstr(e.msg, ": --kv-memory 924M is the most"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_default_two_long_requests_and_some),
        cmocka_unit_test(at_most_half_of_what_is_free_but_one_request),
        cmocka_unit_test(what_steps_take_is_counted),
        cmocka_unit_test(a_given_size_is_taken_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
