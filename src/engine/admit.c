// From waiting to running and back: single flight, room in the pool, preemption.
//
// Single flight: a job whose next prompt page is being computed by a running sequence stays out of
// the running set until that page is in the tree or its computer is gone; then it looks again.
//
// No deadlock: only running sequences that are ahead are waited for, "ahead" is a strict order, and
// the one in front is never held by another. The oldest running sequence is never preempted for a
// younger one.
#include "engine/loop.h"

#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"

static struct sched_entry entry_of(const struct seq *s, uint32_t n_have, uint64_t now_ns)
{
    const uint64_t submit_ns = stream_submit_ns(s->stream);
    return (struct sched_entry){
        .n_todo = s->n_tokens - n_have,
        .n_done = n_have,
        .priority = s->effective_priority,
        .waited_s = now_ns > submit_ns ? (double)(now_ns - submit_ns) / 1e9 : 0,
    };
}

static bool is_ahead(const struct seq *r, const struct seq *s)
{
    return r->n_done > s->n_done || (r->n_done == s->n_done && r->order < s->order);
}

// The running sequence that computes the page which s needs next, or NULL.
static struct seq *leader_of(const struct loop *l, const struct seq *s, bool running)
{
    const uint32_t i_page = seq_next_page(s, running);
    if (i_page == UINT32_MAX) return NULL;
    for (uint32_t i = 0; i < l->n_running; i++) {
        struct seq *r = l->running[i];
        if (r == s || r->parked || (running && !is_ahead(r, s))) continue;
        if (seq_computes(r, s, i_page)) return r;
    }
    return NULL;
}

// Who is waited for is as urgent as the most urgent of those that wait.
static void lend_priority(struct seq *leader, const struct seq *s)
{
    if (s->effective_priority < leader->effective_priority)
        leader->effective_priority = s->effective_priority;
}

bool loop_is_led(struct loop *l, struct seq *s)
{
    struct seq *leader = leader_of(l, s, true);
    if (leader != NULL) lend_priority(leader, s);
    return leader != NULL;
}

static uint32_t pages_missing(const struct loop *l, const struct seq *s)
{
    const uint32_t n = kv_pages_for(&l->pool, s->n_tokens + 1);
    return n > s->n_pages ? n - s->n_pages : 0;
}

// Is there room for all of s's text and a next token, beside what the running ones are still to
// take: their known text, and a page each for what they generate?
static bool has_room(const struct loop *l, const struct seq *s)
{
    if (l->n_running == 0) return true;
    uint64_t need = kv_pages_for(&l->pool, s->n_tokens + 1) - s->n_match;
    for (uint32_t i = 0; i < l->n_running; i++) need += pages_missing(l, l->running[i]) + 1;
    uint32_t page = s->match_page; // idle pages that s would pin cannot be evicted for others
    for (uint32_t i = 0; i < s->n_match; i++, page = l->tree.nodes[page].parent)
        if (l->pool.refs[page] == 1) need++;
    return need <= tree_available(&l->tree);
}

static void remove_at(struct seq **list, uint32_t *n, const struct seq *s)
{
    uint32_t i = 0;
    while (list[i] != s) {
        i++;
        assert(i < *n);
    }
    list[i] = list[--*n];
}

// Room for the adjustments that one row of each running sequence may need.
static bool reserve_adjust(struct loop *l, const struct seq *s, struct err *e)
{
    size_t need = s->n_bias + (size_t)s->counts.cap;
    for (uint32_t i = 0; i < l->n_running; i++)
        need += l->running[i]->n_bias + (size_t)l->running[i]->counts.cap;
    if (need <= l->scratch.cap_adjust) return true;
    struct logit_adjust *p = realloc(l->scratch.adjust, need * sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for %zu logit adjustments", need);
    l->scratch.adjust = p;
    l->scratch.cap_adjust = (uint32_t)need;
    return true;
}

static void start(struct loop *l, struct seq *s)
{
    struct err error = {0};
    if (!reserve_adjust(l, s, &error)) {
        loop_end(l, s, FINISH_ERROR, &error);
        return;
    }
    remove_at(l->waiting, &l->n_waiting, s);
    l->running[l->n_running++] = s;
    const bool first = s->admitted_ns == 0;
    seq_take_match(s, &l->tree);
    tier_seek(l->tier, s);
    s->order = ++l->next_order;
    if (first) s->admitted_ns = clock_ns();
    loop_set_stage(s, STAGE_PREFILL);
    loop_progress(l, s, 0, 0);
    if (!first) return;
    const double queued_s = (double)(s->admitted_ns - stream_submit_ns(s->stream)) / 1e9;
    pthread_mutex_lock(&l->stats.lock);
    histogram_add(&l->stats.s.queue, queued_s);
    l->stats.s.prompt_tokens += s->n_prompt;
    pthread_mutex_unlock(&l->stats.lock);
}

void loop_preempt(struct loop *l, struct seq *s)
{
    tier_forget(l->tier, s);
    const bool paused = s->hint.paused;
    s->hint.paused = true; // it comes back as soon as there is room
    seq_give_pages(s, &l->tree);
    s->hint.paused = paused;
    remove_at(l->running, &l->n_running, s);
    l->waiting[l->n_waiting++] = s;
    loop_set_stage(s, STAGE_QUEUED);
    pthread_mutex_lock(&l->stats.lock);
    l->stats.s.preemptions++;
    pthread_mutex_unlock(&l->stats.lock);
}

// A sequence whose reader is behind gives way to those that could run.
static bool preempt_parked(struct loop *l)
{
    for (uint32_t i = 0; i < l->n_running; i++) {
        if (!l->running[i]->parked) continue;
        loop_preempt(l, l->running[i]);
        return true;
    }
    return false;
}

static struct seq *next_waiting(struct loop *l)
{
    const double tps = stats_speed(&l->stats).wall_tps;
    const uint64_t now = clock_ns();
    struct seq *best = NULL;
    struct sched_entry best_entry = {0};
    for (uint32_t i = 0; i < l->n_waiting; i++) {
        struct seq *s = l->waiting[i];
        if (s->parked || leader_of(l, s, false) != NULL) continue;
        const struct sched_entry entry = entry_of(s, s->n_match * s->page_tokens, now);
        if (best != NULL && !sched_before(&entry, &best_entry, tps)) continue;
        best = s;
        best_entry = entry;
    }
    return best;
}

static void refresh_waiting(struct loop *l)
{
    for (uint32_t i = 0; i < l->n_running; i++)
        l->running[i]->effective_priority = l->running[i]->priority;
    for (uint32_t i = 0; i < l->n_waiting; i++) {
        struct seq *s = l->waiting[i];
        s->effective_priority = s->priority;
        seq_match(s, &l->tree);
        struct seq *leader = leader_of(l, s, false);
        if (leader != NULL) lend_priority(leader, s);
        loop_set_stage(s, leader != NULL ? STAGE_WAITING_PREFIX : STAGE_QUEUED);
    }
}

static void watch_readers(struct seq **list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        list[i]->parked = !stream_has_room(list[i]->stream) && stream_park(list[i]->stream);
}

static void admit_waiting(struct loop *l)
{
    for (;;) {
        struct seq *s = next_waiting(l);
        if (s == NULL) return;
        if (l->n_running < l->cfg.n_parallel && has_room(l, s))
            start(l, s);
        else if (!preempt_parked(l))
            return;
    }
}

void loop_admit(struct loop *l)
{
    watch_readers(l->running, l->n_running);
    watch_readers(l->waiting, l->n_waiting);
    refresh_waiting(l);
    admit_waiting(l);
    loop_ahead_start(l);
    tier_ask(l->tier); // takes pages, and so may evict what those that waited had matched
}
