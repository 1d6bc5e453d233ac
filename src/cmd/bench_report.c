// Limits: a token of one sequence reads all weights once, a prompt's token multiplies with each of them once
// (two operations a parameter, attention left out). So generation is held against the memory, a cold prompt
// against the arithmetic.
#include "cmd/bench_report.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ENOUGH_RUNS = 5 };
static const double limits_alike = 0.15; // between two quiet runs they differ by less
static const double change_at_least = 0.05;

double bench_percent(const struct bench_report *r, size_t column, enum workload_row row)
{
    const struct bench_model *m = &r->models[column];
    const struct workload_figure *rows = r->columns[column].result.rows;
    const double value = workload_median(&rows[row]);
    if (!r->has_limits || value <= 0) return -1;
    if ((row == WORKLOAD_SHORT_TPS || row == WORKLOAD_DEPTH_TPS) && m->bytes > 0)
        return 100 * value * m->bytes / r->read_bytes_s;
    if (row == WORKLOAD_COLD_TTFT && m->params > 0)
        return 100 * 2 * m->params * workload_median(&rows[WORKLOAD_PROMPT_TOKENS]) / value /
               r->flop_s;
    return -1;
}

void bench_limits_print(const struct bench_report *r, struct buf *out)
{
    static const enum workload_row rows[] = {WORKLOAD_COLD_TTFT, WORKLOAD_SHORT_TPS,
                                             WORKLOAD_DEPTH_TPS};
    if (!r->has_limits) return;
    buf_printf(out, "\nlimits of %s: %.1f GB/s, %.0f GFLOP/s (%s)\n", r->limits_device,
               r->read_bytes_s / 1e9, r->flop_s / 1e9, r->limits_how);
    for (size_t c = 0; c < r->n; c++)
        for (size_t i = 0; i < 3; i++) {
            const double percent = bench_percent(r, c, rows[i]);
            if (percent >= 0)
                buf_printf(out, "  %-36.36s %-30s %5.1f %% of the limit\n", r->columns[c].name,
                           r->columns[c].result.rows[rows[i]].name, percent);
        }
}

static void put_percents(const struct bench_report *r, struct buf *out)
{
    bool first_server = true;
    for (size_t c = 0; c < r->n; c++) {
        bool first = true;
        buf_z(out, first_server ? "" : ",");
        buf_json(out, str_from(r->columns[c].name));
        buf_z(out, ":{");
        for (int i = 0; i < WORKLOAD_ROWS; i++) {
            const double percent = bench_percent(r, c, (enum workload_row)i);
            if (percent < 0) continue;
            buf_printf(out, "%s\"%s\":%.4g", first ? "" : ",", r->columns[c].result.rows[i].key,
                       percent);
            first = false;
        }
        buf_c(out, '}');
        first_server = false;
    }
}

void bench_report_json(const struct bench_report *r, struct buf *out)
{
    buf_printf(out, "{\"version\":1,\"time\":%lld,\"machine\":{\"cpu\":", r->time);
    buf_json(out, str_from(r->cpu));
    buf_z(out, ",\"kernel\":");
    buf_json(out, str_from(r->kernel));
    buf_printf(out, "},\"settings\":{\"runs\":%u,\"gen_tokens\":%u,\"prompt_tokens\":%u,", r->runs,
               r->gen_tokens, r->prompt_tokens);
    buf_z(out, "\"workspace\":");
    if (r->workspace != NULL)
        buf_json(out, str_from(r->workspace));
    else
        buf_z(out, "null");
    buf_z(out, "},\"limits\":");
    if (r->has_limits) {
        buf_z(out, "{\"device\":");
        buf_json(out, str_from(r->limits_device));
        buf_z(out, ",\"how\":");
        buf_json(out, str_from(r->limits_how));
        buf_printf(out, ",\"read_gb_s\":%.5g,\"gflop_s\":%.5g,\"percent\":{", r->read_bytes_s / 1e9,
                   r->flop_s / 1e9);
        put_percents(r, out);
        buf_z(out, "}}");
    } else {
        buf_z(out, "null");
    }
    buf_z(out, ",\"servers\":{");
    bench_table_json(r->columns, r->n, out);
    buf_z(out, "}}\n");
}

// ---- comparing --------------------------------------------------------------------------------------

// Prompts of two runs are not equally long, and a cache counts in whole pages: so many tokens are no change.
static double tokens_alike(int row)
{
    enum { PAGE_TOKENS = 128 };
    return row == WORKLOAD_CACHED_TOKENS     ? PAGE_TOKENS
           : row == WORKLOAD_TOGETHER_TOKENS ? PAGE_TOKENS * WORKLOAD_TOGETHER
                                             : 0;
}

static enum bench_verdict judge(const struct workload_figure *f, double alike, double before,
                                double lo, double hi)
{
    double now_lo, now_hi;
    const double now = workload_median(f);
    workload_range(f, &now_lo, &now_hi);
    const bool apart = now_lo > hi || now_hi < lo;
    if (!apart || fabs(now - before) <= fmax(change_at_least * fabs(before), alike))
        return VERDICT_NOISE;
    return (now > before) == f->more_is_better ? VERDICT_BETTER : VERDICT_WORSE;
}

static void compare_server(const struct bench_column *c, const json_t *server,
                           struct bench_change *out, size_t *n)
{
    for (int i = 0; i < WORKLOAD_ROWS; i++) {
        const struct workload_figure *f = &c->result.rows[i];
        const json_t *old = json_object_get(server, f->key);
        const json_t *median = json_object_get(old, "median");
        if (!json_is_number(median) || i == WORKLOAD_PROMPT_TOKENS) continue;
        const double before = json_number_value(median);
        out[(*n)++] = (struct bench_change){
            .server = c->name,
            .figure = f->name,
            .before = before,
            .after = workload_median(f),
            .verdict =
                judge(f, tokens_alike(i), before, json_number_value(json_object_get(old, "lo")),
                      json_number_value(json_object_get(old, "hi"))),
        };
    }
}

// Limits are measured before each run: where they differ, the machine was busy in one of them.
static void set_caution(struct bench_report *r, const json_t *limits)
{
    const double read = json_number_value(json_object_get(limits, "read_gb_s"));
    const double flop = json_number_value(json_object_get(limits, "gflop_s"));
    const double now_read = r->read_bytes_s / 1e9, now_flop = r->flop_s / 1e9;
    r->caution[0] = '\0';
    if (r->has_limits && read > 0 && flop > 0 &&
        (fabs(now_read / read - 1) > limits_alike || fabs(now_flop / flop - 1) > limits_alike))
        snprintf(
            r->caution, sizeof r->caution,
            "the machine itself gave %.1f GB/s and %.0f GFLOP/s then, %.1f and %.0f now: one of "
            "the runs was not alone, or its settings changed",
            read, flop, now_read, now_flop);
    else if (r->runs < ENOUGH_RUNS)
        snprintf(r->caution, sizeof r->caution,
                 "%u run%s: samples lie apart by chance easily; --runs %d or more tells", r->runs,
                 r->runs == 1 ? "" : "s", ENOUGH_RUNS);
}

bool bench_is_earlier(struct str earlier, struct err *e)
{
    json_error_t why = {0};
    json_t *root = json_loadb(earlier.p, earlier.n, 0, &why);
    const bool ok = json_is_object(json_object_get(root, "servers"));
    json_decref(root);
    return ok || err_set(e, ERR_FORMAT, "it is no JSON of bench seed: %.200s", why.text);
}

bool bench_compare(struct bench_report *r, struct str earlier,
                   struct bench_change out[BENCH_CHANGES_MAX], size_t *n, struct err *e)
{
    if (!bench_is_earlier(earlier, e)) return false;
    json_t *root = json_loadb(earlier.p, earlier.n, 0, NULL);
    const json_t *servers = json_object_get(root, "servers");
    *n = 0;
    for (size_t c = 0; c < r->n; c++)
        compare_server(&r->columns[c], json_object_get(servers, r->columns[c].name), out, n);
    set_caution(r, json_object_get(root, "limits"));
    json_decref(root);
    if (*n == 0) return err_set(e, ERR_INPUT, "none of its servers has the name of one of these");
    return true;
}

void bench_changes_print(const struct bench_report *r, const struct bench_change *changes, size_t n,
                         struct buf *out)
{
    static const char *const words[] = {"noise", "BETTER", "WORSE"};
    if (n == 0) return;
    buf_printf(out, "\n%-36s %-30s %12s %12s %8s\n", "compared with the earlier run", "", "before",
               "now", "");
    for (size_t i = 0; i < n; i++) {
        const struct bench_change *c = &changes[i];
        buf_printf(out, "%-36.36s %-30s %12.3f %12.3f %+7.1f%%  %s\n", c->server, c->figure,
                   c->before, c->after,
                   c->before != 0 ? 100 * (c->after - c->before) / c->before : 0,
                   words[c->verdict]);
    }
    buf_z(out, "noise: the samples overlap, or the medians differ by 5 % at most\n");
    if (r->caution[0] != '\0') buf_printf(out, "caution: %s\n", r->caution);
}
