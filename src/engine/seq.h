// A sequence: a job inside the engine, from hand-over to its end. Made by the submitting thread,
// then touched by the engine thread only.
//
// Its text is tokens[0, n_tokens), of which [0, n_done) have keys and values in pages. What is known
// but not done is prefill, or a decode step when it is one token behind a sampled one. So a
// preempted sequence needs no state of its own: it has n_done 0 and starts again.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "engine/counts.h"
#include "engine/form.h"
#include "engine/sample.h"
#include "engine/stream.h"
#include "engine/tree.h"
#include "text/stop.h"

struct seq {
    struct stream *stream; // one reference
    uint64_t id;

    // What the job asked for.
    struct sampling sampling;
    bool ignore_eos, logprobs, has_penalty;
    uint32_t n_top, max_new, timeout_ms;
    int32_t priority;
    uint64_t deadline_ns;  // 0 = none
    struct hash128 salt;   // of the pages behind the first n_public
    char *salt_text;       // NULL: no salt
    struct tree_hint hint; // for the pages that it leaves
    struct logit_bias *bias;
    uint32_t n_bias;
    struct str *stops; // one allocation with their bytes behind
    float *logits;     // engine_logits: where they go; borrowed until the stream's end

    // Text and its pages.
    int32_t *tokens; // [cap_tokens]
    uint32_t n_prompt, n_tokens, cap_tokens, page_tokens;
    uint64_t *keys; // [n_keys] of the pages that n_tokens fill
    uint32_t n_keys;
    uint32_t *pages; // [n_pages], each pinned once; the first n_shared are in the tree
    uint32_t n_pages, n_shared;
    uint32_t n_done, n_high; // n_high: the most that n_done ever was
    uint32_t n_forked;       // pages that it had when it last looked for one to copy, + 1
    uint32_t n_cached, n_generated;

    // The longest prefix in the tree as of the last look (while it waits).
    uint32_t n_match, match_page, match_generation;
    uint32_t n_public; // first pages that it shares with all salts
    // While pages [restore_from, n_restore) come from a lower tier (tier_brings), and perhaps one behind them that
    // begins as the text goes on.
    uint32_t n_restore, restore_from;
    bool restore_alike;
    uint32_t alike_page;        // that one, where it is in the tree now; KV_NONE
    struct cache_report report; // n_ram, n_disk and restored_ms are the tier's, the rest is seq.c's

    // Scheduling.
    uint64_t order;             // of admission; smaller is older
    int32_t effective_priority; // the most urgent of its own and of those that wait for its pages
    bool parked;                // its reader is behind
    bool ahead;                 // nobody asked for it yet (ahead.c)
    enum stream_stage stage;
    uint64_t admitted_ns, first_ns;

    // Sampling.
    struct sample_rng rng;
    struct counts counts;
    struct form form;
    struct stop stop;
    struct buf text; // what stop_feed gives out; not used further
};

// Copies a checked job. n_ctx bounds its text. Takes no reference of the stream: set by the caller.
bool seq_open(struct seq **out, const struct job *job, uint32_t n_ctx, uint32_t n_vocab,
              uint32_t page_tokens, struct err *e);
void seq_close(struct seq *s); // holds no pages any more; lets go of the stream
// A sampled token.
void seq_append(struct seq *s, int32_t id);
// Looks in the tree for more of the text, from where the last look ended. At least one token stays
// to be computed.
void seq_match(struct seq *s, const struct tree *t);
// Takes the matched pages; the sequence has none so far. Tokens that were never computed count as cached.
void seq_take_match(struct seq *s, struct tree *t);
// Takes pages that came into the tree meanwhile where the sequence would compute them next.
void seq_join(struct seq *s, struct tree *t);
// The page that it computes next begins like one of the tree: takes a page of its own for it. Returns how many tokens of
// the tree's page *from are to be copied into it, 0: none; the caller does that, and says so with seq_copied.
// Tokens of a page that are worth a copy, and to be kept in a page that is not full.
static inline uint32_t seq_copy_least(uint32_t page_tokens)
{
    return page_tokens < 8 ? 2 : page_tokens / 4;
}
// Of n_same tokens that a page of the tree has in common with s behind n_have in whole pages, so many would be copied.
uint32_t seq_copyable(const struct seq *s, uint32_t n_have, uint32_t n_same);
uint32_t seq_fork(struct seq *s, struct tree *t, uint32_t *from);
void seq_copied(struct seq *s, struct tree *t, uint32_t from, uint32_t n);
// The page that follows its shared ones came back from a lower tier into `page`, which the caller took
// for it: goes into the tree.
void seq_restored(struct seq *s, struct tree *t, uint32_t page);
// Pages that may come from a cache: the text's last token is always computed.
uint32_t seq_sharable(const struct seq *s);
// Has pages for n more tokens; false when the pool is exhausted (those taken stay).
bool seq_grow(struct seq *s, struct tree *t, uint32_t n);
// n more tokens have keys and values: full pages go into the tree.
void seq_advance(struct seq *s, struct tree *t, uint32_t n);
void seq_give_pages(struct seq *s, struct tree *t); // and n_done is 0
// Why the cache holds no more than the first n_pages pages of its prompt, the last of them `last`:
// fills report.reason and diverged_at. Returns the page that is cached in place of the next one.
uint32_t seq_diagnose(struct seq *s, const struct tree *t, uint32_t n_pages, uint32_t last);
struct hash128 seq_public_salt(void); // of requests without a cache_salt
// What a page of its text is looked up by, after the page parent.
struct tree_ref seq_page_ref(const struct seq *s, uint32_t i_page, uint32_t parent);
// The salt that a page of its text is looked up and published under.
struct hash128 seq_page_salt(const struct seq *s, uint32_t i_page);
// The page that the sequence computes next and could share, UINT32_MAX when there is none.
uint32_t seq_next_page(const struct seq *s, bool running);
// Does r compute, or will it compute next, the page i_page of s's text?
bool seq_computes(const struct seq *r, const struct seq *s, uint32_t i_page);
