// GET /metrics, Prometheus text format 0.0.4. The vllm: names are what routers read (Gateway API
// inference extension, llm-d, production-stack, smg); they need the TYPE lines, and usage from 0
// to 1.
#include <stdio.h>

#include "base/clock.h"
#include "serve/routes.h"

struct page {
    struct buf b;
    char labels[200]; // model_name="..."
};

static void declare(struct page *p, const char *name, const char *type, const char *help)
{
    buf_printf(&p->b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void sample(struct page *p, const char *name, double v)
{
    buf_printf(&p->b, "%s{%s} %.10g\n", name, p->labels, v);
}

static void gauge(struct page *p, const char *name, const char *help, double v)
{
    declare(p, name, "gauge", help);
    sample(p, name, v);
}

static void counter(struct page *p, const char *name, const char *help, double v)
{
    declare(p, name, "counter", help);
    sample(p, name, v);
}

static void histogram(struct page *p, const char *name, const char *help, const struct histogram *h)
{
    uint64_t sum = 0;
    declare(p, name, "histogram", help);
    for (int i = 0; i < HIST_BUCKETS; i++) {
        sum += h->counts[i]; // counts are per bucket, Prometheus wants cumulative ones
        buf_printf(&p->b, "%s_bucket{%s,le=\"", name, p->labels);
        if (i < HIST_BUCKETS - 1)
            buf_printf(&p->b, "%g\"} %llu\n", engine_hist_bounds[i], (unsigned long long)sum);
        else
            buf_printf(&p->b, "+Inf\"} %llu\n", (unsigned long long)sum);
    }
    buf_printf(&p->b, "%s_sum{%s} %.10g\n%s_count{%s} %llu\n", name, p->labels, h->sum, name,
               p->labels, (unsigned long long)sum);
}

// A label's value: quotes, backslashes and newlines escaped.
static void label_init(struct page *p, struct str model)
{
    size_t n = (size_t)snprintf(p->labels, sizeof p->labels, "model_name=\"");
    for (size_t i = 0; i < model.n && n + 4 < sizeof p->labels; i++) {
        char c = model.p[i];
        if (c == '"' || c == '\\' || c == '\n') p->labels[n++] = '\\';
        p->labels[n++] = c == '\n' ? 'n' : c;
    }
    p->labels[n++] = '"';
    p->labels[n] = '\0';
}

static void put_router_gauges(struct page *p, const struct engine_stats *st,
                              const struct engine_info *info)
{
    double usage = st->pages_total > 0 ? (double)st->pages_used / st->pages_total : 0;
    gauge(p, "vllm:num_requests_running", "Requests being computed.", st->running);
    gauge(p, "vllm:num_requests_waiting", "Requests in the queue.", st->waiting);
    gauge(p, "vllm:kv_cache_usage_perc", "KV pages in use by running requests, 0 to 1.", usage);
    gauge(p, "vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.", usage);
    declare(p, "vllm:cache_config_info", "gauge", "Size of the KV cache.");
    buf_printf(&p->b, "vllm:cache_config_info{%s,block_size=\"%u\",num_gpu_blocks=\"%u\"} 1\n",
               p->labels, info->page_tokens, info->n_pages);
    declare(p, "vllm:lora_requests_info", "gauge", "Adapters: there are none.");
    buf_printf(&p->b,
               "vllm:lora_requests_info{max_lora=\"0\",running_lora_adapters=\"\","
               "waiting_lora_adapters=\"\"} %lld\n",
               (long long)clock_unix());
}

static void put_router_counters(struct page *p, const struct server *sv,
                                const struct engine_stats *st)
{
    static const char *const reasons[DONE_COUNT] = {"stop", "length", "tool_calls", "abort",
                                                    "error"};
    double queries = (double)st->prompt_tokens, hits = (double)st->cached_tokens;
    counter(p, "vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
            queries);
    counter(p, "vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", hits);
    counter(p, "vllm:gpu_prefix_cache_queries_total", "Older name.", queries);
    counter(p, "vllm:gpu_prefix_cache_hits_total", "Older name.", hits);
    counter(p, "vllm:prompt_tokens_total", "Prompt tokens, cached ones included.", queries);
    counter(p, "vllm:generation_tokens_total", "Generated tokens.", (double)st->generated_tokens);
    histogram(p, "vllm:time_to_first_token_seconds", "Submission to first token.", &st->ttft);
    histogram(p, "vllm:request_queue_time_seconds", "Time in the queue.", &st->queue);
    histogram(p, "vllm:e2e_request_latency_seconds", "Submission to end.", &st->e2e);
    declare(p, "vllm:request_success_total", "counter", "Answers by the reason of their end.");
    for (int i = 0; i < DONE_COUNT; i++)
        buf_printf(&p->b, "vllm:request_success_total{%s,finished_reason=\"%s\"} %llu\n", p->labels,
                   reasons[i],
                   (unsigned long long)atomic_load_explicit(&sv->done[i], memory_order_relaxed));
}

static void put_pages(struct page *p, const struct engine_stats *st)
{
    uint32_t taken = st->pages_used + st->pages_cached;
    uint32_t n_free = st->pages_total > taken ? st->pages_total - taken : 0;
    declare(p, "submind:pages", "gauge",
            "KV pages: used by running requests, cached for later ones, free.");
    buf_printf(&p->b, "submind:pages{%s,state=\"used\"} %u\n", p->labels, st->pages_used);
    buf_printf(&p->b, "submind:pages{%s,state=\"cached\"} %u\n", p->labels, st->pages_cached);
    buf_printf(&p->b, "submind:pages{%s,state=\"free\"} %u\n", p->labels, n_free);
}

static void labelled(struct page *p, const char *name, const char *label, const char *value,
                     double v)
{
    buf_printf(&p->b, "%s{%s,%s=\"%s\"} %.10g\n", name, p->labels, label, value, v);
}

static void put_cache(struct page *p, const struct engine_stats *st, const struct engine_info *info)
{
    static const char *const reasons[EVICT_REASONS] = {"room", "quota", "dropped", "replaced"};
    const double ram = (double)st->cached_ram_tokens, disk = (double)st->cached_disk_tokens;
    const double page_bytes = info->n_pages > 0 ? (double)info->kv_bytes / info->n_pages : 0;
    const char *name = "submind:cache_hit_tokens_total";
    declare(p, name, "counter", "Prompt tokens found in the cache, by where they were.");
    labelled(p, name, "tier", "device", (double)st->cached_tokens - ram - disk);
    labelled(p, name, "tier", "ram", ram);
    labelled(p, name, "tier", "disk", disk);
    counter(p, "submind:cache_miss_tokens_total", "Prompt tokens that were not cached.",
            (double)(st->prompt_tokens - st->cached_tokens));
    name = "submind:cache_requests_total";
    declare(p, name, "counter", "Requests by why no more of their prompt was cached.");
    for (int i = CACHE_WHOLE; i < CACHE_REASONS; i++)
        labelled(p, name, "reason", engine_cache_reason((enum cache_reason)i),
                 (double)st->requests_by_reason[i]);
    name = "submind:cache_evictions_total";
    declare(p, name, "counter",
            "Pages that left the cache: for room, over a salt's quota, dropped, replaced by one "
            "that holds more of the same text.");
    for (int i = 0; i < EVICT_REASONS; i++)
        labelled(p, name, "reason", reasons[i], (double)st->evicted[i]);
    name = "submind:cache_bytes";
    declare(p, name, "gauge", "Bytes of cached pages, by tier.");
    labelled(p, name, "tier", "device",
             page_bytes * ((double)st->pages_cached + (double)st->pages_used));
    labelled(p, name, "tier", "ram", (double)st->tiers.ram_bytes);
    labelled(p, name, "tier", "disk", (double)st->tiers.disk_bytes);
    gauge(p, "submind:cache_pinned_pages", "Pages of pinned trunks.", st->pages_pinned);
    gauge(p, "submind:cache_salts", "Salts with cached pages.", st->salts);
}

static void put_tiers(struct page *p, const struct engine_stats *st)
{
    const struct tier_figures *t = &st->tiers;
    gauge(p, "submind:cache_disk_cap_bytes", "What the cache on disk may have.",
          (double)t->disk_cap_bytes);
    counter(p, "submind:cache_restores_total", "Times that pages were brought back for a request.",
            (double)t->restores);
    counter(p, "submind:cache_restore_seconds_total", "Time spent on that.", t->restore_seconds);
    counter(p, "submind:cache_saved_pages_total", "Pages written to disk.", (double)t->saved);
    counter(p, "submind:cache_unsaved_pages_total", "Pages evicted before they could be saved.",
            (double)t->skipped);
    counter(p, "submind:cache_verification_failures_total", "Pages on disk that did not verify.",
            (double)t->bad);
}

static void put_ahead(struct page *p, const struct engine_stats *st)
{
    static const char *const ends[AHEAD_ENDS] = {"done", "yielded", "no_room", "forgotten",
                                                 "failed"};
    counter(p, "submind:cache_ahead_tokens_total",
            "Prompt tokens of expected next turns that were computed while nobody asked.",
            (double)st->ahead_tokens);
    const char *name = "submind:cache_ahead_total";
    declare(p, name, "counter", "Next turns computed ahead, by what became of it.");
    for (int i = 0; i < AHEAD_ENDS; i++) labelled(p, name, "end", ends[i], (double)st->ahead[i]);
}

static void put_own(struct page *p, const struct server *sv, const struct engine_stats *st)
{
    counter(p, "submind:prefill_tokens_total", "Prompt tokens computed.",
            (double)st->prefill_tokens);
    counter(p, "submind:cached_tokens_total", "Prompt tokens taken from the prefix cache.",
            (double)st->cached_tokens);
    counter(p, "submind:prefill_seconds_total", "Time spent on prompts.", st->prefill_seconds);
    counter(p, "submind:generate_seconds_total", "Time spent on answers.", st->generate_seconds);
    counter(p, "submind:requests_refused_total", "Requests refused because the queue was full.",
            (double)st->requests_refused);
    counter(p, "submind:requests_cancelled_total", "Requests whose client left.",
            (double)st->requests_cancelled);
    counter(p, "submind:requests_failed_total", "Requests that ended with an error.",
            (double)st->requests_failed);
    counter(p, "submind:preemptions_total", "Requests set back for lack of pages.",
            (double)st->preemptions);
    counter(p, "submind:evictions_total", "Cached pages given up for others.",
            (double)st->evictions);
    put_cache(p, st, engine_info(sv->engine));
    histogram(p, "submind:ttft_seconds", "Submission to first token.", &st->ttft);
    histogram(p, "submind:queue_seconds", "Time in the queue.", &st->queue);
    put_pages(p, st);
    put_tiers(p, st);
    put_ahead(p, st);
    gauge(p, "submind:uptime_seconds", "Since the server started.",
          clock_ms_since(sv->start_ns) / 1000);
}

bool route_metrics(struct exchange *x)
{
    struct page p = {0};
    struct engine_stats st;
    label_init(&p, x->sv->model_name);
    engine_stats(x->sv->engine, &st);
    put_router_gauges(&p, &st, engine_info(x->sv->engine));
    put_router_counters(&p, x->sv, &st);
    put_own(&p, x->sv, &st);
    return exchange_send(x, 200, "text/plain; version=0.0.4; charset=utf-8", &p.b);
}
