// Texts are compared as the tokens spell them, so all places are bytes of the decoded prompt. What
// changes by itself seldom changes alone: behind a date the search goes on, for the time or the run's
// id that would be the next culprit.
#include "serve/explain.h"

#include <string.h>

#include "base/utf8.h"
#include "serve/explain_place.h"
#include "text/drift.h"

enum {
    CONTEXT_BYTES = 80, // shown on each side
    CHANGES_MAX = 8     // told of one prompt
};

struct change {
    struct drift d;
    size_t at; // first byte of ours that differs
};

struct sides {
    struct buf ours, theirs; // whole prompt; the same up to other_from, then the cached text
    size_t at;               // first byte that differs, or the beginning of its character
    bool has_other, same_text;
    struct change changes[CHANGES_MAX];
    size_t n_changes; // more than one only where all change by themselves
};

static void put_pieces(struct buf *b, const struct tokenizer *tok, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) buf_str(b, tokenizer_piece(tok, ids[i]));
}

// The beginning of the character that holds the byte (UTF-8: 4 bytes at most).
static size_t char_start(struct str text, size_t at)
{
    size_t from = at;
    for (int i = 0; i < 3 && from > 0 && from < text.n && (text.p[from] & 0xc0) == 0x80; i++)
        from--;
    return from;
}

static size_t first_difference(struct str a, struct str b, size_t from)
{
    size_t at = from;
    while (at < a.n && at < b.n && a.p[at] == b.p[at]) at++;
    const size_t ours = char_start(a, at), theirs = char_start(b, at);
    return ours < theirs ? ours : theirs;
}

static bool make_sides(const struct explain_input *in, struct sides *s, struct err *e)
{
    const struct cache_probe *p = in->probe;
    put_pieces(&s->ours, in->tok, in->ids->p, in->ids->n);
    put_pieces(&s->theirs, in->tok, in->ids->p, p->other_from);
    size_t from = s->theirs.n;
    put_pieces(&s->theirs, in->tok, p->other, p->n_other);
    s->has_other = p->n_other > 0;
    if (!s->has_other) { // nothing to compare with: the token's own place
        struct buf before = {0};
        put_pieces(&before, in->tok, in->ids->p, p->diverged_at);
        s->at = char_start(buf_view(&s->ours), before.n);
        s->ours.failed |= before.failed;
        buf_free(&before);
    }
    if (s->ours.failed || s->theirs.failed)
        return err_set(e, ERR_MEMORY, "no memory to compare two prompts");
    const struct str ours = buf_view(&s->ours), theirs = buf_view(&s->theirs);
    if (s->has_other) s->at = first_difference(ours, theirs, from);
    s->same_text = s->at == ours.n || s->at == theirs.n;
    return true;
}

static bool find_changes(struct sides *s, struct err *e)
{
    size_t from = 0, theirs_from = 0, at = s->at;
    do {
        struct change *c = &s->changes[s->n_changes];
        const struct str ours = str_sub(buf_view(&s->ours), from, SIZE_MAX),
                         theirs = str_sub(buf_view(&s->theirs), theirs_from, SIZE_MAX);
        if (!drift_find(&c->d, ours, theirs, at, e)) return false;
        if (s->n_changes > 0 && !c->d.volatile_text) return true;
        c->at = from + at;
        c->d.same_from += from;
        c->d.theirs_from += theirs_from;
        s->n_changes++;
        if (!c->d.volatile_text) return true;
        from = c->d.same_from;
        theirs_from = c->d.theirs_from;
        const struct str rest = str_sub(buf_view(&s->ours), from, SIZE_MAX),
                         theirs_rest = str_sub(buf_view(&s->theirs), theirs_from, SIZE_MAX);
        at = first_difference(rest, theirs_rest, 0);
        if (at == rest.n || at == theirs_rest.n) return true;
    } while (s->n_changes < CHANGES_MAX);
    return true;
}

// The prompt's token that holds a byte.
static size_t token_at(const struct explain_input *in, size_t byte)
{
    size_t at = 0, i = 0;
    while (i < in->ids->n && (at += tokenizer_piece(in->tok, in->ids->p[i]).n) <= byte) i++;
    return i;
}

// The one that a person is told: of the first change, the first that differs.
static size_t token_of(const struct explain_input *in, const struct sides *s, size_t i)
{
    return i == 0 ? in->probe->diverged_at : token_at(in, s->changes[i].at);
}

// ---- words --------------------------------------------------------------------------------------

static void put_seconds(struct buf *b, const struct explain_input *in, size_t n_tokens)
{
    if (in->probe->prefill_tps > 0)
        buf_printf(b, "%.3f", (double)n_tokens / in->probe->prefill_tps);
    else
        buf_z(b, "null"); // no prompt was computed yet
}

static void say_cost(struct buf *b, const struct explain_input *in, size_t n_tokens)
{
    const double seconds =
        in->probe->prefill_tps > 0 ? (double)n_tokens / in->probe->prefill_tps : 0;
    buf_count(b, n_tokens);
    buf_z(b, " tokens");
    if (seconds > 0) buf_printf(b, " = %.*f s a run", seconds < 1 ? 2 : 1, seconds);
}

// Does another message stand there? Templates begin each with the name of its role, and no two
// roles begin with the same letter.
static bool is_other_message(const struct sides *s, const struct place *p)
{
    static const struct str roles[] = {{"assistant", 9}, {"user", 4}, {"system", 6}, {"tool", 4}};
    enum { N_ROLES = sizeof roles / sizeof roles[0] };
    bool ours = false, theirs = false;
    for (int i = 0; i < N_ROLES; i++) {
        ours |= str_starts(str_sub(buf_view(&s->ours), s->at, SIZE_MAX), roles[i]);
        theirs |= str_starts(str_sub(buf_view(&s->theirs), s->at, SIZE_MAX), roles[i]);
    }
    return ours && theirs && strcmp(p->what, "template") == 0;
}

static void to_other_message(struct drift *d, const struct sides *s, const struct place *p)
{
    const struct str ours = str_sub(buf_view(&s->ours), s->at, SIZE_MAX),
                     theirs = str_sub(buf_view(&s->theirs), s->at, SIZE_MAX);
    *d = (struct drift){
        .kind = "another message",
        .advice = p->before_all
                      ? "nothing to change between different agents; requests that are to share "
                        "must begin with the same messages"
                      : "nothing to change: the conversations part here",
        .ours = str_sub(ours, 0, str_find(ours, STR("\n"), 0)),
        .theirs = str_sub(theirs, 0, str_find(theirs, STR("\n"), 0)),
        .same_from = s->at};
}

// Tokens of our side that would be found again if the changes stood last.
static size_t tokens_saved(const struct explain_input *in, const struct sides *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_changes; i++) {
        const struct drift *d = &s->changes[i].d;
        n += token_at(in, d->same_from + d->same_bytes) - token_at(in, d->same_from);
    }
    return n / in->page_tokens * in->page_tokens;
}

static void say_nothing_differs(struct buf *b, const struct explain_input *in)
{
    static const char *const words[CACHE_REASONS] = {
        [CACHE_NOT_LOOKED] = "",
        [CACHE_WHOLE] = "nothing: all that can be cached is",
        [CACHE_ENDS] =
            "nothing: what is cached ends here and the prompt goes on; the next one will "
            "find this too",
        [CACHE_DIFFERS] =
            "compare with the other request (it may be under a cache_salt): from here on nothing "
            "is cached",
        [CACHE_COLD] =
            "nothing in the cache begins like this: warm it (submind cache warm), and look "
            "whether the requests carry different cache_salts",
        [CACHE_EVICTED] =
            "it was cached and is gone, dropped or to make room for others: warm it and pin it "
            "(submind cache warm --pin), raise --kv-memory, or give the others a lower "
            "cache_priority",
    };
    buf_z(b, words[in->probe->reason]);
}

static void say_changes(struct buf *b, const struct explain_input *in, const struct sides *s)
{
    for (size_t i = 0; i < s->n_changes; i++) {
        const struct place p = place_find(in->p, buf_view(&s->ours), s->changes[i].at);
        if (i > 0) buf_z(b, i + 1 < s->n_changes ? ", " : " and ");
        buf_printf(b, "%s at token ", s->changes[i].d.kind);
        buf_count(b, token_of(in, s, i));
        buf_z(b, ", in ");
        place_name(b, &p);
    }
}

// In a message that was sent or answered before.
static bool is_history(const struct place *p)
{
    return p->index > 0 && !p->last_message &&
           (strcmp(p->what, "message") == 0 || strcmp(p->what, "call") == 0 ||
            strcmp(p->what, "reasoning") == 0);
}

static void say_advice(struct buf *b, const struct explain_input *in, const struct sides *s,
                       const struct place *p)
{
    const struct drift *d = &s->changes[0].d;
    const size_t saved = tokens_saved(in, s);
    if (s->n_changes == 0) {
        say_nothing_differs(b, in);
        return;
    }
    if (s->same_text) {
        buf_z(b, "nothing: the texts are the same, but one was generated token by token and the "
                 "other was tokenized as a whole");
        return;
    }
    if (p->last_message && strcmp(p->what, "message") == 0 && saved == 0) {
        buf_z(b, "nothing: the requests share everything up to their own last message");
        return;
    }
    if (in->probe->n_hit < in->page_tokens && saved == 0 && strcmp(d->kind, "text") == 0) {
        buf_z(b, "nothing that is cached begins like this prompt, and what stands beside it is "
                 "another one: warm it (submind cache warm)");
        return;
    }
    say_changes(b, in, s);
    buf_z(b, ": ");
    if (s->n_changes > 1)
        buf_z(b, "move them to the end of the prompt (the last user message), or leave them out");
    else
        buf_z(b, is_history(p) && !d->volatile_text ? "send earlier messages again as they were"
                                                    : d->advice);
    if (saved == 0) return;
    buf_z(b, "; saves ");
    say_cost(b, in, saved);
}

static void put_culprit(struct buf *b, const struct explain_input *in, const struct sides *s)
{
    const struct drift *d = &s->changes[0].d;
    const size_t saved = tokens_saved(in, s);
    buf_z(b, ",\"culprit\":{\"kind\":");
    buf_json(b, str_from(s->same_text ? "tokenization" : d->kind));
    buf_z(b, ",\"ours\":");
    buf_json(b, d->ours);
    buf_z(b, ",\"theirs\":");
    buf_json(b, d->theirs);
    buf_printf(b, ",\"changes_by_itself\":%s,\"saves_tokens\":%zu,\"saves_seconds\":",
               d->volatile_text ? "true" : "false", saved);
    put_seconds(b, in, saved);
    buf_z(b, "},\"more\":[");
    for (size_t i = 1; i < s->n_changes; i++) {
        const struct change *c = &s->changes[i];
        const struct place p = place_find(in->p, buf_view(&s->ours), c->at);
        buf_printf(b, "%s{\"kind\":\"%s\",\"ours\":", i > 1 ? "," : "", c->d.kind);
        buf_json(b, c->d.ours);
        buf_z(b, ",\"theirs\":");
        buf_json(b, c->d.theirs);
        buf_printf(b, ",\"token\":%zu,", token_of(in, s, i));
        place_put(b, &p);
        buf_c(b, '}');
    }
    buf_c(b, ']');
}

// Up to CONTEXT_BYTES from the byte on, whole characters.
static struct str context(struct str text, size_t at)
{
    struct str s = str_sub(text, at, CONTEXT_BYTES);
    s.n -= utf8_partial_tail(s);
    return s;
}

static void put_context(struct buf *b, const struct sides *s)
{
    const struct str ours = buf_view(&s->ours), theirs = buf_view(&s->theirs);
    const size_t from = char_start(ours, s->at > CONTEXT_BYTES ? s->at - CONTEXT_BYTES : 0);
    buf_z(b, ",\"text\":{\"before\":");
    buf_json(b, str_sub(ours, from, s->at - from));
    buf_z(b, ",\"ours\":");
    buf_json(b, context(ours, s->at));
    buf_z(b, ",\"theirs\":");
    if (s->has_other)
        buf_json(b, context(theirs, s->at));
    else
        buf_z(b, "null");
    buf_c(b, '}');
}

static void put_head(struct buf *b, const struct explain_input *in)
{
    const struct cache_probe *p = in->probe;
    const size_t n = in->ids->n;
    buf_printf(b,
               "{\"prompt_tokens\":%zu,\"hit_tokens\":%u,\"ram_tokens\":%u,\"disk_tokens\":%u,"
               "\"public_tokens\":%u,\"reason\":\"%s\","
               "\"diverged_at\":%u,\"recompute_tokens\":%zu,\"recompute_seconds\":",
               n, p->n_hit, p->n_ram, p->n_disk, p->n_public, engine_cache_reason(p->reason),
               p->diverged_at, n - p->n_hit);
    put_seconds(b, in, n - p->n_hit);
    buf_printf(b, ",\"prefill_tokens_per_second\":%.1f,", p->prefill_tps);
}

bool explain_put(const struct explain_input *in, struct buf *out, struct err *e)
{
    struct sides s = {0};
    struct buf advice = {0};
    bool ok = make_sides(in, &s, e);
    // Where the cached text ends inside a page, what is shown of it is the same as ours up to there.
    const bool differs =
        ok && s.has_other && in->probe->reason != CACHE_WHOLE && in->probe->reason != CACHE_ENDS;
    if (differs) ok = find_changes(&s, e);
    if (ok) {
        const struct place p = place_find(in->p, buf_view(&s.ours), s.at);
        if (differs && is_other_message(&s, &p)) {
            to_other_message(&s.changes[0].d, &s, &p);
            s.n_changes = 1;
        }
        put_head(out, in);
        place_put(out, &p);
        put_context(out, &s);
        if (differs) put_culprit(out, in, &s);
        say_advice(&advice, in, &s, &p);
        buf_z(out, ",\"advice\":");
        buf_json(out, buf_view(&advice));
        buf_c(out, '}');
        if (advice.failed) out->failed = true;
    }
    buf_free(&advice);
    buf_free(&s.ours);
    buf_free(&s.theirs);
    return ok;
}
