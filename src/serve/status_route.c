// What a client or a person asks about the server itself. Nothing here waits for the engine thread.
#include <string.h>

#include "base/clock.h"
#include "serve/openai_response.h"
#include "serve/routes.h"
#include "text/chat.h"

enum { SLOTS_MAX = 512 };

static void put_field(struct buf *b, const char *name, struct str value)
{
    buf_printf(b, "\"%s\":", name);
    buf_json(b, value);
}

// While loading this is the one route with a body of its own beside the error.
static bool health_loading(struct exchange *x, const struct err *e)
{
    const struct server *sv = x->sv;
    struct buf b = {0};
    uint64_t done = atomic_load_explicit(&sv->load_done, memory_order_relaxed);
    uint64_t total = atomic_load_explicit(&sv->load_total, memory_order_relaxed);
    bool loading = e->code == ERR_LOADING;
    buf_printf(&b, "{\"status\":\"%s\",\"progress\":%.4f,\"bytes_done\":%llu,\"bytes_total\":%llu,",
               loading ? "loading" : "unavailable", total > 0 ? (double)done / (double)total : 0.0,
               (unsigned long long)done, (unsigned long long)total);
    struct buf error = {0};
    response_error(&error, e, 0, 0);
    buf_str(&b, str_sub(buf_view(&error), 1, error.n)); // "error":{...}} closes b too
    if (error.failed) b.failed = true;
    buf_free(&error);
    return exchange_send(x, err_http_status(e->code), "application/json", &b);
}

bool route_health(struct exchange *x)
{
    struct err e = {0};
    struct buf b = {0};
    if (!server_check_ready(x->sv, &e)) return health_loading(x, &e);
    buf_z(&b, "{\"status\":\"ok\"}");
    return exchange_send_json(x, &b);
}

bool route_version(struct exchange *x)
{
    struct buf b = {0};
    buf_z(&b, "{\"version\":\"" SUBMIND_VERSION "\",\"name\":\"submind\"}");
    return exchange_send_json(x, &b);
}

static void put_model(struct buf *b, const struct server *sv)
{
    const struct engine_info *i = engine_info(sv->engine);
    buf_c(b, '{');
    put_field(b, "id", sv->model_name);
    buf_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"submind\"",
               (long long)i->loaded_unix);
    buf_printf(b, ",\"max_model_len\":%u,\"meta\":{", i->n_ctx);
    put_field(b, "arch", i->arch);
    buf_printf(b,
               ",\"n_vocab\":%u,\"n_ctx\":%u,\"n_ctx_train\":%u,\"n_embd\":%u,\"n_layer\":%u"
               ",\"n_params\":%llu,\"size\":%llu,",
               i->n_vocab, i->n_ctx, i->n_ctx_train, i->n_embd, i->n_layers,
               (unsigned long long)i->n_params, (unsigned long long)i->model_bytes);
    put_field(b, "ftype", i->file_type);
    buf_z(b, "}}");
}

bool route_models(struct exchange *x)
{
    struct buf b = {0};
    buf_z(&b, "{\"object\":\"list\",\"data\":[");
    put_model(&b, x->sv);
    buf_z(&b, "]}");
    return exchange_send_json(x, &b);
}

bool route_model(struct exchange *x)
{
    struct err e = {0};
    struct buf b = {0};
    struct str asked = str_from(x->path + strlen(x->route->path)), has = x->sv->model_name;
    if (!str_eq(asked, has)) {
        err_set(&e, ERR_NOT_FOUND, "there is no model \"%.120s\" here; there is \"%.*s\"", asked.p,
                (int)(has.n < 120 ? has.n : 120), has.p);
        return exchange_send_error(x, &e);
    }
    put_model(&b, x->sv);
    return exchange_send_json(x, &b);
}

static void put_sampling(struct buf *b, const struct engine *en)
{
    struct sampling s = {0};
    engine_sampling(en, false, &s);
    buf_printf(b, "{\"temperature\":%g,\"top_k\":%u,\"top_p\":%g,\"min_p\":%g,",
               (double)s.temperature, s.top_k, (double)s.top_p, (double)s.min_p);
    buf_printf(b, "\"repeat_penalty\":%g,\"presence_penalty\":%g,\"frequency_penalty\":%g}",
               (double)s.repeat_penalty, (double)s.presence_penalty, (double)s.frequency_penalty);
}

static void put_template(struct buf *b, const struct engine *en)
{
    const struct chat_template *t = engine_chat(en);
    bool tools = t != NULL && t->tools != TOOLS_NONE;
    put_field(b, "chat_template", engine_info(en)->chat_template);
    buf_printf(b,
               ",\"chat_template_caps\":{\"supports_tools\":%s,\"supports_tool_calls\":%s,"
               "\"supports_parallel_tool_calls\":%s,\"supports_thinking\":%s},",
               tools ? "true" : "false", tools ? "true" : "false", tools ? "true" : "false",
               t != NULL && t->has_thinking ? "true" : "false");
    put_field(b, "bos_token", t != NULL ? t->bos_token : STR(""));
    buf_c(b, ',');
    put_field(b, "eos_token", t != NULL ? t->eos_token : STR(""));
}

bool route_props(struct exchange *x)
{
    const struct engine *en = x->sv->engine;
    const struct engine_info *i = engine_info(en);
    struct buf b = {0};
    buf_z(&b, "{\"default_generation_settings\":{\"params\":");
    put_sampling(&b, en);
    buf_printf(&b, ",\"n_ctx\":%u},\"total_slots\":%u,", i->n_ctx, i->n_parallel);
    put_field(&b, "model_alias", x->sv->model_name);
    buf_c(&b, ',');
    put_field(&b, "model_path", i->model_path);
    buf_c(&b, ',');
    put_field(&b, "model_ftype", i->file_type);
    buf_c(&b, ',');
    put_field(&b, "device", i->device);
    buf_printf(&b, ",\"prefill_type\":\"%s\",\"cache_type\":\"%s\",\"kv_type\":\"%s\"",
               i->prefill_type, i->cache_type, i->kv_type);
    buf_printf(&b, ",\"page_tokens\":%u,\"n_pages\":%u,\"kv_bytes\":%llu,\"rope_factor\":%g,",
               i->page_tokens, i->n_pages, (unsigned long long)i->kv_bytes, (double)i->rope_factor);
    buf_z(&b, "\"modalities\":{\"vision\":false,\"audio\":false},");
    put_template(&b, en);
    buf_z(&b, ",\"build_info\":\"submind-" SUBMIND_VERSION "\"}");
    return exchange_send_json(x, &b);
}

static void put_slot(struct buf *b, const struct engine_slot *s)
{
    static const char *const stages[] = {"queued", "waiting_prefix", "prefill", "generate", "done"};
    const struct stream_status *st = &s->status;
    buf_printf(b, "{\"id\":%llu,\"stage\":\"%s\",\"is_processing\":%s,\"priority\":%d",
               (unsigned long long)s->job_id, stages[st->stage],
               st->stage == STAGE_QUEUED ? "false" : "true", s->priority);
    buf_printf(b,
               ",\"n_prompt_tokens\":%u,\"n_prompt_tokens_processed\":%u"
               ",\"n_prompt_tokens_cache\":%u,\"n_decoded\":%u,\"queue_position\":%u",
               st->n_prompt, st->n_processed, st->n_cached, st->n_generated, st->queue_position);
    buf_printf(b, ",\"queued_ms\":%.1f,\"prefill_ms\":%.1f,\"generate_ms\":%.1f,\"eta_ms\":",
               st->queued_ms, st->prefill_ms, st->generate_ms);
    if (st->eta_ms >= 0)
        buf_printf(b, "%.0f}", st->eta_ms);
    else
        buf_z(b, "null}");
}

bool route_slots(struct exchange *x)
{
    struct buf b = {0};
    struct err e = {0};
    struct engine_slot *slots = arena_array(&x->arena, SLOTS_MAX, sizeof *slots);
    if (slots == NULL) {
        err_set(&e, ERR_MEMORY, "no memory for the slots");
        return exchange_send_error(x, &e);
    }
    size_t n = engine_slots(x->sv->engine, slots, SLOTS_MAX);
    buf_c(&b, '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0) buf_c(&b, ',');
        put_slot(&b, &slots[i]);
    }
    buf_c(&b, ']');
    return exchange_send_json(x, &b);
}

bool route_options(struct exchange *x)
{
    struct buf b = {0};
    return exchange_send(x, 204, NULL, &b);
}
