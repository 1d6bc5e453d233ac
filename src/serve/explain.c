// Texts are compared as the tokens spell them, so all places are bytes of the decoded prompt. Which
// message or tool a byte belongs to is found by looking for their texts in the prompt, in order: a
// template may put anything around them.
#include "serve/explain.h"

#include <string.h>

#include "text/drift.h"

enum {
    CONTEXT_BYTES = 80, // shown on each side
    PROBE_LEAST = 8,    // shorter ones could be anywhere
    PROBE_BYTES = 200,  // of a message that are looked for
};

struct place {
    const char *what;  // "message", "tool", "template", "prompt"
    size_t index;      // of the message or tool; of the message before (template)
    struct str role;   // of a message, or a tool's name
    uint32_t line;     // in the message, from 1
    bool last_message; // nothing comes after it
    bool before_all;   // template text in front of the first message
};

struct sides {
    struct buf ours, theirs; // whole prompt; the same up to other_from, then the cached text
    size_t at;               // first byte that differs
    bool has_other, same_text;
};

static void put_pieces(struct buf *b, const struct tokenizer *tok, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) buf_str(b, tokenizer_piece(tok, ids[i]));
}

static bool make_sides(const struct explain_input *in, struct sides *s, struct err *e)
{
    const struct cache_probe *p = in->probe;
    put_pieces(&s->ours, in->tok, in->ids->p, in->ids->n);
    put_pieces(&s->theirs, in->tok, in->ids->p, p->other_from);
    s->at = s->theirs.n;
    put_pieces(&s->theirs, in->tok, p->other, p->n_other);
    if (s->ours.failed || s->theirs.failed)
        return err_set(e, ERR_MEMORY, "no memory to compare two prompts");
    s->has_other = p->n_other > 0;
    while (s->at < s->ours.n && s->at < s->theirs.n && s->ours.p[s->at] == s->theirs.p[s->at])
        s->at++;
    if (!s->has_other) { // nothing to compare with: the token's own place
        struct buf before = {0};
        put_pieces(&before, in->tok, in->ids->p, p->diverged_at);
        s->at = before.n;
        if (before.failed) err_set(e, ERR_MEMORY, "no memory to compare two prompts");
        buf_free(&before);
    }
    return true;
}

// The prompt's token that holds a byte.
static size_t token_at(const struct explain_input *in, size_t byte)
{
    size_t at = 0, i = 0;
    while (i < in->ids->n && (at += tokenizer_piece(in->tok, in->ids->p[i]).n) <= byte) i++;
    return i;
}

// ---- places -------------------------------------------------------------------------------------

static uint32_t line_number(struct str text, size_t from, size_t to)
{
    uint32_t line = 1;
    for (size_t i = from; i < to && i < text.n; i++) line += text.p[i] == '\n';
    return line;
}

// The tool whose line in the prompt holds the byte: templates print one a line.
static bool in_tool(struct value tools, struct str text, size_t at, struct place *out)
{
    size_t from = 0;
    for (size_t i = 0; tools.kind == VALUE_LIST && i < tools.list->n; i++) {
        struct value name = value_get(value_get(tools.list->items[i], "function"), "name");
        struct buf quoted = {0};
        if (name.kind != VALUE_STRING) continue;
        buf_z(&quoted, "\"name\": ");
        buf_json(&quoted, name.s);
        size_t found = str_find(text, buf_view(&quoted), from);
        buf_free(&quoted);
        if (found == SIZE_MAX) continue;
        size_t start = found, end = found;
        while (start > 0 && text.p[start - 1] != '\n') start--;
        while (end < text.n && text.p[end] != '\n') end++;
        from = found + 1;
        if (at < start || at >= end) continue;
        *out = (struct place){.what = "tool", .index = i, .role = name.s, .line = 1};
        return true;
    }
    return false;
}

static void in_message(struct value messages, struct str text, size_t at, struct place *out)
{
    size_t from = 0;
    *out = (struct place){.what = "template", .before_all = true};
    for (size_t i = 0; messages.kind == VALUE_LIST && i < messages.list->n; i++) {
        const struct value m = messages.list->items[i], role = value_get(m, "role");
        const struct value content = value_get(m, "content");
        const struct str body = content.kind == VALUE_STRING ? str_trim(content.s) : STR("");
        const bool last = i + 1 == messages.list->n;
        if (body.n == 0 || (!last && body.n < PROBE_LEAST)) continue;
        size_t found = str_find(text, str_sub(body, 0, PROBE_BYTES), from);
        if (found == SIZE_MAX) continue;
        if (last) found = str_rfind(text, body); // may be a word that stands elsewhere too
        if (found == SIZE_MAX || found < from) continue;
        if (at < found) return; // the template's words in front of it
        from = found + body.n < text.n ? found + body.n : text.n;
        *out = (struct place){.what = at < from ? "message" : "template",
                              .index = i,
                              .role = role.kind == VALUE_STRING ? role.s : STR(""),
                              .line = line_number(text, found, at),
                              .last_message = last};
        if (at < from) return;
    }
}

static struct place find_place(const struct explain_input *in, struct str text, size_t at)
{
    struct place p = {.what = "prompt", .line = line_number(text, 0, at)};
    if (in->p->messages.kind != VALUE_LIST) return p;
    if (!in_tool(in->p->tools, text, at, &p)) in_message(in->p->messages, text, at, &p);
    return p;
}

static void name_place(struct buf *b, const struct place *p)
{
    if (strcmp(p->what, "message") == 0)
        buf_printf(b, "line %u of messages[%zu] (%.*s)", p->line, p->index, (int)p->role.n,
                   p->role.p);
    else if (strcmp(p->what, "tool") == 0)
        buf_printf(b, "tools[%zu] (%.*s)", p->index, (int)p->role.n, p->role.p);
    else if (strcmp(p->what, "prompt") == 0)
        buf_printf(b, "line %u of the prompt", p->line);
    else if (p->before_all)
        buf_z(b, "the template's text in front of messages[0]");
    else
        buf_printf(b, "the template's text behind messages[%zu]", p->index);
}

static void put_place(struct buf *b, const struct place *p)
{
    struct buf words = {0};
    name_place(&words, p);
    buf_printf(b, "\"place\":{\"what\":\"%s\",\"index\":%zu,\"name\":", p->what, p->index);
    buf_json(b, p->role);
    buf_printf(b, ",\"line\":%u,\"words\":", p->line);
    buf_json(b, buf_view(&words));
    buf_c(b, '}');
    buf_free(&words);
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
    buf_printf(b, "%zu tokens", n_tokens);
    if (in->probe->prefill_tps > 0)
        buf_printf(b, " = %.1f s a run", (double)n_tokens / in->probe->prefill_tps);
}

// Does the chat go on with another message? Templates begin each with the name of its role.
static bool is_next_message(const struct place *p, const struct drift *d)
{
    static const struct str roles[] = {{"assistant", 9}, {"user", 4}, {"system", 6}, {"tool", 4}};
    enum { N_ROLES = sizeof roles / sizeof roles[0] };
    bool ours = false, theirs = false;
    for (int i = 0; i < N_ROLES; i++) {
        ours |= str_starts(d->ours, roles[i]);
        theirs |= str_starts(d->theirs, roles[i]);
    }
    return ours && theirs && !p->before_all && strcmp(p->what, "template") == 0;
}

// Tokens of our side that would be found again if the change stood last.
static size_t tokens_saved(const struct explain_input *in, const struct sides *s,
                           const struct drift *d)
{
    const size_t from = d->volatile_text ? (size_t)(d->ours.p - s->ours.p) + d->ours.n : s->at;
    const size_t end = from + d->same_bytes < s->ours.n ? from + d->same_bytes : s->ours.n;
    const size_t n = token_at(in, end) - token_at(in, from);
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
            "it was cached and made room for others: pin it (submind cache pin), raise "
            "--kv-memory, or give the others a lower cache_priority",
    };
    buf_z(b, words[in->probe->reason]);
}

static void say_advice(struct buf *b, const struct explain_input *in, const struct sides *s,
                       const struct place *p, const struct drift *d)
{
    const size_t saved = d == NULL ? 0 : tokens_saved(in, s, d);
    if (d == NULL) {
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
    buf_printf(b, "%s at token %zu, in ", d->kind, token_at(in, s->at));
    name_place(b, p);
    buf_printf(b, ": %s", d->advice);
    if (saved == 0) return;
    buf_z(b, "; saves ");
    say_cost(b, in, saved);
}

static void put_culprit(struct buf *b, const struct explain_input *in, const struct sides *s,
                        const struct drift *d)
{
    const size_t saved = tokens_saved(in, s, d);
    buf_z(b, ",\"culprit\":{\"kind\":");
    buf_json(b, str_from(s->same_text ? "tokenization" : d->kind));
    buf_z(b, ",\"ours\":");
    buf_json(b, d->ours);
    buf_z(b, ",\"theirs\":");
    buf_json(b, d->theirs);
    buf_printf(b, ",\"changes_by_itself\":%s,\"saves_tokens\":%zu,\"saves_seconds\":",
               d->volatile_text ? "true" : "false", saved);
    put_seconds(b, in, saved);
    buf_c(b, '}');
}

static void put_context(struct buf *b, const struct sides *s)
{
    const struct str ours = buf_view(&s->ours), theirs = buf_view(&s->theirs);
    const size_t from = s->at > CONTEXT_BYTES ? s->at - CONTEXT_BYTES : 0;
    buf_z(b, ",\"text\":{\"before\":");
    buf_json(b, str_sub(ours, from, s->at - from));
    buf_z(b, ",\"ours\":");
    buf_json(b, str_sub(ours, s->at, CONTEXT_BYTES));
    buf_z(b, ",\"theirs\":");
    if (s->has_other)
        buf_json(b, str_sub(theirs, s->at, CONTEXT_BYTES));
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
    struct drift d = {0};
    struct buf advice = {0};
    bool ok = make_sides(in, &s, e);
    const bool differs = ok && s.has_other && in->probe->reason != CACHE_WHOLE;
    if (differs) ok = drift_find(&d, buf_view(&s.ours), buf_view(&s.theirs), s.at, e);
    if (ok) {
        const struct place p = find_place(in, buf_view(&s.ours), s.at);
        s.same_text = s.at == s.ours.n || s.at == s.theirs.n;
        if (differs && is_next_message(&p, &d)) {
            d.kind = "another message";
            d.advice = "nothing to change: the conversations part here";
            d.same_bytes = 0;
        }
        put_head(out, in);
        put_place(out, &p);
        put_context(out, &s);
        if (differs) put_culprit(out, in, &s, &d);
        say_advice(&advice, in, &s, &p, differs ? &d : NULL);
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
