// What a step's logits become: tokens in streams, and the ends of sequences.
// Log probabilities are those of the distribution that was sampled from before temperature: penalties
// and biases are in it.
#include "engine/loop.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "base/clock.h"

static void remove_from(struct seq **list, uint32_t *n, const struct seq *s)
{
    for (uint32_t i = 0; i < *n; i++) {
        if (list[i] != s) continue;
        list[i] = list[--*n];
        return;
    }
}

static void count_cached(struct engine_stats *st, const struct seq *s)
{
    st->cached_tokens += s->n_cached;
    st->cached_ram_tokens += s->report.n_ram;
    st->cached_disk_tokens += s->report.n_disk;
    st->requests_by_reason[s->report.reason]++;
}

static void count_end(struct loop *l, const struct seq *s, enum finish finish,
                      const struct err *error)
{
    const double e2e_s = (double)(clock_ns() - stream_submit_ns(s->stream)) / 1e9;
    pthread_mutex_lock(&l->stats.lock);
    struct engine_stats *st = &l->stats.s;
    if (s->first_ns == 0) count_cached(st, s); // otherwise counted at the first token
    if (finish != FINISH_ERROR) {
        st->requests_done++;
        histogram_add(&st->e2e, e2e_s);
        l->stats.speed.mean_new = 0.9 * l->stats.speed.mean_new + 0.1 * s->n_generated;
    } else if (error->code == ERR_CANCELLED) {
        st->requests_cancelled++;
    } else {
        st->requests_failed++;
    }
    pthread_mutex_unlock(&l->stats.lock);
}

void loop_end(struct loop *l, struct seq *s, enum finish finish, const struct err *error)
{
    if (s->ahead) {
        loop_ahead_end(l, s, finish == FINISH_ERROR ? AHEAD_FAILED : AHEAD_DONE);
        return;
    }
    tier_forget(l->tier, s);
    if (finish == FINISH_ERROR) s->hint.paused = true; // who was cut off tries again
    seq_give_pages(s, &l->tree);
    remove_from(l->running, &l->n_running, s);
    remove_from(l->waiting, &l->n_waiting, s);
    count_end(l, s, finish, error);
    loop_progress(l, s, 0, 0);
    pthread_mutex_lock(&l->lock);
    remove_from(l->live, &l->n_live, s);
    pthread_mutex_unlock(&l->lock);
    loop_gauges(l); // what a request did is counted when its reader sees the end
    stream_end(s->stream, finish, error);
    seq_close(s);
}

static bool out_of_time(struct loop *l, const struct seq *s, uint64_t now, struct err *error)
{
    if (s->deadline_ns == 0 || now < s->deadline_ns) return false;
    const double spent_s = (double)(now - stream_submit_ns(s->stream)) / 1e9;
    const double tps = stats_speed(&l->stats).wall_tps;
    const uint32_t n_match = s->n_match * s->page_tokens;
    uint32_t done = s->n_high > n_match ? s->n_high : n_match;
    if (done > s->n_prompt) done = s->n_prompt;
    if (s->first_ns > 0) {
        const double generate_s = (double)(now - s->first_ns) / 1e9;
        err_set(error, ERR_TIMEOUT, "timed out after %.1f s: %u tokens generated at %.1f tokens/s",
                spent_s, s->n_generated, generate_s > 0 ? s->n_generated / generate_s : 0);
        return true;
    }
    char more[80] = "no speed is known yet";
    if (tps > 0)
        snprintf(more, sizeof more, "%.0f tokens/s, would have needed %.1f s more", tps,
                 (s->n_prompt - done) / tps);
    err_set(error, ERR_TIMEOUT, "timed out after %.1f s in %s: %u of %u tokens at %s", spent_s,
            s->admitted_ns > 0 ? "prefill" : "the queue", done, s->n_prompt, more);
    return true;
}

void loop_end_gone(struct loop *l)
{
    struct err cancelled = {0};
    err_set(&cancelled, ERR_CANCELLED, "the client went away");
    const uint64_t now = clock_ns();
    struct seq **lists[2] = {l->running, l->waiting};
    uint32_t *counts[2] = {&l->n_running, &l->n_waiting};
    for (int k = 0; k < 2; k++) {
        for (uint32_t i = *counts[k]; i-- > 0;) {
            struct seq *s = lists[k][i]; // an end moves the last one here, which was seen
            struct err error = {0};
            if (stream_is_cancelled(s->stream))
                loop_end(l, s, FINISH_ERROR, &cancelled);
            else if (out_of_time(l, s, now, &error))
                loop_end(l, s, FINISH_ERROR, &error);
        }
    }
}

// ---- tokens -------------------------------------------------------------------------------------

static bool pick_of_all(struct loop *l, struct seq *s, uint32_t out, bool masked, int32_t *id,
                        float *logit, struct err *e)
{
    float *logits = l->scratch.logits;
    struct topk_row scratch = {0};
    if (!net_read_logits(l->cfg.net, out, logits, e)) return false;
    if (masked && !form_mask(&s->form, l->cfg.tok, logits, l->cfg.n_vocab))
        return err_set(
            e, ERR_INTERNAL,
            "no token of this model goes on with the answer in the form asked for; try a "
            "simpler schema");
    *id = sample_pick_full(logits, l->cfg.n_vocab, &s->sampling, &s->rng, &scratch);
    *logit = logits[*id];
    return true;
}

static float logit_of(const struct topk_row *row, int32_t id)
{
    for (uint32_t i = 0; i < row->n; i++)
        if (row->ids[i] == id) return row->logits[i];
    return 0;
}

// Another token than one that the form does not allow. Drawing once more among those that it does gives
// each the share that it has among them. Of the row's where there are any, which leaves tokens beyond
// the TOPK_MAX likeliest out, but does not ask the grammar for all of them: that takes up to 0.2 s of
// everybody's time with 151,936 tokens within a string, where nearly all are allowed; where few are, 5 ms.
static bool pick_in_form(struct loop *l, struct seq *s, uint32_t out, int32_t *id, float *logit,
                         struct err *e)
{
    const struct topk_row *row = &l->scratch.topk[out];
    struct topk_row allowed;
    if (!form_filter(&s->form, l->cfg.tok, row, &allowed))
        return pick_of_all(l, s, out, true, id, logit, e);
    *id = sample_pick_among(&allowed, &s->sampling, &s->rng);
    *logit = logit_of(row, *id);
    return true;
}

// The sampled token, and its logit.
static bool pick(struct loop *l, struct seq *s, uint32_t out, int32_t *id, float *logit,
                 struct err *e)
{
    const struct topk_row *row = &l->scratch.topk[out];
    if (row->n == 0 || !isfinite(row->logits[0]))
        return err_set(
            e, ERR_DEVICE,
            "the model's logits are no numbers: its file may be damaged; fetch it again, "
            "or try another --device");
    if (sample_pick(row, &s->sampling, &s->rng, id))
        *logit = logit_of(row, *id);
    else if (!pick_of_all(l, s, out, false, id, logit, e))
        return false;
    return form_allows(&s->form, l->cfg.tok, *id) || pick_in_form(l, s, out, id, logit, e);
}

static void first_token(struct loop *l, struct seq *s)
{
    if (s->first_ns > 0) return;
    s->first_ns = clock_ns();
    const double ttft_s = (double)(s->first_ns - stream_submit_ns(s->stream)) / 1e9;
    pthread_mutex_lock(&l->stats.lock);
    histogram_add(&l->stats.s.ttft, ttft_s);
    count_cached(&l->stats.s, s);
    pthread_mutex_unlock(&l->stats.lock);
}

static void put_token(struct loop *l, struct seq *s, int32_t id, float logit,
                      const struct topk_row *row)
{
    struct stream_event event = {.kind = EVENT_TOKEN, .id = id};
    if (s->logprobs) {
        event.logprob = logit - row->lse;
        event.n_top = s->n_top < row->n ? s->n_top : row->n;
        for (uint32_t i = 0; i < event.n_top; i++) {
            event.top[i].id = row->ids[i];
            event.top[i].logprob = row->logits[i] - row->lse;
        }
    }
    seq_append(s, id);
    if (id == l->cfg.call_end_token) s->hint.paused = true;
    loop_set_stage(s, STAGE_GENERATE);
    loop_progress(l, s, 0, 0);
    stream_put(s->stream, &event);
    pthread_mutex_lock(&l->stats.lock);
    l->stats.s.generated_tokens++;
    pthread_mutex_unlock(&l->stats.lock);
}

// A stop string's last token is in the stream: who shows text holds back with text/stop.h as well,
// and may need that token's first bytes.
static bool completes_stop(struct loop *l, struct seq *s, int32_t id)
{
    if (s->stop.n_strings == 0 || l->cfg.tok == NULL) return false;
    buf_clear(&s->text);
    return stop_feed(&s->stop, tokenizer_piece(l->cfg.tok, id), &s->text);
}

void loop_emit(struct loop *l, struct seq *s, uint32_t out)
{
    struct err error = {0};
    if (s->ahead) { // all of its text has pages now
        loop_end(l, s, FINISH_STOP, NULL);
        return;
    }
    if (s->logits != NULL) {
        const bool ok = net_read_logits(l->cfg.net, out, s->logits, &error);
        first_token(l, s);
        loop_end(l, s, ok ? FINISH_STOP : FINISH_ERROR, &error);
        return;
    }
    int32_t id = 0;
    float logit = 0;
    if (!pick(l, s, out, &id, &logit, &error)) {
        loop_end(l, s, FINISH_ERROR, &error);
        return;
    }
    first_token(l, s);
    if (!s->ignore_eos && l->cfg.tok != NULL && tokenizer_is_end(l->cfg.tok, id)) {
        loop_end(l, s, FINISH_STOP, NULL);
        return;
    }
    form_take(&s->form, l->cfg.tok, id);
    put_token(l, s, id, logit, &l->scratch.topk[out]);
    if (completes_stop(l, s, id)) {
        loop_end(l, s, FINISH_STOP_STRING, NULL);
    } else if (s->text.failed) {
        err_set(&error, ERR_MEMORY, "no memory to look for stop strings");
        loop_end(l, s, FINISH_ERROR, &error);
    } else if (form_is_whole(&s->form)) {
        loop_end(l, s, FINISH_STOP, NULL);
    } else if (s->n_generated >= s->max_new) {
        loop_end(l, s, FINISH_LENGTH, NULL);
    }
}
