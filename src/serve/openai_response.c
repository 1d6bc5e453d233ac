// Field names and shapes are OpenAI's; timings and prompt_progress are llama-server's, so that
// existing dashboards read them.
#include "serve/openai_response.h"

#include <math.h>
#include <string.h>

void response_number(struct buf *b, double v)
{
    if (!isfinite(v)) v = v > 0 ? 9999 : -9999; // OpenAI's own word for "minus infinity" is -9999
    buf_printf(b, "%.6g", v);
}

// The field that a complaint is about: complaints about a request begin with it, as "name" or as a
// path from messages or tools (openai_request.c, chat_check.c). Nothing where they begin otherwise.
static struct str field_of(const struct err *e)
{
    const struct str msg = str_from(e->msg), none = {"", 0};
    if (e->code != ERR_INPUT && e->code != ERR_UNSUPPORTED) return none;
    if (str_starts(msg, STR("\""))) {
        size_t end = str_find(msg, STR("\""), 1);
        return end == SIZE_MAX ? none : str_sub(msg, 1, end - 1);
    }
    struct str path = str_sub(msg, 0, str_find(msg, STR(" "), 0));
    bool known = str_starts(path, STR("messages")) || str_starts(path, STR("tools"));
    return known ? path : none;
}

void response_error(struct buf *b, const struct err *e, uint32_t n_prompt, uint32_t n_ctx)
{
    buf_z(b, "{\"error\":{\"message\":");
    buf_json(b, str_from(e->msg));
    buf_printf(b, ",\"type\":\"%s\",\"param\":", err_name(e->code));
    struct str field = field_of(e);
    if (field.n > 0)
        buf_json(b, field);
    else
        buf_z(b, "null");
    buf_printf(b, ",\"code\":%d", err_http_status(e->code));
    if (e->code == ERR_TOO_LONG && n_prompt > 0)
        buf_printf(b, ",\"n_prompt_tokens\":%u,\"n_ctx\":%u", n_prompt, n_ctx);
    if (e->retry_after_ms > 0) buf_printf(b, ",\"retry_after_ms\":%u", e->retry_after_ms);
    buf_z(b, "}}");
}

void response_open(struct buf *b, const struct response_head *h, bool chunk)
{
    const char *object = h->chat ? "chat.completion" : "text_completion";
    buf_printf(b, "{\"id\":\"%s\",\"object\":\"%s%s\",\"created\":%lld,\"model\":", h->id, object,
               h->chat && chunk ? ".chunk" : "", (long long)h->created_unix);
    buf_json(b, h->model);
    buf_z(b, ",\"system_fingerprint\":\"submind-" SUBMIND_VERSION "\"");
}

void response_usage(struct buf *b, const struct stream_status *st, uint32_t n_reasoning, bool chat)
{
    buf_printf(b, "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u",
               st->n_prompt, st->n_generated, st->n_prompt + st->n_generated);
    buf_printf(b, ",\"prompt_tokens_details\":{\"cached_tokens\":%u}", st->n_cached);
    if (chat)
        buf_printf(b, ",\"completion_tokens_details\":{\"reasoning_tokens\":%u}", n_reasoning);
    buf_c(b, '}');
}

// n done in ms: milliseconds each, and number a second; 0 where nothing was done.
static void put_rate(struct buf *b, const char *name, uint32_t n, double ms)
{
    buf_printf(b, "\"%s_n\":%u,\"%s_ms\":%.3f", name, n, name, ms);
    buf_printf(b, ",\"%s_per_token_ms\":%.4f", name, n > 0 ? ms / n : 0);
    buf_printf(b, ",\"%s_per_second\":%.3f", name, ms > 0 ? n * 1000.0 / ms : 0);
}

void response_timings(struct buf *b, const struct stream_status *st, const struct response_times *t)
{
    double ttft_ms = st->ttft_ms > 0 ? t->queue_in_ms + st->ttft_ms : 0;
    buf_printf(b, "\"timings\":{\"cache_n\":%u,", st->n_cached);
    put_rate(b, "prompt", st->n_prompt - st->n_cached, st->prefill_ms);
    buf_c(b, ',');
    put_rate(b, "predicted", st->n_generated, st->generate_ms);
    buf_printf(b, ",\"queue_in_ms\":%.3f,\"queue_ms\":%.3f,\"ttft_ms\":%.3f}", t->queue_in_ms,
               st->queued_ms, ttft_ms);
}

void response_cache(struct buf *b, const struct stream_status *st, const char *cache_type)
{
    const struct cache_report *c = &st->cache;
    const bool parts = c->reason != CACHE_WHOLE && c->reason != CACHE_NOT_LOOKED;
    buf_printf(b,
               "\"submind\":{\"cache\":{\"hit_tokens\":%u,\"device_tokens\":%u,\"ram_tokens\":%u,"
               "\"disk_tokens\":%u,\"restored_ms\":%.3f,\"recomputed_tokens\":%u,\"diverged_at\":",
               st->n_cached, c->n_device, c->n_ram, c->n_disk, c->restored_ms,
               st->n_prompt - st->n_cached);
    if (parts)
        buf_printf(b, "%u", c->diverged_at);
    else
        buf_z(b, "null");
    buf_printf(b, ",\"reason\":\"%s\"", engine_cache_reason(c->reason));
    if (strcmp(cache_type, "exact") != 0) buf_printf(b, ",\"cache_type\":\"%s\"", cache_type);
    buf_z(b, "}}");
}

void response_progress(struct buf *b, const struct stream_status *st)
{
    buf_printf(b, "\"prompt_progress\":{\"total\":%u,\"cached\":%u,\"processed\":%u", st->n_prompt,
               st->n_cached, st->n_processed);
    buf_printf(b, ",\"time_ms\":%.0f,\"eta_ms\":", st->total_ms);
    if (st->eta_ms >= 0)
        buf_printf(b, "%.0f", st->eta_ms);
    else
        buf_z(b, "null"); // not known yet
    buf_printf(b, ",\"queue_position\":%u}", st->queue_position);
}
