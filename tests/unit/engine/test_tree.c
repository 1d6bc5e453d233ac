// engine/tree and engine/kv: against a plain list of all texts that were published.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/tree.h"

enum { PAGE = 4 };

static void open_tree(struct kv_pool *pool, struct tree *t, uint32_t n_pages)
{
    struct err e = {0};
    assert_true(kv_init(pool, n_pages, PAGE, &e));
    assert_true(tree_init(t, pool, &e));
}

// Publishes the full pages of a text and pins them in path; returns how many.
static uint32_t publish(struct tree *t, struct hash128 salt, const int32_t *ids, uint32_t n,
                        uint32_t *path)
{
    uint64_t key = tree_root_key(salt);
    uint32_t parent = KV_NONE, i = 0;
    for (; (i + 1) * PAGE <= n; i++) {
        key = tree_next_key(key, ids + i * PAGE, PAGE);
        const uint32_t page = tree_page_take(t);
        if (page == KV_NONE) break;
        const struct tree_ref ref = {parent, key, salt, ids + i * PAGE};
        parent = path[i] = tree_publish(t, &ref, page);
    }
    return i;
}

static uint32_t match(const struct tree *t, struct hash128 salt, const int32_t *ids, uint32_t n)
{
    uint64_t key = tree_root_key(salt);
    uint32_t parent = KV_NONE, i = 0;
    for (; (i + 1) * PAGE <= n; i++) {
        key = tree_next_key(key, ids + i * PAGE, PAGE);
        const struct tree_ref ref = {parent, key, salt, ids + i * PAGE};
        parent = tree_find(t, &ref);
        if (parent == KV_NONE) break;
    }
    return i;
}

static void unpin(struct tree *t, const uint32_t *path, uint32_t n)
{
    while (n > 0) tree_unpin(t, path[--n], NULL);
}

static const struct hash128 salt_a = {1, 2}, salt_b = {1, 3};

static void finds_what_was_published_and_nothing_else(void **state)
{
    (void)state;
    struct kv_pool pool;
    struct tree t;
    open_tree(&pool, &t, 16);
    const int32_t one[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const int32_t two[12] = {1, 2, 3, 4, 5, 6, 7, 9, 9, 10, 11, 12};
    uint32_t path1[3], path2[3];
    assert_int_equal(publish(&t, salt_a, one, 12, path1), 3);
    assert_int_equal(match(&t, salt_a, one, 12), 3);
    assert_int_equal(match(&t, salt_a, one, 11), 2);
    assert_int_equal(match(&t, salt_a, two, 12), 1);
    assert_int_equal(match(&t, salt_b, one, 12), 0);
    assert_int_equal(match(&t, salt_a, one + 4, 8), 0); // same tokens in another place
    assert_int_equal(publish(&t, salt_a, two, 12, path2), 3);
    assert_int_equal(path2[0], path1[0]); // shared, the duplicate page went back
    assert_int_not_equal(path2[2], path1[2]);
    assert_int_equal(pool.n_free, 16 - 5);
    assert_int_equal(t.n_idle, 0);
    unpin(&t, path1, 3);
    assert_int_equal(t.n_idle, 2);
    unpin(&t, path2, 3);
    assert_int_equal(t.n_idle, 5);
    tree_deinit(&t);
    assert_int_equal(pool.n_free, 16);
    kv_deinit(&pool);
}

// The first n tokens of a page at the root; returns whether they were taken in.
static bool leave(struct tree *t, struct hash128 salt, const int32_t *ids, uint32_t n,
                  uint32_t *page)
{
    const struct tree_ref ref = {KV_NONE, tree_root_key(salt), salt, ids};
    *page = tree_publish_part(t, &ref, n, tree_page_take(t));
    return t->nodes[*page].in_tree;
}

static void a_page_that_is_not_full_is_near_and_never_found(void **state)
{
    (void)state;
    struct kv_pool pool;
    struct tree t;
    open_tree(&pool, &t, 16);
    const int32_t ids[PAGE] = {7, 8, 9, 10}, other[PAGE] = {7, 8, 5, 5};
    const struct tree_ref ref = {KV_NONE, 0, salt_a, ids};
    uint32_t page[4], n_same, path[1];
    assert_true(leave(&t, salt_a, ids, 3, &page[0]));
    assert_int_equal(tree_n_tokens(&t, page[0]), 3);
    assert_int_equal(match(&t, salt_a, ids, PAGE), 0);
    assert_int_equal(tree_nearest(&t, &ref, PAGE, &n_same), page[0]);
    assert_int_equal(n_same, 3);
    assert_false(leave(&t, salt_a, ids, 2, &page[1])); // held by the first
    tree_unpin(&t, page[1], NULL);
    assert_true(leave(&t, salt_a, other, 3, &page[1]));
    assert_true(leave(&t, salt_b, ids, 3, &page[2]));
    assert_int_equal(t.n_parts_all, 3);
    assert_int_equal(publish(&t, salt_a, ids, PAGE, path), 1); // the first is in use
    assert_int_equal(t.n_parts_all, 3);
    for (int i = 0; i < 3; i++) tree_unpin(&t, page[i], NULL);
    unpin(&t, path, 1);
    assert_int_equal(tree_drop(&t, path[0]), PAGE);
    assert_int_equal(publish(&t, salt_a, ids, PAGE, path),
                     1); // holds all that the first does, and no other
    unpin(&t, path, 1);
    assert_int_equal(t.evicted[EVICT_REPLACED], 1);
    assert_int_equal(t.n_parts_all, 2);
    assert_true(t.nodes[page[1]].in_tree && t.nodes[page[2]].in_tree);
    assert_int_equal(t.n_evicted, 1); // the one that was dropped
    tree_deinit(&t);
    assert_int_equal(pool.n_free, 16);
    kv_deinit(&pool);
}

static void evicts_the_oldest_leaf_and_never_a_pinned_page(void **state)
{
    (void)state;
    struct kv_pool pool;
    struct tree t;
    open_tree(&pool, &t, 6);
    const int32_t old[8] = {1, 1, 1, 1, 2, 2, 2, 2};
    const int32_t pinned[8] = {3, 3, 3, 3, 4, 4, 4, 4};
    const int32_t young[8] = {5, 5, 5, 5, 6, 6, 6, 6};
    uint32_t a[2], b[2], c[2];
    assert_int_equal(publish(&t, salt_a, old, 8, a), 2);
    assert_int_equal(publish(&t, salt_a, pinned, 8, b), 2);
    assert_int_equal(publish(&t, salt_a, young, 8, c), 2);
    unpin(&t, a, 2);
    unpin(&t, c, 2);
    assert_int_equal(tree_available(&t), 4);
    assert_true(tree_evict(&t));
    assert_int_equal(match(&t, salt_a, old, 8), 1); // its last page first
    assert_true(tree_evict(&t));
    assert_int_equal(match(&t, salt_a, old, 8), 0);
    assert_int_equal(match(&t, salt_a, young, 8), 2);
    assert_true(tree_evict(&t));
    assert_true(tree_evict(&t));
    assert_false(tree_evict(&t));
    assert_int_equal(match(&t, salt_a, pinned, 8), 2);
    for (int i = 0; i < 4; i++) assert_int_not_equal(tree_page_take(&t), KV_NONE);
    assert_int_equal(tree_page_take(&t), KV_NONE);
    for (uint32_t page = 0; page < 6; page++)
        if (page != b[0] && page != b[1]) kv_page_give(&pool, page);
    unpin(&t, b, 2);
    tree_deinit(&t);
    kv_deinit(&pool);
}

static void a_page_that_left_is_known_by_its_generation(void **state)
{
    (void)state;
    struct kv_pool pool;
    struct tree t;
    open_tree(&pool, &t, 1);
    const int32_t ids[4] = {1, 2, 3, 4};
    uint32_t page;
    publish(&t, salt_a, ids, 4, &page);
    const uint32_t generation = t.nodes[page].generation;
    unpin(&t, &page, 1);
    assert_true(tree_evict(&t));
    publish(&t, salt_a, ids, 4, &page);
    assert_int_not_equal(t.nodes[page].generation, generation);
    unpin(&t, &page, 1);
    tree_deinit(&t);
    kv_deinit(&pool);
}

// Keys that collide cost a look-up and nothing else: tokens, parent and salt are compared too.
static void a_colliding_key_is_no_hit(void **state)
{
    (void)state;
    struct kv_pool pool;
    struct tree t;
    open_tree(&pool, &t, 4);
    const int32_t one[4] = {1, 2, 3, 4}, two[4] = {1, 2, 3, 5};
    const struct tree_ref a = {KV_NONE, 77, salt_a, one}, b = {KV_NONE, 77, salt_a, two};
    const uint32_t page = tree_publish(&t, &a, tree_page_take(&t));
    const struct tree_ref below = {page, 77, salt_a, one}, salted = {KV_NONE, 77, salt_b, one};
    assert_int_equal(tree_find(&t, &a), page);
    assert_int_equal(tree_find(&t, &b), KV_NONE);
    assert_int_equal(tree_find(&t, &below), KV_NONE);
    assert_int_equal(tree_find(&t, &salted), KV_NONE);
    const uint32_t other = tree_publish(&t, &b, tree_page_take(&t)); // both live in one bucket
    assert_int_not_equal(other, page);
    tree_unpin(&t, page, NULL);
    assert_true(tree_evict(&t)); // from the middle of the bucket's list
    assert_int_equal(tree_find(&t, &a), KV_NONE);
    assert_int_equal(tree_find(&t, &b), other);
    tree_unpin(&t, other, NULL);
    tree_deinit(&t);
    kv_deinit(&pool);
}

// Texts over a tiny alphabet, so that they share; the oracle is a list of what is pinned.
static void random_texts_agree_with_a_list(void **state)
{
    (void)state;
    enum { TEXTS = 40, LEN = 24, POOL = 64 };
    struct kv_pool pool;
    struct tree t;
    open_tree(&pool, &t, POOL);
    static int32_t texts[TEXTS][LEN];
    static uint32_t paths[TEXTS][LEN / PAGE];
    uint32_t n_pinned[TEXTS] = {0};
    srand(1);
    for (int step = 0; step < 20000; step++) {
        const int i = rand() % TEXTS;
        if (n_pinned[i] > 0) {
            unpin(&t, paths[i], n_pinned[i]);
            n_pinned[i] = 0;
            continue;
        }
        const uint32_t n = PAGE + (uint32_t)rand() % (LEN - PAGE + 1);
        for (uint32_t k = 0; k < n; k++) texts[i][k] = rand() % 8 == 0;
        n_pinned[i] = publish(&t, salt_a, texts[i], n, paths[i]);
        for (int j = 0; j < TEXTS; j++) // whoever pins, finds
            if (n_pinned[j] > 0)
                assert_int_equal(match(&t, salt_a, texts[j], n_pinned[j] * PAGE), n_pinned[j]);
        // Two pinned texts share exactly the pages of their common prefix.
        const int j = rand() % TEXTS;
        for (uint32_t k = 0; j != i && k < n_pinned[i] && k < n_pinned[j]; k++) {
            const bool same = memcmp(texts[i], texts[j], (k + 1) * PAGE * sizeof(int32_t)) == 0;
            assert_true(same == (paths[i][k] == paths[j][k]));
        }
    }
    for (int i = 0; i < TEXTS; i++) unpin(&t, paths[i], n_pinned[i]);
    assert_int_equal(t.n_idle, t.n_nodes);
    assert_true(t.n_evicted > 100);
    tree_deinit(&t);
    assert_int_equal(pool.n_free, POOL);
    kv_deinit(&pool);
}

// A binary trie of a million pages: page i of text k depends on k's first i + 1 bits, so what two texts
// share follows from their numbers.
enum { BITS = 19, MILLION = (1 << (BITS + 1)) - 2 };

static void make_text(uint32_t k, int32_t *ids)
{
    for (uint32_t i = 0; i < BITS; i++)
        for (uint32_t j = 0; j < PAGE; j++)
            ids[i * PAGE + j] = (int32_t)((k >> (BITS - 1 - i)) * 31 + i * 7 + j);
}

static void a_million_pages_are_told_apart(void **state)
{
    (void)state;
    struct kv_pool pool;
    struct tree t;
    int32_t ids[BITS * PAGE];
    uint32_t path[BITS];
    struct err e = {0};
    assert_true(kv_init(&pool, MILLION + BITS, PAGE, &e));
    assert_true(tree_init(&t, &pool, &e));
    for (uint32_t k = 0; k < 1u << BITS; k++) {
        make_text(k, ids);
        assert_int_equal(publish(&t, salt_a, ids, BITS * PAGE, path), BITS);
        unpin(&t, path, BITS);
    }
    assert_int_equal(t.n_nodes, MILLION);
    srand(3);
    for (int step = 0; step < 20000; step++) {
        const uint32_t k = (uint32_t)rand() & ((1u << BITS) - 1), i = (uint32_t)rand() % BITS;
        make_text(k, ids);
        assert_int_equal(match(&t, salt_a, ids, BITS * PAGE), BITS);
        assert_int_equal(match(&t, salt_b, ids, BITS * PAGE), 0);
        ids[i * PAGE + (uint32_t)rand() % PAGE] = -1; // a token that no page has
        assert_int_equal(match(&t, salt_a, ids, BITS * PAGE), i);
    }
    for (int i = 0; i < 1000; i++) assert_true(tree_evict(&t));
    assert_int_equal(t.n_nodes, MILLION - 1000);
    tree_deinit(&t);
    assert_int_equal(pool.n_free, MILLION + BITS);
    kv_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_was_published_and_nothing_else),
        cmocka_unit_test(a_page_that_is_not_full_is_near_and_never_found),
        cmocka_unit_test(evicts_the_oldest_leaf_and_never_a_pinned_page),
        cmocka_unit_test(a_page_that_left_is_known_by_its_generation),
        cmocka_unit_test(a_colliding_key_is_no_hit),
        cmocka_unit_test(random_texts_agree_with_a_list),
        cmocka_unit_test(a_million_pages_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
