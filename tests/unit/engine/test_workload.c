// engine: random workloads over the fake network. Whatever the mix of shared prefixes, arrivals,
// cancels, slow readers and pool size: every answer equals the one given alone, nothing leaks, nothing
// hangs, and while memory suffices no more is computed than what no earlier request could give.
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/rig.h"

enum { N_JOBS = 60, LEN_MAX = 240, NEW_MAX = 30 };

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u; // Knuth's MMIX
    return (uint32_t)(*state >> 33);
}

struct work {
    int32_t ids[LEN_MAX];
    uint32_t n_ids, n_new;
    uint32_t cancel_after; // tokens; 0 = never
    bool cancel_at_once, checked;
    int32_t priority;
    struct rig *rig;
};

// A grammar of prefixes: two trunks, three branches each, three twigs each, then a tail of its own;
// every piece is of odd length, so that pages and pieces do not line up.
static void make_work(struct work *w, uint64_t *random, bool cancels)
{
    *w = (struct work){0};
    const uint64_t trunk = next_random(random) % 2, branch = next_random(random) % 3,
                   twig = next_random(random) % 3;
    const uint64_t seeds[3] = {trunk + 1, (trunk + 1) * 10 + branch,
                               ((trunk + 1) * 10 + branch) * 10 + twig};
    const uint32_t lengths[3] = {67, 41, 23};
    const uint32_t depth = next_random(random) % 4;
    for (uint32_t i = 0; i < depth; i++) {
        fill_tokens(w->ids + w->n_ids, lengths[i], seeds[i]);
        w->n_ids += lengths[i];
    }
    const uint32_t tail = 1 + next_random(random) % 40;
    fill_tokens(w->ids + w->n_ids, tail, 1000 + next_random(random) % 5); // some tails repeat too
    w->n_ids += tail;
    w->n_new = 1 + next_random(random) % NEW_MAX;
    w->priority = (int32_t)(next_random(random) % 3);
    if (cancels && next_random(random) % 4 == 0) w->cancel_after = next_random(random) % w->n_new;
    w->cancel_at_once = cancels && next_random(random) % 8 == 0;
}

static void *client(void *arg)
{
    struct work *w = arg;
    struct job job = greedy_job(w->ids, w->n_ids, w->n_new);
    job.priority = w->priority;
    struct stream *s;
    struct err e = {0};
    if (!loop_submit(w->rig->loop, &job, NULL, &s, &e)) return NULL; // unchecked: the test fails
    if (w->cancel_at_once || w->cancel_after > 0) {
        struct stream_event event;
        for (uint32_t i = 0; i < w->cancel_after;)
            i += stream_next(s, &event) ? 1 : (sched_yield(), 0);
        stream_close(s);
        w->checked = true;
        return NULL;
    }
    struct outcome o = outcome_wait(s);
    w->checked = o.error.code == ERR_NONE && o.n == w->n_new &&
                 outcome_is_alone(&o, w->ids, w->n_ids) && o.status.n_cached < w->n_ids &&
                 o.status.n_processed == w->n_ids;
    outcome_free(&o);
    return NULL;
}

static void run_clients(struct rig *r, struct work *work, uint32_t n)
{
    pthread_t threads[N_JOBS];
    for (uint32_t i = 0; i < n; i++) {
        work[i].rig = r;
        assert_int_equal(pthread_create(&threads[i], NULL, client, &work[i]), 0);
    }
    for (uint32_t i = 0; i < n; i++) pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < n; i++) assert_true(work[i].checked);
}

// The fewest tokens that can be computed: of each prompt what no earlier one begins with.
static uint64_t least_prefill(const struct work *work, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t longest = 0;
        for (uint32_t j = 0; j < i; j++) {
            uint32_t k = 0;
            while (k < work[i].n_ids && k < work[j].n_ids && work[i].ids[k] == work[j].ids[k]) k++;
            if (k > longest) longest = k;
        }
        sum += work[i].n_ids - longest;
    }
    return sum;
}

static void with_memory_no_prefix_is_computed_twice(void **state)
{
    (void)state;
    static struct work work[N_JOBS];
    for (uint64_t seed = 1; seed <= 4; seed++) {
        const uint32_t page = seed % 2 == 0 ? 4 : 16;
        struct rig r;
        rig_open(&r, &(struct rig_settings){.n_pages = 4096, .page_tokens = page, .n_parallel = 6});
        atomic_store(&r.net->delay_us, seed % 3 * 100);
        uint64_t random = seed;
        for (int i = 0; i < N_JOBS; i++) make_work(&work[i], &random, false);
        run_clients(&r, work, N_JOBS);
        struct engine_stats st;
        loop_stats(r.loop, &st);
        assert_int_equal(st.evictions, 0);
        assert_int_equal(st.preemptions, 0);
        assert_true(st.prefill_tokens <= least_prefill(work, N_JOBS) + (uint64_t)N_JOBS * page);
        assert_int_equal(st.prefill_tokens + st.cached_tokens, st.prompt_tokens);
        rig_close(&r);
    }
}

static void cancels_and_tiny_pools_change_no_answer(void **state)
{
    (void)state;
    static struct work work[N_JOBS];
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct rig r;
        uint64_t random = seed * 77;
        // From barely one request (201 + 30 tokens) to about four.
        const uint32_t n_pages = 58 + next_random(&random) % 180;
        rig_open(&r, &(struct rig_settings){.n_pages = n_pages,
                                            .n_parallel = 1 + next_random(&random) % 12,
                                            .prefill_rows = 16 + next_random(&random) % 60});
        for (int i = 0; i < N_JOBS; i++) make_work(&work[i], &random, true);
        run_clients(&r, work, N_JOBS);
        rig_close(&r); // checks that all pages are accounted for
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_memory_no_prefix_is_computed_twice),
        cmocka_unit_test(cancels_and_tiny_pools_change_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
