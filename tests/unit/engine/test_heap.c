// engine/heap: against a plain array that is searched.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/heap.h"

enum { N = 500 };

static void any_entry_comes_out_and_the_lowest_is_on_top(void **state)
{
    (void)state;
    static struct heap_link links[N];
    static bool inside[N];
    uint32_t root = HEAP_NONE, n = 0;
    srand(7);
    for (int step = 0; step < 200000; step++) {
        const uint32_t i = (uint32_t)rand() % N;
        const bool take_top = rand() % 4 == 0 && root != HEAP_NONE;
        if (take_top || inside[i]) {
            const uint32_t out = take_top ? root : i;
            heap_remove(links, &root, out);
            inside[out] = false;
            n--;
        } else {
            links[i].rank = rand() % 50; // many ties
            heap_push(links, &root, i);
            inside[i] = true;
            n++;
        }
        assert_true((root == HEAP_NONE) == (n == 0));
        if (step % 16 != 0 || n == 0) continue;
        double lowest = 1e9;
        for (uint32_t k = 0; k < N; k++)
            if (inside[k] && links[k].rank < lowest) lowest = links[k].rank;
        assert_true(inside[root] && links[root].rank == lowest);
    }
    for (double last = -1; root != HEAP_NONE; n--) { // the rest comes out in order
        assert_true(links[root].rank >= last);
        last = links[root].rank;
        heap_remove(links, &root, root);
    }
    assert_int_equal(n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_entry_comes_out_and_the_lowest_is_on_top),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
