// ROPE_KV and ATTENTION over pages:
//  - the reference (f32 pages) against softmax in double over plain arrays;
//  - the CPU against the reference. A head in 8 bits, its largest column being some 3.5 deviations once it is rotated,
//    errs by 3.5 / 127 / sqrt(12) = 0.8 % of its deviation. A row that sees one key shows that of the value undiluted,
//    one that sees many the less of it; q and keys err as much, which moves scores of deviation 1 by 1.1 %, and so the
//    weights, and with AVX2 half as much again. Values have deviation 1: over all rows errors of 0.006 bound
//    what is left of it (seen: 0.0034, with AVX2 0.0038), and nine times the error of one value bounds each
//    (seen: 0.043, where one row's q and keys are several times as large);
//  - the CPU's outputs and pages equal bit for bit however the prompt is cut into chunks, whoever else
//    is in the batch, and for 1 to 3 threads; decode steps (chunks of 1) included.
// The kernels alone: test_attend_kernels.c.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/ops_rig.h"

#define ERROR     0.006
#define TOP_ERROR 0.07

enum { N_POS = 210, PAGE = 32, N_PAGES = 24, MAX_ROWS = 320, LAYER = 1 };

struct shape {
    uint32_t n_heads, n_kv_heads, head_dim;
    bool norm, neox;
};

static const struct shape shapes[] = {
    {4, 2, 128, true, true},  {8, 1, 64, false, true}, {3, 3, 32, false, false},
    {10, 2, 96, true, false}, {2, 1, 256, true, true}, {51, 1, 32, false, true}, // more than a tile
};

// One sequence's data: [N_POS] rows.
struct sequence {
    float *q, *k, *v, *out;
    uint32_t pages[N_PAGES];
};

struct rope {
    float freqs[128], q_norm[256], k_norm[256];
};

static size_t q_cols(const struct shape *s)
{
    return (size_t)s->n_heads * s->head_dim;
}
static size_t k_cols(const struct shape *s)
{
    return (size_t)s->n_kv_heads * s->head_dim;
}

static void sequence_open(struct sequence *q, const struct shape *s, uint32_t first_page)
{
    q->q = test_alloc(N_POS * q_cols(s) * sizeof(float));
    q->k = test_alloc(N_POS * k_cols(s) * sizeof(float));
    q->v = test_alloc(N_POS * k_cols(s) * sizeof(float));
    q->out = test_alloc(N_POS * q_cols(s) * sizeof(float));
    random_floats(q->q, N_POS * q_cols(s), 1);
    random_floats(q->k, N_POS * k_cols(s), 1);
    random_floats(q->v, N_POS * k_cols(s), 1);
    for (uint32_t i = 0; i < N_PAGES / 2; i++) q->pages[i] = first_page + (i * 5 + 3) % 12;
}

static void sequence_close(struct sequence *q)
{
    free(q->q);
    free(q->k);
    free(q->v);
    free(q->out);
}

static void rope_fill(struct rope *r, const struct shape *s)
{
    for (uint32_t i = 0; i < s->head_dim / 2; i++)
        r->freqs[i] = powf(10000.0f, -2.0f * (float)i / (float)s->head_dim);
    random_floats(r->q_norm, s->head_dim, 1);
    random_floats(r->k_norm, s->head_dim, 1);
}

// A device with its pages, and one step at a time.
struct machine {
    struct ops_rig rig;
    struct dbuf *kv, *freqs, *q_norm, *k_norm;
    const struct shape *s;
};

static void machine_open(struct machine *m, const char *device, uint32_t n_threads,
                         enum kv_type type, const struct shape *s, const struct rope *r)
{
    ops_open(&m->rig, device, n_threads, MAX_ROWS);
    m->s = s;
    m->kv = ops_kv(&m->rig, type, N_PAGES, 3, s->n_kv_heads, s->head_dim);
    m->freqs = ops_vector(&m->rig, r->freqs, s->head_dim / 2);
    m->q_norm = s->norm ? ops_vector(&m->rig, r->q_norm, s->head_dim) : NULL;
    m->k_norm = s->norm ? ops_vector(&m->rig, r->k_norm, s->head_dim) : NULL;
}

static void machine_close(struct machine *m)
{
    ops_free(&m->rig, m->kv);
    ops_free(&m->rig, m->freqs);
    ops_free(&m->rig, m->q_norm);
    ops_free(&m->rig, m->k_norm);
    ops_close(&m->rig);
}

struct part { // rows of a step: positions [pos0, pos0 + n) of a sequence
    struct sequence *seq;
    uint32_t pos0, n;
};

static struct dbuf *stack(struct machine *m, const struct part *p, uint32_t n_parts, uint32_t rows,
                          size_t offset, size_t cols)
{
    struct dbuf *d = ops_act(&m->rig, BUF_ACT, NULL, rows, (uint32_t)cols);
    for (uint32_t i = 0, row = 0; i < n_parts; row += p[i++].n) {
        float *const *x = (float *const *)(const void *)((const char *)p[i].seq + offset);
        ops_write(&m->rig, d, row, p[i].n, *x + p[i].pos0 * cols);
    }
    return d;
}

static void step(struct machine *m, const struct part *p, uint32_t n_parts)
{
    const struct shape *s = m->s;
    struct batch_seq seqs[4];
    uint32_t pages[4 * N_PAGES], rows = 0;
    for (uint32_t i = 0; i < n_parts; i++) {
        seqs[i] = (struct batch_seq){rows, p[i].n, p[i].pos0, i * N_PAGES, N_PAGES / 2};
        memcpy(pages + i * N_PAGES, p[i].seq->pages, sizeof p[i].seq->pages);
        rows += p[i].n;
    }
    struct dbuf *q = stack(m, p, n_parts, rows, offsetof(struct sequence, q), q_cols(s));
    struct dbuf *k = stack(m, p, n_parts, rows, offsetof(struct sequence, k), k_cols(s));
    struct dbuf *v = stack(m, p, n_parts, rows, offsetof(struct sequence, v), k_cols(s));
    struct dbuf *out = ops_act(&m->rig, BUF_ACT, NULL, rows, (uint32_t)q_cols(s));
    const struct op ops[] = {
        {.kind = OP_ROPE_KV,
         .rope_kv = {q, k, v, m->q_norm, m->k_norm, m->freqs, m->kv, LAYER, s->n_heads,
                     s->n_kv_heads, s->head_dim, s->head_dim, s->neox, 1e-6f, 1.1f}},
        {.kind = OP_ATTENTION,
         .attention = {q, m->kv, out, LAYER, s->n_heads, s->n_kv_heads, s->head_dim,
                       1.0f / sqrtf((float)s->head_dim)}},
    };
    const struct batch batch = {
        .n_rows = rows, .n_seqs = n_parts, .n_page_ids = 4 * N_PAGES, .seqs = seqs, .pages = pages};
    ops_run(&m->rig, ops, 2, &batch);
    for (uint32_t i = 0; i < n_parts; i++)
        ops_read(&m->rig, out, seqs[i].row0, p[i].n, p[i].seq->out + p[i].pos0 * q_cols(s));
    struct dbuf *all[] = {q, k, v, out};
    for (int i = 0; i < 4; i++) ops_free(&m->rig, all[i]);
}

// ---- the definition in double ---------------------------------------------------------------

static void rotated(const struct shape *s, const struct rope *r, const float *x, const float *norm,
                    uint32_t pos, double *out)
{
    double sum = 0, y[256];
    const uint32_t d = s->head_dim;
    for (uint32_t i = 0; i < d; i++) sum += (double)x[i] * (double)x[i];
    for (uint32_t i = 0; i < d; i++)
        y[i] = s->norm ? (double)x[i] / sqrt(sum / d + 1e-6) * (double)norm[i] : (double)x[i];
    for (uint32_t i = 0; i < d / 2; i++) {
        const uint32_t a = s->neox ? i : 2 * i, b = s->neox ? i + d / 2 : 2 * i + 1;
        const double angle = (double)pos * (double)r->freqs[i], c = cos(angle), n = sin(angle);
        out[a] = 1.1 * (y[a] * c - y[b] * n);
        out[b] = 1.1 * (y[b] * c + y[a] * n);
    }
}

static void check_row(const struct shape *s, const struct rope *r, const struct sequence *q,
                      uint32_t pos, uint32_t head)
{
    const uint32_t d = s->head_dim, kv_head = head / (s->n_heads / s->n_kv_heads);
    double query[256], key[256], weight[N_POS], total = 0;
    rotated(s, r, q->q + pos * q_cols(s) + head * d, r->q_norm, pos, query);
    for (uint32_t j = 0; j <= pos; j++) {
        double score = 0;
        rotated(s, r, q->k + j * k_cols(s) + kv_head * d, r->k_norm, j, key);
        for (uint32_t i = 0; i < d; i++) score += query[i] * key[i];
        weight[j] = exp(score / sqrt(d));
        total += weight[j];
    }
    for (uint32_t i = 0; i < d; i++) {
        double sum = 0;
        for (uint32_t j = 0; j <= pos; j++)
            sum += weight[j] / total * (double)q->v[j * k_cols(s) + kv_head * d + i];
        const double got = (double)q->out[pos * q_cols(s) + head * d + i];
        if (!(fabs(got - sum) <= 2e-4))
            fail_msg("position %u, head %u: %g, expected %g", pos, head, got, sum);
    }
}

// ---- tests ----------------------------------------------------------------------------------

static void check_close(const char *device, const struct shape *s, const float *got,
                        const float *expected)
{
    double squares = 0, top = 0;
    const size_t n = N_POS * q_cols(s);
    for (size_t i = 0; i < n; i++) {
        const double error = fabs((double)got[i] - (double)expected[i]);
        squares += error * error;
        top = error > top || isnan(error) ? error : top;
    }
    if (!(top <= TOP_ERROR && sqrt(squares / (double)n) <= ERROR))
        fail_msg("%s, head_dim %u: errors of %g, one of %g", device, s->head_dim,
                 sqrt(squares / (double)n), top);
}

static void read_pages(struct machine *m, const struct sequence *q, unsigned char *out)
{
    struct err e = {0};
    struct backend *b = m->rig.b;
    const struct kv_shape shape = {N_PAGES, PAGE, 3, m->s->n_kv_heads, m->s->head_dim, KV_Q8_0};
    const size_t n = b->class->page_bytes(b, &shape);
    for (uint32_t i = 0; i * PAGE < N_POS; i++)
        assert_true(b->class->page_read(b, m->kv, q->pages[i], out + i * n, &e));
}

// The prompt in chunks of n rows; with company, a second sequence runs ahead in the same steps.
static void check_chunks(const char *device, uint32_t n_threads, const struct shape *s,
                         const struct rope *r, struct sequence *q, struct sequence *company,
                         uint32_t n, const float *expected, const unsigned char *expected_pages,
                         size_t pages_bytes)
{
    struct machine m;
    unsigned char *pages = test_alloc(pages_bytes);
    machine_open(&m, device, n_threads, KV_Q8_0, s, r);
    memset(q->out, 0, N_POS * q_cols(s) * sizeof *q->out);
    uint32_t other = 0;
    for (uint32_t pos = 0; pos < N_POS; pos += n) {
        const uint32_t rows = N_POS - pos < n ? N_POS - pos : n;
        const struct part parts[] = {{company, other, 1 + pos % 9}, {q, pos, rows}};
        if (company && other + 10 < N_POS) {
            step(&m, parts, 2);
            other += parts[0].n;
        } else {
            step(&m, parts + 1, 1);
        }
    }
    read_pages(&m, q, pages);
    if (memcmp(q->out, expected, N_POS * q_cols(s) * sizeof *expected))
        fail_msg("head_dim %u, chunks of %u, %u threads: other bits", s->head_dim, n, n_threads);
    if (memcmp(pages, expected_pages, pages_bytes))
        fail_msg("head_dim %u, chunks of %u: other bits in the pages", s->head_dim, n);
    machine_close(&m);
    free(pages);
}

static void check_equal_bits(const char *device, const struct shape *s, const struct rope *r,
                             struct sequence *q, const float *reference)
{
    static const uint32_t chunks[] = {1, 2, 3, 5, 8, 17, 32, 33, 64, 100, 209};
    struct machine m;
    struct sequence company;
    const size_t n = N_POS * q_cols(s) * sizeof(float);
    float *expected = test_alloc(n);
    machine_open(&m, device, 1, KV_Q8_0, s, r);
    const struct kv_shape shape = {N_PAGES, PAGE, 3, s->n_kv_heads, s->head_dim, KV_Q8_0};
    const size_t pages_bytes = 7 * m.rig.b->class->page_bytes(m.rig.b, &shape);
    unsigned char *pages = test_alloc(pages_bytes);
    const struct part all = {q, 0, N_POS};
    step(&m, &all, 1);
    read_pages(&m, q, pages);
    machine_close(&m);
    memcpy(expected, q->out, n);
    check_close(device, s, expected, reference);
    sequence_open(&company, s, 12);
    for (uint32_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        check_chunks(device, 1 + i % 3, s, r, q, i % 2 ? &company : NULL, chunks[i], expected,
                     pages, pages_bytes);
    sequence_close(&company);
    free(expected);
    free(pages);
}

static void check_shape(const struct shape *s)
{
    struct rope r;
    struct sequence q;
    struct machine m;
    random_seed(s->head_dim + s->n_heads);
    rope_fill(&r, s);
    sequence_open(&q, s, 0);
    machine_open(&m, "ref", 2, KV_F32, s, &r);
    const struct part all = {&q, 0, N_POS};
    step(&m, &all, 1);
    machine_close(&m);
    for (uint32_t h = 0; h < s->n_heads; h++)
        for (uint32_t pos = h; pos < N_POS; pos += 41) check_row(s, &r, &q, pos, h);
    float *reference = test_alloc(N_POS * q_cols(s) * sizeof *reference);
    memcpy(reference, q.out, N_POS * q_cols(s) * sizeof *reference);
    for (int i = 0; i < OPS_CPU_DEVICES; i++)
        if (ops_can(ops_cpu_devices[i])) check_equal_bits(ops_cpu_devices[i], s, &r, &q, reference);
    free(reference);
    sequence_close(&q);
}

static void attention_is_right_and_exact(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check_shape(&shapes[i]);
}

// What a former owner left in a page's later slots must not matter, whatever it is.
static void check_leftovers(const char *device)
{
    const struct shape *s = &shapes[0];
    struct rope r;
    struct sequence a, b;
    random_seed(7);
    rope_fill(&r, s);
    sequence_open(&a, s, 0);
    sequence_open(&b, s, 0);
    for (size_t i = 0; i < N_POS * k_cols(s); i++) b.v[i] = i % 3 ? INFINITY : NAN;
    const struct part all = {&b, 0, N_POS}, first = {&a, 0, 45};
    float *clean = test_alloc(45 * q_cols(s) * sizeof *clean);
    for (int dirty = 0; dirty < 2; dirty++) {
        struct machine m;
        machine_open(&m, device, 2, KV_Q8_0, s, &r);
        if (dirty) step(&m, &all, 1);
        step(&m, &first, 1);
        if (!dirty) memcpy(clean, a.out, 45 * q_cols(s) * sizeof *clean);
        machine_close(&m);
    }
    assert_memory_equal(clean, a.out, 45 * q_cols(s) * sizeof *clean);
    free(clean);
    sequence_close(&a);
    sequence_close(&b);
}

static void leftovers_do_not_matter(void **state)
{
    (void)state;
    for (int d = 0; d < OPS_CPU_DEVICES; d++)
        if (ops_can(ops_cpu_devices[d])) check_leftovers(ops_cpu_devices[d]);
}

enum { N_TWINS = 4, SPLIT = 160 };

// The first `shared` positions, and their pages, are the trunk's.
static void twin_open(struct sequence *t, const struct shape *s, const struct sequence *trunk,
                      uint32_t shared, uint32_t first_page)
{
    sequence_open(t, s, 0);
    memcpy(t->q, trunk->q, shared * q_cols(s) * sizeof *t->q);
    memcpy(t->k, trunk->k, shared * k_cols(s) * sizeof *t->k);
    memcpy(t->v, trunk->v, shared * k_cols(s) * sizeof *t->v);
    for (uint32_t i = 0; i < N_PAGES / 2; i++)
        t->pages[i] = i < shared / PAGE ? trunk->pages[i] : first_page + i - shared / PAGE;
}

// Prompts up to SPLIT, one after the other, then decode steps: of all together, each step beginning with another, or
// of number `only`.
static void decode_twins(const char *device, uint32_t n_threads, const struct shape *s,
                         const struct rope *r, struct sequence *twins, int only)
{
    struct machine m;
    machine_open(&m, device, n_threads, KV_Q8_0, s, r);
    for (int i = 0; i < N_TWINS; i++) {
        const struct part prompt = {&twins[i], 0, SPLIT};
        if (only < 0 || only == i) step(&m, &prompt, 1);
    }
    for (uint32_t pos = SPLIT; pos < N_POS; pos++) {
        struct part parts[N_TWINS];
        uint32_t n = 0;
        for (uint32_t j = 0; j < N_TWINS; j++) {
            const int i = (int)((pos + j) % N_TWINS);
            if (only < 0 || only == i) parts[n++] = (struct part){&twins[i], pos, 1};
        }
        step(&m, parts, n);
    }
    machine_close(&m);
}

// Decoding sequences that share pages pass over them together; nobody's result may change.
static void shared_pages_change_nothing(void **state)
{
    (void)state;
    const struct shape *s = &shapes[0];
    const size_t n = (size_t)N_POS * q_cols(s), n_prompt = SPLIT * q_cols(s);
    struct rope r;
    struct sequence twins[N_TWINS];
    random_seed(11);
    rope_fill(&r, s);
    sequence_open(&twins[0], s, 0);
    twin_open(&twins[1], s, &twins[0], 5 * PAGE, 12);
    twin_open(&twins[2], s, &twins[0], PAGE, 14); // too little to go with the others
    twin_open(&twins[3], s, &twins[0], 3 * PAGE, 20);
    float *alone = test_alloc(n * sizeof *alone);
    for (int d = 0; d < OPS_CPU_DEVICES; d++) {
        const char *device = ops_cpu_devices[d];
        for (int i = 0; i < N_TWINS && ops_can(device); i++) {
            decode_twins(device, 1, s, &r, twins, i);
            memcpy(alone, twins[i].out, n * sizeof *alone);
            for (uint32_t n_threads = 1; n_threads <= 2; n_threads++) {
                decode_twins(device, n_threads, s, &r, twins, -1);
                assert_memory_equal(alone + n_prompt, twins[i].out + n_prompt,
                                    (n - n_prompt) * sizeof *alone);
            }
        }
    }
    free(alone);
    for (int i = 0; i < N_TWINS; i++) sequence_close(&twins[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_right_and_exact),
        cmocka_unit_test(leftovers_do_not_matter),
        cmocka_unit_test(shared_pages_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
