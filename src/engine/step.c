// One step: choose, get pages, put the batch together, run it, publish what it filled.
//
// Invariant: a sequence in the batch has pages for all its rows; it owns those it writes to alone
// (pages in the tree are full, and rows come after them).
#include "engine/loop.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

enum { FAILURES_MAX = 3 }; // device errors in a row before the device counts as lost

// ---- choice -------------------------------------------------------------------------------------

// Rows that a page of the tree has already are copied, not computed.
static void fork_page(struct loop *l, struct seq *s)
{
    const struct page_io *io = &l->cfg.tiers.io;
    struct err e = {0};
    uint32_t from;
    // a page that was encoded and came back has rows that depend on its others
    const bool may = io->copy != NULL && (l->tier == NULL || !tier_encodes(l->tier));
    const uint32_t n = may ? seq_fork(s, &l->tree, &from) : 0;
    if (n == 0) return;
    if (io->copy(io->arg, from, s->pages[s->n_shared], &e)) {
        seq_copied(s, &l->tree, from, n);
        tier_copied(l->tier, s, from, n);
    } else {
        log_debug("engine", "a page cannot be copied: %s", e.msg);
    }
}

static uint32_t plan(struct loop *l)
{
    const uint64_t now = clock_ns();
    for (uint32_t i = 0; i < l->n_running; i++) {
        struct seq *s = l->running[i];
        seq_join(s, &l->tree);
        const bool held = s->parked || tier_holds(s) || loop_is_led(l, s);
        if (!held && (!s->ahead || loop_ahead_room(l, 1))) fork_page(l, s);
        const uint32_t end = // what comes back is not computed
            tier_brings(s) && !tier_holds(s) ? s->restore_from * s->page_tokens : s->n_tokens;
        l->scratch.entries[i] = (struct sched_entry){
            .n_todo = end - s->n_done,
            .n_done = s->n_done,
            .decode = s->n_generated > 0 && s->n_done + 1 == s->n_tokens,
            .held = held,
            .waited_s = (double)(now - stream_submit_ns(s->stream)) / 1e9,
        };
    }
    for (uint32_t i = 0; i < l->n_running; i++) // after all were lent theirs
        l->scratch.entries[i].priority = l->running[i]->effective_priority;
    const struct sched_limits limits = {
        .max_rows = l->cfg.max_rows,
        .prefill_rows = l->cfg.prefill_rows,
        .page_tokens = l->cfg.page_tokens,
        .prefill_tps = stats_speed(&l->stats).prefill_tps,
        .step_ms = l->cfg.step_ms,
        .alone_ms = loop_ahead_runs(l) ? l->cfg.step_ms : l->cfg.alone_ms,
    };
    return sched_plan(l->scratch.entries, l->n_running, &limits, l->scratch.rows);
}

static uint32_t pages_needed(const struct loop *l)
{
    uint32_t need = 0;
    for (uint32_t i = 0; i < l->n_running; i++) {
        if (l->scratch.rows[i] == 0) continue;
        const struct seq *s = l->running[i];
        const uint32_t n = kv_pages_for(&l->pool, s->n_done + l->scratch.rows[i]);
        need += n > s->n_pages ? n - s->n_pages : 0;
    }
    return need;
}

// The first to give way: one whose reader is behind, then the least urgent, then the youngest.
static struct seq *victim_of(const struct loop *l)
{
    struct seq *v = l->running[0];
    for (uint32_t i = 1; i < l->n_running; i++) {
        struct seq *s = l->running[i];
        if (s->parked != v->parked) {
            if (s->parked) v = s;
        } else if (s->effective_priority != v->effective_priority) {
            if (s->effective_priority > v->effective_priority) v = s;
        } else if (s->order > v->order) {
            v = s;
        }
    }
    return v;
}

static void end_too_big(struct loop *l, struct seq *s)
{
    struct err error = {0};
    err_set(&error, ERR_MEMORY,
            "the KV memory of %u tokens is full with this request alone (%u tokens of prompt, %u "
            "generated); raise --kv-memory",
            l->cfg.n_pages * l->cfg.page_tokens, s->n_prompt, s->n_generated);
    loop_end(l, s, FINISH_ERROR, &error);
}

// A plan for which the pool has pages; preempts from the back where it does not, and says so.
static uint32_t plan_with_pages(struct loop *l, bool *changed)
{
    for (*changed = false;; *changed = true) {
        const uint32_t n_rows = plan(l);
        if (loop_ahead_runs(l) && !loop_ahead_room(l, pages_needed(l))) {
            loop_ahead_end(l, l->running[0], AHEAD_NO_ROOM);
            continue;
        }
        if (n_rows == 0 || pages_needed(l) <= tree_available(&l->tree)) return n_rows;
        struct seq *v = victim_of(l);
        if (l->n_running == 1)
            end_too_big(l, v);
        else
            loop_preempt(l, v);
    }
}

// ---- the batch ----------------------------------------------------------------------------------

// Single rows first: decodes, and prompts with one token left, which look the same to a backend.
static uint32_t choose_items(struct loop *l)
{
    struct step_scratch *x = &l->scratch;
    uint32_t n = 0;
    for (int single = 1; single >= 0; single--)
        for (uint32_t i = 0; i < l->n_running; i++)
            if (x->rows[i] > 0 && (x->rows[i] == 1) == (single == 1))
                x->items[n++] = (struct step_item){
                    .seq = l->running[i], .n_rows = x->rows[i], .out = UINT32_MAX};
    return n;
}

static uint32_t put_adjust(struct step_scratch *x, const struct seq *s, uint32_t out, uint32_t n)
{
    if (s->logits != NULL || (s->n_bias == 0 && !s->has_penalty)) return n;
    return n + (uint32_t)sample_adjust(&s->sampling, s->counts.entries, s->counts.n, s->bias,
                                       s->n_bias, out, x->adjust + n, x->cap_adjust - n);
}

static void put_item(struct loop *l, struct batch *b, struct step_item *item)
{
    struct step_scratch *x = &l->scratch;
    struct seq *s = item->seq;
    const bool ok = seq_grow(s, &l->tree, item->n_rows);
    assert(ok); // plan_with_pages counted them
    (void)ok;
    const uint32_t n_pages = kv_pages_for(&l->pool, s->n_done + item->n_rows);
    x->seqs[b->n_seqs++] = (struct batch_seq){.row0 = b->n_rows,
                                              .n_rows = item->n_rows,
                                              .pos0 = s->n_done,
                                              .page0 = b->n_page_ids,
                                              .n_pages = n_pages};
    for (uint32_t i = 0; i < n_pages; i++) x->pages[b->n_page_ids++] = s->pages[i];
    for (uint32_t i = 0; i < item->n_rows; i++) x->tokens[b->n_rows++] = s->tokens[s->n_done + i];
    if (s->n_done + item->n_rows < s->n_tokens) return;
    item->out = b->n_out;
    x->out_rows[b->n_out++] = b->n_rows - 1;
    b->n_adjust = put_adjust(x, s, item->out, b->n_adjust);
}

static bool run_batch(struct loop *l, const struct batch *b, struct err *e)
{
    if (!net_step(l->cfg.net, l->cfg.kv, b, e)) return false;
    if (b->n_out > 0 && !net_read_topk(l->cfg.net, b->n_out, l->scratch.topk, e)) return false;
    struct backend *d = l->cfg.backend;
    return d == NULL || d->class->wait(d, e);
}

static void fail_items(struct loop *l, uint32_t n_items, struct err *error)
{
    log_error("engine", "step failed error=\"%s\"", error->msg);
    if (error->code == ERR_NONE) err_set(error, ERR_DEVICE, "the device failed without a reason");
    err_prefix(error, "the device failed: ");
    error->code = ERR_DEVICE;
    for (uint32_t i = 0; i < n_items; i++)
        loop_end(l, l->scratch.items[i].seq, FINISH_ERROR, error);
    struct backend *d = l->cfg.backend;
    const bool lost = d != NULL && d->class->lost != NULL && d->class->lost(d);
    if (++l->n_failures < FAILURES_MAX && !lost) return;
    pthread_mutex_lock(&l->lock);
    l->failed = true;
    l->failure = *error;
    pthread_mutex_unlock(&l->lock);
}

static void settle(struct loop *l, uint32_t n_items)
{
    for (uint32_t i = 0; i < n_items; i++) {
        const struct step_item item = l->scratch.items[i];
        seq_advance(item.seq, &l->tree, item.n_rows);
        if (item.out != UINT32_MAX) loop_emit(l, item.seq, item.out);
    }
}

bool loop_step(struct loop *l)
{
    bool changed;
    if (plan_with_pages(l, &changed) == 0) return changed; // who gave way may be let in again
    struct step_scratch *x = &l->scratch;
    const uint32_t n_items = choose_items(l);
    struct batch b = {.tokens = x->tokens,
                      .seqs = x->seqs,
                      .pages = x->pages,
                      .out_rows = x->out_rows,
                      .adjust = x->adjust};
    uint32_t n_decode = 0;
    for (uint32_t i = 0; i < n_items; i++) {
        if (x->items[i].n_rows == 1 && x->items[i].seq->n_generated > 0) n_decode++;
        put_item(l, &b, &x->items[i]);
    }
    const uint64_t start_ns = clock_ns();
    struct err error = {0};
    if (!run_batch(l, &b, &error)) {
        fail_items(l, n_items, &error);
        return true;
    }
    l->n_failures = 0;
    stats_step(&l->stats, b.n_rows - n_decode, n_decode, (double)(clock_ns() - start_ns) / 1e9);
    if (loop_ahead_runs(l)) stats_ahead(&l->stats, b.n_rows);
    settle(l, n_items);
    return true;
}
