// The disk's index is listed anew after it has changed, not what happens to it one by one: so a page that another
// process wrote, that made room, was dropped or found bad is told in the same way. Listing asks no disk (16,384 pages:
// 6 to 10 ms); tokens are read from the records of those pages only that are to be told (16,384 pages: 100 ms where the
// system still has in memory what was read for the index).
//
// A record is taken at its own word about its tokens, so its key is computed again from its parent, salt and tokens,
// as tier_warm.c does.
//
// Invariant: who was told of a page was told of all before it on its path, and of none that left since.
#include "engine/cache_told.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/tier.h"

enum {
    BATCH = 64,
    NAMES_MAX = TREE_SPACES_MAX,
    REST_MS = 100,   // between two lists, and ...
    REST_SHARE = 32, // ... as many times as long as the last one took
};
#define NO_PAGE UINT32_MAX

enum told_state {
    PAGE_UNTOLD,
    PAGE_TOLD,
    PAGE_REFUSED, // its record is not what its key says, or not a page for routers
};

struct told_page {
    struct hash128 chain, parent, salt;
    uint64_t key; // in the tree; of those told
    uint32_t depth, i_segment, slot;
    uint32_t before, first_child, sibling; // in pages; before: its parent
    enum told_state state;
    bool shown; // while all are told again
};

struct told_name {
    struct hash128 salt;
    char text[TREE_SALT_BYTES];
};

struct cache_told {
    struct tier *tier;       // borrowed
    struct told_page *pages; // [n] by chain
    size_t n, cap;
    uint32_t first_root, at; // at: the next to be looked at, NO_PAGE = all were
    uint64_t changes;        // of the store, when it was listed
    uint64_t rest_ns;        // until then it is not listed again
    int32_t *ids;            // [page_tokens]
    struct told_name names[NAMES_MAX];
    uint32_t n_names; // that were ever put there: the oldest gives way
};

// ---- the list -----------------------------------------------------------------------------------

// Of one key the older record first.
static int by_chain(const void *pa, const void *pb)
{
    const struct told_page *a = pa, *b = pb;
    const int c = hash128_compare(a->chain, b->chain);
    if (c != 0) return c;
    if (a->i_segment != b->i_segment) return a->i_segment < b->i_segment ? -1 : 1;
    return (a->slot > b->slot) - (a->slot < b->slot);
}

// Among pages[n], by chain.
static uint32_t find(const struct told_page *pages, size_t n, struct hash128 chain)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        const int c = hash128_compare(pages[mid].chain, chain);
        if (c == 0) return (uint32_t)mid;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NO_PAGE;
}

static bool add(struct cache_told *c, const struct told_page *page)
{
    if (c->n == c->cap) {
        const size_t cap = c->cap == 0 ? 1024 : 2 * c->cap;
        struct told_page *p = cap > UINT32_MAX / 2 ? NULL : realloc(c->pages, cap * sizeof *p);
        if (p == NULL) return false;
        c->pages = p;
        c->cap = cap;
    }
    c->pages[c->n++] = *page;
    return true;
}

static void sort(struct cache_told *c)
{
    size_t n = 0;
    if (c->n > 0) qsort(c->pages, c->n, sizeof *c->pages, by_chain);
    for (size_t i = 0; i < c->n; i++) {
        if (n > 0 && hash128_equal(c->pages[n - 1].chain, c->pages[i].chain))
            n--; // replaced meanwhile
        c->pages[n++] = c->pages[i];
    }
    c->n = n;
}

// Pages that are not full are not for routers, who count in whole ones.
static bool list_store(struct cache_told *c, struct store *store)
{
    struct store_entry found[BATCH];
    size_t next = 0, n;
    while ((n = store_list(store, &next, found, NULL, BATCH)) > 0)
        for (size_t i = 0; i < n; i++) {
            const struct told_page page = {.chain = found[i].key,
                                           .parent = found[i].parent,
                                           .salt = found[i].salt,
                                           .depth = found[i].depth,
                                           .i_segment = found[i].i_segment,
                                           .slot = found[i].slot};
            if (store_marks_missing(found[i].marks) == 0 && !add(c, &page)) return false;
        }
    sort(c);
    return true;
}

// Parents by their chain, children by links. A parent is one page nearer to the root, so that there are no circles.
static void link_all(struct cache_told *c)
{
    c->first_root = NO_PAGE;
    for (uint32_t i = 0; i < c->n; i++) c->pages[i].first_child = NO_PAGE;
    for (uint32_t i = 0; i < c->n; i++) {
        struct told_page *p = &c->pages[i];
        const uint32_t above = p->depth == 0 ? NO_PAGE : find(c->pages, c->n, p->parent);
        const bool fits = above != NO_PAGE && c->pages[above].depth + 1 == p->depth;
        uint32_t *first = fits ? &c->pages[above].first_child : &c->first_root;
        p->before = fits ? above : NO_PAGE;
        p->sibling = *first;
        *first = i;
    }
    c->at = c->first_root;
}

// The page after this one, parents before children.
static uint32_t next_page(const struct cache_told *c, uint32_t i)
{
    if (c->pages[i].first_child != NO_PAGE) return c->pages[i].first_child;
    while (c->pages[i].sibling == NO_PAGE) {
        i = c->pages[i].before;
        if (i == NO_PAGE) return NO_PAGE;
    }
    return c->pages[i].sibling;
}

// ---- telling ------------------------------------------------------------------------------------

static void tell_removed(const struct told_page *p, cache_listener *listener, void *arg)
{
    const struct cache_event event = {
        .removed = true, .tier = CACHE_DISK, .hash = cache_event_hash(p->key), .salt = STR("")};
    listener(arg, &event);
}

static const char *name_of(const struct cache_told *c, struct hash128 salt)
{
    const uint32_t n = c->n_names < NAMES_MAX ? c->n_names : NAMES_MAX;
    if (hash128_equal(salt, seq_public_salt())) return "";
    for (uint32_t i = 0; i < n; i++)
        if (hash128_equal(c->names[i].salt, salt)) return c->names[i].text;
    return NULL;
}

static bool is_right(const struct cache_told *c, const struct told_page *p)
{
    const bool root = hash128_equal(p->parent, (struct hash128){0});
    if (root != (p->depth == 0)) return false;
    for (uint32_t i = 0; i < c->tier->page_tokens; i++)
        if (c->ids[i] < 0) return false;
    return hash128_equal(tier_chain(c->tier, p->parent, p->salt, c->ids), p->chain);
}

static uint64_t key_of(const struct cache_told *c, const struct told_page *p)
{
    uint64_t key = tree_root_key(p->salt);
    if (p->before != NO_PAGE) {
        const struct told_page *before = &c->pages[p->before];
        key = hash128_equal(before->salt, p->salt) ? before->key
                                                   : tree_salted_key(before->key, p->salt);
    }
    return tree_next_key(key, c->ids, c->tier->page_tokens);
}

// Reads it and tells it, with the page before it told. What cannot be read now, or is not there any more, waits for the
// next list.
static enum told_state tell_page(struct cache_told *c, struct store *store, uint32_t i,
                                 cache_listener *listener, void *arg)
{
    struct told_page *p = &c->pages[i];
    const struct told_page *before = p->before == NO_PAGE ? NULL : &c->pages[p->before];
    const char *name = name_of(c, p->salt);
    if (name == NULL) return PAGE_UNTOLD;
    if (!store_peek(store, p->chain, c->ids)) return PAGE_UNTOLD;
    if (!is_right(c, p)) return PAGE_REFUSED;
    p->key = key_of(c, p);
    const struct cache_event event = {
        .tier = CACHE_DISK,
        .hash = cache_event_hash(p->key),
        .parent = before == NULL ? 0 : cache_event_hash(before->key),
        .tokens = c->ids,
        .n_tokens = c->tier->page_tokens,
        .salt = str_from(before != NULL && hash128_equal(before->salt, p->salt) ? "" : name),
    };
    listener(arg, &event);
    return PAGE_TOLD;
}

static bool is_reachable(const struct cache_told *c, const struct told_page *p)
{
    return p->before == NO_PAGE ? p->depth == 0 : c->pages[p->before].state == PAGE_TOLD;
}

// ---- turns --------------------------------------------------------------------------------------

static struct store *store_of(struct tier *t)
{
    pthread_mutex_lock(&t->lock);
    struct store *store = t->open;
    pthread_mutex_unlock(&t->lock);
    return store;
}

// What was known of a page that is still there; a refused one may have been written anew.
static void carry_over(struct told_page *p, const struct told_page *old)
{
    const bool same_record = p->i_segment == old->i_segment && p->slot == old->slot;
    if (old->state == PAGE_REFUSED && !same_record) return;
    p->state = old->state;
    p->key = old->key;
}

// Takes the new list in place of the old one and tells which pages left. A page that the list lacks because the index
// was packed while it was read stays.
static bool take_list(struct cache_told *c, struct cache_told *list, struct store *store,
                      cache_listener *listener, void *arg)
{
    const size_t n_listed = list->n;
    for (size_t i = 0; i < c->n; i++) {
        const struct told_page *old = &c->pages[i];
        const uint32_t at = find(list->pages, n_listed, old->chain);
        if (at != NO_PAGE)
            carry_over(&list->pages[at], old);
        else if (old->state == PAGE_TOLD && store_has(store, old->chain) && !add(list, old))
            return false;
    }
    if (list->n > n_listed) sort(list);
    for (size_t i = 0; i < c->n; i++)
        if (c->pages[i].state == PAGE_TOLD &&
            find(list->pages, list->n, c->pages[i].chain) == NO_PAGE)
            tell_removed(&c->pages[i], listener, arg);
    free(c->pages);
    c->pages = list->pages;
    c->n = list->n;
    c->cap = list->cap;
    link_all(c);
    return true;
}

static void list_again(struct cache_told *c, struct store *store, cache_listener *listener,
                       void *arg)
{
    const uint64_t start = clock_ns(), changes = store_changes(store);
    if (changes == c->changes || start < c->rest_ns) return;
    struct cache_told list = {0};
    if (list_store(&list, store) && take_list(c, &list, store, listener, arg))
        c->changes = changes;
    else
        free(list.pages);
    const uint64_t end = clock_ns();
    c->rest_ns = end + REST_MS * UINT64_C(1000000) + REST_SHARE * (end - start);
}

bool cache_told_turn(struct cache_told *c, size_t most, cache_listener *listener, void *arg)
{
    struct store *store = c == NULL ? NULL : store_of(c->tier);
    if (store == NULL) return false;
    if (c->at == NO_PAGE) list_again(c, store, listener, arg);
    for (size_t n = 0; c->at != NO_PAGE && n < most; c->at = next_page(c, c->at)) {
        struct told_page *p = &c->pages[c->at];
        if (!is_reachable(c, p)) {
            if (p->state == PAGE_TOLD) tell_removed(p, listener, arg), n++;
            if (p->state == PAGE_TOLD) p->state = PAGE_UNTOLD;
        } else if (p->state == PAGE_UNTOLD) {
            p->state = tell_page(c, store, c->at, listener, arg);
            n++;
        }
    }
    return c->at != NO_PAGE;
}

void cache_told_again(struct cache_told *c, cache_listener *listener, void *arg)
{
    struct store *store = c == NULL ? NULL : store_of(c->tier);
    if (store == NULL || c->n == 0) return;
    for (uint32_t i = c->first_root; i != NO_PAGE; i = next_page(c, i)) {
        struct told_page *p = &c->pages[i];
        const bool may = p->before == NO_PAGE || c->pages[p->before].shown;
        p->shown =
            may && p->state == PAGE_TOLD && tell_page(c, store, i, listener, arg) == PAGE_TOLD;
    }
}

void cache_told_forget(struct cache_told *c)
{
    if (c == NULL || c->n == 0) return;
    for (size_t i = 0; i < c->n; i++)
        if (c->pages[i].state == PAGE_TOLD) c->pages[i].state = PAGE_UNTOLD;
    c->at = c->first_root;
}

void cache_told_name(struct cache_told *c, struct str salt)
{
    if (c == NULL || salt.n == 0 || salt.n >= TREE_SALT_BYTES) return;
    struct told_name name = {.salt = hash128(salt.p, salt.n, 0)}; // as seq.c has it
    if (name_of(c, name.salt) != NULL) return;
    memcpy(name.text, salt.p, salt.n);
    c->names[c->n_names % NAMES_MAX] = name;
    c->n_names++;
    if (c->n > 0) c->at = c->first_root;
}

// ---- open and close -----------------------------------------------------------------------------

bool cache_told_open(struct cache_told **out, struct tier *t, struct err *e)
{
    *out = NULL;
    if (t == NULL || !t->cfg.disk) return true;
    struct cache_told *c = calloc(1, sizeof *c);
    if (c != NULL) c->ids = malloc(t->page_tokens * sizeof *c->ids);
    if (c == NULL || c->ids == NULL) {
        free(c);
        return err_set(e, ERR_MEMORY, "no memory for what routers know of the disk");
    }
    c->tier = t;
    c->first_root = c->at = NO_PAGE;
    *out = c;
    return true;
}

void cache_told_close(struct cache_told *c)
{
    if (c == NULL) return;
    free(c->pages);
    free(c->ids);
    free(c);
}
