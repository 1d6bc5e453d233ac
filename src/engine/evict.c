// Which cached page goes when one is needed. Only leaves go, and of those the one that is worth least
// per byte (all pages have the same bytes): the time that recomputing it would take, times how likely
// it is to be used again, which is guessed from
//   - how many turns used it, each counting half after use_half_life_s. A step of a tool loop is no turn:
//     counting those kept the pages of long finished loops instead of trunks, and lost to plain LRU;
//   - how long ago it was last used: half as likely after half_life_s;
//   - whether its last user ended with a call of a tool: then it comes back with the result.
//
// All pages age alike, so their order does not change as time passes: rank is the logarithm of that
// product with the last use counted from the beginning instead of to now, it stays the same until the
// next use, and leaves can stand in a heap by it.
//
// Quotas: where a salt has more than its share and is not alone, its own pages go before those of
// others (requests without a salt are the owner's own and have no quota), but for what the others have not used for GRACE half-lives longer: a strict share would keep
// the remains of a tenant who is long gone, and cost the others more than the tenant did.
//
// Invariant: a page is queued exactly when it is in the tree, has no child and only the tree owns it.
// Cost: a heap operation, and a look at each salt's lowest leaf, of which there are at most 256.
#include <assert.h>
#include <math.h>

#include "engine/tree.h"

enum {
    NO_USE = 8, // half-lives that a page which nobody needs any more looks older
    GRACE = 6,  // half-lives for which a quota protects a page that is not used any more
    PAUSED = 6, // half-lives that a page looks younger which comes back after a tool's result
};

// Turns that used a page, as of its last use.
static double uses_of(const struct tree *t, const struct tree_node *n)
{
    return n->uses * exp2((n->taken_s - n->counted_s) / t->use_half_life_s);
}

double tree_use_worth(const struct tree *t, uint32_t i, uint8_t priority)
{
    const double cost = 1 + (double)i * t->pool->page_tokens / t->attend_tokens;
    return cost * exp2((priority - CACHE_PRIORITY_DEFAULT) / 10.0);
}

// The time that recomputing a page behind so many tokens takes, and what its requests wish.
static double worth(const struct tree *t, double n_before, uint8_t priority)
{
    return log2(1 + n_before / t->attend_tokens) + (priority - CACHE_PRIORITY_DEFAULT) / 10.0;
}

double tree_rank(const struct tree *t, uint32_t page)
{
    const struct tree_node *n = &t->nodes[page];
    const double use = log2(1 + uses_of(t, n)) + n->counted_s / t->half_life_s;
    const double share = n->part ? log2((double)tree_n_tokens(t, page) / t->pool->page_tokens) : 0;
    return worth(t, (double)n->depth * t->pool->page_tokens, n->priority) + share + use +
           (n->paused ? PAUSED : 0);
}

double tree_rank_of(const struct tree *t, uint32_t n_before, const struct tree_hint *hint)
{
    const double use = log2(1 + 1) + t->now_s / t->half_life_s;
    return worth(t, n_before, hint->priority) + use;
}

void tree_count_use(struct tree *t, uint32_t page)
{
    struct tree_node *n = &t->nodes[page];
    if (n->paused) return; // the same turn goes on
    n->uses = 1 + n->uses * exp2((n->taken_s - t->now_s) / t->use_half_life_s);
    n->taken_s = t->now_s;
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
        if (s->salt.lo == salt.lo && s->salt.hi == salt.hi) return i; // empty or not
        if (s->n_nodes == 0) unused = i;
    }
    if (unused == 0 && t->n_spaces < TREE_SPACES_MAX) unused = t->n_spaces++;
    if (unused > 0) {
        t->spaces[unused].salt = salt;
        t->spaces[unused].text[0] = '\0';
    }
    return unused;
}

void tree_use(struct tree *t, uint32_t page, const struct tree_hint *hint)
{
    struct tree_node *n = &t->nodes[page];
    const bool over = hint->has_ttl && hint->ttl_s == 0;
    const double counts_s = t->now_s - (over ? NO_USE * t->half_life_s : 0);
    if (counts_s > n->counted_s) n->counted_s = counts_s;
    n->paused = hint->paused;
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
    const bool exempt = s->salt.lo == t->exempt.lo && s->salt.hi == t->exempt.hi;
    return t->quota_pages > 0 && !exempt && s->n_nodes > t->quota_pages && s->n_nodes < t->n_nodes;
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

// Of the salts above their quota, unless another's page is so much older that nobody will miss it.
static uint32_t choose_over(const struct tree *t)
{
    const uint32_t over = lowest(t, false, true), any = lowest(t, false, false);
    if (over == KV_NONE)
        return lowest(t, true, true); // a time to live does not help against others
    return t->links[any].rank + GRACE < t->links[over].rank ? KV_NONE : over;
}

// The page that goes next, where any is idle.
static uint32_t choose(struct tree *t, enum evict_reason *reason)
{
    if (t->n_idle == 0) return KV_NONE;
    for (uint32_t i = 0; i < t->n_spaces; i++) end_kept(t, &t->spaces[i]);
    uint32_t page = choose_over(t);
    *reason = page != KV_NONE ? EVICT_QUOTA : EVICT_ROOM;
    if (page == KV_NONE) page = lowest(t, false, false);
    if (page == KV_NONE) page = lowest(t, true, false);
    assert(page != KV_NONE); // an idle page's children are idle: one of them is a leaf
    return page;
}

bool tree_evict(struct tree *t)
{
    enum evict_reason reason;
    const uint32_t page = choose(t, &reason);
    if (page != KV_NONE) tree_remove(t, page, reason);
    return page != KV_NONE;
}

bool tree_evict_below(struct tree *t, double rank)
{
    enum evict_reason reason;
    const uint32_t page = choose(t, &reason);
    if (page == KV_NONE || t->nodes[page].kept || t->links[page].rank >= rank) return false;
    tree_remove(t, page, reason);
    return true;
}
