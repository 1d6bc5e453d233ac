// Every row of a step asks for its logits; the log-sum-exp over them is taken here in double, so that
// what is measured is the network and not the sum.
// Not here: tokens (the caller's) and pages in use (there is one sequence, its pages are 0, 1, ...).
#include "engine/score.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

struct score_run {
    const struct score_settings *s;
    uint32_t *pages, *out_rows; // [pages of n_ctx], [n_rows]
    float *logits;              // [n_vocab]
};

static double log_sum_exp(const float *logits, uint32_t n)
{
    float max = logits[0];
    double sum = 0;
    for (uint32_t i = 1; i < n; i++) max = logits[i] > max ? logits[i] : max;
    for (uint32_t i = 0; i < n; i++) sum += exp((double)logits[i] - (double)max);
    return (double)max + log(sum);
}

// Rows pos0 .. pos0 + n - 1 of a window; ids[pos0 + i + 1] is what row i should foretell, if it is
// still in the window of n_window tokens.
static bool score_step(struct score_run *r, const int32_t *ids, uint32_t n_window, uint32_t pos0,
                       uint32_t n, double *nll, size_t *n_scored, struct err *e)
{
    const uint32_t n_pages = (pos0 + n + r->s->page_tokens - 1) / r->s->page_tokens;
    const struct batch_seq seq = {.n_rows = n, .pos0 = pos0, .n_pages = n_pages};
    const struct batch batch = {.n_rows = n,
                                .n_seqs = 1,
                                .n_out = n,
                                .n_page_ids = n_pages,
                                .tokens = ids + pos0,
                                .seqs = &seq,
                                .pages = r->pages,
                                .out_rows = r->out_rows};
    if (!net_step(r->s->net, r->s->kv, &batch, e)) return false;
    for (uint32_t i = 0; i < n && pos0 + i + 1 < n_window; i++) {
        if (!net_read_logits(r->s->net, i, r->logits, e)) return false;
        *nll += log_sum_exp(r->logits, r->s->n_vocab) - (double)r->logits[ids[pos0 + i + 1]];
        (*n_scored)++;
    }
    return true;
}

static bool score_window(struct score_run *r, const int32_t *ids, uint32_t n_window, double *nll,
                         size_t *n_scored, struct err *e)
{
    for (uint32_t pos = 0; pos < n_window; pos += r->s->n_rows) {
        const uint32_t left = n_window - pos, n = left < r->s->n_rows ? left : r->s->n_rows;
        if (!score_step(r, ids, n_window, pos, n, nll, n_scored, e)) return false;
    }
    return true;
}

bool score_text(const struct score_settings *s, const int32_t *ids, size_t n_ids, double *nll,
                size_t *n_scored, struct err *e)
{
    assert(s->n_ctx > 1 && s->n_rows > 0);
    const uint32_t n_pages = (s->n_ctx + s->page_tokens - 1) / s->page_tokens;
    struct score_run r = {.s = s,
                          .pages = calloc(n_pages, sizeof *r.pages),
                          .out_rows = calloc(s->n_rows, sizeof *r.out_rows),
                          .logits = calloc(s->n_vocab, sizeof *r.logits)};
    bool ok = (r.pages != NULL && r.out_rows != NULL && r.logits != NULL) ||
              err_set(e, ERR_MEMORY, "no memory to score %zu tokens", n_ids);
    double sum = 0;
    size_t n = 0;
    for (uint32_t i = 0; i < n_pages && ok; i++) r.pages[i] = i;
    for (uint32_t i = 0; i < s->n_rows && ok; i++) r.out_rows[i] = i;
    for (size_t i = 0; i < n_ids && ok; i += s->n_ctx) {
        const size_t left = n_ids - i;
        ok = score_window(&r, ids + i, left < s->n_ctx ? (uint32_t)left : s->n_ctx, &sum, &n, e);
    }
    if (ok) {
        *nll = sum;
        *n_scored = n;
    }
    free(r.pages);
    free(r.out_rows);
    free(r.logits);
    return ok;
}
