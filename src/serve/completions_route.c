// POST /v1/completions: the prompt is the client's own text or tokens; control tokens in it count.
#include <stdio.h>

#include "serve/prompt.h"
#include "serve/reply.h"
#include "serve/routes.h"

bool route_completions(struct exchange *x)
{
    struct err e = {0};
    struct request_params p = {0};
    struct value body = {0};
    struct ids ids = {0};
    struct reply_options o = {0};
    char hex[25];
    exchange_hex_id(x, 0, hex);
    snprintf(x->id, sizeof x->id, "cmpl-%s", hex);
    uint32_t n_vocab = engine_info(x->sv->engine)->n_vocab;
    bool ok = exchange_parse(x, &body, &e) &&
              request_read_completion(&p, body, n_vocab, &x->arena, &e) &&
              prompt_encode_text(x, p.prompt, p.cache_salt, &ids, &e);
    bool open = ok ? reply_start(x, &p, &o, &ids) : exchange_send_error(x, &e);
    ids_free(&ids);
    return open;
}
