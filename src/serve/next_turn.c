// The conversation is rendered with the answer and one more question, and cut at the last special token before that
// question's text: whatever is asked, the prompt will begin so. Answers are spelled as the model spelled them (splice.h).
#include "serve/next_turn.h"

#include <string.h>

#include "base/log.h"
#include "serve/prompt.h"
#include "text/chat.h"

// Fewer tokens are quicker computed with the question than they are told from others.
enum { LEAST_TOKENS = 64 };

static const struct str question = {"submind-next-turn", 17}; // found by its last occurrence

bool next_turn_may_come(const struct exchange *x, const struct request_params *p)
{
    const struct chat_template *t = engine_chat(x->sv->engine);
    const bool over = p->has_cache_ttl && p->cache_ttl_s == 0; // nobody needs the pages
    return !x->sv->s.no_ahead && !x->no_ahead && !over && t != NULL && t->has_thinking;
}

static bool add_message(struct arena *a, struct value list, struct str role, struct str content)
{
    const struct value m = value_new_dict(a);
    return m.kind == VALUE_DICT && value_set(a, m, STR("role"), value_str(role)) &&
           value_set(a, m, STR("content"), value_str(content)) && value_append(a, list, m);
}

// The messages, the answer and a question.
static bool next_messages(struct arena *a, struct value messages, struct str content,
                          struct value *out)
{
    *out = value_new_list(a);
    bool ok = out->kind == VALUE_LIST && messages.kind == VALUE_LIST;
    for (size_t i = 0; ok && i < messages.list->n; i++)
        ok = value_append(a, *out, messages.list->items[i]);
    return ok && add_message(a, *out, STR("assistant"), content) &&
           add_message(a, *out, STR("user"), question);
}

static bool cut_at_question(struct buf *text)
{
    for (size_t i = text->n; i-- > 0;) {
        if (text->n - i < question.n || memcmp(text->p + i, question.p, question.n) != 0) continue;
        text->n = i;
        return true;
    }
    return false;
}

static void cut_behind_special(const struct tokenizer *t, struct ids *ids)
{
    while (ids->n > 0) {
        const enum token_kind kind = tokenizer_kind(t, ids->p[ids->n - 1]);
        if (kind == TOKEN_CONTROL || kind == TOKEN_USER) return;
        ids->n--;
    }
}

static bool next_prompt(struct exchange *x, const struct request_params *p, struct str content,
                        struct ids *out)
{
    struct request_params next = *p;
    struct prompt prompt = {0};
    struct err e = {0};
    const double render_ms = x->render_ms, tokenize_ms = x->tokenize_ms; // of the request
    if (next.tool_choice != CHOICE_NONE) next.tool_choice = CHOICE_AUTO;
    const bool ok = next_messages(&x->arena, p->messages, content, &next.messages) &&
                    prompt_render(x, &next, true, &prompt, &e) && cut_at_question(&prompt.text) &&
                    prompt_encode(x, &prompt, p->cache_salt, out, &e);
    prompt_free(&prompt);
    x->render_ms = render_ms;
    x->tokenize_ms = tokenize_ms;
    if (ok) cut_behind_special(engine_tokenizer(x->sv->engine), out);
    return ok;
}

void next_turn_expect(struct exchange *x, const struct request_params *p, struct str content,
                      const struct ids *have)
{
    struct ids ids = {0};
    struct err e = {0};
    if (server_state(x->sv) != SERVER_READY || content.n == 0) return;
    if (next_prompt(x, p, content, &ids)) {
        size_t same = 0;
        while (same < ids.n && same < have->n && ids.p[same] == have->p[same]) same++;
        const struct job job = {
            .ids = ids.p,
            .n_ids = ids.n,
            .cache_salt = p->cache_salt,
            .has_cache_priority = p->has_cache_priority,
            .has_cache_ttl = p->has_cache_ttl,
            .cache_priority = p->cache_priority,
            .cache_ttl_s = p->cache_ttl_s,
        };
        const bool worth = ids.n - same >= LEAST_TOKENS;
        if (worth && !engine_ahead(x->sv->engine, &job, &e))
            log_debug("serve", "the next turn is not computed ahead: %s", e.msg);
    }
    ids_free(&ids);
}
