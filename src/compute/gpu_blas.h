// Matrix products of long prompts by NVIDIA's cuBLASLt, found at run time. Where it is missing, the
// backend's own kernels serve.
#pragma once

#include "compute/gpu_api.h"

struct gpu_blas;

// Opens the library; false with a reason where it is missing. workspace: device memory, kept by the caller.
bool gpu_blas_open(struct gpu_blas **out, gpu_ptr workspace, size_t workspace_bytes, struct err *e);
void gpu_blas_close(struct gpu_blas *b); // NULL is fine
// out[n][m] = alpha x[n][k] w[m][k]^T, or += with add; x and w f16 with rows of k elements, out f16 or
// f32 with rows of ldo elements. The algorithm is chosen once for each (m, k): a row's sum does not
// depend on n.
bool gpu_blas_multiply(struct gpu_blas *b, gpu_stream s, gpu_ptr w, gpu_ptr x, gpu_ptr out,
                       uint32_t m, uint32_t n, uint32_t k, uint32_t ldo, float alpha, bool add,
                       bool out_f32, struct err *e);
