// Rows as they come on a terminal or as one JSON object at the end. What is measured, and how, stands
// in engine/opbench.c.
#include "cmd/bench_ops.h"

#include <stdio.h>
#include <unistd.h>

#include "base/str.h"

struct output {
    bool json;
    uint32_t n_rows;
    struct buf text; // JSON so far
};

static void print_ceilings(void *arg, const struct engine_ceilings *c)
{
    struct output *o = arg;
    if (o->json) {
        buf_z(&o->text, "{\"device\":");
        buf_json(&o->text, str_from(c->device));
        buf_z(&o->text, ",\"ceilings\":{\"how\":");
        buf_json(&o->text, str_from(c->how));
        buf_printf(&o->text, ",\"read_gb_s\":%.4g,\"gflop_s\":%.5g},\"ops\":[",
                   c->read_bytes_s * 1e-9, c->flop_s * 1e-9);
        return;
    }
    printf("%s\nceilings: %.1f GB/s, %.0f GFLOP/s (%s)\n"
           "percent: of the time that the nearer ceiling, bytes or flops, allows; above 100 the "
           "caches helped\n\n",
           c->device, c->read_bytes_s * 1e-9, c->flop_s * 1e-9, c->how);
    printf("%-10s %-26s %-7s %5s %11s %9s %10s %7s  %s\n", "op", "shape", "format", "rows", "ms",
           "GB/s", "GFLOP/s", "percent", "of");
}

static void put_op(struct output *o, const struct engine_op_timing *t)
{
    buf_z(&o->text, o->n_rows == 0 ? "{\"op\":" : ",{\"op\":");
    buf_json(&o->text, str_from(t->op));
    buf_z(&o->text, ",\"shape\":");
    buf_json(&o->text, str_from(t->what));
    buf_z(&o->text, ",\"format\":");
    buf_json(&o->text, str_from(t->format));
    buf_printf(&o->text,
               ",\"rows\":%u,\"ms\":%.5g,\"gb_s\":%.5g,\"gflop_s\":%.5g,\"percent\":%.4g,\"of\":"
               "\"%s\"}",
               t->rows, t->ms, t->bytes / t->ms * 1e-6, t->flops / t->ms * 1e-6, t->percent,
               t->by_flops ? "flops" : "bytes");
}

static void print_op(void *arg, const struct engine_op_timing *t)
{
    struct output *o = arg;
    if (o->json) {
        put_op(o, t);
        if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K%s %s %s", t->op, t->what, t->format);
    } else {
        printf("%-10s %-26s %-7s %5u %11.5f %9.1f %10.1f %7.1f  %s\n", t->op, t->what, t->format,
               t->rows, t->ms, t->bytes / t->ms * 1e-6, t->flops / t->ms * 1e-6, t->percent,
               t->by_flops ? "flops" : "bytes");
        fflush(stdout);
    }
    o->n_rows++;
}

bool bench_ops(const struct settings *s, const atomic_int *cancel, struct err *e)
{
    struct output o = {.json = s->json};
    const struct engine_ops_settings settings = {
        .device = s->device != NULL ? s->device : "auto",
        .n_threads = s->threads,
        .shape = s->shape,
        .format = s->format,
        .op = s->op,
        .rows = s->rows,
        .prefill_type = s->prefill_type,
        .on_ceilings = print_ceilings,
        .on_op = print_op,
        .cancel = cancel,
        .arg = &o,
    };
    bool ok = engine_bench_ops(&settings, e);
    if (o.json && isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
    if (ok && o.n_rows == 0)
        ok = err_set(e, ERR_INPUT, "nothing to time: no op matches --op, --rows and --format");
    if (ok && o.json) printf("%s]}\n", buf_cstr(&o.text));
    if (ok && o.text.failed) ok = err_set(e, ERR_MEMORY, "no memory for the output");
    buf_free(&o.text);
    return ok;
}
