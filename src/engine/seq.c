// Copying jobs in, and a sequence's side of the prefix tree.
// Invariants: pages[0, n_shared) are in the tree and form a path from its root; the rest are the
// sequence's own; n_shared is n_done / page_tokens whenever no step is under way.
#include "engine/seq.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { STOP_ROOM = 512 }; // bytes of a token's text that the stop matcher takes without allocating

static bool copy_stops(struct seq *s, const struct job *job)
{
    size_t n_bytes = job->n_stops * sizeof *s->stops, longest = 0;
    for (size_t i = 0; i < job->n_stops; i++) {
        n_bytes += job->stops[i].n;
        if (job->stops[i].n > longest) longest = job->stops[i].n;
    }
    if (job->n_stops == 0) return true;
    s->stops = malloc(n_bytes);
    if (s->stops == NULL) return false;
    char *p = (char *)(s->stops + job->n_stops);
    for (size_t i = 0; i < job->n_stops; i++) {
        s->stops[i] = (struct str){p, job->stops[i].n};
        if (job->stops[i].n > 0) memcpy(p, job->stops[i].p, job->stops[i].n);
        p += job->stops[i].n;
    }
    s->stop = (struct stop){.strings = s->stops, .n_strings = job->n_stops};
    return buf_reserve(&s->stop.held, longest + STOP_ROOM) &&
           buf_reserve(&s->text, longest + STOP_ROOM);
}

static void copy_settings(struct seq *s, const struct job *job)
{
    s->sampling = job->sampling;
    s->ignore_eos = job->ignore_eos;
    s->logprobs = job->logprobs;
    s->n_top = job->n_top_logprobs;
    s->priority = s->effective_priority = job->priority;
    s->timeout_ms = job->timeout_ms;
    s->salt = hash128(job->cache_salt.p, job->cache_salt.n, 0);
    s->hint = (struct tree_hint){
        .priority = job->has_cache_priority ? (uint8_t)job->cache_priority : CACHE_PRIORITY_DEFAULT,
        .has_ttl = job->has_cache_ttl,
        .ttl_s = job->cache_ttl_s,
    };
    s->has_penalty = s->sampling.repeat_penalty != 1 || s->sampling.presence_penalty != 0 ||
                     s->sampling.frequency_penalty != 0;
    s->match_page = s->alike_page = KV_NONE;
    sample_seed(&s->rng, s->sampling.seed);
}

static bool alloc_text(struct seq *s, const struct job *job, uint32_t n_ctx, uint32_t page_tokens)
{
    s->n_prompt = (uint32_t)job->n_ids;
    s->max_new = n_ctx - s->n_prompt;
    if (job->max_tokens > 0 && job->max_tokens < s->max_new) s->max_new = job->max_tokens;
    s->cap_tokens = s->n_prompt + s->max_new;
    s->page_tokens = page_tokens;
    const size_t n_pages = (s->cap_tokens + page_tokens - 1) / page_tokens;
    s->tokens = calloc(s->cap_tokens, sizeof *s->tokens);
    s->keys = calloc(n_pages, sizeof *s->keys);
    s->pages = calloc(n_pages, sizeof *s->pages);
    return s->tokens != NULL && s->keys != NULL && s->pages != NULL;
}

struct hash128 seq_public_salt(void)
{
    return hash128(NULL, 0, 0); // that of requests without a cache_salt
}

struct hash128 seq_page_salt(const struct seq *s, uint32_t i_page)
{
    return i_page < s->n_public ? seq_public_salt() : s->salt;
}

// What the key of a page is made from, besides its tokens.
static uint64_t key_before(const struct seq *s, uint32_t i_page)
{
    if (i_page == 0) return tree_root_key(seq_page_salt(s, 0));
    const uint64_t before = s->keys[i_page - 1];
    return i_page == s->n_public ? tree_salted_key(before, s->salt) : before;
}

static void add_keys(struct seq *s)
{
    while ((s->n_keys + 1) * s->page_tokens <= s->n_tokens) {
        s->keys[s->n_keys] = tree_next_key(key_before(s, s->n_keys),
                                           s->tokens + s->n_keys * s->page_tokens, s->page_tokens);
        s->n_keys++;
    }
}

bool seq_open(struct seq **out, const struct job *job, uint32_t n_ctx, uint32_t n_vocab,
              uint32_t page_tokens, struct err *e)
{
    struct seq *s = calloc(1, sizeof *s);
    if (s == NULL) return err_set(e, ERR_MEMORY, "no memory for a request");
    copy_settings(s, job);
    bool ok = alloc_text(s, job, n_ctx, page_tokens) && copy_stops(s, job);
    if (ok && job->n_bias > 0) {
        s->bias = calloc(job->n_bias, sizeof *s->bias);
        ok = s->bias != NULL;
    }
    if (ok && job->cache_salt.n > 0) {
        s->salt_text = strndup(job->cache_salt.p, job->cache_salt.n);
        ok = s->salt_text != NULL;
    }
    struct err own = {0};
    if (ok && !form_open(&s->form, &job->form, &own)) {
        seq_close(s);
        return err_set(e, own.code, "%s", own.msg);
    }
    if (ok && s->has_penalty) ok = counts_init(&s->counts, s->max_new, n_vocab);
    if (!ok) {
        seq_close(s);
        return err_set(e, ERR_MEMORY, "no memory for a request of %zu tokens", job->n_ids);
    }
    if (job->n_bias > 0) memcpy(s->bias, job->bias, job->n_bias * sizeof *s->bias);
    s->n_bias = (uint32_t)job->n_bias;
    memcpy(s->tokens, job->ids, job->n_ids * sizeof *s->tokens);
    s->n_tokens = s->n_prompt;
    add_keys(s);
    counts_start(&s->counts, s->tokens, s->n_tokens);
    *out = s;
    return true;
}

void seq_close(struct seq *s)
{
    if (s == NULL) return;
    assert(s->n_pages == 0);
    if (s->stream != NULL) stream_unref(s->stream);
    counts_deinit(&s->counts);
    form_close(&s->form);
    stop_free(&s->stop);
    buf_free(&s->text);
    free(s->stops);
    free(s->salt_text);
    free(s->bias);
    free(s->tokens);
    free(s->keys);
    free(s->pages);
    free(s);
}

void seq_append(struct seq *s, int32_t id)
{
    assert(s->n_tokens < s->cap_tokens);
    s->tokens[s->n_tokens++] = id;
    s->n_generated++;
    add_keys(s);
    counts_add(&s->counts, s->tokens, s->n_tokens, true);
}

struct tree_ref seq_page_ref(const struct seq *s, uint32_t i_page, uint32_t parent)
{
    return (struct tree_ref){.parent = parent,
                             .key = s->keys[i_page],
                             .salt = seq_page_salt(s, i_page),
                             .tokens = s->tokens + i_page * s->page_tokens};
}

uint32_t seq_sharable(const struct seq *s)
{
    return (s->n_tokens - 1) / s->page_tokens;
}

// How many first pages a public trunk holds; those behind them are keyed anew where that changed.
static void find_public(struct seq *s, const struct tree *t)
{
    const struct hash128 salt = seq_public_salt();
    if (t->n_public + s->n_public == 0 || (s->salt.lo == salt.lo && s->salt.hi == salt.hi)) return;
    struct tree_ref ref = {.parent = KV_NONE, .key = tree_root_key(salt), .salt = salt};
    uint32_t n = 0;
    for (; n < seq_sharable(s); n++) {
        ref.tokens = s->tokens + n * s->page_tokens;
        ref.key = tree_next_key(ref.key, ref.tokens, s->page_tokens);
        ref.parent = tree_find(t, &ref);
        if (ref.parent == KV_NONE || !t->nodes[ref.parent].public) break;
    }
    if (n == s->n_public) return;
    s->n_public = n;
    s->n_keys = 0;
    add_keys(s);
}

void seq_match(struct seq *s, const struct tree *t)
{
    if (s->n_match > 0 && t->nodes[s->match_page].generation != s->match_generation) {
        s->n_match = 0;
        s->match_page = KV_NONE;
    }
    if (s->n_match == 0) find_public(s, t);
    while (s->n_match < seq_sharable(s)) {
        const struct tree_ref ref = seq_page_ref(s, s->n_match, s->match_page);
        const uint32_t page = tree_find(t, &ref);
        if (page == KV_NONE) break;
        s->match_page = page;
        s->match_generation = t->nodes[page].generation;
        s->n_match++;
    }
}

// The first n_done tokens are behind the sequence without having been computed by it now.
static void skip_tokens(struct seq *s, uint32_t n_done)
{
    s->n_done = n_done;
    if (s->n_done <= s->n_high) return;
    const uint32_t from = s->n_high < s->n_prompt ? s->n_high : s->n_prompt;
    const uint32_t to = s->n_done < s->n_prompt ? s->n_done : s->n_prompt;
    s->n_cached += to - from;
    s->n_high = s->n_done;
}

static void skip_to(struct seq *s, uint32_t n_pages)
{
    s->n_pages = s->n_shared = n_pages;
    skip_tokens(s, n_pages * s->page_tokens);
}

uint32_t seq_diagnose(struct seq *s, const struct tree *t, uint32_t n_pages, uint32_t last)
{
    struct cache_report *r = &s->report;
    const uint32_t n_have = n_pages * s->page_tokens, left = s->n_prompt - n_have;
    const struct tree_ref ref = seq_page_ref(s, n_pages, last);
    uint32_t n_same = 0;
    const uint32_t nearest = tree_nearest(t, &ref, left, &n_same);
    const bool nothing = nearest == KV_NONE && (n_pages == 0 || tree_children(t, last) == KV_NONE);
    r->diverged_at = n_have + n_same;
    const bool whole_part = nearest != KV_NONE && n_same > 0 && n_same == tree_n_tokens(t, nearest);
    if (n_same == left || (nothing && left <= s->page_tokens && n_pages > 0))
        r->reason = CACHE_WHOLE;
    else if (n_pages < s->n_keys && tree_remembers(t, s->keys[n_pages]))
        r->reason = CACHE_EVICTED;
    else if (!nothing && !whole_part)
        r->reason = CACHE_DIFFERS;
    else
        r->reason = n_pages == 0 && !whole_part ? CACHE_COLD : CACHE_ENDS;
    return nearest;
}

// Once for each prompt: at the place from which on it is computed.
static void diagnose(struct seq *s, const struct tree *t)
{
    if (s->n_done < s->n_high || s->n_done >= s->n_prompt) return; // that was before
    const uint32_t n = s->n_done / s->page_tokens;
    seq_diagnose(s, t, n, n == 0 ? KV_NONE : s->pages[n - 1]);
}

void seq_take_match(struct seq *s, struct tree *t)
{
    assert(s->n_pages == 0);
    uint32_t page = s->match_page;
    for (uint32_t i = s->n_match; i-- > 0; page = t->nodes[page].parent) s->pages[i] = page;
    for (uint32_t i = 0; i < s->n_match; i++) tree_pin(t, s->pages[i]);
    skip_to(s, s->n_match);
    s->n_match = 0;
    s->match_page = KV_NONE;
    diagnose(s, t);
}

void seq_join(struct seq *s, struct tree *t)
{
    const uint32_t before = s->n_done;
    while (s->n_done % s->page_tokens == 0 && s->n_shared == s->n_pages &&
           s->n_shared < seq_sharable(s)) {
        const uint32_t i = s->n_shared;
        const struct tree_ref ref = seq_page_ref(s, i, i == 0 ? KV_NONE : s->pages[i - 1]);
        const uint32_t page = tree_find(t, &ref);
        if (page == KV_NONE) break;
        tree_pin(t, page);
        s->pages[i] = page;
        skip_to(s, i + 1);
    }
    if (s->n_done > before) diagnose(s, t);
}

// Before a page is published: routers are told of it by the salt's own words.
static void name_salt(const struct seq *s, struct tree *t, uint32_t i_page)
{
    if (s->salt_text != NULL && i_page >= s->n_public) tree_name_salt(t, s->salt, s->salt_text);
}

void seq_restored(struct seq *s, struct tree *t, uint32_t page)
{
    const uint32_t i = s->n_shared;
    assert(s->n_pages == i && i < seq_sharable(s));
    const struct tree_ref ref = seq_page_ref(s, i, i == 0 ? KV_NONE : s->pages[i - 1]);
    name_salt(s, t, i);
    s->pages[i] = tree_publish(t, &ref, page);
    skip_to(s, i + 1);
    diagnose(s, t);
}

uint32_t seq_copyable(const struct seq *s, uint32_t n_have, uint32_t n_same)
{
    const uint32_t most = s->n_tokens - 1 - n_have, n = n_same < most ? n_same : most;
    return n < seq_copy_least(s->page_tokens) ? 0 : n;
}

// One look a page, for it may cost one.
uint32_t seq_fork(struct seq *s, struct tree *t, uint32_t *from)
{
    const uint32_t i = s->n_shared, left = s->n_tokens - 1 - s->n_done;
    const uint32_t last = i == 0 ? KV_NONE : s->pages[i - 1];
    if (s->n_forked == i + 1 || s->n_pages > i || s->n_done % s->page_tokens != 0) return 0;
    if (left < seq_copy_least(s->page_tokens) || tree_children(t, last) == KV_NONE) return 0;
    s->n_forked = i + 1;
    const uint32_t page = tree_page_take(t); // before the look: it may evict
    if (page == KV_NONE) return 0;
    s->pages[s->n_pages++] = page;
    const struct tree_ref ref = seq_page_ref(s, i, last);
    uint32_t n_same;
    *from = tree_nearest(t, &ref, left, &n_same);
    return *from == KV_NONE || n_same < seq_copy_least(s->page_tokens) ? 0 : n_same;
}

void seq_copied(struct seq *s, struct tree *t, uint32_t from, uint32_t n)
{
    tree_count_use(t, from);
    skip_tokens(s, s->n_done + n);
    if (s->report.diverged_at < s->n_done) s->report.diverged_at = s->n_done;
}

bool seq_grow(struct seq *s, struct tree *t, uint32_t n)
{
    while (s->n_pages * s->page_tokens < s->n_done + n) {
        const uint32_t page = tree_page_take(t);
        if (page == KV_NONE) return false;
        s->pages[s->n_pages++] = page;
    }
    return true;
}

void seq_advance(struct seq *s, struct tree *t, uint32_t n)
{
    s->n_done += n;
    if (s->n_done > s->n_high) s->n_high = s->n_done;
    while ((s->n_shared + 1) * s->page_tokens <= s->n_done) {
        const uint32_t i = s->n_shared;
        const struct tree_ref ref = seq_page_ref(s, i, i == 0 ? KV_NONE : s->pages[i - 1]);
        name_salt(s, t, i);
        s->pages[i] = tree_publish(t, &ref, s->pages[i]);
        s->n_shared++;
    }
}

// What it leaves of its last page, so that what goes on from there begins with a copy.
static void leave_part(struct seq *s, struct tree *t)
{
    const uint32_t i = s->n_shared, n = s->n_done - i * s->page_tokens;
    if (n < seq_copy_least(s->page_tokens) || s->n_pages == i) return;
    const struct tree_ref ref = {.parent = i == 0 ? KV_NONE : s->pages[i - 1],
                                 .key = key_before(s, i),
                                 .salt = seq_page_salt(s, i),
                                 .tokens = s->tokens + i * s->page_tokens};
    name_salt(s, t, i);
    s->pages[i] = tree_publish_part(t, &ref, n, s->pages[i]);
}

// Last page first: a page must not look older than those below it (tree.c).
void seq_give_pages(struct seq *s, struct tree *t)
{
    leave_part(s, t);
    while (s->n_pages > 0) tree_unpin(t, s->pages[--s->n_pages], &s->hint);
    s->n_shared = s->n_done = s->n_forked = 0;
}

uint32_t seq_next_page(const struct seq *s, bool running)
{
    if (running && s->n_done % s->page_tokens != 0) return UINT32_MAX;
    const uint32_t i = running ? s->n_done / s->page_tokens : s->n_match;
    return i < seq_sharable(s) ? i : UINT32_MAX;
}

// Keys are chained, so equal keys mean equal text up to there. A false match would only delay s.
bool seq_computes(const struct seq *r, const struct seq *s, uint32_t i_page)
{
    return i_page < r->n_keys && r->keys[i_page] == s->keys[i_page] &&
           r->n_done < (i_page + 1) * r->page_tokens;
}
