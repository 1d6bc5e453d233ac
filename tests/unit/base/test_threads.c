// The pool: every item done once, barriers that hold, and a pool that may have more workers than
// cores, be used often, and be closed unused.
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/threads.h"

enum { ROUNDS = 200, ITEMS = 1000 };

struct task {
    struct threads *pool;
    atomic_uint arrived;
    atomic_uint n_wrong;
    unsigned char done[ITEMS];
};

static void work(void *arg, uint32_t i, uint32_t n)
{
    struct task *t = arg;
    uint32_t first, end;
    threads_share(ITEMS, 7, i, n, &first, &end);
    for (uint32_t j = first; j < end; j++) t->done[j]++;
    for (uint32_t round = 1; round <= 5; round++) {
        atomic_fetch_add(&t->arrived, 1);
        threads_barrier(t->pool);
        if (atomic_load(&t->arrived) != round * n) atomic_fetch_add(&t->n_wrong, 1);
        threads_barrier(t->pool);
    }
}

static void check_pool(uint32_t n)
{
    static struct task t;
    struct err e = {0};
    t = (struct task){0};
    assert_true(threads_open(&t.pool, n, &e));
    assert_true(n == 0 || threads_count(t.pool) == n);
    for (int i = 1; i <= ROUNDS; i++) {
        atomic_store(&t.arrived, 0);
        threads_run(t.pool, work, &t);
        for (int j = 0; j < ITEMS; j++) assert_int_equal(t.done[j], i % 256);
    }
    assert_int_equal(atomic_load(&t.n_wrong), 0);
    threads_close(t.pool);
}

static void pools_of_all_sizes(void **state)
{
    (void)state;
    for (uint32_t n = 0; n <= 5; n++) check_pool(n);
}

static void unused_pool_closes(void **state)
{
    (void)state;
    struct threads *t = NULL;
    struct err e = {0};
    assert_true(threads_open(&t, 3, &e));
    threads_close(t);
    threads_close(NULL);
}

static void shares_cover_all(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 70; n++) {
        uint32_t next = 0;
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t first, end;
            threads_share(n, 16, i, 4, &first, &end);
            assert_int_equal(first, next);
            assert_true(first == n || first % 16 == 0);
            next = end;
        }
        assert_int_equal(next, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pools_of_all_sizes),
        cmocka_unit_test(unused_pool_closes),
        cmocka_unit_test(shares_cover_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
