// Layers as a model has them, on the CPU: a list of ops from the tokens on, two layers deep, over positions that go on to
// a second page. Steps of few rows are done in another way (compute/cpu/cpu_few.c): ops go together there, workers
// wait for each other less often and make for themselves what they share otherwise. The same bits must come out
// however many sequences a step has, one to more than few, and for 1 to 3 threads.
// Weights are of all kinds: packed, of floats, of a format without kernels of its own.
#include <assert.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/ops_rig.h"

enum {
    SEQS = 5, // more than few
    STEPS = 35,
    LAYERS = 2,
    EMBD = 256,
    FF = 352, // no whole block of 256, an odd number of panels a worker
    HEADS = 6,
    KV_HEADS = 2,
    DIM = 32,
    VOCAB = 99,
    LAYER_OPS = 11,
    N_OPS = 1 + LAYERS * LAYER_OPS,
    PAGES = 2,
};

enum { W_Q, W_K, W_V, W_O, W_GATE, W_UP, W_DOWN, N_WEIGHTS };

static const struct {
    enum fmt fmt;
    uint32_t rows, cols;
} sizes[N_WEIGHTS] = {
    [W_Q] = {FMT_Q8_0, HEADS *DIM, EMBD},   [W_K] = {FMT_Q5_0, KV_HEADS *DIM, EMBD},
    [W_V] = {FMT_F16, KV_HEADS *DIM, EMBD}, [W_O] = {FMT_Q4_0, EMBD, HEADS *DIM},
    [W_GATE] = {FMT_Q4_K, FF, EMBD},        [W_UP] = {FMT_Q6_K, FF, EMBD},
    [W_DOWN] = {FMT_Q8_0, EMBD, FF},
};

struct data {
    void *table, *w[LAYERS][N_WEIGHTS];
    float norm[EMBD], freqs[DIM / 2];
};

static void data_open(struct data *d)
{
    random_seed(77);
    d->table = random_weight(FMT_Q8_0, VOCAB, EMBD);
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < N_WEIGHTS; i++)
            d->w[l][i] = random_weight(sizes[i].fmt, sizes[i].rows, sizes[i].cols);
    random_floats(d->norm, EMBD, 1);
    for (int i = 0; i < DIM / 2; i++) d->freqs[i] = powf(10000.0f, -2.0f * (float)i / DIM);
}

static void data_close(struct data *d)
{
    free(d->table);
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < N_WEIGHTS; i++) free(d->w[l][i]);
}

struct model {
    struct ops_rig rig;
    struct dbuf *table, *norm, *freqs, *kv, *w[LAYERS][N_WEIGHTS];
    struct dbuf *x, *h, *q, *k, *v, *attn, *gate, *up;
    struct op ops[N_OPS];
};

static void put_layer(struct model *m, uint32_t l, struct op *to)
{
    struct dbuf **w = m->w[l];
    const struct op ops[] = {
        {.kind = OP_RMS_NORM, .rms_norm = {m->x, m->norm, m->h, 1e-6f, 0}},
        {.kind = OP_LINEAR,
         .linear = {m->h, {w[W_Q], w[W_K], w[W_V]}, {NULL}, {m->q, m->k, m->v}, 3, 0}},
        {.kind = OP_ROPE_KV,
         .rope_kv = {m->q, m->k, m->v, NULL, NULL, m->freqs, m->kv, l, HEADS, KV_HEADS, DIM, DIM,
                     true, 1e-6f, 1}},
        {.kind = OP_ATTENTION,
         .attention = {m->q, m->kv, m->attn, l, HEADS, KV_HEADS, DIM, 1 / sqrtf(DIM)}},
        {.kind = OP_LINEAR, .linear = {m->attn, {w[W_O]}, {NULL}, {m->h}, 1, 0}},
        {.kind = OP_ADD, .add = {m->x, m->h, 0}},
        {.kind = OP_RMS_NORM, .rms_norm = {m->x, m->norm, m->h, 1e-6f, 0}},
        {.kind = OP_LINEAR, .linear = {m->h, {w[W_GATE], w[W_UP]}, {NULL}, {m->gate, m->up}, 2, 0}},
        {.kind = OP_SWIGLU, .swiglu = {m->gate, m->up, m->gate, 0}},
        {.kind = OP_LINEAR, .linear = {m->gate, {w[W_DOWN]}, {NULL}, {m->h}, 1, 0}},
        {.kind = OP_ADD, .add = {m->x, m->h, 0}},
    };
    static_assert(sizeof ops == LAYER_OPS * sizeof *ops, "all of them");
    memcpy(to, ops, sizeof ops);
}

static void model_open(struct model *m, const char *device, uint32_t n_threads,
                       const struct data *d)
{
    ops_open(&m->rig, device, n_threads, SEQS);
    m->table = ops_weight(&m->rig, FMT_Q8_0, d->table, VOCAB, EMBD);
    m->norm = ops_vector(&m->rig, d->norm, EMBD);
    m->freqs = ops_vector(&m->rig, d->freqs, DIM / 2);
    m->kv = ops_kv(&m->rig, KV_Q8_0, SEQS * PAGES, LAYERS, KV_HEADS, DIM);
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < N_WEIGHTS; i++)
            m->w[l][i] =
                ops_weight(&m->rig, sizes[i].fmt, d->w[l][i], sizes[i].rows, sizes[i].cols);
    m->x = ops_act(&m->rig, BUF_STREAM, NULL, SEQS, EMBD);
    m->h = ops_act(&m->rig, BUF_ACT, NULL, SEQS, EMBD);
    m->q = ops_act(&m->rig, BUF_ACT, NULL, SEQS, HEADS * DIM);
    m->k = ops_act(&m->rig, BUF_ACT, NULL, SEQS, KV_HEADS * DIM);
    m->v = ops_act(&m->rig, BUF_ACT, NULL, SEQS, KV_HEADS * DIM);
    m->attn = ops_act(&m->rig, BUF_ACT, NULL, SEQS, HEADS * DIM);
    m->gate = ops_act(&m->rig, BUF_ACT, NULL, SEQS, FF);
    m->up = ops_act(&m->rig, BUF_ACT, NULL, SEQS, FF);
    m->ops[0] = (struct op){.kind = OP_EMBED, .embed = {m->table, m->x}};
    for (uint32_t l = 0; l < LAYERS; l++) put_layer(m, l, m->ops + 1 + l * LAYER_OPS);
}

static void model_close(struct model *m)
{
    struct dbuf *all[] = {m->table, m->norm, m->freqs, m->kv,   m->x,    m->h,
                          m->q,     m->k,    m->v,     m->attn, m->gate, m->up};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) ops_free(&m->rig, all[i]);
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < N_WEIGHTS; i++) ops_free(&m->rig, m->w[l][i]);
    ops_close(&m->rig);
}

typedef float streams[STEPS][SEQS][EMBD];

// A step of the n sequences from `first` on.
static void step(struct model *m, uint32_t pos, uint32_t first, uint32_t n, float (*out)[EMBD])
{
    struct batch_seq seqs[SEQS];
    uint32_t pages[SEQS * PAGES];
    int32_t tokens[SEQS];
    for (uint32_t i = 0; i < SEQS * PAGES; i++) pages[i] = (i * 3 + 1) % (SEQS * PAGES);
    for (uint32_t i = 0; i < n; i++) {
        seqs[i] = (struct batch_seq){i, 1, pos, (first + i) * PAGES, PAGES};
        tokens[i] = (int32_t)((pos * 31 + (first + i) * 7) % VOCAB);
    }
    const struct batch b = {.n_rows = n,
                            .n_seqs = n,
                            .n_page_ids = SEQS * PAGES,
                            .tokens = tokens,
                            .seqs = seqs,
                            .pages = pages};
    ops_run(&m->rig, m->ops, N_OPS, &b);
    ops_read(&m->rig, m->x, 0, n, out[first]);
}

// All sequences to their end, at most `together` a step.
static void run_all(const char *device, uint32_t n_threads, const struct data *d, uint32_t together,
                    streams out)
{
    struct model m;
    model_open(&m, device, n_threads, d);
    for (uint32_t pos = 0; pos < STEPS; pos++)
        for (uint32_t s = 0, n; s < SEQS; s += n) {
            n = SEQS - s < together ? SEQS - s : together;
            step(&m, pos, s, n, out[pos]);
        }
    model_close(&m);
}

static void few_rows_are_like_many(void **state)
{
    (void)state;
    static streams many, few;
    struct data d;
    data_open(&d);
    for (int i = 0; i < OPS_CPU_DEVICES; i++) {
        if (!ops_can(ops_cpu_devices[i])) continue;
        run_all(ops_cpu_devices[i], 1, &d, SEQS, many);
        for (int s = 0; s < SEQS; s++)
            for (int c = 0; c < EMBD; c++) assert_true(isfinite(many[STEPS - 1][s][c]));
        for (uint32_t together = 1; together <= SEQS; together++)
            for (uint32_t n_threads = 1; n_threads <= 3; n_threads++) {
                run_all(ops_cpu_devices[i], n_threads, &d, together, few);
                if (memcmp(few, many, sizeof many) != 0)
                    fail_msg("%s: %u rows a step, %u threads: other bits", ops_cpu_devices[i],
                             together, n_threads);
            }
    }
    data_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_rows_are_like_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
