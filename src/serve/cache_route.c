// /submind/cache: what is cached, why a prompt missed, and the operator's hand on it. For this machine
// or with a key only, because other people's prompts show through.
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "serve/explain.h"
#include "serve/prompt.h"
#include "serve/reply.h"
#include "serve/routes.h"
#include "serve/tier_route.h"

// ---- the list -----------------------------------------------------------------------------------

static void put_trunk(struct buf *b, const struct server *sv, const struct cache_trunk *t,
                      bool text)
{
    static const char *const tiers[] = {"device", "ram", "disk"};
    buf_printf(b, "{\"id\":\"%016llx\",\"parent\":", (unsigned long long)t->id);
    if (t->parent == UINT32_MAX)
        buf_z(b, "null");
    else
        buf_printf(b, "%u", t->parent);
    buf_printf(b, ",\"tokens_before\":%u,\"tokens\":%u,\"tokens_below\":%u,\"bytes\":%llu",
               t->n_before, t->n_tokens, t->n_below, (unsigned long long)t->bytes);
    buf_printf(b, ",\"tier\":\"%s\",\"hits\":%u,\"idle_s\":", tiers[t->tier], t->hits);
    if (t->idle_s >= 0)
        buf_printf(b, "%.1f", t->idle_s);
    else
        buf_z(b, "null");
    buf_printf(b,
               ",\"in_use\":%s,\"pinned\":%s,\"public\":%s,\"salt\":", t->in_use ? "true" : "false",
               t->pinned ? "true" : "false", t->public ? "true" : "false");
    if (t->salt == 0)
        buf_z(b, "null");
    else
        buf_printf(b, "\"%016llx\"", (unsigned long long)t->salt);
    buf_z(b, ",\"name\":");
    buf_json(b, str_from(t->name));
    if (text) {
        struct buf words = {0};
        for (uint32_t i = 0; i < t->n_head; i++)
            buf_str(&words, tokenizer_piece(engine_tokenizer(sv->engine), t->head[i]));
        buf_z(b, ",\"text\":");
        buf_json(b, buf_view(&words));
        buf_free(&words);
    }
    buf_c(b, '}');
}

bool route_cache_list(struct exchange *x)
{
    struct err e = {0};
    struct buf b = {0};
    struct cache_trunk *trunks = NULL;
    size_t n = 0;
    const bool text = str_eq(exchange_query(x, "show_text"), STR("1"));
    if (!engine_cache_list(x->sv->engine, &trunks, &n, &e)) return exchange_send_error(x, &e);
    buf_printf(&b, "{\"page_tokens\":%u,\"trunks\":[", engine_info(x->sv->engine)->page_tokens);
    for (size_t i = 0; i < n; i++) {
        if (i > 0) buf_c(&b, ',');
        put_trunk(&b, x->sv, &trunks[i], text);
    }
    buf_z(&b, "]}");
    free(trunks);
    return exchange_send_json(x, &b);
}

bool route_cache_stats(struct exchange *x)
{
    struct buf b = {0};
    struct engine_stats s;
    const struct engine_info *info = engine_info(x->sv->engine);
    engine_stats(x->sv->engine, &s);
    const uint64_t page_bytes = info->n_pages > 0 ? info->kv_bytes / info->n_pages : 0;
    const uint64_t device = s.cached_tokens - s.cached_ram_tokens - s.cached_disk_tokens;
    buf_printf(
        &b,
        "{\"prompt_tokens\":%llu,\"hit_tokens\":{\"device\":%llu,\"ram\":%llu,\"disk\":%llu},"
        "\"missed_tokens\":%llu,\"prefill_tokens_per_second\":%.1f",
        (unsigned long long)s.prompt_tokens, (unsigned long long)device,
        (unsigned long long)s.cached_ram_tokens, (unsigned long long)s.cached_disk_tokens,
        (unsigned long long)(s.prompt_tokens - s.cached_tokens), s.prefill_tps);
    buf_printf(&b,
               ",\"device\":{\"pages\":%u,\"used\":%u,\"cached\":%u,\"parts\":%u,\"pinned\":%u,"
               "\"public\":%u,\"page_tokens\":%u,\"page_bytes\":%llu},\"salts\":%u",
               s.pages_total, s.pages_used, s.pages_cached, s.pages_parts, s.pages_pinned,
               s.pages_public, info->page_tokens, (unsigned long long)page_bytes, s.salts);
    buf_printf(&b,
               ",\"evictions\":{\"room\":%llu,\"quota\":%llu,\"dropped\":%llu,\"replaced\":%llu},"
               "\"requests\":{",
               (unsigned long long)s.evicted[EVICT_ROOM],
               (unsigned long long)s.evicted[EVICT_QUOTA],
               (unsigned long long)s.evicted[EVICT_DROPPED],
               (unsigned long long)s.evicted[EVICT_REPLACED]);
    for (int i = CACHE_WHOLE; i < CACHE_REASONS; i++)
        buf_printf(&b, "%s\"%s\":%llu", i > CACHE_WHOLE ? "," : "",
                   engine_cache_reason((enum cache_reason)i),
                   (unsigned long long)s.requests_by_reason[i]);
    buf_c(&b, '}');
    tier_stats_json(&b, &s.tiers, info->cache_type);
    buf_c(&b, '}');
    return exchange_send_json(x, &b);
}

// ---- one prompt ---------------------------------------------------------------------------------

bool route_cache_explain(struct exchange *x)
{
    struct err e = {0};
    struct request_params p = {0};
    struct prompt prompt = {0};
    struct value body = {0};
    struct ids ids = {0};
    struct cache_probe probe = {0};
    struct buf b = {0};
    struct engine *en = x->sv->engine;
    bool ok = exchange_parse(x, &body, &e) && prompt_read(x, body, &p, &prompt, &ids, &e) &&
              engine_cache_probe(en, ids.p, ids.n, p.cache_salt, &probe, &e);
    const struct explain_input in = {.tok = engine_tokenizer(en),
                                     .ids = &ids,
                                     .p = &p,
                                     .probe = &probe,
                                     .page_tokens = engine_info(en)->page_tokens};
    ok = ok && explain_put(&in, &b, &e);
    cache_probe_free(&probe);
    prompt_free(&prompt);
    ids_free(&ids);
    if (ok) return exchange_send_json(x, &b);
    buf_free(&b);
    return exchange_send_error(x, &e);
}

struct warm_wish {
    bool pin, public;
    char name[CACHE_NAME_BYTES];
};

static bool read_flag(struct value body, const char *name, bool *out, struct err *e)
{
    const struct value v = value_get(body, name);
    if (v.kind == VALUE_UNDEFINED || v.kind == VALUE_NULL) return true;
    *out = v.kind == VALUE_BOOL && v.b;
    return v.kind == VALUE_BOOL || err_set(e, ERR_INPUT, "\"%s\" must be true or false, not %s",
                                           name, value_kind_name(v.kind));
}

static bool read_wish(struct value body, struct warm_wish *w, struct err *e)
{
    const struct value name = value_get(body, "name");
    if (!read_flag(body, "pin", &w->pin, e) || !read_flag(body, "public", &w->public, e))
        return false;
    if (w->public) w->pin = true; // a public trunk that could be evicted would come and go
    if (name.kind != VALUE_STRING) return true;
    if (name.s.n >= sizeof w->name)
        return err_set(e, ERR_INPUT, "\"name\" may have %d bytes, not %zu", CACHE_NAME_BYTES - 1,
                       name.s.n);
    if (name.s.n > 0) memcpy(w->name, name.s.p, name.s.n);
    return true;
}

// The part of a chat that other requests share: what stays the same when the last user message says
// something else.
static bool cut_to_trunk(struct exchange *x, struct value body, struct ids *ids, struct err *e)
{
    const struct value messages = value_get(body, "messages");
    if (messages.kind != VALUE_LIST || messages.list->n == 0) return true;
    struct value last = messages.list->items[messages.list->n - 1];
    const struct value role = value_get(last, "role");
    if (role.kind != VALUE_STRING || !str_eq(role.s, STR("user"))) return true;
    struct request_params p = {0};
    struct prompt prompt = {0};
    struct ids other = {0};
    bool ok = value_set(&x->arena, last, STR("content"), value_str(STR("\x01 other words"))) ||
              err_set(e, ERR_MEMORY, "no memory for the prompt");
    ok = ok && prompt_read(x, body, &p, &prompt, &other, e);
    size_t n = 0;
    while (ok && n < ids->n && n < other.n && ids->p[n] == other.p[n]) n++;
    if (ok && n > 0) ids->n = n;
    prompt_free(&prompt);
    ids_free(&other);
    return ok;
}

// Computes what is missing: a job of one token, whose answer nobody reads.
static bool compute(struct exchange *x, const struct ids *ids, const struct request_params *p,
                    struct stream_status *st, struct err *e)
{
    const struct job job = {.ids = ids->p,
                            .n_ids = ids->n,
                            .sampling = {.repeat_penalty = 1},
                            .max_tokens = 1,
                            .ignore_eos = true,
                            .priority = p->priority,
                            .timeout_ms = p->timeout_ms,
                            .cache_salt = p->cache_salt};
    struct stream *s = NULL;
    struct stream_event ev = {0};
    if (!engine_submit(x->sv->engine, &job, &s, e)) return false;
    bool ok = true;
    while (ok && ev.kind != EVENT_END) {
        if (stream_next(s, &ev)) continue;
        const enum exchange_wake wake = exchange_wait(x, stream_fd(s), -1);
        if (wake == WAKE_GONE) ok = err_set(e, ERR_CANCELLED, "the client went away");
        if (wake == WAKE_CLOSING) ok = err_set(e, ERR_SHUTDOWN, "the server is shutting down");
    }
    if (ok && ev.finish == FINISH_ERROR) ok = err_set(e, ev.error.code, "%s", ev.error.msg);
    stream_status(s, st);
    stream_close(s);
    return ok;
}

bool route_cache_warm(struct exchange *x)
{
    struct err e = {0};
    struct request_params p = {0};
    struct prompt prompt = {0};
    struct value body = {0};
    struct ids ids = {0};
    struct warm_wish wish = {0};
    struct stream_status st = {0};
    uint64_t id = 0;
    uint32_t n_pinned = 0;
    const uint64_t start = clock_ns();
    bool ok = exchange_parse(x, &body, &e) && read_wish(body, &wish, &e) &&
              prompt_read(x, body, &p, &prompt, &ids, &e) && cut_to_trunk(x, body, &ids, &e);
    if (ok && wish.pin && p.cache_salt.n > 0)
        ok = err_set(&e, ERR_INPUT, "a prompt under a cache_salt cannot be pinned here");
    ok = ok && compute(x, &ids, &p, &st, &e);
    if (ok && wish.pin)
        ok = engine_cache_pin_text(x->sv->engine, ids.p, ids.n, wish.public, wish.name, &id,
                                   &n_pinned, &e);
    prompt_free(&prompt);
    ids_free(&ids);
    if (!ok) return exchange_send_error(x, &e);
    struct buf b = {0};
    buf_printf(&b, "{\"tokens\":%u,\"cached_tokens\":%u,\"computed_tokens\":%u,\"ms\":%.1f,",
               st.n_prompt, st.n_cached, st.n_prompt - st.n_cached, clock_ms_since(start));
    buf_printf(&b, "\"pinned_tokens\":%u,\"public\":%s,\"id\":", n_pinned,
               wish.public ? "true" : "false");
    if (n_pinned > 0)
        buf_printf(&b, "\"%016llx\"}", (unsigned long long)id);
    else
        buf_z(&b, "null}");
    return exchange_send_json(x, &b);
}

// ---- the operator's hand ------------------------------------------------------------------------

static bool read_id(struct value body, uint64_t *out, struct err *e)
{
    const struct value v = value_get(body, "id");
    char digits[17] = "";
    char *end = digits;
    if (v.kind == VALUE_STRING && v.s.n > 0 && v.s.n < sizeof digits) {
        memcpy(digits, v.s.p, v.s.n);
        *out = strtoull(digits, &end, 16);
    }
    if (end > digits && *end == '\0' && *out != 0) return true;
    return err_set(e, ERR_INPUT, "\"id\" must be a trunk's id as `submind cache ls` shows it");
}

static bool answer(struct exchange *x, bool ok, const char *done, uint32_t n_tokens, struct err *e)
{
    struct buf b = {0};
    if (!ok) return exchange_send_error(x, e);
    buf_printf(&b, "{\"%s\":%u}", done, n_tokens);
    return exchange_send_json(x, &b);
}

bool route_cache_pin(struct exchange *x)
{
    struct err e = {0};
    struct value body = {0};
    struct warm_wish wish = {0};
    uint64_t id = 0;
    uint32_t n = 0;
    const bool ok = exchange_parse(x, &body, &e) && read_wish(body, &wish, &e) &&
                    read_id(body, &id, &e) &&
                    engine_cache_pin(x->sv->engine, id, wish.public, wish.name, &n, &e);
    return answer(x, ok, "pinned_tokens", n, &e);
}

bool route_cache_unpin(struct exchange *x)
{
    struct err e = {0};
    struct value body = {0};
    uint64_t id = 0;
    uint32_t n = 0;
    const bool ok = exchange_parse(x, &body, &e) && read_id(body, &id, &e) &&
                    engine_cache_unpin(x->sv->engine, id, &n, &e);
    return answer(x, ok, "unpinned_tokens", n, &e);
}

bool route_cache_drop(struct exchange *x)
{
    struct err e = {0};
    struct value body = {0};
    bool all = false;
    uint64_t id = 0;
    uint32_t n = 0;
    const bool ok = exchange_parse(x, &body, &e) && read_flag(body, "all", &all, &e) &&
                    (all || read_id(body, &id, &e)) && engine_cache_drop(x->sv->engine, id, &n, &e);
    return answer(x, ok, "dropped_tokens", n, &e);
}
