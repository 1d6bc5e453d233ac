// POST /v1/chat/completions and /apply-template: parse, check, render, tokenize, hand on.
#include <stdio.h>

#include "serve/prompt.h"
#include "serve/reply.h"
#include "serve/routes.h"

// Body -> parameters and prompt text, as both routes have it.
static bool read_chat(struct exchange *x, bool guard, struct request_params *p, struct prompt *out,
                      struct err *e)
{
    struct value body = {0};
    uint32_t n_vocab = engine_info(x->sv->engine)->n_vocab;
    return exchange_parse(x, &body, e) && request_read_chat(p, body, n_vocab, &x->arena, e) &&
           prompt_render(x, p, guard, out, e);
}

bool route_chat(struct exchange *x)
{
    struct err e = {0};
    struct request_params p = {0};
    struct prompt prompt = {0};
    struct ids ids = {0};
    char hex[25];
    exchange_hex_id(x, 0, hex);
    snprintf(x->id, sizeof x->id, "chatcmpl-%s", hex);
    bool ok =
        read_chat(x, true, &p, &prompt, &e) && prompt_encode(x, &prompt, p.cache_salt, &ids, &e);
    bool open = ok ? reply_start(x, &p, &prompt.reply, &ids) : exchange_send_error(x, &e);
    prompt_free(&prompt);
    ids_free(&ids);
    return open;
}

bool route_apply_template(struct exchange *x)
{
    struct err e = {0};
    struct request_params p = {0};
    struct prompt prompt = {0};
    struct buf b = {0};
    if (!read_chat(x, false, &p, &prompt, &e)) return exchange_send_error(x, &e);
    buf_z(&b, "{\"prompt\":");
    buf_json(&b, buf_view(&prompt.text));
    buf_c(&b, '}');
    prompt_free(&prompt);
    return exchange_send_json(x, &b);
}
