// See ops_rig.h.
#include "lib/ops_rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"

static uint64_t seed_state = 1;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

void *test_alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p) die("test", "no memory");
    return p;
}

void ops_open(struct ops_rig *r, const char *device, uint32_t n_threads, uint32_t max_rows)
{
    struct err e = {0};
    const struct backend_settings s = {
        .device = device, .n_threads = n_threads, .max_rows = max_rows, .max_out = max_rows};
    r->max_rows = max_rows;
    if (!backend_open(&r->b, &s, &e)) die(device, e.msg);
}

const char *const ops_cpu_devices[OPS_CPU_DEVICES] = {
    "cpu:amx", "cpu:avx512", "cpu:avxvnni", "cpu:avx2", "cpu:i8mm", "cpu:dotprod", "cpu:portable"};

bool ops_can(const char *device)
{
    struct err e = {0};
    struct backend *b = NULL;
    const char *skip =
        getenv("SUBMIND_OPS_SKIP"); // for slow machines: a device's name in this text
    if (skip && strstr(skip, device)) return false;
    const struct backend_settings s = {
        .device = device, .n_threads = 1, .max_rows = 1, .max_out = 1};
    if (!backend_open(&b, &s, &e)) return false;
    b->class->close(b);
    return true;
}

void ops_close(struct ops_rig *r)
{
    r->b->class->close(r->b);
    *r = (struct ops_rig){0};
}

static struct dbuf *alloc(struct ops_rig *r, const struct buf_desc *d)
{
    struct err e = {0};
    struct dbuf *out = NULL;
    if (!r->b->class->alloc(r->b, d, &out, &e)) die("alloc", e.msg);
    return out;
}

struct dbuf *ops_weight(struct ops_rig *r, enum fmt f, const void *bytes, uint32_t rows,
                        uint32_t cols)
{
    const struct buf_desc d = {.kind = BUF_WEIGHT,
                               .fmt = f,
                               .n_rows = rows,
                               .n_cols = cols,
                               .source = {bytes, rows * fmt_row_bytes(f, cols), -1, 0},
                               .name = "test weight"};
    return alloc(r, &d);
}

struct dbuf *ops_vector(struct ops_rig *r, const float *x, uint32_t n)
{
    const struct buf_desc d = {.kind = BUF_VECTOR,
                               .fmt = FMT_F32,
                               .n_cols = n,
                               .source = {x, n * sizeof *x, -1, 0},
                               .name = "test vector"};
    return alloc(r, &d);
}

struct dbuf *ops_act(struct ops_rig *r, enum buf_kind kind, const float *x, uint32_t rows,
                     uint32_t cols)
{
    const struct buf_desc d = {.kind = kind, .n_rows = rows, .n_cols = cols, .name = "test act"};
    struct dbuf *out = alloc(r, &d);
    if (kind == BUF_TOPK) return out;
    const size_t n = (size_t)rows * cols;
    float *poison = test_alloc(n * sizeof *poison);
    for (size_t i = 0; i < n; i++) poison[i] = NAN;
    ops_write(r, out, 0, rows, x ? x : poison);
    free(poison);
    return out;
}

struct dbuf *ops_kv(struct ops_rig *r, enum kv_type type, uint32_t n_pages, uint32_t n_layers,
                    uint32_t n_kv_heads, uint32_t head_dim)
{
    struct backend_info info;
    r->b->class->info(r->b, &info);
    const struct buf_desc d = {
        .kind = BUF_KV,
        .kv = {n_pages, info.page_tokens, n_layers, n_kv_heads, head_dim, type},
        .name = "test pages"};
    return alloc(r, &d);
}

void ops_write(struct ops_rig *r, struct dbuf *d, uint32_t row, uint32_t rows, const float *x)
{
    struct err e = {0};
    if (!r->b->class->write(r->b, d, row, rows, x, &e)) die("write", e.msg);
}

void ops_read(struct ops_rig *r, const struct dbuf *d, uint32_t row, uint32_t rows, void *out)
{
    struct err e = {0};
    if (!r->b->class->read(r->b, d, row, rows, out, &e)) die("read", e.msg);
}

void ops_free(struct ops_rig *r, struct dbuf *d)
{
    r->b->class->free(r->b, d);
}

void ops_run(struct ops_rig *r, const struct op *ops, uint32_t n_ops, const struct batch *batch)
{
    struct err e = {0};
    if (!r->b->class->submit(r->b, ops, n_ops, batch, &e)) die("submit", e.msg);
    if (!r->b->class->wait(r->b, &e)) die("wait", e.msg);
}

void random_seed(uint64_t seed)
{
    seed_state = seed * 2 + 1;
}

uint64_t random_bits(void)
{
    seed_state ^= seed_state << 13;
    seed_state ^= seed_state >> 7;
    seed_state ^= seed_state << 17;
    return seed_state * 0x2545f4914f6cdd1du;
}

float random_normal(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) sum += (float)(random_bits() >> 40) / 16777216.0f;
    return sum - 6.0f;
}

void random_floats(float *x, size_t n, float deviation)
{
    for (size_t i = 0; i < n; i++) x[i] = random_normal() * deviation;
}

static void put_half(uint8_t *p, float x)
{
    const uint16_t h = f32_to_f16(x);
    memcpy(p, &h, sizeof h);
}

// Random bytes, then the scale fields: by format, what makes weights of deviation 0.05 or so.
static void random_block(enum fmt f, uint8_t *b)
{
    const float wobble = 1.0f + 0.3f * random_normal(), x = 0.05f * random_normal();
    const uint16_t bf16 = f32_to_bf16(x);
    for (uint32_t i = 0; i < fmt_info[f].block_bytes; i++) b[i] = (uint8_t)(random_bits() >> 33);
    switch (f) {
    case FMT_F32: memcpy(b, &x, sizeof x); break;
    case FMT_F16: put_half(b, x); break;
    case FMT_BF16: memcpy(b, &bf16, sizeof bf16); break;
    case FMT_Q8_0: put_half(b, 0.05f / 74 * wobble); break;
    case FMT_Q4_0: put_half(b, 0.05f / 4.6f * wobble); break;
    case FMT_Q4_K:
        put_half(b, 0.05f / 240 * wobble);
        put_half(b + 2, 0.05f / 32 * wobble);
        break;
    case FMT_Q5_K:
        put_half(b, 0.05f / 480 * wobble);
        put_half(b + 2, 0.05f / 32 * wobble);
        break;
    case FMT_Q6_K: put_half(b + 208, 0.05f / 1350 * wobble); break;
    case FMT_Q4_1:
        put_half(b, 0.05f / 4.6f * wobble);
        put_half(b + 2, -0.05f * 7.5f / 4.6f * wobble);
        break;
    case FMT_Q5_0: put_half(b, 0.05f / 9.2f * wobble); break;
    case FMT_Q5_1:
        put_half(b, 0.05f / 9.2f * wobble);
        put_half(b + 2, -0.05f * 15.5f / 9.2f * wobble);
        break;
    case FMT_Q2_K:
        put_half(b + 80, 0.05f / 14 * wobble);
        put_half(b + 82, 0.05f / 9 * wobble);
        break;
    case FMT_Q3_K: put_half(b + 108, 0.05f / 43 * wobble); break;
    case FMT_IQ4_NL: put_half(b, 0.05f / 70 * wobble); break;
    case FMT_IQ4_XS: put_half(b, 0.05f / 1300 * wobble); break;
    case FMT_MXFP4: b[0] = (uint8_t)(120 + random_bits() % 3); break;
    case FMT_COUNT: break;
    }
}

void *random_weight(enum fmt f, uint32_t rows, uint32_t cols)
{
    const size_t n = rows * fmt_row_bytes(f, cols);
    uint8_t *p = test_alloc(n);
    for (size_t i = 0; i < n; i += fmt_info[f].block_bytes) random_block(f, p + i);
    return p;
}
