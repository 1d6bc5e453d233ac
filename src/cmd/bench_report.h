// The results of `bench seed` as a whole: the machine, its limits, the servers; written as JSON and HTML,
// compared with an earlier JSON.
#pragma once

#include "cmd/bench_table.h"

enum { BENCH_COLUMNS_MAX = 16 };

// What a server says of its model: enough to know what the machine would allow. 0: not told.
struct bench_model {
    double bytes, params;
};

struct bench_report {
    char cpu[128], kernel[96];
    long long time;
    uint32_t runs, gen_tokens, prompt_tokens;
    const char *workspace; // NULL: drawn words
    bool has_limits;
    char limits_device[128], limits_how[160];
    double read_bytes_s, flop_s;
    struct bench_column columns[BENCH_COLUMNS_MAX];
    struct bench_model models[BENCH_COLUMNS_MAX];
    size_t n;
    char caution[240]; // why a comparison may mislead, "" when nothing speaks against it
};

// Percent of the machine's limit that a figure reaches; < 0 when that cannot be said.
double bench_percent(const struct bench_report *r, size_t column, enum workload_row row);

enum bench_verdict { VERDICT_NOISE, VERDICT_BETTER, VERDICT_WORSE };
struct bench_change {
    const char *server, *figure; // in the report
    double before, after;        // medians
    enum bench_verdict verdict;
};
enum { BENCH_CHANGES_MAX = BENCH_COLUMNS_MAX * WORKLOAD_ROWS };

// Whether the text is the JSON of an earlier run, before anything is measured: else ERR_FORMAT.
bool bench_is_earlier(struct str earlier, struct err *e);
// Servers of the same name in an earlier JSON. A change is one where the samples' ranges do not overlap and
// the medians differ by more than 5 %. Sets r's caution. ERR_FORMAT when the text is no such JSON.
bool bench_compare(struct bench_report *r, struct str earlier,
                   struct bench_change out[BENCH_CHANGES_MAX], size_t *n, struct err *e);
void bench_changes_print(const struct bench_report *r, const struct bench_change *changes, size_t n,
                         struct buf *out);
void bench_limits_print(const struct bench_report *r, struct buf *out);
void bench_report_json(const struct bench_report *r, struct buf *out);
// bench_html.c
void bench_report_html(const struct bench_report *r, const struct bench_change *changes,
                       size_t n_changes, struct buf *out);
