// Times a layer of Qwen3-32B (or 8B) on a GPU as the engine runs it: a list of sixteen layers' ops, and what each part adds
// to it, by leaving it out. Kernels on their own are `submind bench ops`; here they overlap as in a step. Weights
// and activations are random.
//
//   bench_layers [DEVICE [FORMAT [SHAPE [KV]]]]      default: cuda Q4_K 32b f16
//
// FORMAT is any of GGUF's; with Q4_K, values and down of every second layer are Q6_K.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/half.h"
#include "compute/backend.h"

enum { ROWS = 8192, KV_HEADS = 8, DIM = 128, EMBD_MAX = 5120 };
enum { CTX = 14336, SEQS = 8, OPS_MAX = 256, VOCAB = 151936 };

static const struct shape {
    const char *name;
    uint32_t n_embd, n_ff, n_heads;
} shapes[] = {{"32b", 5120, 25600, 64}, {"8b", 4096, 12288, 32}};
static const struct shape *shape = &shapes[0];
static enum kv_type kv_type;
static struct backend *dev;
static struct err e;
static struct op ops[OPS_MAX];

static void must(bool ok)
{
    if (ok) return;
    fprintf(stderr, "bench_layers: %s\n", e.msg);
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

// Random blocks with scales that keep results finite.
static void fill_blocks(enum fmt f, unsigned char *p, size_t n)
{
    const size_t block = fmt_info[f].block_bytes;
    const uint16_t d = f32_to_f16(1e-5f);
    static uint64_t state = 1;
    for (size_t i = 0; i + 8 <= n; i += 8) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const uint64_t v = state ^ state >> 29;
        memcpy(p + i, &v, 8);
    }
    for (size_t i = 0; i < n; i += block) {
        if (f == FMT_BF16) p[i + 1] = (unsigned char)(0x3c | (p[i + 1] & 0x80));
        if (f == FMT_BF16) continue;
        const size_t at = f == FMT_Q6_K ? 208 : f == FMT_Q3_K ? 108 : f == FMT_Q2_K ? 80 : 0;
        if (f == FMT_MXFP4)
            p[i] = 110;
        else
            memcpy(p + i + at, &d, 2);
        if (f == FMT_Q4_K || f == FMT_Q5_K || f == FMT_Q2_K || f == FMT_Q4_1 || f == FMT_Q5_1)
            memcpy(p + i + at + 2, &d, 2);
    }
}

// The same bytes for every matrix of a format, each at a place of its own on the device.
static struct dbuf *weight(enum fmt f, uint32_t rows, uint32_t cols)
{
    static unsigned char *bytes[FMT_COUNT];
    const size_t n = rows * fmt_row_bytes(f, cols);
    if (!bytes[f]) {
        const size_t most = VOCAB * fmt_row_bytes(f, shape->n_embd);
        bytes[f] = malloc(most);
        fill_blocks(f, bytes[f], most);
    }
    unsigned char *p = bytes[f];
    const struct buf_desc desc = {.kind = BUF_WEIGHT,
                                  .fmt = f,
                                  .n_rows = rows,
                                  .n_cols = cols,
                                  .source = {p, n, -1, 0},
                                  .name = "weights"};
    struct dbuf *b;
    must(dev->class->alloc(dev, &desc, &b, &e));
    must(dev->class->wait(dev, &e));
    return b;
}

struct times {
    double best, mean; // ms of one op of the list
    double submit_us;  // of the shortest call
};

// The list of n ops over and over, the first two times apart. What is quickest in ten may be slower in a row.
static struct times time_ops(uint32_t n, const struct batch *b, int turns)
{
    struct times t = {1e30, 0, 1e30};
    for (int turn = 0; turn < turns; turn++) {
        const uint64_t start = clock_ns();
        must(dev->class->submit(dev, ops, n, b, &e));
        const double us = clock_ms_since(start) * 1e3;
        if (us < t.submit_us) t.submit_us = us;
        must(dev->class->wait(dev, &e));
        const double ms = clock_ms_since(start) / n;
        if (turn > 1 && ms < t.best) t.best = ms;
        if (turn > 1) t.mean += ms / (turns - 2);
    }
    return t;
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

// ---- decode steps ---------------------------------------------------------------------------------

enum { LAYERS = 16 };

struct layer {
    struct dbuf *q, *k, *v, *o, *gate, *up, *down;
};
struct decode_rig {
    struct layer layers[LAYERS];
    struct dbuf *x, *h, *q, *k, *v, *attn, *gate, *up, *kv, *norm, *head_norm, *freqs;
};

static struct dbuf *vector(uint32_t n)
{
    static float v[EMBD_MAX];
    for (uint32_t i = 0; i < n; i++) v[i] = 1.0f / (float)(1 + i);
    const struct buf_desc d = {.kind = BUF_VECTOR,
                               .fmt = FMT_F32,
                               .n_rows = 1,
                               .n_cols = n,
                               .source = {v, n * sizeof *v, -1, 0},
                               .name = "vector"};
    struct dbuf *b;
    must(dev->class->alloc(dev, &d, &b, &e));
    return b;
}

static struct op linear(struct dbuf *x, struct dbuf *w, struct dbuf *out)
{
    return (struct op){.kind = OP_LINEAR, .linear = {.x = x, .w = {w}, .out = {out}, .n = 1}};
}

// One layer of the network as engine/forward.c lists it, without the parts that `without` names.
static uint32_t put_layer(const struct decode_rig *r, uint32_t i, const char *without, uint32_t n)
{
    const struct layer *l = &r->layers[i];
    const struct op norm = {.kind = OP_RMS_NORM, .rms_norm = {r->x, r->norm, r->h, 1e-6f, 0}};
    const struct op add = {.kind = OP_ADD, .add = {r->x, r->h, 0}};
    if (!strstr(without, "norm")) ops[n++] = norm;
    if (!strstr(without, "qkv"))
        ops[n++] = (struct op){
            .kind = OP_LINEAR,
            .linear = {.x = r->h, .w = {l->q, l->k, l->v}, .out = {r->q, r->k, r->v}, .n = 3}};
    if (!strstr(without, "rope"))
        ops[n++] =
            (struct op){.kind = OP_ROPE_KV,
                        .rope_kv = {r->q, r->k, r->v, r->head_norm, r->head_norm, r->freqs, r->kv,
                                    i, shape->n_heads, KV_HEADS, DIM, DIM, true, 1e-6f, 1}};
    if (!strstr(without, "attend"))
        ops[n++] = (struct op){
            .kind = OP_ATTENTION,
            .attention = {r->q, r->kv, r->attn, i, shape->n_heads, KV_HEADS, DIM, 0.088f}};
    if (!strstr(without, "out")) {
        ops[n++] = linear(r->attn, l->o, r->h);
        ops[n++] = add;
    }
    if (!strstr(without, "norm")) ops[n++] = norm;
    if (!strstr(without, "gated")) {
        ops[n++] = (struct op){
            .kind = OP_LINEAR,
            .linear = {.x = r->h, .w = {l->gate, l->up}, .out = {r->gate, r->up}, .n = 2}};
        ops[n++] = (struct op){.kind = OP_SWIGLU, .swiglu = {r->gate, r->up, r->gate, 0}};
    }
    if (strstr(without, "down")) return n;
    ops[n++] = linear(r->gate, l->down, r->h);
    ops[n++] = add;
    return n;
}

// Keys and values of the common prefix: halves below 1, which as q8_0 are bytes with such factors.
static void fill_pages(struct dbuf *kv, const struct kv_shape *pages)
{
    const size_t n = dev->class->page_bytes(dev, pages) / 2;
    for (uint32_t p = 0; p < CTX / 64; p++) {
        struct page_way way;
        must(dev->class->page_begin(dev, kv, p, NULL, &way, &e));
        uint16_t *page = dev->class->page_next(dev, &way, 2 * n, &e);
        must(page != NULL);
        for (size_t i = 0; i < n; i++) page[i] = (uint16_t)(0x3000 | (rand() & 0x87ff));
        must(dev->class->page_end(dev, &way, true, &e));
        must(dev->class->page_land == NULL || dev->class->page_land(dev, &way, &e));
    }
}

// Q4_K_M's mixture: values and down are Q6_K in every second layer.
static void open_layers(struct decode_rig *r, enum fmt f)
{
    const struct kv_shape pages = {(CTX / 64) + 64 * SEQS, 64, LAYERS, KV_HEADS, DIM, kv_type};
    const struct buf_desc d = {.kind = BUF_KV, .kv = pages, .name = "pages"};
    const uint32_t n_embd = shape->n_embd, n_ff = shape->n_ff, n_q = shape->n_heads * DIM;
    for (uint32_t i = 0; i < LAYERS; i++) {
        const enum fmt some = f == FMT_Q4_K && i % 2 ? FMT_Q6_K : f;
        r->layers[i] = (struct layer){weight(f, n_q, n_embd),
                                      weight(f, KV_HEADS * DIM, n_embd),
                                      weight(some, KV_HEADS * DIM, n_embd),
                                      weight(f, n_embd, n_q),
                                      weight(f, n_ff, n_embd),
                                      weight(f, n_ff, n_embd),
                                      weight(some, n_embd, n_ff)};
    }
    must(dev->class->alloc(dev, &d, &r->kv, &e));
    fill_pages(r->kv, &pages);
    r->x = buffer(BUF_STREAM, 256, n_embd);
    r->h = buffer(BUF_ACT, 256, n_embd);
    r->q = buffer(BUF_ACT, 256, n_q);
    r->k = buffer(BUF_ACT, 256, KV_HEADS * DIM);
    r->v = buffer(BUF_ACT, 256, KV_HEADS * DIM);
    r->attn = buffer(BUF_ACT, 256, n_q);
    r->gate = buffer(BUF_ACT, 256, n_ff);
    r->up = buffer(BUF_ACT, 256, n_ff);
    r->norm = vector(n_embd);
    r->head_norm = vector(DIM);
    r->freqs = vector(DIM / 2);
}

// n sequences of `rows` rows each behind pos0 shared tokens; the time of a step, and what each part adds
// to it (by leaving it out).
static void time_layers(const struct decode_rig *r, const char *fmt, uint32_t n_seqs, uint32_t rows,
                        uint32_t pos0)
{
    static const char *const parts[] = {
        "", "norm", "qkv", "rope", "attend", "out", "gated", "down", "norm rope attend"};
    static struct batch_seq seqs[SEQS];
    static uint32_t pages[SEQS * 1024];
    static int32_t tokens[256];
    struct batch b = {.tokens = tokens, .seqs = seqs, .pages = pages, .n_seqs = n_seqs};
    const uint32_t shared = pos0 / 64, own = rows / 64 + 2;
    for (uint32_t s = 0; s < n_seqs; s++) {
        seqs[s] = (struct batch_seq){b.n_rows, rows, pos0, b.n_page_ids, shared + own};
        for (uint32_t p = 0; p < shared; p++) pages[b.n_page_ids++] = p;
        for (uint32_t p = 0; p < own; p++) pages[b.n_page_ids++] = CTX / 64 + s * own + p;
        b.n_rows += rows;
    }
    double all = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        uint32_t n = 0;
        if (i && rows > 1) break;
        for (uint32_t l = 0; l < LAYERS; l++) n = put_layer(r, l, i ? parts[i] : "-", n);
        const struct times t = time_ops(n, &b, i == 0 && rows == 1 ? 200 : 10);
        const double us = t.best * n / LAYERS * 1e3;
        if (i == 0) all = us;
        if (i == 0)
            printf("submit %u ops %8.2f us, a layer in a row %8.2f us\n", n, t.submit_us,
                   t.mean * n / LAYERS * 1e3);
        printf("layer %s %ux%u at %u %-18s %8.2f us\n", fmt, n_seqs, rows, pos0,
               i ? parts[i] : "whole", i ? all - us : us);
        fflush(stdout);
    }
}

// What follows the layers: the norm, the logits, the candidates.
static void time_output(const struct decode_rig *r, enum fmt f)
{
    const enum fmt out = f == FMT_Q4_K ? FMT_Q6_K : f;
    struct dbuf *logits = buffer(BUF_LOGITS, 8, VOCAB), *topk = buffer(BUF_TOPK, 8, 64);
    struct dbuf *w = weight(out, VOCAB, shape->n_embd);
    for (uint32_t rows = 1; rows <= SEQS; rows *= SEQS) {
        struct batch b = rows_batch(rows);
        b.n_out = rows;
        b.out_rows = (const uint32_t[SEQS]){0, 1, 2, 3, 4, 5, 6, 7};
        ops[0] = (struct op){.kind = OP_RMS_NORM, .rms_norm = {r->x, r->norm, r->h, 1e-6f, 0}};
        ops[1] = linear(r->h, w, logits);
        ops[2] = (struct op){.kind = OP_TOPK, .topk = {logits, topk}};
        double us[3];
        for (uint32_t n = 1; n <= 3; n++) us[n - 1] = time_ops(n, &b, 10).best * n * 1e3;
        printf("%u rows: a step of one norm %.2f us, logits %s %.2f more, candidates %.2f more\n",
               rows, us[0], fmt_info[out].name, us[1] - us[0], us[2] - us[1]);
    }
}

static void bench_layers(enum fmt f)
{
    struct decode_rig r = {0};
    open_layers(&r, f);
    const char *name = fmt_info[f].name;
    time_output(&r, f);
    time_layers(&r, name, 1, 1, 64);
    time_layers(&r, name, 1, 1, CTX);
    time_layers(&r, name, SEQS, 1, CTX);
    time_layers(&r, name, 1, 20, CTX);
    time_layers(&r, name, 7, 20, CTX);
    time_layers(&r, name, SEQS, 32, CTX);
}

int main(int argc, char **argv)
{
    const struct backend_settings s = {
        .device = argc > 1 ? argv[1] : "cuda", .max_rows = ROWS, .max_out = 8};
    struct backend_info info;
    must(backend_open(&dev, &s, &e));
    dev->class->info(dev, &info);
    printf("%s\n", info.device);
    enum fmt f = FMT_Q4_K;
    for (int i = 0; argc > 2 && i < FMT_COUNT; i++)
        if (strcmp(argv[2], fmt_info[i].name) == 0) f = (enum fmt)i;
    for (size_t i = 0; argc > 3 && i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(argv[3], shapes[i].name) == 0) shape = &shapes[i];
    if (argc > 4 && strcmp(argv[4], "q8_0") == 0) kv_type = KV_Q8_0;
    bench_layers(f);
    dev->class->close(dev);
    return 0;
}
