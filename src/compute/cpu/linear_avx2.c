// Linear layers with AVX2 of weights that are not packed (repack.h): they are unpacked to int16 (one row to the
// stack for few rows of activations, 16 interleaved rows for many; floats once, at load) and multiplied by
// vpmaddwd, 16 products an instruction, two instructions a cycle on Zen 3. The float operations per element are those of kernels.h, in both
// forms, so that a row's result does not depend on its company.
#include "compute/cpu/linear_avx2.h"

#if defined(__AVX2__) // nothing on machines of another kind

#include <assert.h>

#include "compute/cpu/tile_avx2.h"
#include "compute/cpu/unpack.h"
#include "kernels/common/decode.h"

#define INLINE static inline __attribute__((always_inline))

// How far ahead of a single row's reading memory is asked for: the hardware's own prefetch ends at
// every 4 KB page of the map.
enum { PREFETCH_BYTES = 4096 };

// ---- quantising -----------------------------------------------------------------------------

// n values (a multiple of 8) to int16 of at most limit; returns the scale.
static float quantize_vector(const float *x, uint32_t n, int16_t *q, int limit)
{
    __m256 m = _mm256_setzero_ps();
    for (uint32_t i = 0; i < n; i += 8) m = _mm256_max_ps(m, lanes_abs(_mm256_loadu_ps(x + i)));
    const float max = lanes_max(m);
    const __m256 inverse = _mm256_set1_ps(max > 0 ? (float)limit / max : 0.0f);
    for (uint32_t i = 0; i < n; i += 8) {
        const __m256i v = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
        const __m128i h =
            _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        _mm_storeu_si128((__m128i *)(void *)(q + i), h);
    }
    return max / (float)limit;
}

void avx2_quantize(const float *x, uint32_t n, int16_t *q, int16_t *sums, float *scales)
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (uint32_t i = 0; i * BLOCK_K < n; i++, q += BLOCK_K, sums += 16) {
        const uint32_t cols = block_cols(n, i);
        float padded[BLOCK_K];
        const float *from = x + i * BLOCK_K;
        if (cols < BLOCK_K) {
            memset(padded, 0, sizeof padded);
            memcpy(padded, from, cols * sizeof *from);
            from = padded;
        }
        scales[i] = quantize_vector(from, BLOCK_K, q, ACT_MAX);
        for (int g = 0; g < 16; g++)
            sums[g] = (int16_t)lanes_sum_i32(_mm256_madd_epi16(load_i(q + g * 16), ones));
    }
}

// ---- unpacking ------------------------------------------------------------------------------

INLINE void unpack_floats(enum fmt f, const uint8_t *p, uint32_t cols, struct row_block *out)
{
    float x[BLOCK_K];
    uint32_t i = 0;
    for (; i + 8 <= cols; i += 8) {
        __m256 v;
        if (f == FMT_F32)
            v = _mm256_loadu_ps((const float *)(const void *)(p + i * 4));
        else {
            const __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(p + i * 2));
            v = f == FMT_F16 ? _mm256_cvtph_ps(h)
                             : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
        }
        _mm256_storeu_ps(x + i, v);
    }
    if (i < cols) decode_row(f, p + fmt_row_bytes(f, i), x + i, cols - i);
    if (cols < BLOCK_K) memset(x + cols, 0, (BLOCK_K - cols) * sizeof *x);
    out->d[0] = quantize_vector(x, BLOCK_K, out->w, WEIGHT_MAX);
}

INLINE void unpack(enum fmt f, const uint8_t *p, uint32_t cols, struct row_block *out)
{
    switch (f) {
    case FMT_F32:
    case FMT_F16:
    case FMT_BF16: unpack_floats(f, p, cols, out); break;
    default: unpack_rare(f, p, cols, out); break;
    }
}

// ---- panels ---------------------------------------------------------------------------------

// 8 x 8 of 32 bits: out[i] lane j = in[j] lane i. Each out row goes to to + i * 32 int16s.
INLINE void transpose(const int16_t *const in[8], int16_t *to)
{
    __m256i r[8], t[8];
    for (int i = 0; i < 8; i++) r[i] = load_i(in[i]);
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        const __m256i *u = t + 4 * i;
        r[4 * i] = _mm256_unpacklo_epi64(u[0], u[2]);
        r[4 * i + 1] = _mm256_unpackhi_epi64(u[0], u[2]);
        r[4 * i + 2] = _mm256_unpacklo_epi64(u[1], u[3]);
        r[4 * i + 3] = _mm256_unpackhi_epi64(u[1], u[3]);
    }
    for (int i = 0; i < 4; i++) {
        store_i(to + i * 32, _mm256_permute2x128_si256(r[i], r[i + 4], 0x20));
        store_i(to + (i + 4) * 32, _mm256_permute2x128_si256(r[i], r[i + 4], 0x31));
    }
}

void avx2_panel_expand(enum fmt f, const uint8_t *rows, size_t row_bytes, uint32_t n_rows,
                       uint32_t i_block, uint32_t n_k, struct panel_block *out)
{
    const uint32_t cols = block_cols(n_k, i_block);
    const size_t offset = fmt_row_bytes(f, (size_t)i_block * BLOCK_K);
    struct row_block b[PANEL_ROWS];
    assert(is_rare(f) || fmt_info[f].block == 1);
    if (cols < BLOCK_K || n_rows < PANEL_ROWS) memset(b, 0, sizeof b);
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint8_t *p = rows + r * row_bytes + offset;
        __builtin_prefetch(p + row_bytes * PANEL_ROWS);
        unpack(f, p, cols, &b[r]);
        for (uint32_t s = 0; s < MAX_SUBS; s++) out->d[s][r] = b[r].d[s];
        out->dmin[r] = b[r].dmin;
    }
    for (uint32_t r = n_rows; r < PANEL_ROWS; r++) {
        for (uint32_t s = 0; s < MAX_SUBS; s++) out->d[s][r] = 0;
        out->dmin[r] = 0;
    }
    for (uint32_t half = 0; half < PANEL_ROWS; half += 8) {
        const int16_t *in[8];
        for (int k = 0; k < BLOCK_K; k += 16) {
            for (int r = 0; r < 8; r++) in[r] = b[half + (uint32_t)r].w + k;
            transpose(in, out->w[k / 2][half]);
        }
        if (!has_min(f)) continue;
        for (int r = 0; r < 8; r++) in[r] = b[half + (uint32_t)r].min;
        transpose(in, out->min[0][half]);
    }
}

// acc[i][half] (+ or -)= (float)sum * d * scale, the order of kernels.h.
INLINE void add_sums(float *acc, __m256i sum, const float *d, __m256 scale, bool subtract)
{
    const __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(d));
    const __m256 a = _mm256_loadu_ps(acc);
    _mm256_storeu_ps(acc, subtract ? _mm256_fnmadd_ps(t, scale, a) : _mm256_fmadd_ps(t, scale, a));
}

// Sums of n rows of activations from q on with the panel rows from w on, into acc.
INLINE void add_tile(const int16_t (*w)[PANEL_ROWS][2], const int16_t *q, uint32_t q_stride,
                     uint32_t n_pairs, uint32_t n, const float *d, const __m256 *scale,
                     bool subtract, float (*acc)[PANEL_ROWS])
{
    __m256i sum[TILE][2];
    tile_run(w, NULL, sizeof *w, q, q_stride * sizeof *q, n_pairs, NULL, n, sum);
    for (uint32_t i = 0; i < n; i++) {
        add_sums(acc[i], sum[i][0], d, scale[i], subtract);
        add_sums(acc[i] + 8, sum[i][1], d + 8, scale[i], subtract);
    }
}

void avx2_panel_dot(enum fmt f, const struct panel_block *p, const struct acts *a, uint32_t i_block,
                    uint32_t n_k, uint32_t row0, uint32_t n_rows, float (*acc)[PANEL_ROWS])
{
    const uint32_t cols = block_cols(n_k, i_block), sub = sub_cols(f), k_pad = a->k_pad;
    for (uint32_t i = 0, n; i < n_rows; i += n, acc += n) {
        const size_t row = row0 + i;
        const int16_t *q = a->q + row * k_pad + i_block * BLOCK_K;
        const int16_t *sums = a->sums + row * (k_pad / 16) + i_block * 16;
        const float *scales = a->scales + row * (k_pad / BLOCK_K) + i_block;
        __m256 scale[TILE];
        n = tile_size(n_rows - i);
        for (uint32_t j = 0; j < n; j++) scale[j] = _mm256_set1_ps(scales[j * (k_pad / BLOCK_K)]);
        for (uint32_t k = 0; k < cols; k += sub)
            add_tile(p->w + k / 2, q + k, k_pad, sub / 2, n, p->d[k / sub], scale, false, acc);
        if (has_min(f)) add_tile(p->min, sums, k_pad / 16, 8, n, p->dmin, scale, true, acc);
    }
}

// ---- few rows -------------------------------------------------------------------------------

INLINE __m256i sum_products(const int16_t *w, const int16_t *q, uint32_t n)
{
    __m256i sum = _mm256_setzero_si256();
    for (uint32_t k = 0; k < n; k += 16)
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(load_i(w + k), load_i(q + k)));
    return sum;
}

// Eight sums of eight lanes each: lane i of the result is the sum of v[i].
INLINE __m256i sum_each(const __m256i v[8])
{
    const __m256i a = _mm256_hadd_epi32(v[0], v[1]), b = _mm256_hadd_epi32(v[2], v[3]);
    const __m256i c = _mm256_hadd_epi32(v[4], v[5]), d = _mm256_hadd_epi32(v[6], v[7]);
    const __m256i ab = _mm256_hadd_epi32(a, b), cd = _mm256_hadd_epi32(c, d);
    return _mm256_add_epi32(_mm256_permute2x128_si256(ab, cd, 0x20),
                            _mm256_permute2x128_si256(ab, cd, 0x31));
}

INLINE float chain(float acc, float t, float scale)
{
    return __builtin_fmaf(t, scale, acc);
}

// A block of 32-column sub-blocks: all its sums at once, then the chain of kernels.h.
INLINE float dot_subs(const struct row_block *w, const int16_t *q, uint32_t cols, float scale,
                      float acc)
{
    __m256i v[8];
    float t[8];
    const uint32_t n = cols / 32;
    for (uint32_t s = 0; s < 8; s++)
        v[s] = s < n ? sum_products(w->w + s * 32, q + s * 32, 32) : _mm256_setzero_si256();
    const __m256 sums = _mm256_cvtepi32_ps(sum_each(v));
    _mm256_storeu_ps(t, _mm256_mul_ps(sums, _mm256_load_ps(w->d)));
    for (uint32_t s = 0; s < n; s++) acc = chain(acc, t[s], scale);
    return acc;
}

INLINE void row_dot(enum fmt f, const uint8_t *row, uint32_t n_k, const struct acts *a,
                    uint32_t n_rows, float *out)
{
    struct row_block w;
    float acc[ROW_BATCH] = {0};
    if (n_k % BLOCK_K) memset(&w, 0, sizeof w);
    for (uint32_t b = 0; b * BLOCK_K < n_k; b++) {
        const uint32_t cols = block_cols(n_k, b);
        const size_t n_bytes = fmt_row_bytes(f, cols);
        for (size_t i = 0; i < n_bytes; i += 64) __builtin_prefetch(row + PREFETCH_BYTES + i);
        unpack(f, row, cols, &w);
        row += n_bytes;
        for (uint32_t i = 0; i < n_rows; i++) {
            const int16_t *q = a->q + (size_t)i * a->k_pad + b * BLOCK_K;
            const float scale = a->scales[i * (a->k_pad / BLOCK_K) + b];
            if (sub_cols(f) == 32) {
                acc[i] = dot_subs(&w, q, cols, scale, acc[i]);
            } else {
                const int32_t sum = lanes_sum_i32(sum_products(w.w, q, BLOCK_K));
                acc[i] = chain(acc[i], (float)sum * w.d[0], scale);
            }
            if (!has_min(f)) continue;
            const int16_t *sums = a->sums + (size_t)i * (a->k_pad / 16) + b * 16;
            const int32_t min_sum = lanes_sum_i32(sum_products(w.min, sums, 16));
            acc[i] = chain(acc[i], -((float)min_sum * w.dmin), scale);
        }
    }
    memcpy(out, acc, n_rows * sizeof *out);
}

void avx2_row_dot(enum fmt f, const uint8_t *row, uint32_t n_k, const struct acts *a,
                  uint32_t n_rows, float *out)
{
    assert(is_rare(f));
    switch (f) {
#define FMT(id, name, gguf, block, bytes)                \
    case FMT_##id:                                       \
        if (!is_rare(FMT_##id)) break;                   \
        if (n_rows == 1)                                 \
            row_dot(FMT_##id, row, n_k, a, 1, out);      \
        else                                             \
            row_dot(FMT_##id, row, n_k, a, n_rows, out); \
        break;
#include "kernels/common/formats.def"
#undef FMT
    case FMT_COUNT: break;
    }
}

#endif
