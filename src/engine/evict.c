// Which cached page goes when one is needed. Only leaves go, and of those the one that is worth least
// per byte (all pages have the same bytes): the time that recomputing it would take, times how often
// it was used, where a use loses half its weight in half_life_s.
//
// Decay is the same for all pages, so their order does not change as time passes: a use at second t
// counts 2^(t / half_life) instead, and nothing ever needs to be decayed. heat is the logarithm of the
// sum of those, so a rank stays the same until the next use and leaves can stand in a heap by it.
//
// Quotas: where a salt has more than its share and is not alone, its own pages go first.
//
// Invariant: a page is queued exactly when it is in the tree, has no child and only the tree owns it.
// Cost: a heap operation, and a look at each salt's lowest leaf, of which there are at most 256.
#include <assert.h>
#include <math.h>

#include "engine/tree.h"

enum { NO_USE = 8 }; // half-lives that a page which nobody needs any more looks older

double tree_rank(const struct tree *t, uint32_t page)
{
    const struct tree_node *n = &t->nodes[page];
    const double before = (double)n->depth * t->pool->page_tokens;
    const double cost = log2(1 + before / t->attend_tokens);
    return n->heat + cost + (n->priority - CACHE_PRIORITY_DEFAULT) / 10.0;
}

void tree_space_init(struct tree *t)
{
    for (uint32_t i = 0; i < TREE_SPACES_MAX; i++)
        t->spaces[i] = (struct tree_space){.leaves = HEAP_NONE, .kept = HEAP_NONE};
    t->n_spaces = 1;
}

uint32_t tree_space(struct tree *t, struct hash128 salt)
{
    uint32_t unused = 0;
    for (uint32_t i = 1; i < t->n_spaces; i++) {
        const struct tree_space *s = &t->spaces[i];
        if (s->n_nodes == 0)
            unused = i;
        else if (s->salt.lo == salt.lo && s->salt.hi == salt.hi)
            return i;
    }
    if (unused == 0 && t->n_spaces < TREE_SPACES_MAX) unused = t->n_spaces++;
    if (unused > 0) t->spaces[unused].salt = salt;
    return unused;
}

// log2(2^a + 2^b)
static double add_logs(double a, double b)
{
    const double high = a > b ? a : b, low = a > b ? b : a;
    return high + log2(1 + exp2(low - high));
}

void tree_use(struct tree *t, uint32_t page, const struct tree_hint *hint)
{
    struct tree_node *n = &t->nodes[page];
    const bool over = hint->has_ttl && hint->ttl_s == 0;
    const double use = t->now_s / t->half_life_s - (over ? NO_USE : 0);
    n->heat = isinf(n->heat) ? use : add_logs(n->heat, use);
    n->used = ++t->clock;
    n->used_s = t->now_s;
    if (hint->priority > n->priority) n->priority = hint->priority;
    if (hint->has_ttl && t->now_s + hint->ttl_s > n->keep_until_s)
        n->keep_until_s = t->now_s + hint->ttl_s;
}

static uint32_t *heap_of(struct tree *t, const struct tree_node *n)
{
    struct tree_space *s = &t->spaces[n->space];
    return n->kept ? &s->kept : &s->leaves;
}

static void enqueue(struct tree *t, uint32_t page)
{
    struct tree_node *n = &t->nodes[page];
    n->kept = n->keep_until_s > t->now_s;
    t->links[page].rank = n->kept ? n->keep_until_s : t->rank(t, page);
    heap_push(t->links, heap_of(t, n), page);
    n->queued = true;
}

static void dequeue(struct tree *t, uint32_t page)
{
    struct tree_node *n = &t->nodes[page];
    heap_remove(t->links, heap_of(t, n), page);
    n->queued = n->kept = false;
}

void tree_queue(struct tree *t, uint32_t page)
{
    const struct tree_node *n = &t->nodes[page];
    const bool wanted = n->in_tree && n->n_children == 0 && t->pool->refs[page] == 1;
    if (wanted == n->queued) return;
    if (wanted)
        enqueue(t, page);
    else
        dequeue(t, page);
}

// Those whose time to live is over become leaves as any other.
static void end_kept(struct tree *t, struct tree_space *s)
{
    while (s->kept != HEAP_NONE && t->links[s->kept].rank <= t->now_s) {
        const uint32_t page = s->kept;
        dequeue(t, page);
        enqueue(t, page);
    }
}

static bool over_quota(const struct tree *t, const struct tree_space *s)
{
    return t->quota_pages > 0 && s->n_nodes > t->quota_pages && s->n_nodes < t->n_nodes;
}

// The lowest leaf of all spaces, or of those above their quota only; KV_NONE.
static uint32_t lowest(const struct tree *t, bool kept, bool over)
{
    uint32_t best = KV_NONE;
    for (uint32_t i = 0; i < t->n_spaces; i++) {
        const struct tree_space *s = &t->spaces[i];
        const uint32_t page = kept ? s->kept : s->leaves;
        if (page == HEAP_NONE || (over && !over_quota(t, s))) continue;
        if (best == KV_NONE || t->links[page].rank < t->links[best].rank) best = page;
    }
    return best;
}

bool tree_evict(struct tree *t)
{
    if (t->n_idle == 0) return false;
    for (uint32_t i = 0; i < t->n_spaces; i++) end_kept(t, &t->spaces[i]);
    enum evict_reason reason = EVICT_QUOTA;
    uint32_t page = lowest(t, false, true);
    if (page == KV_NONE) page = lowest(t, true, true);
    if (page == KV_NONE) {
        reason = EVICT_ROOM;
        page = lowest(t, false, false);
        if (page == KV_NONE) page = lowest(t, true, false);
    }
    assert(page != KV_NONE); // an idle page's children are idle: one of them is a leaf
    tree_remove(t, page, reason);
    return true;
}
