// What people and routes ask of the prefix tree: each question is a function that runs on the engine
// thread between two steps (loop_call), over a struct on the asker's stack.
#include "engine/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/cache_below.h"
#include "engine/cache_told.h"
#include "engine/seq.h"

enum { OTHER_TOKENS_MAX = 32768 }; // of the other side: enough to see that two tools changed places

const char *engine_cache_reason(enum cache_reason r)
{
    static const char *const names[CACHE_REASONS] = {
        [CACHE_NOT_LOOKED] = "not looked up", [CACHE_WHOLE] = "whole", [CACHE_ENDS] = "ends",
        [CACHE_DIFFERS] = "differs",          [CACHE_COLD] = "cold",   [CACHE_EVICTED] = "evicted",
    };
    return names[r];
}

// ---- the list -----------------------------------------------------------------------------------

struct list_ask {
    struct trunk_list trunks;
    struct page_list pages;
    uint64_t page_bytes;
    bool failed;
};

static const char *hold_name(const struct tree *t, uint32_t page)
{
    for (uint32_t i = 0; i < TREE_HOLDS_MAX; i++)
        if (t->holds[i].page == page) return t->holds[i].name;
    return NULL;
}

static bool is_public(struct hash128 salt)
{
    const struct hash128 none = seq_public_salt();
    return salt.lo == none.lo && salt.hi == none.hi;
}

// The last page of the run that starts at first: no branch, no end of a pin, no other salt.
static uint32_t run_end(const struct tree *t, uint32_t first)
{
    uint32_t page = first;
    for (;;) {
        const struct tree_node *n = &t->nodes[page];
        const uint32_t child = n->first_child;
        if (n->n_children != 1 || t->nodes[child].n_holds != n->n_holds ||
            t->nodes[child].salt.lo != n->salt.lo)
            return page;
        page = child;
    }
}

// The run's pages, for what goes on from them below the device.
static void note_pages(struct list_ask *a, const struct tier *tier, const struct tree *t,
                       uint32_t first, uint32_t last)
{
    for (uint32_t page = last; tier != NULL; page = t->nodes[page].parent) {
        struct page_at *at = tier->marks[page].known ? page_list_add(&a->pages) : NULL;
        if (at != NULL) {
            at->tier = CACHE_DEVICE;
            at->chain = tier->marks[page].chain;
            at->depth = t->nodes[page].depth;
            at->trunk = (uint32_t)a->trunks.n - 1;
        }
        if (page == first) return;
    }
}

static bool put_trunk(struct list_ask *a, const struct tree *t, uint32_t first, uint32_t last,
                      uint32_t parent)
{
    struct cache_trunk *c = trunk_list_add(&a->trunks);
    if (c == NULL) return false;
    const struct tree_node *n = &t->nodes[last];
    const uint32_t page_tokens = t->pool->page_tokens;
    const uint32_t n_first = tree_n_tokens(t, first);
    const char *name = hold_name(t, last);
    *c = (struct cache_trunk){
        .id = n->key,
        .parent = parent,
        .n_before = t->nodes[first].depth * page_tokens,
        .n_tokens = (n->depth - t->nodes[first].depth) * page_tokens + tree_n_tokens(t, last),
        .bytes = (n->depth - t->nodes[first].depth + 1) * a->page_bytes,
        .hits = t->nodes[first].hits,
        .idle_s = t->now_s - t->nodes[first].used_s,
        .in_use = t->pool->refs[last] > 1u + n->n_holds,
        .pinned = n->n_holds > 0,
        .public = n->public,
        .salt = is_public(n->salt) ? 0 : n->salt.lo | 1,
        .n_head = n_first < CACHE_HEAD_TOKENS ? n_first : CACHE_HEAD_TOKENS,
    };
    snprintf(c->name, sizeof c->name, "%s", name != NULL ? name : "");
    memcpy(c->head, tree_tokens(t, first), c->n_head * sizeof *c->head);
    return true;
}

// Depth first without recursion: `from` is the trunk whose children come next.
static void list_all(struct loop *l, void *arg)
{
    const struct tree *t = &l->tree;
    struct list_ask *a = arg;
    uint32_t first = t->first_root, parent = UINT32_MAX;
    while (first != KV_NONE) {
        const uint32_t last = run_end(t, first);
        if (!put_trunk(a, t, first, last, parent)) {
            a->failed = true;
            return;
        }
        note_pages(a, l->tier, t, first, last);
        if (t->nodes[last].first_child != KV_NONE) {
            parent = (uint32_t)a->trunks.n - 1;
            first = t->nodes[last].first_child;
            continue;
        }
        uint32_t at = first;
        while (at != KV_NONE && t->nodes[at].older == KV_NONE) {
            at = t->nodes[at].parent; // the parent trunk's last page; climb to its first
            if (at == KV_NONE) break;
            const uint32_t before = a->trunks.items[parent].n_before / t->pool->page_tokens;
            while (t->nodes[at].depth > before) at = t->nodes[at].parent;
            parent = a->trunks.items[parent].parent;
        }
        first = at == KV_NONE ? KV_NONE : t->nodes[at].older;
    }
    page_list_add_ram(&a->pages, l->tier);
}

static void list_free(struct list_ask *a)
{
    free(a->trunks.items);
    page_list_free(&a->pages);
}

// All trunks of all tiers, and the pages with the trunks that they belong to.
static bool list_tiers(struct engine *en, struct list_ask *a, struct err *e)
{
    const struct engine_info *info = engine_info(en);
    *a = (struct list_ask){.page_bytes = info->n_pages > 0 ? info->kv_bytes / info->n_pages : 0};
    if (!engine_call(en, list_all, a, e)) return false;
    struct tier *tier = engine_tier(en);
    page_list_complete(&a->pages, tier);
    if (!a->failed && !a->pages.failed && page_list_to_trunks(&a->pages, tier, &a->trunks))
        return true;
    err_set(e, ERR_MEMORY, "no memory for a list of %zu trunks", a->trunks.n);
    list_free(a);
    return false;
}

bool engine_cache_list(struct engine *en, struct cache_trunk **out, size_t *n, struct err *e)
{
    struct list_ask a;
    if (!list_tiers(en, &a, e)) return false;
    struct cache_trunk *items = a.trunks.items;
    for (size_t i = a.trunks.n; i-- > 0;)
        if (items[i].parent != UINT32_MAX)
            items[items[i].parent].n_below += items[i].n_below + items[i].n_tokens;
    *out = items;
    *n = a.trunks.n;
    page_list_free(&a.pages);
    return true;
}

// ---- one prompt ---------------------------------------------------------------------------------

struct probe_ask {
    struct seq *seq; // never admitted: only looks
    struct cache_probe *out;
    struct hash128 alike; // a page on disk that begins as the text goes on
    bool failed, has_alike;
};

// The cached text from page on, by the child that was used last.
static void copy_other(struct probe_ask *a, const struct tree *t, uint32_t page)
{
    struct cache_probe *p = a->out;
    const uint32_t page_tokens = t->pool->page_tokens;
    p->other = malloc(OTHER_TOKENS_MAX * sizeof *p->other);
    a->failed = p->other == NULL;
    while (!a->failed && page != KV_NONE && p->n_other + page_tokens <= OTHER_TOKENS_MAX) {
        memcpy(p->other + p->n_other, tree_tokens(t, page), page_tokens * sizeof *p->other);
        p->n_other += tree_n_tokens(t, page);
        uint32_t best = t->nodes[page].first_child;
        for (uint32_t c = best; c != KV_NONE; c = t->nodes[c].older)
            if (t->nodes[c].used > t->nodes[best].used) best = c;
        page = best;
    }
}

// Where the lower tiers go on, what stands beside is not known: their pages are not read for this.
static void probe_below(const struct loop *l, struct seq *s, struct cache_probe *p)
{
    uint32_t n_ram, n_disk;
    tier_probe(l->tier, s, s->n_match, s->match_page, &n_ram, &n_disk);
    if (n_ram + n_disk == 0) return;
    const uint32_t n = s->n_match + n_ram + n_disk;
    p->n_ram = n_ram * s->page_tokens;
    p->n_disk = n_disk * s->page_tokens;
    p->n_hit = p->diverged_at = p->other_from = n * s->page_tokens;
    p->reason = n == seq_sharable(s) ? CACHE_WHOLE : CACHE_ENDS;
}

static void probe(struct loop *l, void *arg)
{
    struct probe_ask *a = arg;
    struct seq *s = a->seq;
    seq_match(s, &l->tree);
    const uint32_t nearest = seq_diagnose(s, &l->tree, s->n_match, s->match_page);
    const uint32_t n_whole = s->n_match * s->page_tokens;
    *a->out = (struct cache_probe){
        .n_hit = n_whole + seq_copyable(s, n_whole, s->report.diverged_at - n_whole),
        .other_from = n_whole,
        .n_public = s->n_public * s->page_tokens,
        .diverged_at = s->report.diverged_at,
        .reason = s->report.reason,
        .prefill_tps = stats_speed(&l->stats).prefill_tps,
    };
    probe_below(l, s, a->out);
    a->has_alike = tier_probe_alike(l->tier, s, s->n_match, s->match_page, &a->alike);
    if (nearest != KV_NONE && a->out->n_ram + a->out->n_disk == 0) copy_other(a, &l->tree, nearest);
}

// Where a page on disk goes on: as far as its tokens, which are read for this.
static bool probe_alike(struct engine *en, const struct probe_ask *a, struct err *e)
{
    struct cache_probe *p = a->out;
    const struct seq *s = a->seq;
    const uint32_t n_whole = p->other_from, page_tokens = s->page_tokens;
    int32_t *ids = malloc(page_tokens * sizeof *ids);
    if (ids == NULL) return err_set(e, ERR_MEMORY, "no memory for a page's tokens");
    uint32_t n = 0;
    if (page_peek(engine_tier(en), a->alike, ids))
        while (n < page_tokens && n_whole + n < s->n_tokens && ids[n] == s->tokens[n_whole + n])
            n++;
    n = seq_copyable(s, n_whole, n);
    if (n_whole + n > p->n_hit) {
        p->n_disk += n_whole + n - p->n_hit;
        p->n_hit = n_whole + n;
        if (p->diverged_at < p->n_hit) p->diverged_at = p->n_hit;
    }
    free(ids);
    return true;
}

bool engine_cache_probe(struct engine *en, const int32_t *ids, size_t n_ids, struct str salt,
                        struct cache_probe *out, struct err *e)
{
    const struct job job = {.ids = ids, .n_ids = n_ids, .cache_salt = salt, .max_tokens = 1};
    struct probe_ask a = {.out = out};
    *out = (struct cache_probe){0};
    if (!engine_seq(en, &job, &a.seq, e)) return false;
    bool ok = engine_call(en, probe, &a, e);
    if (ok && a.failed) ok = err_set(e, ERR_MEMORY, "no memory for the cached text");
    if (ok && a.has_alike) ok = probe_alike(en, &a, e);
    seq_close(a.seq);
    if (!ok) cache_probe_free(out);
    return ok;
}

void cache_probe_free(struct cache_probe *p)
{
    free(p->other);
    *p = (struct cache_probe){0};
}

// ---- pins ---------------------------------------------------------------------------------------

struct page_ask {
    struct seq *seq; // a text, or NULL:
    uint64_t id;     // a page's; 0 = all (drop)
    bool public;
    const char *name;
    uint32_t n_tokens;
    struct err error;
};

static uint32_t page_of(const struct loop *l, const struct page_ask *a)
{
    const struct tree *t = &l->tree;
    uint32_t page = t->buckets[a->id & (t->n_buckets - 1)];
    while (page != KV_NONE && t->nodes[page].key != a->id) page = t->nodes[page].next;
    return page;
}

static uint32_t find_page(struct loop *l, struct page_ask *a)
{
    uint32_t page = KV_NONE;
    if (a->seq != NULL) {
        seq_match(a->seq, &l->tree);
        page = a->seq->match_page;
        if (page == KV_NONE && a->seq->n_tokens <= a->seq->page_tokens)
            err_set(&a->error, ERR_INPUT,
                    "a prompt of %u tokens cannot be pinned: it fills no page of %u tokens",
                    a->seq->n_tokens, a->seq->page_tokens);
        else if (page == KV_NONE)
            err_set(&a->error, ERR_NOT_FOUND, "nothing of this prompt is cached; warm it first");
        return page;
    }
    page = page_of(l, a);
    if (page == KV_NONE)
        err_set(&a->error, ERR_NOT_FOUND,
                "no trunk on the device has the id %016llx; `submind cache ls` shows them (what is "
                "in a lower tier is pinned by warming it: submind cache warm --pin)",
                (unsigned long long)a->id);
    return page;
}

// Would a request of full length still have room beside all that is held?
static bool has_room(struct loop *l, struct page_ask *a, uint32_t page)
{
    uint32_t more = 0;
    for (uint32_t p = page; p != KV_NONE; p = l->tree.nodes[p].parent)
        more += l->tree.nodes[p].n_holds == 0;
    const uint32_t held = l->tree.n_held + more;
    const uint32_t need = kv_pages_for(&l->pool, l->cfg.n_ctx) + 1;
    if (more == 0 || held + need <= l->pool.n_pages) return true;
    return err_set(&a->error, ERR_MEMORY,
                   "with %u more tokens pinned, %u tokens would be left for requests, but one may "
                   "have %u; raise --kv-memory, or unpin something",
                   more * l->pool.page_tokens,
                   held < l->pool.n_pages ? (l->pool.n_pages - held) * l->pool.page_tokens : 0,
                   l->cfg.n_ctx);
}

// From the text's beginning to the page's end.
static uint32_t tokens_to(const struct loop *l, uint32_t page)
{
    return l->tree.nodes[page].depth * l->pool.page_tokens + tree_n_tokens(&l->tree, page);
}

// The page behind the text's whole ones that holds the rest of it; page itself where there is none. Salts share whole pages
// only, so for a public trunk it is none.
static uint32_t last_of_text(const struct loop *l, const struct page_ask *a, uint32_t page)
{
    uint32_t n_same;
    const struct seq *s = a->seq;
    if (s == NULL || a->public) return page;
    const uint32_t left = s->n_tokens - s->n_match * s->page_tokens;
    const struct tree_ref ref = seq_page_ref(s, s->n_match, page);
    const uint32_t last = tree_nearest(&l->tree, &ref, left, &n_same);
    return last == KV_NONE || n_same < left ? page : last;
}

static void pin(struct loop *l, void *arg)
{
    struct page_ask *a = arg;
    uint32_t page = find_page(l, a);
    if (page != KV_NONE) page = last_of_text(l, a, page);
    if (page == KV_NONE || !has_room(l, a, page)) return;
    a->id = l->tree.nodes[page].key;
    a->n_tokens = tokens_to(l, page);
    if (a->public && !is_public(l->tree.nodes[page].salt))
        err_set(&a->error, ERR_INPUT,
                "a trunk under a cache_salt cannot be public; warm it without");
    else if (!tree_hold(&l->tree, page, a->public, a->name))
        err_set(&a->error, ERR_FULL, "%d trunks are pinned already; unpin one", TREE_HOLDS_MAX);
}

static void unpin(struct loop *l, void *arg)
{
    struct page_ask *a = arg;
    const uint32_t page = find_page(l, a);
    if (page == KV_NONE) return;
    a->n_tokens = tokens_to(l, page);
    if (!tree_release(&l->tree, page))
        err_set(&a->error, ERR_NOT_FOUND, "the trunk %016llx is not pinned",
                (unsigned long long)a->id);
}

// The whole run that ends with the id goes, as `ls` shows it, and what is below.
static uint32_t run_start(const struct tree *t, uint32_t page)
{
    for (;;) {
        const uint32_t parent = t->nodes[page].parent;
        if (parent == KV_NONE || run_end(t, parent) == parent) return page;
        page = parent;
    }
}

static void drop(struct loop *l, void *arg)
{
    struct page_ask *a = arg;
    struct tree *t = &l->tree;
    uint32_t n = 0;
    if (a->id != 0) {
        const uint32_t page = find_page(l, a);
        if (page == KV_NONE) return;
        const bool held = t->nodes[page].n_holds > 0;
        n = tree_drop(t, run_start(t, page));
        if (n == 0)
            err_set(&a->error, ERR_INPUT, "nothing of the trunk %016llx can be dropped: it is %s",
                    (unsigned long long)a->id,
                    held ? "pinned (submind cache unpin)" : "used by a request that runs");
    } else {
        for (uint32_t page = t->first_root, older; page != KV_NONE; page = older) {
            older = t->nodes[page].older;
            n += tree_drop(t, page);
        }
    }
    a->n_tokens = n;
}

static bool ask(struct engine *en, void (*run)(struct loop *, void *), struct page_ask *a,
                uint32_t *n_tokens, struct err *e)
{
    if (!engine_call(en, run, a, e)) return false;
    if (a->error.code != ERR_NONE) return err_set(e, a->error.code, "%s", a->error.msg);
    *n_tokens = a->n_tokens;
    return true;
}

bool engine_cache_pin_text(struct engine *en, const int32_t *ids, size_t n_ids, bool public,
                           const char *name, uint64_t *id, uint32_t *n_tokens, struct err *e)
{
    const struct job job = {.ids = ids, .n_ids = n_ids, .max_tokens = 1};
    struct page_ask a = {.public = public, .name = name};
    if (!engine_seq(en, &job, &a.seq, e)) return false;
    const bool ok = ask(en, pin, &a, n_tokens, e);
    seq_close(a.seq);
    if (ok) *id = a.id;
    return ok;
}

bool engine_cache_pin(struct engine *en, uint64_t id, bool public, const char *name,
                      uint32_t *n_tokens, struct err *e)
{
    return ask(en, pin, &(struct page_ask){.id = id, .public = public, .name = name}, n_tokens, e);
}

bool engine_cache_unpin(struct engine *en, uint64_t id, uint32_t *n_tokens, struct err *e)
{
    return ask(en, unpin, &(struct page_ask){.id = id}, n_tokens, e);
}

struct forget_ask {
    const struct page_list *pages;
    const bool *doomed; // [trunks]; NULL: all
    uint32_t n_tokens;
};

static void forget(struct loop *l, void *arg)
{
    struct forget_ask *a = arg;
    for (size_t i = 0; i < a->pages->n; i++) {
        const struct page_at *p = &a->pages->at[i];
        if (p->tier == CACHE_DEVICE || !(a->doomed == NULL || a->doomed[p->trunk])) continue;
        tier_drop(l->tier, p->chain);
        a->n_tokens += p->n_tokens;
    }
}

// Below the device: the trunk, and what goes on from it. *found: it is one of those.
static bool drop_below(struct engine *en, const struct list_ask *a, uint64_t id, bool *found,
                       uint32_t *n_tokens, struct err *e)
{
    const struct trunk_list *t = &a->trunks;
    bool *doomed = calloc(t->n + 1, sizeof *doomed);
    if (doomed == NULL) return err_set(e, ERR_MEMORY, "no memory to drop a trunk");
    *found = false;
    for (size_t i = 0; i < t->n; i++) {
        const bool is_it = t->items[i].id == id;
        doomed[i] =
            id == 0 || is_it || (t->items[i].parent != UINT32_MAX && doomed[t->items[i].parent]);
        if (is_it && t->items[i].tier != CACHE_DEVICE) *found = true;
    }
    struct forget_ask f = {.pages = &a->pages, .doomed = doomed};
    const bool ok = engine_call(en, forget, &f, e);
    free(doomed);
    *n_tokens = f.n_tokens;
    return ok;
}

bool engine_cache_drop(struct engine *en, uint64_t id, uint32_t *n_tokens, struct err *e)
{
    struct list_ask a;
    struct err why = {0};
    uint32_t n = 0, n_below = 0;
    bool found = false;
    if (!list_tiers(en, &a, e)) return false;
    const bool on_device = ask(en, drop, &(struct page_ask){.id = id}, &n, &why);
    bool ok = on_device || why.code == ERR_NOT_FOUND || err_set(e, why.code, "%s", why.msg);
    ok = ok && drop_below(en, &a, id, &found, &n_below, e);
    list_free(&a);
    if (ok && !on_device && !found)
        ok = err_set(e, ERR_NOT_FOUND, "no trunk has the id %016llx; `submind cache ls` shows them",
                     (unsigned long long)id);
    if (ok) *n_tokens = n + n_below;
    return ok;
}

// ---- events -------------------------------------------------------------------------------------

struct listen_ask {
    cache_listener *listener;
    void *arg;
    bool stay;
};

// Does a router know the salts of the whole path? What it cannot ask for is not told.
static bool is_tellable(const struct tree *t, uint32_t page)
{
    const struct tree_node *n = &t->nodes[page];
    return is_public(n->salt) || t->spaces[n->space].text[0] != '\0';
}

static void tell(const struct tree *t, uint32_t page, bool removed, cache_listener *listener,
                 void *arg)
{
    const struct tree_node *n = &t->nodes[page];
    if (n->part || !is_tellable(t, page)) return; // routers count in whole pages
    const bool first = n->parent == KV_NONE || t->nodes[n->parent].space != n->space;
    const struct cache_event event = {
        .removed = removed,
        .hash = cache_event_hash(n->key),
        .parent = n->parent == KV_NONE ? 0 : cache_event_hash(t->nodes[n->parent].key),
        .tokens = removed ? NULL : tree_tokens(t, page),
        .n_tokens = removed ? 0 : t->pool->page_tokens,
        .salt = first && !is_public(n->salt) ? str_from(t->spaces[n->space].text) : STR(""),
    };
    listener(arg, &event);
}

static void on_stored(void *arg, uint32_t page)
{
    const struct loop *l = arg;
    tell(&l->tree, page, false, l->listener, l->listener_arg);
}

static void on_removed(void *arg, uint32_t page, enum evict_reason reason)
{
    const struct loop *l = arg;
    (void)reason;
    tell(&l->tree, page, true, l->listener, l->listener_arg);
}

static void tell_all(const struct tree *t, cache_listener *listener, void *arg)
{
    for (uint32_t p = tree_next_page(t, KV_NONE); p != KV_NONE; p = tree_next_page(t, p))
        tell(t, p, false, listener, arg);
}

static void listen_to(struct loop *l, void *arg)
{
    const struct listen_ask *a = arg;
    if (a->listener != NULL) tell_all(&l->tree, a->listener, a->arg);
    if (!a->stay) return;
    l->listener = a->listener;
    l->listener_arg = a->arg;
    l->tree.watch[WATCH_EVENTS] = a->listener == NULL
                                      ? (struct tree_watch){0}
                                      : (struct tree_watch){l, on_stored, on_removed};
}

bool engine_cache_listen(struct engine *en, cache_listener *listener, void *arg, struct err *e)
{
    return engine_call(en, listen_to, &(struct listen_ask){listener, arg, true}, e);
}

bool engine_cache_announce(struct engine *en, cache_listener *listener, void *arg, struct err *e)
{
    return engine_call(en, listen_to, &(struct listen_ask){listener, arg, false}, e);
}

static void get_tier(struct loop *l, void *arg)
{
    struct tier **out = arg;
    *out = l->tier;
}

bool engine_cache_told_open(struct cache_told **out, struct engine *en, struct err *e)
{
    struct tier *t = NULL;
    return engine_call(en, get_tier, &t, e) && cache_told_open(out, t, e);
}
