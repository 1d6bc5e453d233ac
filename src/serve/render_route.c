// POST /v1/chat/completions/render and /v1/completions/render: the tokens that the same body would run
// on. Routers that place requests by prefix ask for them (llm-d's token producer).
#include "serve/prompt.h"
#include "serve/routes.h"

static void put_ids(struct buf *b, const struct ids *ids)
{
    buf_z(b, "{\"token_ids\":[");
    for (size_t i = 0; i < ids->n; i++) buf_printf(b, i == 0 ? "%d" : ",%d", ids->p[i]);
    buf_z(b, "]}");
}

static bool render(struct exchange *x, const char *field, const char *before, const char *behind)
{
    struct err e = {0};
    struct request_params p = {0};
    struct prompt prompt = {0};
    struct value body = {0};
    struct ids ids = {0};
    struct buf b = {0};
    bool ok = exchange_parse(x, &body, &e);
    if (ok && value_get(body, field).kind == VALUE_UNDEFINED)
        ok = err_set(&e, ERR_INPUT, "\"%s\" is missing", field);
    ok = ok && prompt_read(x, body, &p, &prompt, &ids, &e);
    if (ok) {
        buf_z(&b, before);
        put_ids(&b, &ids);
        buf_z(&b, behind);
    }
    prompt_free(&prompt);
    ids_free(&ids);
    return ok ? exchange_send_json(x, &b) : exchange_send_error(x, &e);
}

bool route_chat_render(struct exchange *x)
{
    return render(x, "messages", "", "");
}

// One entry for each prompt of the body, which may have one.
bool route_completions_render(struct exchange *x)
{
    return render(x, "prompt", "[", "]");
}
