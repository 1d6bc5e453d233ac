// 64 clients at once, with prompts from a random grammar of shared prefixes: what is computed must be
// what any cache would have to compute, but for a token or two of each request. The optimum is
// counted by the test itself, in a trie over tokens.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/rig.h"

enum { CLIENTS = 64, EACH = 6, PAGE = 4, LEN_MAX = 600, DEPTH = 5 };

struct prompt {
    int32_t ids[LEN_MAX];
    uint32_t n;
};

// A prompt is a path in a tree of phrases: each phrase has a random length and a few that may follow.
static void make_prompt(struct prompt *p, unsigned *seed, uint64_t grammar)
{
    uint64_t state = grammar;
    for (int d = 0; d < DEPTH; d++) {
        const uint64_t choice = (uint64_t)rand_r(seed) % (d == 0 ? 3 : 4);
        state = hash64(&choice, sizeof choice, state);
        const uint32_t n = 1 + (uint32_t)(state % (LEN_MAX / DEPTH - 1));
        fill_tokens(p->ids + p->n, n, state);
        p->n += n;
        if (rand_r(seed) % 5 == 0) return; // some end early, so that one is another's beginning
    }
}

// ---- the optimum --------------------------------------------------------------------------------

struct trie {
    struct node {
        int32_t token;
        uint32_t child, next;
    } * nodes;
    uint32_t n;
};

// Adds a prompt; returns how many of its tokens were not there.
static uint32_t trie_add(struct trie *t, const struct prompt *p)
{
    uint32_t at = 0, fresh = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t c = t->nodes[at].child;
        while (c != 0 && t->nodes[c].token != p->ids[i]) c = t->nodes[c].next;
        if (c == 0) {
            c = ++t->n;
            t->nodes[c] = (struct node){.token = p->ids[i], .next = t->nodes[at].child};
            t->nodes[at].child = c;
            fresh++;
        }
        at = c;
    }
    return fresh;
}

// ---- the clients --------------------------------------------------------------------------------

struct client {
    struct rig *rig;
    struct prompt *prompts; // [EACH]
    bool wrong;
};

static void *run_client(void *arg)
{
    struct client *c = arg;
    for (int i = 0; i < EACH; i++) {
        const struct job job = greedy_job(c->prompts[i].ids, c->prompts[i].n, 1);
        struct stream *s = NULL;
        struct err e = {0};
        if (!loop_submit(c->rig->loop, &job, NULL, &s, &e)) {
            c->wrong = true;
            return NULL;
        }
        struct outcome o = outcome_wait(s);
        if (!outcome_is_alone(&o, c->prompts[i].ids, c->prompts[i].n)) c->wrong = true;
        outcome_free(&o);
    }
    return NULL;
}

static void run_all(uint64_t grammar, bool waves)
{
    static struct prompt prompts[CLIENTS][EACH];
    struct rig r;
    struct client clients[CLIENTS];
    pthread_t threads[CLIENTS];
    struct trie trie = {.nodes = calloc(CLIENTS * EACH * LEN_MAX + 1, sizeof *trie.nodes)};
    assert_non_null(trie.nodes);
    memset(prompts, 0, sizeof prompts);
    rig_open(&r, &(struct rig_settings){.n_pages = CLIENTS * EACH * LEN_MAX / PAGE,
                                        .page_tokens = PAGE,
                                        .n_parallel = waves ? 8 : 64,
                                        .n_queue = 128});
    uint64_t optimum = 0, all = 0;
    unsigned seed = (unsigned)grammar;
    for (int c = 0; c < CLIENTS; c++)
        for (int i = 0; i < EACH; i++) {
            make_prompt(&prompts[c][i], &seed, grammar);
            optimum += trie_add(&trie, &prompts[c][i]);
            all += prompts[c][i].n;
        }
    for (int c = 0; c < CLIENTS; c++) {
        clients[c] = (struct client){.rig = &r, .prompts = prompts[c]};
        assert_int_equal(pthread_create(&threads[c], NULL, run_client, &clients[c]), 0);
    }
    for (int c = 0; c < CLIENTS; c++) {
        pthread_join(threads[c], NULL);
        assert_false(clients[c].wrong);
    }
    struct engine_stats st;
    loop_stats(r.loop, &st);
    const uint64_t bound = optimum + (uint64_t)CLIENTS * EACH * PAGE / 2;
    if (st.prefill_tokens < optimum || st.prefill_tokens > bound)
        fail_msg("%llu tokens computed; the optimum is %llu, allowed %llu, of %llu",
                 (unsigned long long)st.prefill_tokens, (unsigned long long)optimum,
                 (unsigned long long)bound, (unsigned long long)all);
    print_message("%llu computed, optimum %llu, of %llu prompt tokens\n",
                  (unsigned long long)st.prefill_tokens, (unsigned long long)optimum,
                  (unsigned long long)all);
    assert_int_equal(st.evictions, 0);
    assert_int_equal(st.prompt_tokens, all);
    assert_int_equal(st.prompt_tokens - st.cached_tokens, st.prefill_tokens);
    free(trie.nodes);
    rig_close(&r);
}

static void all_at_once(void **state)
{
    (void)state;
    for (uint64_t grammar = 1; grammar <= 5; grammar++) run_all(grammar, false);
}

static void a_few_at_a_time(void **state)
{
    (void)state;
    for (uint64_t grammar = 11; grammar <= 15; grammar++) run_all(grammar, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_at_once),
        cmocka_unit_test(a_few_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
