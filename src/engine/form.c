// Tokens are judged by their bytes, as text/stop.h sees them: a control token has none and may not come,
// the end of the turn may when the answer is whole.
#include "engine/form.h"

#include <assert.h>
#include <math.h>

static bool open_calls(struct form *f, const struct job *job, struct err *e)
{
    f->call_open = job->call_open;
    f->call_close = job->call_close;
    f->phase = job->begun.n > 0 ? FORM_CALLS : FORM_BETWEEN;
    if (job->begun.n == 0 || grammar_match_take(f->match, job->begun)) return true;
    form_close(f);
    return err_set(e, ERR_INTERNAL, "a call begins as none of the tools' calls can");
}

bool form_open(struct form *f, const struct job *job, struct err *e)
{
    *f = (struct form){.phase = FORM_FREE};
    if (job->grammar == NULL) return true;
    if (!grammar_match_open(&f->match, job->grammar, e)) return false;
    if (job->form_in_calls) return open_calls(f, job, e);
    f->think_open = job->think_open;
    f->think_close = job->think_close;
    f->phase = f->think_close < 0 ? FORM_HOLDS : job->in_thinking ? FORM_THINKS : FORM_FIRST;
    return true;
}

void form_close(struct form *f)
{
    grammar_match_close(f->match);
    *f = (struct form){.phase = FORM_FREE};
}

bool form_allows(const struct form *f, const struct tokenizer *tok, int32_t id)
{
    if (f->phase == FORM_FREE || f->phase == FORM_BETWEEN) return true;
    if (f->phase == FORM_CALLS && id == f->call_close) return grammar_match_complete(f->match);
    const bool end = tokenizer_is_end(tok, id);
    if (f->phase == FORM_THINKS) return !end;
    if (f->phase == FORM_FIRST && id == f->think_open) return true;
    if (end) return f->phase != FORM_CALLS && grammar_match_complete(f->match);
    return tokenizer_kind(tok, id) != TOKEN_CONTROL &&
           grammar_match_test(f->match, tokenizer_piece(tok, id));
}

bool form_filter(const struct form *f, const struct tokenizer *tok, const struct topk_row *row,
                 struct topk_row *out)
{
    out->n = 0;
    out->lse = row->lse;
    for (uint32_t i = 0; i < row->n; i++) {
        if (!form_allows(f, tok, row->ids[i])) continue;
        out->ids[out->n] = row->ids[i];
        out->logits[out->n++] = row->logits[i];
    }
    return out->n > 0;
}

bool form_mask(const struct form *f, const struct tokenizer *tok, float *logits, uint32_t n_vocab)
{
    bool any = false;
    for (uint32_t i = 0; i < n_vocab; i++) {
        if (!(logits[i] > -INFINITY)) continue;
        if (form_allows(f, tok, (int32_t)i))
            any = true;
        else
            logits[i] = -INFINITY;
    }
    return any;
}

void form_take(struct form *f, const struct tokenizer *tok, int32_t id)
{
    if (f->phase == FORM_FREE || tokenizer_is_end(tok, id)) return;
    if (f->phase == FORM_THINKS) {
        if (id == f->think_close) f->phase = FORM_HOLDS;
        return;
    }
    if (f->phase == FORM_BETWEEN) {
        if (id != f->call_open) return;
        grammar_match_restart(f->match);
        f->phase = FORM_CALLS;
        return;
    }
    if (f->phase == FORM_CALLS && id == f->call_close) {
        f->phase = FORM_BETWEEN;
        return;
    }
    if (f->phase == FORM_FIRST && id == f->think_open) {
        f->phase = FORM_THINKS;
        return;
    }
    const bool ok = grammar_match_take(f->match, tokenizer_piece(tok, id));
    assert(ok); // form_allows said so
    (void)ok;
    if (f->phase == FORM_FIRST) f->phase = FORM_HOLDS;
}

bool form_is_whole(const struct form *f)
{
    return f->phase == FORM_HOLDS && grammar_match_over(f->match);
}
