// POST /v1/completions: the prompt is the client's own text or tokens; control tokens in it count.
#include <stdio.h>

#include "base/clock.h"
#include "serve/reply.h"
#include "serve/routes.h"

static bool read_ids(struct exchange *x, struct value prompt, struct ids *out, struct err *e)
{
    if (prompt.kind == VALUE_STRING) {
        uint64_t start = clock_ns();
        bool ok = tokenizer_encode(engine_tokenizer(x->sv->engine), prompt.s,
                                   TOKENIZE_CONTROL | TOKENIZE_BOS, out, e);
        x->tokenize_ms = clock_ms_since(start);
        if (!ok) return false;
    }
    for (size_t i = 0; prompt.kind == VALUE_LIST && i < prompt.list->n; i++) {
        int32_t id = (int32_t)prompt.list->items[i].i; // checked by request_read_completion
        if (!ids_put(out, &id, 1)) return err_set(e, ERR_MEMORY, "no memory for the prompt");
    }
    return out->n > 0 || err_set(e, ERR_INPUT, "\"prompt\" is empty; send at least one token");
}

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
              read_ids(x, p.prompt, &ids, &e);
    bool open = ok ? reply_start(x, &p, &o, &ids) : exchange_send_error(x, &e);
    ids_free(&ids);
    return open;
}
