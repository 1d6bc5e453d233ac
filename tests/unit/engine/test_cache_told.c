// What routers are told of the disk: a picture is kept from the events alone and compared with what the test put into
// a real store and took from it. Hashes are those that the tree would give the same text.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/cache_told.h"
#include "engine/tier.h"

enum { CAP = 1 << 20, PAGE = 4, DATA = 64, RECORD = 256, PAGES_MAX = 64, WAIT_MS = 5000 };

static char dir[64];
static struct store *store;
static struct tier tier;
static struct cache_told *told;

// ---- the picture --------------------------------------------------------------------------------

struct seen {
    uint64_t hash, parent;
    int32_t tokens[PAGE];
    char salt[16];
};
static struct seen seen[PAGES_MAX];
static uint32_t n_seen, n_orphans, n_events;

static struct seen *find_seen(uint64_t hash)
{
    for (uint32_t i = 0; i < n_seen; i++)
        if (seen[i].hash == hash) return &seen[i];
    return NULL;
}

static void on_event(void *arg, const struct cache_event *ev)
{
    (void)arg;
    struct seen *s = find_seen(ev->hash);
    n_events++;
    assert_int_equal(ev->tier, CACHE_DISK);
    if (ev->removed) {
        assert_non_null(s);
        *s = seen[--n_seen];
        return;
    }
    assert_null(s); // nothing is told twice
    assert_int_equal(ev->n_tokens, PAGE);
    assert_true(n_seen < PAGES_MAX);
    if (ev->parent != 0 && find_seen(ev->parent) == NULL) n_orphans++;
    s = &seen[n_seen++];
    *s = (struct seen){.hash = ev->hash, .parent = ev->parent};
    memcpy(s->tokens, ev->tokens, sizeof s->tokens);
    snprintf(s->salt, sizeof s->salt, "%.*s", (int)ev->salt.n, ev->salt.p);
}

static void turns(void)
{
    while (cache_told_turn(told, 2, on_event, NULL)) {
    }
}

// Until so many pages are known: lists are some time apart.
static void wait_for(uint32_t n)
{
    const uint64_t start = clock_ns();
    turns();
    while (n_seen != n && clock_ms_since(start) < WAIT_MS) {
        usleep(10000);
        turns();
    }
    assert_int_equal(n_seen, n);
    assert_int_equal(n_orphans, 0);
}

// ---- pages --------------------------------------------------------------------------------------

struct page {
    struct hash128 chain, parent, salt;
    uint64_t key;
    uint32_t depth;
    int32_t tokens[PAGE];
};

static struct hash128 salt_of(const char *text)
{
    return hash128(text, strlen(text), 0);
}

// The page behind another one (NULL: a text's first), whose tokens begin with this one.
static struct page page_after(const struct page *before, const char *salt, int32_t token)
{
    struct page p = {.salt = salt_of(salt), .tokens = {token, 1, 2, 3}};
    uint64_t key = tree_root_key(p.salt);
    if (before != NULL) {
        p.parent = before->chain;
        p.depth = before->depth + 1;
        key = before->salt.lo == p.salt.lo ? before->key : tree_salted_key(before->key, p.salt);
    }
    p.chain = tier_chain(&tier, p.parent, p.salt, p.tokens);
    p.key = tree_next_key(key, p.tokens, PAGE);
    return p;
}

static void save(const struct page *p)
{
    static _Alignas(16) unsigned char record[RECORD];
    struct err e = {0};
    memset(record, 0, sizeof record);
    *(struct store_header *)(void *)record = (struct store_header){
        .key = p->chain, .parent = p->parent, .salt = p->salt, .depth = p->depth};
    memcpy(store_ids(record), p->tokens, sizeof p->tokens);
    if (!store_put(store, record, 1, &e)) fail_msg("%s", e.msg);
}

static void drop(const struct page *p)
{
    struct store_entry where;
    assert_true(store_forget(store, p->chain, &where));
    store_erase(store, &where);
}

static const struct seen *know(const struct page *p)
{
    const struct seen *s = find_seen(p->key & INT64_MAX);
    if (s == NULL) fail_msg("a page of depth %u is not known", p->depth);
    assert_memory_equal(s->tokens, p->tokens, sizeof p->tokens);
    return s;
}

// ---- each test ----------------------------------------------------------------------------------

static void open_all(uint64_t cap_bytes)
{
    struct err e = {0};
    const struct store_settings s = {
        .dir = dir,
        .cap_bytes = cap_bytes,
        .shape = {.family = {1, 2}, .n_ids = PAGE, .data_bytes = DATA}};
    if (!store_open(&store, &s, NULL, &e)) fail_msg("%s", e.msg);
    tier = (struct tier){.page_tokens = PAGE, .cfg.disk = true, .open = store};
    pthread_mutex_init(&tier.lock, NULL);
    if (!cache_told_open(&told, &tier, &e)) fail_msg("%s", e.msg);
    n_seen = n_orphans = n_events = 0;
}

static void close_all(void)
{
    cache_told_close(told);
    pthread_mutex_destroy(&tier.lock);
    store_close(store);
}

static int set_up(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR);
    strcpy(dir, "/tmp/submind-told-XXXXXX");
    if (mkdtemp(dir) == NULL) return -1;
    open_all(CAP);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    close_all();
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void a_restart_tells_what_is_there_parents_first(void **state)
{
    (void)state;
    const struct page a = page_after(NULL, "", 10), b = page_after(&a, "", 11),
                      c = page_after(&b, "", 12), d = page_after(&a, "", 13);
    save(&c); // children before parents
    save(&d);
    save(&b);
    save(&a);
    close_all();
    open_all(CAP);
    wait_for(4);
    assert_int_equal(know(&a)->parent, 0);
    assert_int_equal(know(&b)->parent, a.key & INT64_MAX);
    assert_int_equal(know(&c)->parent, b.key & INT64_MAX);
    assert_int_equal(know(&d)->parent, a.key & INT64_MAX);
    n_seen = n_events = 0;
    cache_told_again(told, on_event, NULL);
    assert_int_equal(n_seen, 4);
    n_seen = 0;
    cache_told_forget(told);
    wait_for(4);
    turns();
    assert_int_equal(n_events, 8); // and nothing more
}

static void nothing_is_told_before_the_index_is_there(void **state)
{
    (void)state;
    const struct page a = page_after(NULL, "", 10);
    save(&a);
    tier.open = NULL;
    assert_false(cache_told_turn(told, 2, on_event, NULL));
    assert_int_equal(n_events, 0);
    tier.open = store;
    wait_for(1);
}

static void what_comes_and_goes_is_told(void **state)
{
    (void)state;
    const struct page a = page_after(NULL, "", 10), b = page_after(&a, "", 11),
                      c = page_after(&b, "", 12), other = page_after(NULL, "", 20);
    save(&b);
    save(&c);
    save(&other);
    wait_for(1); // the path of two does not begin
    save(&a);
    wait_for(4);
    drop(&b); // and c's path with it
    wait_for(2);
    know(&a);
    know(&other);
    save(&b);
    wait_for(4);
    know(&c);
}

// A record whose header is right, but not its tokens.
static void spoil_tokens(const struct page *p)
{
    struct store_entry found[8];
    size_t next = 0;
    const size_t n = store_list(store, &next, found, NULL, 8);
    for (size_t i = 0; i < n; i++) {
        if (found[i].key.lo != p->chain.lo) continue;
        char path[256];
        snprintf(path, sizeof path, "%s/%016x%016x/seg-%08x", dir, 2, 1, found[i].i_segment);
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        fseek(f, (long)(found[i].slot * RECORD + sizeof(struct store_header)), SEEK_SET);
        fputc(99, f);
        fclose(f);
        return;
    }
    fail_msg("not in the store");
}

static void what_is_not_as_its_key_says_is_not_told(void **state)
{
    (void)state;
    const struct page a = page_after(NULL, "", 10), b = page_after(&a, "", 11),
                      c = page_after(&b, "", 12);
    struct page part = page_after(&a, "", 15), liar = page_after(&a, "", 14);
    part.tokens[PAGE - 1] = TREE_NO_TOKEN;
    part.chain = tier_chain(&tier, part.parent, part.salt, part.tokens);
    liar.depth = 0; // with a parent
    save(&a);
    save(&b);
    save(&c);
    save(&part);
    save(&liar);
    spoil_tokens(&b);
    wait_for(1);
    know(&a);
    save(&b); // computed again
    wait_for(3);
    know(&c);
}

// A record that turns out to be bad when it is read whole.
static void what_fails_later_is_taken_back(void **state)
{
    (void)state;
    static _Alignas(16) unsigned char record[RECORD];
    const struct page a = page_after(NULL, "", 10), b = page_after(&a, "", 11);
    save(&a);
    save(&b);
    wait_for(2);
    spoil_tokens(&a);
    assert_int_equal(store_get(store, a.chain, a.parent, a.tokens, record), STORE_BAD);
    wait_for(0);
}

// What makes room leaves with what went on from it: what is left begins at the root, without a gap.
static void what_made_room_is_taken_back(void **state)
{
    (void)state;
    enum { LONG = 30 };
    struct page pages[LONG];
    close_all();
    open_all(16 * RECORD);
    for (int i = 0; i < LONG; i++) {
        pages[i] = page_after(i == 0 ? NULL : &pages[i - 1], "", i);
        save(&pages[i]);
        if (i == 10) wait_for(11);
    }
    uint32_t n = 0;
    while (n < LONG && store_has(store, pages[n].chain)) n++;
    assert_true(n < LONG);
    wait_for(n);
    for (uint32_t i = 0; i < n; i++) know(&pages[i]);
}

// Under a salt nothing is told until its name is known; it stands with the first page under it.
static void a_salt_is_told_by_its_name(void **state)
{
    (void)state;
    const struct page a = page_after(NULL, "", 10), b = page_after(&a, "tenant", 11),
                      c = page_after(&b, "tenant", 12), d = page_after(NULL, "other", 10);
    save(&a);
    save(&b);
    save(&c);
    save(&d);
    wait_for(1);
    cache_told_name(told, STR("tenant"));
    wait_for(3);
    assert_string_equal(know(&a)->salt, "");
    assert_string_equal(know(&b)->salt, "tenant");
    assert_string_equal(know(&c)->salt, "");
    assert_null(find_seen(d.key & INT64_MAX));
}

static void without_a_disk_there_is_nothing(void **state)
{
    (void)state;
    struct err e = {0};
    struct cache_told *none = told;
    tier.cfg.disk = false;
    assert_true(cache_told_open(&none, &tier, &e) && none == NULL);
    assert_true(cache_told_open(&none, NULL, &e) && none == NULL);
    assert_false(cache_told_turn(NULL, 2, on_event, NULL));
    cache_told_again(NULL, on_event, NULL);
    cache_told_forget(NULL);
    cache_told_name(NULL, STR("x"));
    cache_told_close(NULL);
    assert_int_equal(n_events, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_restart_tells_what_is_there_parents_first),
        TEST(nothing_is_told_before_the_index_is_there),
        TEST(what_comes_and_goes_is_told),
        TEST(what_is_not_as_its_key_says_is_not_told),
        TEST(what_fails_later_is_taken_back),
        TEST(what_made_room_is_taken_back),
        TEST(a_salt_is_told_by_its_name),
        TEST(without_a_disk_there_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
