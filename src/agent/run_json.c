// A run's result as JSON: the one form that --json prints and that records will keep.
#include "agent/turns.h"

static void put_number(struct buf *b, const char *name, double v)
{
    if (v < 0)
        buf_printf(b, ",\"%s\":null", name);
    else
        buf_printf(b, ",\"%s\":%.3f", name, v);
}

static void put_text(struct buf *b, const char *name, struct str s)
{
    buf_printf(b, ",\"%s\":", name);
    buf_json(b, s);
}

static void put_turns(const struct run_result *r, struct buf *b)
{
    buf_z(b, ",\"turns\":[");
    for (size_t i = 0; i < r->n_turns; i++) {
        const struct run_turn *t = &r->turns[i];
        buf_printf(b, "%s{\"prompt_tokens\":%llu,\"cached_tokens\":%llu,\"completion_tokens\":%llu",
                   i > 0 ? "," : "", (unsigned long long)t->prompt_tokens,
                   (unsigned long long)t->cached_tokens, (unsigned long long)t->completion_tokens);
        put_number(b, "ttft_ms", t->ttft_ms);
        put_number(b, "gen_tps", t->gen_tps);
        put_number(b, "total_ms", t->total_ms);
        buf_c(b, '}');
    }
    buf_c(b, ']');
}

static void put_calls(const struct run_result *r, struct buf *b)
{
    buf_z(b, ",\"tool_calls\":[");
    for (size_t i = 0; i < r->n_calls; i++) {
        const struct run_call *c = &r->calls[i];
        buf_z(b, i > 0 ? ",{\"name\":" : "{\"name\":");
        buf_json(b, buf_view(&c->name));
        put_text(b, "arguments", buf_view(&c->arguments));
        put_text(b, "ran", buf_view(&c->detail));
        if (c->has_exit_code)
            buf_printf(b, ",\"exit_code\":%d", c->exit_code);
        else
            buf_z(b, ",\"exit_code\":null");
        buf_printf(b, ",\"refused\":%s,\"strays\":%u", c->refused ? "true" : "false", c->n_strays);
        put_number(b, "ms", c->ms);
        put_text(b, "output", buf_view(&c->output));
        if (c->log.n > 0) put_text(b, "log", buf_view(&c->log));
        buf_c(b, '}');
    }
    buf_c(b, ']');
}

struct run_totals run_result_totals(const struct run_result *r)
{
    struct run_totals sum = {0};
    double generating_s = 0, generated = 0;
    for (size_t i = 0; i < r->n_turns; i++) {
        const struct run_turn *t = &r->turns[i];
        sum.prefilled_tokens += t->prefilled_tokens;
        sum.completion_tokens += t->completion_tokens;
        if (t->gen_tps <= 0) continue;
        generated += (double)t->completion_tokens;
        generating_s += (double)t->completion_tokens / t->gen_tps;
    }
    if (generating_s > 0) sum.gen_tps = generated / generating_s;
    return sum;
}

void run_result_json(const struct run_result *r, struct buf *out)
{
    struct run_turn none = {.ttft_ms = -1};
    const struct run_turn *first = r->n_turns > 0 ? &r->turns[0] : &none;
    struct run_totals sum = run_result_totals(r);
    buf_z(out, "{\"id\":");
    buf_json(out, str_from(r->id));
    put_text(out, "outcome", str_from(run_outcome_name(r->outcome)));
    put_text(out, "stage", buf_view(&r->stage));
    put_text(out, "report", buf_view(&r->report));
    if (r->report_status != REPORT_NONE)
        put_text(out, "status", str_from(report_status_name(r->report_status)));
    if (r->report_data.n > 0) {
        buf_z(out, ",\"data\":");
        buf_str(out, buf_view(&r->report_data));
    }
    if (r->error.code != ERR_NONE) put_text(out, "error", str_from(r->error.msg));
    buf_printf(out, ",\"prompt_tokens\":%llu,\"cached_tokens\":%llu",
               (unsigned long long)first->prompt_tokens, (unsigned long long)first->cached_tokens);
    put_number(out, "ttft_ms", first->ttft_ms);
    put_number(out, "gen_tps", sum.gen_tps);
    buf_printf(out, ",\"prefilled_tokens\":%llu,\"completion_tokens\":%llu",
               (unsigned long long)sum.prefilled_tokens, (unsigned long long)sum.completion_tokens);
    put_number(out, "total_ms", r->total_ms);
    put_calls(r, out);
    put_turns(r, out);
    buf_c(out, '}');
}
