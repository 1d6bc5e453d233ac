// Matrix products of long prompts by NVIDIA's cuBLASLt, found at run time. Where it is missing, the
// backend's own kernels serve.
#pragma once

#include "compute/gpu_api.h"

struct gpu_blas;

// Operands of f16; or of e4m3, with a factor for each row of either (w_scales[m], x_scales[n]), or without.
enum gpu_product_kind { PRODUCT_F16, PRODUCT_E4M3_ROWS, PRODUCT_E4M3 };

// out[n][m] = alpha x[n][k] w[m][k]^T, or += with add; rows of k elements, out f16 or f32 with rows of ldo
// elements.
struct gpu_product {
    enum gpu_product_kind kind;
    gpu_ptr w, x, out, w_scales, x_scales;
    uint32_t m, n, k, ldo;
    float alpha;
    bool add, out_f32;
};

// Opens the library; false with a reason where it is missing. workspace: device memory, kept by the caller.
bool gpu_blas_open(struct gpu_blas **out, gpu_ptr workspace, size_t workspace_bytes, struct err *e);
void gpu_blas_close(struct gpu_blas *b); // NULL is fine
// Can it multiply e4m3 in both ways, and add such a product to f32? Tries it on 256 x 256 elements each in
// `room`, GPU_BLAS_TRY_BYTES of device memory, and waits.
bool gpu_blas_try_fp8(struct gpu_blas *b, const struct gpu_api *a, gpu_stream s, gpu_ptr room,
                      struct err *e);
enum { GPU_BLAS_TRY_BYTES = 1 << 20 };
// Queues the product. The algorithm is chosen once for each (m, k) and kind: a row's sum does not depend on n.
bool gpu_blas_multiply(struct gpu_blas *b, gpu_stream s, const struct gpu_product *p,
                       struct err *e);
// Runs the algorithms that the library proposes for p, a few times each, and keeps the quickest for this shape
// and kind. Overwrites p->out; waits. *us: of the quickest; *first_us: of the library's first choice.
bool gpu_blas_tune(struct gpu_blas *b, const struct gpu_api *a, gpu_stream s,
                   const struct gpu_product *p, float *us, float *first_us, struct err *e);
