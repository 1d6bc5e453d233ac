// cuBLASLt through dlopen. Sources: the cuBLASLt reference for functions and enumerators.
//
// Invariant: one algorithm per weight shape and kind of result, without split-K, so that a row of a
// product is the same in a long and in a short chunk.
#include "compute/gpu_blas.h"

#include <assert.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { R_32F = 0, R_16F = 2, R_E4M3 = 28, COMPUTE_32F = 68, OP_T = 1 };
enum {
    DESC_TRANS_A = 3,
    DESC_SCALE_A = 17,
    DESC_SCALE_B = 18,
    DESC_FAST_SUMS = 25,
    DESC_SCALE_MODE_A = 31,
    DESC_SCALE_MODE_B = 32,
    SCALE_OUTER = 3, // a scale a row of each operand: CUDA 12.9 and newer, Hopper
    PREF_WORKSPACE = 1,
    PREF_REDUCTION = 3
};
enum { CHOICE_ROWS = 4096, SHAPES_MAX = 64, FOUND_MAX = 16, TUNE_RUNS = 3, TRY_SIZE = 256 };

typedef struct lt_opaque *lt; // any of the library's handles

struct algo {
    uint64_t data[8];
};
struct heuristic { // cublasLtMatmulHeuristicResult_t
    struct algo algo;
    size_t workspace_bytes;
    int state;
    float waves;
    int reserved[4];
};

#define LT_FUNCTIONS(FN)                                                                        \
    FN(Create, (lt *))                                                                          \
    FN(Destroy, (lt))                                                                           \
    FN(Matmul, (lt, lt, const void *, const void *, lt, const void *, lt, const void *,         \
                const void *, lt, void *, lt, const struct algo *, void *, size_t, gpu_stream)) \
    FN(MatmulDescCreate, (lt *, int, int))                                                      \
    FN(MatmulDescSetAttribute, (lt, int, const void *, size_t))                                 \
    FN(MatmulDescDestroy, (lt))                                                                 \
    FN(MatrixLayoutCreate, (lt *, int, uint64_t, uint64_t, int64_t))                            \
    FN(MatrixLayoutDestroy, (lt))                                                               \
    FN(MatmulPreferenceCreate, (lt *))                                                          \
    FN(MatmulPreferenceSetAttribute, (lt, int, const void *, size_t))                           \
    FN(MatmulPreferenceDestroy, (lt))                                                           \
    FN(MatmulAlgoGetHeuristic, (lt, lt, lt, lt, lt, lt, lt, int, struct heuristic *, int *))

struct shape {
    uint32_t m, k;
    bool f32;
    enum gpu_product_kind kind;
    struct algo algo;
};

struct gpu_blas {
    void *library;
    lt handle, desc[3], preference; // desc: by kind, as far as the library has them
    void *workspace;
    size_t workspace_bytes;
    struct shape shapes[SHAPES_MAX];
    uint32_t n_shapes;
#define FN(name, args) int(*name) args;
    LT_FUNCTIONS(FN)
#undef FN
};

static bool lt_ok(int status, const char *what, struct err *e)
{
    return status == 0 || err_set(e, ERR_DEVICE, "cuBLASLt %s failed with status %d", what, status);
}

static bool find_functions(struct gpu_blas *b, struct err *e)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
    for (size_t i = 0; i < sizeof names / sizeof *names && !b->library; i++)
        b->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!b->library)
        return err_set(
            e, ERR_NOT_FOUND,
            "no libcublasLt (CUDA 12 or 13) in the library path: long prompts are slower");
#define FN(name, args)                                                                \
    {                                                                                 \
        void *f = dlsym(b->library, "cublasLt" #name);                                \
        if (!f) return err_set(e, ERR_NOT_FOUND, "libcublasLt lacks cublasLt" #name); \
        memcpy(&b->name, &f, sizeof f);                                               \
    }
    LT_FUNCTIONS(FN)
#undef FN
    return true;
}

static bool set_desc(const struct gpu_blas *b, lt desc, int what, const void *v, size_t n,
                     const char *name, struct err *e)
{
    return lt_ok(b->MatmulDescSetAttribute(desc, what, v, n), name, e);
}

static bool make_desc(struct gpu_blas *b, enum gpu_product_kind kind, struct err *e)
{
    const int transposed = OP_T;
    return lt_ok(b->MatmulDescCreate(&b->desc[kind], COMPUTE_32F, R_32F), "description", e) &&
           set_desc(b, b->desc[kind], DESC_TRANS_A, &transposed, sizeof transposed, "transposition",
                    e);
}

static bool make_handles(struct gpu_blas *b, struct err *e)
{
    const uint32_t no_split = 0;
    return lt_ok(b->Create(&b->handle), "start", e) && make_desc(b, PRODUCT_F16, e) &&
           lt_ok(b->MatmulPreferenceCreate(&b->preference), "preference", e) &&
           lt_ok(b->MatmulPreferenceSetAttribute(b->preference, PREF_WORKSPACE, &b->workspace_bytes,
                                                 sizeof b->workspace_bytes),
                 "workspace", e) &&
           lt_ok(b->MatmulPreferenceSetAttribute(b->preference, PREF_REDUCTION, &no_split,
                                                 sizeof no_split),
                 "reduction scheme", e);
}

// "Fast" sums keep some 13 bits: over 25,600 products that is an error of 0.004 where e4m3 itself makes 0.038
// (0.0002 with exact sums), and products are up to 9 % quicker.
static bool make_desc8(struct gpu_blas *b, struct err *e)
{
    const int32_t outer = SCALE_OUTER;
    const int8_t fast = 1;
    if (!make_desc(b, PRODUCT_E4M3, e) || !make_desc(b, PRODUCT_E4M3_ROWS, e)) return false;
    for (int i = PRODUCT_E4M3_ROWS; i <= PRODUCT_E4M3; i++)
        if (!set_desc(b, b->desc[i], DESC_FAST_SUMS, &fast, sizeof fast, "sums", e)) return false;
    const lt rows = b->desc[PRODUCT_E4M3_ROWS];
    return set_desc(b, rows, DESC_SCALE_MODE_A, &outer, sizeof outer, "a scale a row", e) &&
           set_desc(b, rows, DESC_SCALE_MODE_B, &outer, sizeof outer, "a scale a row", e);
}

void gpu_blas_close(struct gpu_blas *b)
{
    if (!b) return;
    if (b->preference) b->MatmulPreferenceDestroy(b->preference);
    for (int i = 0; i < 3; i++)
        if (b->desc[i]) b->MatmulDescDestroy(b->desc[i]);
    if (b->handle) b->Destroy(b->handle);
    if (b->library) dlclose(b->library);
    free(b);
}

bool gpu_blas_open(struct gpu_blas **out, gpu_ptr workspace, size_t workspace_bytes, struct err *e)
{
    struct gpu_blas *b = calloc(1, sizeof *b);
    if (!b) return err_set(e, ERR_MEMORY, "no memory for cuBLASLt");
    b->workspace = (void *)(uintptr_t)workspace;
    b->workspace_bytes = workspace_bytes;
    if (!find_functions(b, e) || !make_handles(b, e)) {
        gpu_blas_close(b);
        return false;
    }
    *out = b;
    return true;
}

struct layouts {
    lt w, x, out;
};

static void free_layouts(const struct gpu_blas *b, struct layouts *l)
{
    if (l->w) b->MatrixLayoutDestroy(l->w);
    if (l->x) b->MatrixLayoutDestroy(l->x);
    if (l->out) b->MatrixLayoutDestroy(l->out);
    *l = (struct layouts){0};
}

// The library counts columns first: what is [n][k] here is k x n there.
static bool make_layouts(const struct gpu_blas *b, struct layouts *l, const struct gpu_product *p,
                         uint32_t n, struct err *e)
{
    const int in = p->kind == PRODUCT_F16 ? R_16F : R_E4M3, out = p->out_f32 ? R_32F : R_16F;
    *l = (struct layouts){0};
    if (lt_ok(b->MatrixLayoutCreate(&l->w, in, p->k, p->m, p->k), "layout", e) &&
        lt_ok(b->MatrixLayoutCreate(&l->x, in, p->k, n, p->k), "layout", e) &&
        lt_ok(b->MatrixLayoutCreate(&l->out, out, p->m, n, p->ldo), "layout", e))
        return true;
    free_layouts(b, l);
    return false;
}

// The description of p with its scales.
static bool describe(const struct gpu_blas *b, const struct gpu_product *p, lt *desc, struct err *e)
{
    const void *w = (const void *)(uintptr_t)p->w_scales;
    const void *x = (const void *)(uintptr_t)p->x_scales;
    *desc = b->desc[p->kind];
    return p->kind != PRODUCT_E4M3_ROWS ||
           (set_desc(b, *desc, DESC_SCALE_A, &w, sizeof w, "the weights' scales", e) &&
            set_desc(b, *desc, DESC_SCALE_B, &x, sizeof x, "the rows' scales", e));
}

// Algorithms for p, the library's first choice first; *n_found may be 0.
static bool find_algos(const struct gpu_blas *b, const struct gpu_product *p, uint32_t n, int most,
                       struct heuristic *found, int *n_found, struct err *e)
{
    struct layouts l;
    lt desc;
    *n_found = 0;
    if (!describe(b, p, &desc, e) || !make_layouts(b, &l, p, n, e)) return false;
    const int status = b->MatmulAlgoGetHeuristic(b->handle, desc, l.w, l.x, l.out, l.out,
                                                 b->preference, most, found, n_found);
    free_layouts(b, &l);
    return lt_ok(status, "choice of an algorithm", e) &&
           (*n_found > 0 ||
            err_set(e, ERR_DEVICE, "cuBLASLt has no algorithm for a product of %u x %u weights%s",
                    p->m, p->k, p->kind == PRODUCT_F16 ? "" : " in fp8"));
}

static struct shape *shape_of(struct gpu_blas *b, const struct gpu_product *p)
{
    for (uint32_t i = 0; i < b->n_shapes; i++) {
        struct shape *s = &b->shapes[i];
        if (s->m == p->m && s->k == p->k && s->f32 == p->out_f32 && s->kind == p->kind) return s;
    }
    return NULL;
}

static const struct algo *keep(struct gpu_blas *b, const struct gpu_product *p,
                               const struct algo *algo)
{
    struct shape *s = shape_of(b, p);
    if (!s) s = &b->shapes[b->n_shapes < SHAPES_MAX ? b->n_shapes++ : 0];
    *s = (struct shape){p->m, p->k, p->out_f32, p->kind, *algo};
    return &s->algo;
}

static const struct algo *algo_of(struct gpu_blas *b, const struct gpu_product *p, struct err *e)
{
    const struct shape *s = shape_of(b, p);
    struct heuristic found[1];
    int n_found;
    if (s) return &s->algo;
    return find_algos(b, p, CHOICE_ROWS, 1, found, &n_found, e) ? keep(b, p, &found[0].algo) : NULL;
}

static bool run(struct gpu_blas *b, gpu_stream s, const struct gpu_product *p,
                const struct algo *algo, struct err *e)
{
    const float beta = p->add ? 1.0f : 0.0f;
    struct layouts l;
    lt desc;
    if (!describe(b, p, &desc, e) || !make_layouts(b, &l, p, p->n, e)) return false;
    void *const to = (void *)(uintptr_t)p->out;
    const int status = b->Matmul(b->handle, desc, &p->alpha, (const void *)(uintptr_t)p->w, l.w,
                                 (const void *)(uintptr_t)p->x, l.x, &beta, to, l.out, to, l.out,
                                 algo, b->workspace, b->workspace_bytes, s);
    free_layouts(b, &l);
    return lt_ok(status, "product", e);
}

bool gpu_blas_multiply(struct gpu_blas *b, gpu_stream s, const struct gpu_product *p, struct err *e)
{
    const struct algo *algo = algo_of(b, p, e);
    return algo && run(b, s, p, algo, e);
}

// ---- what the library can do, and how fast ------------------------------------------------------

bool gpu_blas_try_fp8(struct gpu_blas *b, const struct gpu_api *a, gpu_stream s, gpu_ptr room,
                      struct err *e)
{
    enum { N = TRY_SIZE };
    struct gpu_product p = {.kind = PRODUCT_E4M3,
                            .w = room,
                            .x = room + N * N,
                            .out = room + 2 * N * N,
                            .w_scales = room + 6 * N * N,
                            .x_scales = room + 7 * N * N,
                            .m = N,
                            .n = N,
                            .k = N,
                            .ldo = N,
                            .alpha = 1};
    static_assert(8 * N * N <= GPU_BLAS_TRY_BYTES, "room for a trial");
    if (!make_desc8(b, e) || !gpu_ok(a, a->fill(room, 0, 8 * N * N, s), "a trial product", e) ||
        !gpu_blas_multiply(b, s, &p, e))
        return false;
    p.kind = PRODUCT_E4M3_ROWS;
    if (!gpu_blas_multiply(b, s, &p, e)) return false;
    p.out_f32 = p.add = true;
    const bool ok =
        gpu_blas_multiply(b, s, &p, e) && gpu_ok(a, a->stream_sync(s), "a trial product", e);
    b->n_shapes = 0;
    return ok;
}

// Microseconds of the quickest of a few runs; < 0 where this algorithm does not take p.
static bool time_algo(struct gpu_blas *b, const struct gpu_api *a, gpu_stream s,
                      const struct gpu_product *p, const struct algo *algo, gpu_event at[2],
                      float *us, struct err *e)
{
    float ms = 0;
    *us = -1;
    for (int i = 0; i < TUNE_RUNS; i++) {
        struct err own = {0};
        if (!gpu_ok(a, a->event_record(at[0], s), "timing a product", e)) return false;
        if (!run(b, s, p, algo, &own)) return true;
        if (!gpu_ok(a, a->event_record(at[1], s), "timing a product", e) ||
            !gpu_ok(a, a->event_sync(at[1]), "timing a product", e) ||
            !gpu_ok(a, a->event_ms(&ms, at[0], at[1]), "timing a product", e))
            return false;
        if (*us < 0 || ms * 1e3f < *us) *us = ms * 1e3f;
    }
    return true;
}

bool gpu_blas_tune(struct gpu_blas *b, const struct gpu_api *a, gpu_stream s,
                   const struct gpu_product *p, float *us, float *first_us, struct err *e)
{
    struct heuristic found[FOUND_MAX];
    gpu_event at[2] = {0};
    int n_found = 0, best = 0;
    bool ok = find_algos(b, p, p->n, FOUND_MAX, found, &n_found, e) &&
              gpu_ok(a, a->event_create(&at[0], 0), "an event", e) &&
              gpu_ok(a, a->event_create(&at[1], 0), "an event", e);
    *us = *first_us = -1;
    for (int i = 0; i < n_found && ok; i++) {
        float t;
        if (found[i].state != 0) continue;
        ok = time_algo(b, a, s, p, &found[i].algo, at, &t, e);
        if (i == 0) *first_us = t;
        if (t < 0 || (*us >= 0 && t >= *us)) continue;
        *us = t;
        best = i;
    }
    for (int i = 0; i < 2; i++)
        if (at[i]) a->event_destroy(at[i]);
    if (ok) keep(b, p, &found[best].algo);
    return ok;
}
