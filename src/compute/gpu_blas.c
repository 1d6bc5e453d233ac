// cuBLASLt through dlopen. Sources: the cuBLASLt reference for functions and enumerators.
//
// Invariant: one algorithm per weight shape and kind of result, without split-K, so that a row of a
// product is the same in a long and in a short chunk.
#include "compute/gpu_blas.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { R_32F = 0, R_16F = 2, COMPUTE_32F = 68, OP_T = 1 };
enum { DESC_TRANS_A = 3, PREF_WORKSPACE = 1, PREF_REDUCTION = 3 };
enum { TUNE_ROWS = 4096, SHAPES_MAX = 64, FOUND_MAX = 1 };

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
    struct algo algo;
};

struct gpu_blas {
    void *library;
    lt handle, desc, preference;
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

static bool make_handles(struct gpu_blas *b, struct err *e)
{
    const int transposed = OP_T;
    const uint32_t no_split = 0;
    return lt_ok(b->Create(&b->handle), "start", e) &&
           lt_ok(b->MatmulDescCreate(&b->desc, COMPUTE_32F, R_32F), "description", e) &&
           lt_ok(b->MatmulDescSetAttribute(b->desc, DESC_TRANS_A, &transposed, sizeof transposed),
                 "transposition", e) &&
           lt_ok(b->MatmulPreferenceCreate(&b->preference), "preference", e) &&
           lt_ok(b->MatmulPreferenceSetAttribute(b->preference, PREF_WORKSPACE, &b->workspace_bytes,
                                                 sizeof b->workspace_bytes),
                 "workspace", e) &&
           lt_ok(b->MatmulPreferenceSetAttribute(b->preference, PREF_REDUCTION, &no_split,
                                                 sizeof no_split),
                 "reduction scheme", e);
}

void gpu_blas_close(struct gpu_blas *b)
{
    if (!b) return;
    if (b->preference) b->MatmulPreferenceDestroy(b->preference);
    if (b->desc) b->MatmulDescDestroy(b->desc);
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
static bool make_layouts(const struct gpu_blas *b, struct layouts *l, uint32_t m, uint32_t n,
                         uint32_t k, uint32_t ldo, bool f32, struct err *e)
{
    *l = (struct layouts){0};
    if (lt_ok(b->MatrixLayoutCreate(&l->w, R_16F, k, m, k), "layout", e) &&
        lt_ok(b->MatrixLayoutCreate(&l->x, R_16F, k, n, k), "layout", e) &&
        lt_ok(b->MatrixLayoutCreate(&l->out, f32 ? R_32F : R_16F, m, n, ldo), "layout", e))
        return true;
    free_layouts(b, l);
    return false;
}

static const struct algo *find_algo(struct gpu_blas *b, uint32_t m, uint32_t k, uint32_t ldo,
                                    bool f32, struct err *e)
{
    for (uint32_t i = 0; i < b->n_shapes; i++) {
        const struct shape *s = &b->shapes[i];
        if (s->m == m && s->k == k && s->f32 == f32) return &s->algo;
    }
    struct heuristic found[FOUND_MAX];
    struct layouts l;
    int n_found = 0;
    if (!make_layouts(b, &l, m, TUNE_ROWS, k, ldo, f32, e)) return NULL;
    const int status = b->MatmulAlgoGetHeuristic(b->handle, b->desc, l.w, l.x, l.out, l.out,
                                                 b->preference, FOUND_MAX, found, &n_found);
    free_layouts(b, &l);
    if (!lt_ok(status, "choice of an algorithm", e)) return NULL;
    if (n_found == 0) {
        err_set(e, ERR_DEVICE, "cuBLASLt has no algorithm for a product of %u x %u weights", m, k);
        return NULL;
    }
    struct shape *s = &b->shapes[b->n_shapes < SHAPES_MAX ? b->n_shapes++ : 0];
    *s = (struct shape){m, k, f32, found[0].algo};
    return &s->algo;
}

bool gpu_blas_multiply(struct gpu_blas *b, gpu_stream s, gpu_ptr w, gpu_ptr x, gpu_ptr out,
                       uint32_t m, uint32_t n, uint32_t k, uint32_t ldo, float alpha, bool add,
                       bool out_f32, struct err *e)
{
    const struct algo *algo = find_algo(b, m, k, ldo, out_f32, e);
    const float beta = add ? 1.0f : 0.0f;
    struct layouts l;
    if (!algo || !make_layouts(b, &l, m, n, k, ldo, out_f32, e)) return false;
    void *const to = (void *)(uintptr_t)out;
    const int status = b->Matmul(b->handle, b->desc, &alpha, (const void *)(uintptr_t)w, l.w,
                                 (const void *)(uintptr_t)x, l.x, &beta, to, l.out, to, l.out, algo,
                                 b->workspace, b->workspace_bytes, s);
    free_layouts(b, &l);
    return lt_ok(status, "product", e);
}
