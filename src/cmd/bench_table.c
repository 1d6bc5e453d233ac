// Nothing is measured here.
#include "cmd/bench_table.h"

#include <stdio.h>

// How many times better b is served by a; 0 when that cannot be said.
static double ratio(const struct workload_figure *a, const struct workload_figure *b)
{
    double x = workload_median(a), y = workload_median(b);
    if (x <= 0 || y <= 0) return 0;
    return a->more_is_better ? x / y : y / x;
}

// Three digits that say something, so that a cell holds three numbers.
static void put_number(struct buf *out, double v)
{
    buf_printf(out, v >= 99.95 ? "%.0f" : v >= 9.995 ? "%.1f" : v >= 0.9995 ? "%.2f" : "%.3f", v);
}

static void put_cell(struct buf *out, const struct workload_figure *f)
{
    double lo, hi;
    workload_range(f, &lo, &hi);
    put_number(out, workload_median(f));
    buf_z(out, " [");
    put_number(out, lo);
    buf_z(out, " .. ");
    put_number(out, hi);
    buf_c(out, ']');
}

void bench_table_print(const struct bench_column *columns, size_t n, struct buf *out)
{
    buf_printf(out, "%-30s %-6s", "median [lowest .. highest]", "unit");
    for (size_t c = 0; c < n; c++) buf_printf(out, "  %-36.36s", columns[c].name);
    buf_c(out, '\n');
    for (int i = 0; i < WORKLOAD_ROWS; i++) {
        const struct workload_figure *first = &columns[0].result.rows[i];
        buf_printf(out, "%-30s %-6s", first->name, first->unit);
        for (size_t c = 0; c < n; c++) {
            const struct workload_figure *f = &columns[c].result.rows[i];
            struct buf cell = {0};
            char times[24] = "";
            if (c > 0 && ratio(first, f) > 0)
                snprintf(times, sizeof times, "%.2f x", ratio(first, f));
            put_cell(&cell, f);
            buf_printf(out, "  %-28.28s %7s", buf_cstr(&cell), times);
            buf_free(&cell);
        }
        buf_c(out, '\n');
    }
    if (n > 1) buf_printf(out, "x: how many times better %s does it\n", columns[0].name);
}

void bench_table_json(const struct bench_column *columns, size_t n, struct buf *out)
{
    for (size_t c = 0; c < n; c++) {
        if (c > 0) buf_c(out, ',');
        buf_json(out, str_from(columns[c].name));
        buf_z(out, ":{");
        for (int i = 0; i < WORKLOAD_ROWS; i++) {
            const struct workload_figure *f = &columns[c].result.rows[i];
            double lo, hi;
            workload_range(f, &lo, &hi);
            buf_printf(out, "%s\"%s\":{\"median\":%.6g,\"lo\":%.6g,\"hi\":%.6g,\"unit\":\"%s\",",
                       i == 0 ? "" : ",", f->key, workload_median(f), lo, hi, f->unit);
            buf_z(out, "\"samples\":[");
            for (uint32_t k = 0; k < f->n; k++)
                buf_printf(out, k == 0 ? "%.6g" : ",%.6g", f->samples[k]);
            buf_z(out, "]}");
        }
        buf_c(out, '}');
    }
}

double bench_total_s(const struct workload_result *r, uint32_t gen_tokens)
{
    // How often each thing happens: a bootstrap is computed once, then eight runs use it; eight start
    // together once; somebody says hello four times.
    static const struct {
        enum workload_row row;
        double times;
    } mix[] = {{WORKLOAD_COLD_TTFT, 1},
               {WORKLOAD_CACHED_TTFT, 8},
               {WORKLOAD_TOGETHER_TTFT, 1},
               {WORKLOAD_SHORT_TTFT, 4}};
    const double speed = workload_median(&r->rows[WORKLOAD_DEPTH_TPS]);
    double total = speed > 0 ? 8 * gen_tokens / speed : 0;
    for (size_t i = 0; i < sizeof mix / sizeof mix[0]; i++)
        total += mix[i].times * workload_median(&r->rows[mix[i].row]);
    return total;
}
