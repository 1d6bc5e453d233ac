// One file that needs nothing else: no script, no address, colours for light and dark. A bar is a median, the
// line through it the spread; each figure has its own scale, which starts at zero.
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cmd/bench_report.h"

enum { BAR_LEFT = 190, BAR_WIDTH = 400, BAR_HEIGHT = 20, ROW_HEIGHT = 30, VALUE_ROOM = 110 };

static const char style[] =
    "<style>\n"
    ":root{--ink:#1b1f24;--soft:#5b6470;--line:#d8dde3;--ground:#fff;--first:#1f6f5c;--other:#"
    "8a9aa8;"
    "--good:#1f6f5c;--bad:#b3391f}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa4ae;--line:#343b42;"
    "--ground:#15181b;--first:#4fb99a;--other:#66747f;--good:#4fb99a;--bad:#e5785f}}\n"
    "body{font:15px/1.5 "
    "system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:72rem;"
    "margin:2rem auto;padding:0 1rem}\n"
    "h1{font-size:1.4rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:2rem 0 .3rem}\n"
    "p,caption{color:var(--soft);margin:.2rem 0}table{border-collapse:collapse;width:100%}\n"
    "th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line);"
    "font-variant-numeric:tabular-nums}th:first-child,td:first-child{text-align:left}\n"
    "th{font-weight:600}small{white-space:nowrap}.charts{display:grid;grid-template-columns:repeat("
    "auto-fit,minmax(26rem,1fr));gap:0 2rem}svg{width:100%;"
    "height:auto;display:block}text{font:13px system-ui,sans-serif;fill:var(--ink)}\n"
    ".t{fill:var(--soft)}.a{fill:var(--first)}.b{fill:var(--other)}.best{font-weight:700}.w{stroke:"
    "var(--ink);"
    "stroke-width:1.5}.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:"
    "600}\n"
    "small{color:var(--soft)}\n"
    "</style>\n";

static void put_text(struct buf *out, const char *text)
{
    for (const char *p = text; *p != '\0'; p++) switch (*p) {
        case '<': buf_z(out, "&lt;"); break;
        case '>': buf_z(out, "&gt;"); break;
        case '&': buf_z(out, "&amp;"); break;
        case '"': buf_z(out, "&quot;"); break;
        default: buf_c(out, *p);
        }
}

// Three significant digits, more before the point where there are more.
static void put_number(struct buf *out, double v)
{
    const double a = fabs(v);
    buf_printf(out, a >= 100 ? "%.0f" : a >= 10 ? "%.1f" : a >= 1 ? "%.2f" : "%.3f", v);
}

static void put_head(const struct bench_report *r, struct buf *out)
{
    char when[64] = "";
    const time_t t = (time_t)r->time;
    struct tm tm;
    if (gmtime_r(&t, &tm) != NULL) strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", &tm);
    buf_z(out, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
               "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
               "<title>submind bench seed</title>\n");
    buf_z(out, style);
    buf_printf(out, "<h1>The workload that matters</h1>\n<p>%s · ", when);
    put_text(out, r->cpu);
    buf_z(out, " · Linux ");
    put_text(out, r->kernel);
    buf_printf(out, " · %u runs of each, %u tokens generated", r->runs, r->gen_tokens);
    if (r->workspace != NULL) {
        buf_z(out, " · bootstrap of ");
        put_text(out, r->workspace);
    }
    buf_z(out, "</p>\n");
    const double n_prompt = workload_median(&r->columns[0].result.rows[WORKLOAD_PROMPT_TOKENS]);
    buf_printf(out, "<p>The long prompt has %.0f tokens. A bar is a median, the line through it ",
               n_prompt);
    buf_z(out, "the lowest to the highest; the best of each is bold.</p>\n");
    if (r->models[0].params > 0)
        buf_printf(out, "<p>The first one's model: %.2f billion parameters, %.2f GB</p>\n",
                   r->models[0].params / 1e9, r->models[0].bytes / 1e9);
    if (r->has_limits) {
        buf_printf(out, "<p>Limits measured first, on ");
        put_text(out, r->limits_device);
        buf_printf(out, ": %.1f GB/s, %.0f GFLOP/s</p>\n", r->read_bytes_s / 1e9, r->flop_s / 1e9);
    }
}

static double largest(const struct bench_report *r, int row)
{
    double max = 0;
    for (size_t c = 0; c < r->n; c++) {
        double lo, hi;
        workload_range(&r->columns[c].result.rows[row], &lo, &hi);
        if (hi > max) max = hi;
    }
    return max;
}

static bool is_best(const struct bench_report *r, size_t c, int row)
{
    const struct workload_figure *f = &r->columns[c].result.rows[row];
    const double mine = workload_median(f);
    for (size_t i = 0; i < r->n; i++) {
        const double other = workload_median(&r->columns[i].result.rows[row]);
        if (f->more_is_better ? other > mine : other < mine && other > 0) return false;
    }
    return r->n > 1 && mine > 0;
}

static void put_bar(const struct bench_report *r, size_t c, int row, double max, struct buf *out)
{
    const struct workload_figure *f = &r->columns[c].result.rows[row];
    const double scale = max > 0 ? BAR_WIDTH / max : 0, median = workload_median(f);
    const size_t y = c * ROW_HEIGHT;
    double lo, hi;
    workload_range(f, &lo, &hi);
    buf_printf(out, "<text x=\"%d\" y=\"%zu\" text-anchor=\"end\">", BAR_LEFT - 8, y + 15);
    char name[64];
    snprintf(name, sizeof name, "%.27s%s", r->columns[c].name,
             strlen(r->columns[c].name) > 27 ? "…" : "");
    put_text(out, name);
    buf_printf(out,
               "</text><rect class=\"%s\" x=\"%d\" y=\"%zu\" width=\"%.1f\" height=\"%d\" "
               "rx=\"2\"/>",
               c == 0 ? "a" : "b", BAR_LEFT, y, fmax(1, median * scale), BAR_HEIGHT);
    buf_printf(out, "<line class=\"w\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%zu\" y2=\"%zu\"/>",
               BAR_LEFT + lo * scale, BAR_LEFT + hi * scale, y + 10, y + 10);
    buf_printf(out, "<text x=\"%.1f\" y=\"%zu\"%s>", BAR_LEFT + hi * scale + 8, y + 15,
               is_best(r, c, row) ? " class=\"best\"" : "");
    put_number(out, median);
    buf_z(out, "</text>\n");
}

static void put_chart(const struct bench_report *r, int row, struct buf *out)
{
    const struct workload_figure *f = &r->columns[0].result.rows[row];
    const double max = largest(r, row);
    buf_printf(out, "<section><h2>%s <small>%s, %s is better</small></h2>\n", f->name, f->unit,
               f->more_is_better ? "more" : "less");
    buf_printf(out, "<svg viewBox=\"0 0 %d %zu\" role=\"img\" aria-label=\"%s\">\n",
               BAR_LEFT + BAR_WIDTH + VALUE_ROOM, r->n * ROW_HEIGHT, f->name);
    for (size_t c = 0; c < r->n; c++) put_bar(r, c, row, max, out);
    buf_z(out, "</svg></section>\n");
}

static void put_table(const struct bench_report *r, struct buf *out)
{
    buf_z(out, "<h2>All figures</h2>\n<table>\n<tr><th>median <small>lowest to highest</small>");
    for (size_t c = 0; c < r->n; c++) {
        buf_z(out, "<th>");
        put_text(out, r->columns[c].name);
    }
    for (int i = 0; i < WORKLOAD_ROWS; i++) {
        const struct workload_figure *first = &r->columns[0].result.rows[i];
        buf_printf(out, "\n<tr><td>%s, %s", first->name, first->unit);
        for (size_t c = 0; c < r->n; c++) {
            const struct workload_figure *f = &r->columns[c].result.rows[i];
            const double percent = bench_percent(r, c, (enum workload_row)i);
            double lo, hi;
            workload_range(f, &lo, &hi);
            buf_z(out, "<td>");
            put_number(out, workload_median(f));
            buf_z(out, " <small>");
            put_number(out, lo);
            buf_z(out, " to ");
            put_number(out, hi);
            if (percent >= 0) buf_printf(out, "<br>%.0f %% of the limit", percent);
            buf_z(out, "</small>");
        }
    }
    buf_z(out, "\n</table>\n");
}

static void put_changes(const struct bench_report *r, const struct bench_change *changes, size_t n,
                        struct buf *out)
{
    static const char *const classes[] = {"", "good", "bad"};
    static const char *const words[] = {"noise", "better", "worse"};
    if (n == 0) return;
    buf_z(out,
          "<h2>Compared with the earlier run</h2>\n<p>A change is one where the samples do not "
          "overlap and the medians differ by more than 5 %; all else is noise.</p>\n");
    if (r->caution[0] != '\0') {
        buf_z(out, "<p class=\"bad\">Caution: ");
        put_text(out, r->caution);
        buf_z(out, "</p>\n");
    }
    buf_z(out, "<table>\n<tr><th>figure<th>server<th>before<th>now<th>");
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "\n<tr><td>%s<td>", changes[i].figure);
        put_text(out, changes[i].server);
        buf_z(out, "<td>");
        put_number(out, changes[i].before);
        buf_z(out, "<td>");
        put_number(out, changes[i].after);
        buf_printf(out, "<td class=\"%s\">%s", classes[changes[i].verdict],
                   words[changes[i].verdict]);
    }
    buf_z(out, "\n</table>\n");
}

void bench_report_html(const struct bench_report *r, const struct bench_change *changes,
                       size_t n_changes, struct buf *out)
{
    static const enum workload_row charts[] = {
        WORKLOAD_COLD_TTFT, WORKLOAD_CACHED_TTFT, WORKLOAD_TOGETHER_TTFT, WORKLOAD_SHORT_TTFT,
        WORKLOAD_SHORT_TPS, WORKLOAD_DEPTH_TPS,   WORKLOAD_TOGETHER_TPS};
    put_head(r, out);
    buf_z(out, "<div class=\"charts\">\n");
    for (size_t i = 0; i < sizeof charts / sizeof charts[0]; i++) put_chart(r, charts[i], out);
    buf_z(out, "</div>\n");
    put_changes(r, changes, n_changes, out);
    put_table(r, out);
    buf_z(out, "</html>\n");
}
