// Tokens are judged by their bytes, as text/stop.h sees them: a control token has none and may not come,
// the end of the turn may when the answer is whole.
#include "engine/form.h"

#include <assert.h>
#include <math.h>

// The phase that an answer begins in.
static enum form_phase first_phase(const struct job_form *want)
{
    if (want->begun.n > 0 && want->may_call) return FORM_CALLS;
    if (want->answer == NULL) return want->call != NULL ? FORM_BETWEEN : FORM_FREE;
    return want->in_thinking && want->think_close >= 0 ? FORM_THINKS : FORM_FIRST;
}

bool form_open(struct form *f, const struct job_form *want, struct err *e)
{
    *f = (struct form){.phase = first_phase(want),
                       .may_call = want->may_call,
                       .think_open = want->think_close < 0 ? -1 : want->think_open,
                       .think_close = want->think_close,
                       .call_open = want->call_open,
                       .call_close = want->call_close};
    bool ok = (want->answer == NULL || grammar_match_open(&f->answer, want->answer, e)) &&
              (want->call == NULL || grammar_match_open(&f->call, want->call, e));
    if (ok && f->phase == FORM_CALLS && f->call != NULL &&
        !grammar_match_take(f->call, want->begun))
        ok = err_set(e, ERR_INTERNAL, "a call begins as none of the tools' calls can");
    if (!ok) form_close(f);
    return ok;
}

void form_close(struct form *f)
{
    grammar_match_close(f->answer);
    grammar_match_close(f->call);
    *f = (struct form){.phase = FORM_FREE};
}

// A token without a meaning of its own whose bytes may come next.
static bool goes_on(struct grammar_match *m, const struct tokenizer *tok, int32_t id)
{
    return tokenizer_kind(tok, id) != TOKEN_CONTROL &&
           grammar_match_test(m, tokenizer_piece(tok, id));
}

bool form_allows(const struct form *f, const struct tokenizer *tok, int32_t id)
{
    if (f->phase == FORM_FREE) return true; // without a vocabulary, too
    const bool end = tokenizer_is_end(tok, id);
    switch (f->phase) {
    case FORM_FREE:
    case FORM_BETWEEN: return true;
    case FORM_THINKS: return !end;
    case FORM_CALLS:
        if (f->call == NULL || end) return !end;
        return id == f->call_close ? grammar_match_complete(f->call) : goes_on(f->call, tok, id);
    case FORM_FIRST:
    case FORM_BLANK:
    case FORM_HOLDS: break;
    }
    if (f->phase == FORM_FIRST && id >= 0 && id == f->think_open) return true;
    if (f->phase != FORM_HOLDS && f->may_call && id == f->call_open) return true;
    return end ? grammar_match_complete(f->answer) : goes_on(f->answer, tok, id);
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

static void take(struct grammar_match *m, struct str bytes)
{
    const bool ok = grammar_match_take(m, bytes);
    assert(ok); // form_allows said so
    (void)ok;
}

static void begin_call(struct form *f)
{
    if (f->call != NULL) grammar_match_restart(f->call);
    f->phase = FORM_CALLS;
}

void form_take(struct form *f, const struct tokenizer *tok, int32_t id)
{
    if (f->phase == FORM_FREE || tokenizer_is_end(tok, id)) return;
    const struct str bytes = tokenizer_piece(tok, id);
    if (f->phase == FORM_THINKS) {
        if (id == f->think_close) f->phase = FORM_BLANK;
    } else if (f->phase == FORM_CALLS) {
        if (id == f->call_close)
            f->phase = FORM_BETWEEN;
        else if (f->call != NULL)
            take(f->call, bytes);
    } else if (f->may_call && f->phase != FORM_HOLDS && id == f->call_open) {
        begin_call(f);
    } else if (f->phase == FORM_FIRST && id == f->think_open) {
        f->phase = FORM_THINKS;
    } else if (f->phase != FORM_BETWEEN) {
        take(f->answer, bytes);
        f->phase = f->phase != FORM_HOLDS && str_trim(bytes).n == 0 ? FORM_BLANK : FORM_HOLDS;
    }
}

bool form_is_whole(const struct form *f)
{
    return f->phase == FORM_HOLDS && grammar_match_over(f->answer);
}
