// Texts that are expected to be asked for, computed while nobody asks for anything: the history of a conversation as
// the template will render it in the next turn, where that is not what this turn computed (earlier thinking is dropped).
//
// Invariants: such a sequence runs alone, and only while no job runs or waits; a job that comes finds it gone before the
// next step, and the pages that were full by then in the tree. It takes pages that are free or worth less than its own.
// Nobody reads its stream, and no counter of requests or prompts counts it.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/loop.h"

static void count(struct loop *l, enum ahead_end end)
{
    pthread_mutex_lock(&l->stats.lock);
    l->stats.s.ahead[end]++;
    pthread_mutex_unlock(&l->stats.lock);
}

bool loop_ahead(struct loop *l, const struct job *job, struct err *e)
{
    struct job own = *job;
    struct seq *s, *old = NULL;
    struct stream *stream;
    own.max_tokens = 1;
    if (!loop_check(l, &own, e)) return false;
    if (!seq_open(&s, &own, l->cfg.n_ctx, l->cfg.n_vocab, l->cfg.page_tokens, e)) return false;
    if (!stream_open(&stream, l->bell, s->n_prompt, e)) {
        seq_close(s);
        return false;
    }
    stream_unref(stream); // the reader's: there is none
    s->stream = stream;
    s->ahead = true;
    pthread_mutex_lock(&l->lock);
    const bool ok = !l->stopping && !l->failed;
    if (ok) {
        old = l->ahead_inbox; // the latest is the likeliest
        l->ahead_inbox = s;
    }
    pthread_mutex_unlock(&l->lock);
    if (old != NULL) count(l, AHEAD_FORGOTTEN);
    seq_close(ok ? old : s);
    if (ok) doorbell_ring(l->bell);
    return ok || err_set(e, ERR_SHUTDOWN, "the engine is stopping");
}

static void forget(struct loop *l, uint32_t i, enum ahead_end end)
{
    seq_close(l->ahead[i]);
    memmove(l->ahead + i, l->ahead + i + 1, (--l->n_ahead - i) * sizeof(struct seq *));
    count(l, end);
}

static void keep(struct loop *l, struct seq *s)
{
    if (l->n_ahead == AHEAD_MAX) forget(l, 0, AHEAD_FORGOTTEN);
    l->ahead[l->n_ahead++] = s;
}

void loop_ahead_take(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    struct seq *s = l->ahead_inbox;
    l->ahead_inbox = NULL;
    pthread_mutex_unlock(&l->lock);
    if (s != NULL) keep(l, s);
}

void loop_ahead_yield(struct loop *l)
{
    if (!loop_ahead_runs(l) || l->n_waiting == 0) return;
    struct seq *s = l->running[--l->n_running];
    seq_give_pages(s, &l->tree);
    keep(l, s);
    count(l, AHEAD_YIELDED);
}

void loop_ahead_end(struct loop *l, struct seq *s, enum ahead_end end)
{
    assert(loop_ahead_runs(l) && l->running[0] == s);
    seq_give_pages(s, &l->tree);
    l->n_running = 0;
    seq_close(s);
    count(l, end);
}

void loop_ahead_start(struct loop *l)
{
    while (l->n_ahead > 0 && l->n_running == 0 && l->n_waiting == 0) {
        struct seq *s = l->ahead[l->n_ahead - 1];
        seq_match(s, &l->tree);
        if (s->n_match == seq_sharable(s)) { // asked for meanwhile
            forget(l, l->n_ahead - 1, AHEAD_DONE);
            continue;
        }
        l->n_ahead--;
        l->running[l->n_running++] = s;
        l->tree.unasked = true;
        seq_take_match(s, &l->tree);
        l->tree.unasked = false;
    }
}

bool loop_ahead_room(struct loop *l, uint32_t n_pages)
{
    const struct seq *s = l->running[0];
    const double worth = tree_rank_of(&l->tree, s->n_done, &s->hint) - AHEAD_DOUBT;
    while (l->pool.n_free < n_pages)
        if (!tree_evict_below(&l->tree, worth)) return false;
    return true;
}

void loop_ahead_stop(struct loop *l)
{
    loop_ahead_take(l);
    while (l->n_ahead > 0) forget(l, 0, AHEAD_FORGOTTEN);
}
