// How far each job is and how long its first token will take: from measured speed and from what is
// in front of it. Also the gauges.
#include "engine/loop.h"

#include <string.h>

#include "base/clock.h"

enum { REPORT_MS = 100 }; // how often those that wait are told

void loop_set_stage(struct seq *s, enum stream_stage stage)
{
    if (s->stage == stage) return;
    s->stage = stage;
    stream_set_stage(s->stream, stage);
}

// The prompt's tokens that are behind s, as its client sees it: never fewer than before.
static uint32_t processed(const struct seq *s)
{
    const uint32_t match = s->n_match * s->page_tokens;
    const uint32_t n = s->n_high > match ? s->n_high : match;
    return n < s->n_prompt ? n : s->n_prompt;
}

void loop_progress(struct loop *l, struct seq *s, double ahead_tokens, uint32_t queue_position)
{
    const struct speed v = stats_speed(&l->stats);
    const uint32_t done = processed(s);
    struct stream_progress p = {.n_prompt = s->n_prompt,
                                .n_cached = s->n_cached,
                                .n_processed = done,
                                .n_generated = s->n_generated,
                                .queue_position = queue_position,
                                .cache = s->report,
                                .eta_ms = -1};
    if (s->admitted_ns == 0 && done > p.n_cached) p.n_cached = done; // joined while it waits
    p.cache.n_device = p.n_cached - s->report.n_ram - s->report.n_disk;
    if (s->n_generated > 0)
        p.eta_ms = 0;
    else if (v.wall_tps > 0)
        p.eta_ms = (ahead_tokens + s->n_prompt - done) / v.wall_tps * 1000;
    // Where no place is free, running answers end first: on average half a usual answer from now.
    if (p.eta_ms > 0 && queue_position > 0 && l->n_running >= l->cfg.n_parallel)
        p.eta_ms += v.mean_new / 2 * v.decode_s * 1000 * queue_position / l->cfg.n_parallel;
    stream_set_progress(s->stream, &p);
}

static struct sched_entry entry_of(const struct seq *s, uint64_t now)
{
    const uint32_t n_have = s->n_pages > 0 ? s->n_done : s->n_match * s->page_tokens;
    return (struct sched_entry){
        .n_todo = s->n_tokens - n_have,
        .priority = s->effective_priority,
        .waited_s = (double)(now - stream_submit_ns(s->stream)) / 1e9,
    };
}

// What runs before s that s does not wait to share: the prompts in front of it.
static void report_one(struct loop *l, struct seq *s, bool waits, double tps, uint64_t now)
{
    const struct sched_entry own = entry_of(s, now);
    double ahead = 0;
    uint32_t position = 0;
    for (uint32_t i = 0; i < l->n_running; i++) {
        const struct seq *r = l->running[i];
        if (r == s || r->n_generated > 0) continue;
        const struct sched_entry e = entry_of(r, now);
        if (s->stage != STAGE_WAITING_PREFIX && (waits || sched_before(&e, &own, tps)))
            ahead += e.n_todo;
    }
    for (uint32_t i = 0; waits && i < l->n_waiting; i++) {
        const struct seq *w = l->waiting[i];
        if (w == s) continue;
        const struct sched_entry e = entry_of(w, now);
        if (!sched_before(&e, &own, tps)) continue;
        position++;
        if (w->stage == STAGE_QUEUED) ahead += e.n_todo;
    }
    loop_progress(l, s, ahead, waits ? position : 0);
}

void loop_gauges(struct loop *l)
{
    uint64_t backlog = 0;
    uint32_t n_salts = 0;
    for (uint32_t i = 0; i < l->tree.n_spaces; i++) n_salts += l->tree.spaces[i].n_nodes > 0;
    const uint32_t n_running = loop_ahead_runs(l) ? 0 : l->n_running;
    for (uint32_t i = 0; i < n_running; i++)
        backlog += l->running[i]->n_tokens - l->running[i]->n_done;
    for (uint32_t i = 0; i < l->n_waiting; i++)
        backlog += l->waiting[i]->n_tokens - l->waiting[i]->n_match * l->cfg.page_tokens;
    struct tier_figures tiers;
    tier_figures(l->tier, &tiers);
    pthread_mutex_lock(&l->stats.lock);
    l->stats.s.tiers = tiers;
    l->stats.backlog = backlog;
    l->stats.s.running = n_running;
    l->stats.s.waiting = l->n_waiting;
    l->stats.s.pages_cached = l->tree.n_idle + l->tree.n_held; // held ones wait for requests too
    l->stats.s.pages_used = l->pool.n_pages - l->pool.n_free - l->stats.s.pages_cached;
    l->stats.s.evictions = l->tree.n_evicted;
    l->stats.s.pages_pinned = l->tree.n_held;
    l->stats.s.pages_public = l->tree.n_public;
    l->stats.s.pages_parts = l->tree.n_parts_all;
    l->stats.s.salts = n_salts;
    l->stats.s.prefill_tps = l->stats.speed.prefill_tps;
    memcpy(l->stats.s.evicted, l->tree.evicted, sizeof l->stats.s.evicted);
    pthread_mutex_unlock(&l->stats.lock);
}

void loop_report(struct loop *l)
{
    const uint64_t now = clock_ns();
    const double tps = stats_speed(&l->stats).wall_tps;
    loop_gauges(l);
    for (uint32_t i = 0; i < l->n_running; i++)
        if (l->running[i]->n_generated == 0) report_one(l, l->running[i], false, tps, now);
    if (now - l->report_ns < (uint64_t)REPORT_MS * 1000000) return;
    l->report_ns = now;
    for (uint32_t i = 0; i < l->n_waiting; i++) report_one(l, l->waiting[i], true, tps, now);
}
