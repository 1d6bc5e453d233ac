// engine/evict: which page goes, against the rule written out: recompute time x decayed use.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/tree.h"

enum { PAGE = 4 };
static const struct hash128 salt_a = {1, 2}, salt_b = {1, 3};
static const struct tree_hint usual = {.priority = CACHE_PRIORITY_DEFAULT};

struct fixture {
    struct kv_pool pool;
    struct tree t;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err e = {0};
    assert_non_null(f);
    assert_true(kv_init(&f->pool, 16, PAGE, &e));
    assert_true(tree_init(&f->t, &f->pool, &e));
    f->t.half_life_s = 100;
    f->t.attend_tokens = 16;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    tree_deinit(&f->t);
    assert_int_equal(f->pool.n_free, 16);
    kv_deinit(&f->pool);
    free(f);
    return 0;
}

// A text of n pages whose tokens all are `token`, used once at second now_s. Returns its last page.
static uint32_t use(struct fixture *f, struct hash128 salt, int32_t token, uint32_t n, double now_s,
                    const struct tree_hint *hint)
{
    struct tree *t = &f->t;
    int32_t ids[PAGE];
    uint32_t pages[16], parent = KV_NONE;
    uint64_t key = tree_root_key(salt);
    t->now_s = now_s;
    for (int i = 0; i < PAGE; i++) ids[i] = token;
    for (uint32_t i = 0; i < n; i++) {
        key = tree_next_key(key, ids, PAGE);
        const struct tree_ref ref = {parent, key, salt, ids};
        uint32_t page = tree_find(t, &ref);
        if (page != KV_NONE)
            tree_pin(t, page);
        else
            page = tree_publish(t, &ref, tree_page_take(t));
        parent = pages[i] = page;
    }
    for (uint32_t i = n; i > 0; i--) tree_unpin(t, pages[i - 1], hint);
    return parent;
}

static bool holds(struct fixture *f, struct hash128 salt, int32_t token)
{
    int32_t ids[PAGE];
    for (int i = 0; i < PAGE; i++) ids[i] = token;
    const struct tree_ref ref = {KV_NONE, tree_next_key(tree_root_key(salt), ids, PAGE), salt, ids};
    return tree_find(&f->t, &ref) != KV_NONE;
}

// The next to go must be this token's text (all of one page).
static void goes(struct fixture *f, struct hash128 salt, int32_t token)
{
    assert_true(holds(f, salt, token));
    assert_true(tree_evict(&f->t));
    assert_false(holds(f, salt, token));
}

// Who computed a page counts 1, and 1 more for each turn that took it: after three uses 3 = 2^1.58, so
// it wins against a page of one use that is up to 158 s younger at a half-life of 100 s.
static void uses_count_and_fade(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) use(f, salt_a, 1, 1, 0, &usual);
    use(f, salt_a, 2, 1, 150, &usual);
    use(f, salt_a, 3, 1, 170, &usual);
    f->t.now_s = 100000; // long after: the order stays
    goes(f, salt_a, 2);
    goes(f, salt_a, 1);
    goes(f, salt_a, 3);
    assert_false(tree_evict(&f->t));
}

// Two takings, of which the first is an hour older and counts half: 1 + 1.5 = 2^1.32.
static void old_turns_count_less(void **state)
{
    struct fixture *f = *state;
    f->t.use_half_life_s = 3600;
    use(f, salt_a, 1, 1, 0, &usual);
    use(f, salt_a, 1, 1, 0, &usual);
    use(f, salt_a, 1, 1, 3600, &usual);
    use(f, salt_a, 2, 1, 3600 + 127, &usual);
    use(f, salt_a, 3, 1, 3600 + 137, &usual);
    goes(f, salt_a, 2);
    goes(f, salt_a, 1);
    goes(f, salt_a, 3);
}

// A loop of tool calls is one turn, however many steps it has; while it waits, its pages look six
// half-lives younger.
static void steps_of_a_tool_loop_are_one_turn(void **state)
{
    struct fixture *f = *state;
    const struct tree_hint call = {.priority = CACHE_PRIORITY_DEFAULT, .paused = true};
    for (int i = 0; i < 20; i++) use(f, salt_a, 1, 1, 0, &call);
    use(f, salt_a, 2, 1, 590, &usual);
    use(f, salt_a, 3, 1, 610, &usual);
    goes(f, salt_a, 2);
    goes(f, salt_a, 1);
    for (int i = 0; i < 20; i++) use(f, salt_a, 4, 1, 700, &call);
    use(f, salt_a, 4, 1, 700, &usual); // it ended: a single turn from long ago
    use(f, salt_a, 5, 1, 710, &usual);
    goes(f, salt_a, 3);
    goes(f, salt_a, 4);
    goes(f, salt_a, 5);
}

// A page behind 16 tokens costs twice as much as the first: worth one half-life.
static void what_costs_more_stays_longer(void **state)
{
    struct fixture *f = *state;
    const uint32_t deep = use(f, salt_a, 1, 5, 0, &usual); // the fifth page is behind 16 tokens
    assert_int_equal(f->t.nodes[deep].depth, 4);
    assert_true(fabs(tree_rank(&f->t, deep) - 1) < 1e-12);
    use(f, salt_a, 2, 1, 90, &usual);
    use(f, salt_a, 3, 1, 110, &usual);
    goes(f, salt_a, 2);
    assert_true(tree_evict(&f->t)); // the deep one, before the third
    assert_int_equal(f->t.nodes[deep].in_tree, false);
    assert_true(holds(f, salt_a, 3));
}

static void a_priority_of_ten_more_is_a_half_life(void **state)
{
    struct fixture *f = *state;
    const struct tree_hint high = {.priority = 60}, low = {.priority = 0};
    use(f, salt_a, 1, 1, 0, &high);
    use(f, salt_a, 2, 1, 90, &usual);
    use(f, salt_a, 3, 1, 110, &usual);
    use(f, salt_a, 4, 1, 400, &low);
    goes(f, salt_a, 4);
    goes(f, salt_a, 2);
    goes(f, salt_a, 1);
    goes(f, salt_a, 3);
}

static void a_time_to_live_goes_before_all_worth_until_it_ends(void **state)
{
    struct fixture *f = *state;
    const struct tree_hint live = {.priority = 50, .has_ttl = true, .ttl_s = 1000};
    const struct tree_hint over = {.priority = 50, .has_ttl = true, .ttl_s = 0};
    use(f, salt_a, 1, 1, 0, &live);
    use(f, salt_a, 2, 1, 300, &usual);
    use(f, salt_a, 3, 1, 310, &over);
    f->t.now_s = 999;
    goes(f, salt_a, 3); // nobody needs it
    goes(f, salt_a, 2);
    assert_true(holds(f, salt_a, 1));
    use(f, salt_a, 4, 1, 999, &usual);
    f->t.now_s = 1001;
    goes(f, salt_a, 1); // its time is over and its use is old
    use(f, salt_a, 5, 1, 1002, &live);
    goes(f, salt_a, 4);
    goes(f, salt_a, 5); // if nothing else is left it goes too
}

static void a_salt_beyond_its_quota_pays_itself(void **state)
{
    struct fixture *f = *state;
    f->t.quota_pages = 4;
    use(f, salt_b, 1, 1, 0, &usual);
    for (int32_t i = 10; i < 25; i++) use(f, salt_a, i, 1, 100 + i, &usual); // 15 and 1: full
    assert_int_equal(f->pool.n_free, 0);
    for (int32_t i = 30; i < 60; i++) use(f, salt_a, i, 1, 200 + i, &usual);
    assert_true(holds(f, salt_b, 1)); // by far the oldest of all
    assert_int_equal(f->t.evicted[EVICT_QUOTA], 30);
    assert_int_equal(f->t.evicted[EVICT_ROOM], 0);
    for (int32_t i = 2; i < 16; i++) use(f, salt_b, i, 1, 300 + i, &usual);
    uint32_t n_a = 0;
    for (int32_t i = 30; i < 60; i++) n_a += holds(f, salt_a, i);
    assert_int_equal(n_a, 4); // down to its share and no further
}

// What a tenant left who is long gone does not keep the others small for ever.
static void a_quota_does_not_protect_for_ever(void **state)
{
    struct fixture *f = *state;
    f->t.quota_pages = 4;
    use(f, salt_b, 1, 1, 0, &usual);
    for (int32_t i = 10; i < 25; i++) use(f, salt_a, i, 1, 100 + i, &usual);
    for (int32_t i = 30; i < 45; i++) use(f, salt_a, i, 1, 580, &usual);
    assert_true(holds(f, salt_b, 1)); // the oldest of the others is from second 124
    for (int32_t i = 50; i < 65; i++) use(f, salt_a, i, 1, 610, &usual);
    assert_true(holds(f, salt_b, 1)); // 580 - 0 is less than six half-lives
    use(f, salt_a, 70, 1, 620, &usual);
    assert_false(holds(f, salt_b, 1)); // 610 - 0 is more
}

// A time to live counts among one's own pages, not against those of others.
static void a_time_to_live_is_no_way_around_a_quota(void **state)
{
    struct fixture *f = *state;
    const struct tree_hint live = {.priority = 100, .has_ttl = true, .ttl_s = 100000};
    f->t.quota_pages = 4;
    use(f, salt_b, 1, 1, 0, &usual);
    for (int32_t i = 10; i < 60; i++) use(f, salt_a, i, 1, 100 + i, &live);
    assert_true(holds(f, salt_b, 1));
}

static void a_single_salt_has_all(void **state)
{
    struct fixture *f = *state;
    f->t.quota_pages = 4;
    for (int32_t i = 1; i <= 20; i++) use(f, salt_a, i, 1, i, &usual);
    assert_int_equal(f->t.n_nodes, 16);
    assert_int_equal(f->t.evicted[EVICT_QUOTA], 0);
}

static void a_held_trunk_stays_and_drops_only_when_released(void **state)
{
    struct fixture *f = *state;
    const uint32_t end = use(f, salt_a, 1, 3, 0, &usual);
    assert_true(tree_hold(&f->t, end, true, "trunk"));
    assert_int_equal(f->t.n_held, 3);
    assert_int_equal(f->t.n_public, 3);
    assert_true(tree_hold(&f->t, end, true, "again")); // the same hold
    for (int32_t i = 10; i < 40; i++) use(f, salt_a, i, 1, 5000 + i, &usual);
    assert_true(holds(f, salt_a, 1));
    assert_int_equal(tree_available(&f->t), 13);
    assert_int_equal(tree_drop(&f->t, f->t.nodes[f->t.nodes[end].parent].parent), 0);
    assert_true(tree_release(&f->t, end));
    assert_false(tree_release(&f->t, end));
    assert_int_equal(f->t.n_held, 0);
    assert_int_equal(f->t.n_public, 0);
    const uint32_t first = f->t.nodes[f->t.nodes[end].parent].parent;
    assert_int_equal(tree_drop(&f->t, first), 3 * f->pool.page_tokens);
    assert_int_equal(f->t.evicted[EVICT_DROPPED], 3);
    assert_false(holds(f, salt_a, 1));
}

struct seen {
    uint32_t n_stored, n_removed;
    bool in_tree[16];
};

static void on_stored(void *arg, uint32_t page)
{
    struct seen *s = arg;
    assert_false(s->in_tree[page]);
    s->in_tree[page] = true;
    s->n_stored++;
}

static void on_removed(void *arg, uint32_t page, enum evict_reason reason)
{
    struct seen *s = arg;
    (void)reason;
    assert_true(s->in_tree[page]);
    s->in_tree[page] = false;
    s->n_removed++;
}

static void a_watch_hears_of_every_page(void **state)
{
    struct fixture *f = *state;
    struct seen seen = {0};
    f->t.watch[1] = (struct tree_watch){&seen, on_stored, on_removed};
    for (int32_t i = 0; i < 50; i++) use(f, salt_a, i % 11, 1 + (uint32_t)i % 4, i, &usual);
    assert_true(seen.n_removed > 10);
    assert_int_equal(seen.n_stored - seen.n_removed, f->t.n_nodes);
    for (uint32_t i = 0; i < 16; i++) assert_int_equal(seen.in_tree[i], f->t.nodes[i].in_tree);
}

// Salts beyond the table share a place for their quota, and nothing else.
static void more_salts_than_spaces(void **state)
{
    struct fixture *f = *state;
    for (uint64_t i = 0; i < 1000; i++) {
        const struct hash128 salt = {i, 99};
        use(f, salt, 1, 1, (double)i, &usual);
        assert_true(holds(f, salt, 1));
    }
    assert_int_equal(f->t.n_nodes, 16);
    assert_true(holds(f, (struct hash128){984, 99}, 1));
    assert_false(holds(f, (struct hash128){983, 99}, 1));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(uses_count_and_fade),
        CASE(old_turns_count_less),
        CASE(steps_of_a_tool_loop_are_one_turn),
        CASE(what_costs_more_stays_longer),
        CASE(a_priority_of_ten_more_is_a_half_life),
        CASE(a_time_to_live_goes_before_all_worth_until_it_ends),
        CASE(a_salt_beyond_its_quota_pays_itself),
        CASE(a_quota_does_not_protect_for_ever),
        CASE(a_time_to_live_is_no_way_around_a_quota),
        CASE(a_single_salt_has_all),
        CASE(a_held_trunk_stays_and_drops_only_when_released),
        CASE(a_watch_hears_of_every_page),
        CASE(more_salts_than_spaces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
