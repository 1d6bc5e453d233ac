// Times the GPU backend op by op in the shapes of Qwen3-32B, weights and activations random: time a
// launch, and GB/s of weights or keys, or TFLOP/s, whichever bounds the op. A list repeats one op over
// several copies of its weights, so that caches do not serve them.
//
//   bench_gpu [DEVICE [REPEATS [WHAT]]]      default: cuda 40, everything; WHAT is part of a row's name
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/half.h"
#include "compute/backend.h"

enum { ROWS = 8192, EMBD = 5120, FF = 25600, HEADS = 64, KV_HEADS = 8, DIM = 128, Q = HEADS * DIM };
enum { COPIES_MAX = 6, CTX = 14336, SEQS = 8, OPS_MAX = 256 };

static struct backend *dev;
static struct err e;
static uint32_t repeats = 40;
static const char *only = "";
static struct op ops[OPS_MAX];

static void must(bool ok)
{
    if (ok) return;
    fprintf(stderr, "bench_gpu: %s\n", e.msg);
    exit(1);
}

static struct dbuf *buffer(enum buf_kind kind, uint32_t rows, uint32_t cols)
{
    const struct buf_desc d = {
        .kind = kind, .n_rows = rows, .n_cols = cols, .source.fd = -1, .name = "activations"};
    struct dbuf *b;
    must(dev->class->alloc(dev, &d, &b, &e));
    if (kind == BUF_TOPK) return b;
    const uint32_t n = rows < 512 ? rows : 512;
    float *v = malloc((size_t)n * cols * sizeof *v);
    for (size_t i = 0; i < (size_t)n * cols; i++) v[i] = (float)(rand() % 2001 - 1000) * 1e-3f;
    for (uint32_t r = 0; r < rows; r += n)
        must(dev->class->write(dev, b, r, rows - r < n ? rows - r : n, v, &e));
    free(v);
    return b;
}

// Random blocks with scales that keep results finite; offset makes copies differ in nothing but place.
static struct dbuf *weight(enum fmt f, uint32_t rows, uint32_t cols)
{
    const size_t n = rows * fmt_row_bytes(f, cols), block = fmt_info[f].block_bytes;
    unsigned char *p = malloc(n);
    const uint16_t d = f32_to_f16(1e-5f);
    for (size_t i = 0; i + 4 <= n; i += 4) {
        const uint32_t v = (uint32_t)rand() * 2654435761u;
        memcpy(p + i, &v, 4);
    }
    for (size_t i = 0; i < n; i += block) {
        if (f == FMT_BF16) p[i + 1] = (unsigned char)(0x3c | (p[i + 1] & 0x80));
        if (f == FMT_BF16) continue;
        memcpy(p + i + (f == FMT_Q6_K ? 208 : 0), &d, 2);
        if (f == FMT_Q4_K || f == FMT_Q5_K) memcpy(p + i + 2, &d, 2);
    }
    const struct buf_desc desc = {.kind = BUF_WEIGHT,
                                  .fmt = f,
                                  .n_rows = rows,
                                  .n_cols = cols,
                                  .source = {p, n, -1, 0},
                                  .name = "weights"};
    struct dbuf *b;
    must(dev->class->alloc(dev, &desc, &b, &e));
    must(dev->class->wait(dev, &e));
    free(p);
    return b;
}

// Milliseconds of one op of the list of n, over a few submits.
static double time_ops(uint32_t n, const struct batch *b)
{
    double best = 1e30;
    for (int turn = 0; turn < 4; turn++) {
        const uint64_t start = clock_ns();
        must(dev->class->submit(dev, ops, n, b, &e));
        must(dev->class->wait(dev, &e));
        const double ms = clock_ms_since(start) / n;
        if (turn > 1 && ms < best) best = ms;
    }
    return best;
}

static void report(const char *what, uint32_t rows, double ms, double bytes, double flops)
{
    printf("%-26s %5u rows %9.4f ms %8.0f GB/s %8.1f TFLOP/s\n", what, rows, ms, bytes / ms * 1e-6,
           flops / ms * 1e-9);
    fflush(stdout);
}

static struct batch rows_batch(uint32_t rows)
{
    static struct batch_seq seqs[ROWS];
    static int32_t tokens[ROWS];
    static uint32_t page;
    seqs[0] = (struct batch_seq){0, rows, 0, 0, 1};
    return (struct batch){.n_rows = rows,
                          .n_seqs = 1,
                          .tokens = tokens,
                          .seqs = seqs,
                          .pages = &page,
                          .n_page_ids = 1};
}

static void bench_linear(enum fmt f, uint32_t out, uint32_t in, bool gated, struct dbuf *x,
                         struct dbuf *y[2])
{
    static const uint32_t rows[] = {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 8192};
    struct dbuf *w[COPIES_MAX][2];
    char what[64];
    const double bytes = (double)out * fmt_row_bytes(f, in) * (gated ? 2 : 1);
    uint32_t copies = (uint32_t)(300e6 / bytes) + 1;
    if (copies > COPIES_MAX) copies = COPIES_MAX;
    snprintf(what, sizeof what, "%s %ux%u%s", fmt_info[f].name, out, in, gated ? " gated" : "");
    if (!strstr(what, only)) return;
    for (uint32_t c = 0; c < copies; c++)
        for (int j = 0; j < 1 + gated; j++) w[c][j] = weight(f, out, in);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t n = 0, lists = rows[i] > 128 ? 6 : repeats;
        for (uint32_t k = 0; k < lists; k++) {
            ops[n] = (struct op){.kind = OP_LINEAR};
            ops[n].linear = (struct op_linear){.x = x, .n = gated ? 2 : 1};
            for (int j = 0; j < 1 + gated; j++) {
                ops[n].linear.w[j] = w[k % copies][j];
                ops[n].linear.out[j] = y[j];
            }
            n++;
            if (gated) ops[n++] = (struct op){.kind = OP_SWIGLU, .swiglu = {y[0], y[1], y[0]}};
        }
        const struct batch b = rows_batch(rows[i]);
        const double ms = time_ops(n, &b) * n / lists;
        report(what, rows[i], ms, bytes, 2.0 * rows[i] * out * in * (gated ? 2 : 1));
    }
    for (uint32_t c = 0; c < copies; c++)
        for (int j = 0; j < 1 + gated; j++) dev->class->free(dev, w[c][j]);
}

// n sequences of `rows` rows each behind CTX tokens (or none), all on the same pages.
static void bench_attention(enum kv_type type, uint32_t n_seqs, uint32_t rows, uint32_t pos0,
                            bool shared, struct dbuf *q, struct dbuf *out)
{
    struct backend_info info;
    char what[64];
    snprintf(what, sizeof what, "attend %s %ux%u at %u%s", type == KV_Q8_0 ? "q8_0" : "f16", n_seqs,
             rows, pos0, shared ? " shared" : "");
    if (!strstr(what, only)) return;
    dev->class->info(dev, &info);
    const uint32_t pt = info.page_tokens, each = (pos0 + rows + pt - 1) / pt;
    const struct buf_desc d = {
        .kind = BUF_KV,
        .kv = {each * (shared ? 1 : n_seqs) + n_seqs, pt, 4, KV_HEADS, DIM, type},
        .name = "pages"};
    struct dbuf *kv;
    must(dev->class->alloc(dev, &d, &kv, &e));
    static struct batch_seq seqs[SEQS];
    static uint32_t pages[SEQS * 1024];
    static int32_t tokens[ROWS];
    struct batch b = {.tokens = tokens, .seqs = seqs, .pages = pages, .n_seqs = n_seqs};
    for (uint32_t s = 0; s < n_seqs; s++) {
        seqs[s] = (struct batch_seq){b.n_rows, rows, pos0, b.n_page_ids, each};
        for (uint32_t p = 0; p < each; p++) pages[b.n_page_ids++] = shared ? p : s * each + p;
        b.n_rows += rows;
    }
    const uint32_t lists = rows > 64 ? 4 : repeats;
    for (uint32_t i = 0; i < lists; i++)
        ops[i] = (struct op){.kind = OP_ATTENTION,
                             .attention = {q, kv, out, i % 4, HEADS, KV_HEADS, DIM, 0.088f}};
    const double ms = time_ops(lists, &b), keys = (double)pos0 + rows;
    report(what, b.n_rows, ms,
           keys * KV_HEADS * DIM * 2 * (type == KV_Q8_0 ? 1.0625 : 2) * (shared ? 1 : n_seqs),
           4.0 * n_seqs * rows * ((double)pos0 + 0.5 * rows) * HEADS * DIM);
    dev->class->free(dev, kv);
}

static void bench_rows(struct dbuf *x, struct dbuf *h)
{
    struct dbuf *w = NULL, *logits = buffer(BUF_LOGITS, 8, 151936), *top = buffer(BUF_TOPK, 8, 64);
    static float ones[EMBD];
    static const uint32_t out_rows[8] = {0};
    const struct buf_desc d = {.kind = BUF_VECTOR,
                               .fmt = FMT_F32,
                               .n_rows = 1,
                               .n_cols = EMBD,
                               .source = {ones, sizeof ones, -1, 0}};
    must(dev->class->alloc(dev, &d, &w, &e));
    for (uint32_t rows = 1; rows <= ROWS; rows *= 64) {
        const struct batch b = rows_batch(rows > ROWS ? ROWS : rows);
        for (uint32_t i = 0; i < repeats; i++)
            ops[i] = (struct op){.kind = OP_RMS_NORM, .rms_norm = {x, w, h, 1e-6f, 0}};
        report("rms_norm", b.n_rows, time_ops(repeats, &b), (double)b.n_rows * EMBD * 6, 0);
    }
    for (uint32_t n = 1; n <= 8; n *= 8) {
        struct batch b = rows_batch(n);
        b.n_out = n;
        b.out_rows = out_rows;
        for (uint32_t i = 0; i < repeats; i++)
            ops[i] = (struct op){.kind = OP_TOPK, .topk = {logits, top}};
        report("topk 64 of 151936", n, time_ops(repeats, &b), n * 151936.0 * 4, 0);
    }
    dev->class->free(dev, w);
    dev->class->free(dev, logits);
    dev->class->free(dev, top);
}

int main(int argc, char **argv)
{
    const struct backend_settings s = {argc > 1 ? argv[1] : "cuda", 0, ROWS, 8};
    struct backend_info info;
    if (argc > 2) repeats = (uint32_t)atoi(argv[2]);
    if (argc > 3) only = argv[3];
    if (repeats < 1 || repeats > OPS_MAX / 2) repeats = 40;
    must(backend_open(&dev, &s, &e));
    dev->class->info(dev, &info);
    printf("%s\n", info.device);
    struct dbuf *x = buffer(BUF_ACT, ROWS, FF),
                *y[2] = {buffer(BUF_ACT, ROWS, FF), buffer(BUF_ACT, ROWS, FF)};
    struct dbuf *h = buffer(BUF_ACT, ROWS, EMBD), *q = buffer(BUF_ACT, ROWS, Q),
                *o = buffer(BUF_ACT, ROWS, Q);
    struct dbuf *stream = buffer(BUF_STREAM, ROWS, EMBD);
    static const enum fmt formats[] = {FMT_Q4_K, FMT_Q6_K, FMT_Q8_0, FMT_BF16};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        struct dbuf *to_h[2] = {h, h}, *to_q[2] = {q, q};
        bench_linear(formats[i], Q, EMBD, false, h, to_q);
        bench_linear(formats[i], EMBD, Q, false, q, to_h);
        bench_linear(formats[i], FF, EMBD, true, h, y);
        bench_linear(formats[i], EMBD, FF, false, x, to_h);
    }
    for (int t = 0; t < 2; t++) {
        const enum kv_type type = t ? KV_Q8_0 : KV_F16;
        bench_attention(type, 1, 1, 64, false, q, o);
        bench_attention(type, 1, 1, CTX, false, q, o);
        bench_attention(type, SEQS, 1, CTX, true, q, o);
        bench_attention(type, SEQS, 1, CTX, false, q, o);
        bench_attention(type, 1, 40, CTX, false, q, o);
        bench_attention(type, 1, ROWS, 0, false, q, o);
        bench_attention(type, 1, 6144, ROWS, false, q, o);
    }
    if (strstr("rows topk norm", only)) bench_rows(stream, h);
    dev->class->close(dev);
    return 0;
}
