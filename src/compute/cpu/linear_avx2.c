// Linear layers with AVX2: weights are unpacked to int16 (one row to the stack for few rows of
// activations, 16 interleaved rows for many) and multiplied by vpmaddwd, 16 products an instruction,
// two instructions a cycle on Zen 3. The float operations per element are those of kernels.h, in both
// forms, so that a row's result does not depend on its company.
#include "compute/cpu/linear_avx2.h"

#if defined(__AVX2__) // nothing on machines of another kind

#include "compute/cpu/tile_avx2.h"
#include "compute/cpu/unpack.h"
#include "kernels/common/decode.h"

#define INLINE static inline __attribute__((always_inline))

// How far ahead of a single row's reading memory is asked for: the hardware's own prefetch ends at
// every 4 KB page of the map.
enum { PREFETCH_BYTES = 4096 };

// ---- quantising -----------------------------------------------------------------------------

float avx2_quantize_vector(const float *x, uint32_t n, int16_t *q, int limit)
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
        scales[i] = avx2_quantize_vector(from, BLOCK_K, q, ACT_MAX);
        for (int g = 0; g < 16; g++)
            sums[g] = (int16_t)lanes_sum_i32(_mm256_madd_epi16(load_i(q + g * 16), ones));
    }
}

// ---- unpacking ------------------------------------------------------------------------------

INLINE void widen_i8(__m128i bytes, int16_t *to)
{
    store_i(to, _mm256_cvtepi8_epi16(bytes));
}

INLINE void widen_scaled(__m256i bytes, __m256i scale, int16_t *to)
{
    const __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes));
    const __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(bytes, 1));
    store_i(to, _mm256_mullo_epi16(low, scale));
    store_i(to + 16, _mm256_mullo_epi16(high, scale));
}

INLINE float half_to_float(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _cvtsh_ss(h);
}

INLINE void unpack_q8_0(const uint8_t *p, uint32_t cols, struct row_block *out)
{
    for (uint32_t g = 0; g < cols / 32; g++, p += sizeof(struct block_Q8_0)) {
        out->d[g] = half_to_float(p);
        widen_i8(_mm_loadu_si128((const __m128i *)(const void *)(p + 2)), out->w + g * 32);
        widen_i8(_mm_loadu_si128((const __m128i *)(const void *)(p + 18)), out->w + g * 32 + 16);
    }
}

INLINE void unpack_q4_0(const uint8_t *p, uint32_t cols, struct row_block *out)
{
    const __m128i low4 = _mm_set1_epi8(15), eight = _mm_set1_epi8(8);
    for (uint32_t g = 0; g < cols / 32; g++, p += sizeof(struct block_Q4_0)) {
        const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(p + 2));
        const __m128i low = _mm_and_si128(b, low4);
        const __m128i high = _mm_and_si128(_mm_srli_epi16(b, 4), low4);
        out->d[g] = half_to_float(p);
        widen_i8(_mm_sub_epi8(low, eight), out->w + g * 32);
        widen_i8(_mm_sub_epi8(high, eight), out->w + g * 32 + 16);
    }
}

// The eight 6-bit scales into bytes 0..7 of the result and the minimums into 8..15.
INLINE __m128i unpack_scales(const uint8_t *s)
{
    uint32_t a, b, c;
    memcpy(&a, s, 4);
    memcpy(&b, s + 4, 4);
    memcpy(&c, s + 8, 4);
    const uint32_t scales_high = (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u);
    const uint32_t mins_high = (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u);
    return _mm_setr_epi32((int)(a & 0x3f3f3f3fu), (int)scales_high, (int)(b & 0x3f3f3f3fu),
                          (int)mins_high);
}

// scales holds int16s; every lane becomes number i of them.
INLINE __m256i spread_i16(__m256i scales_twice, int i)
{
    return _mm256_shuffle_epi8(scales_twice, _mm256_set1_epi16((short)((2 * i + 1) << 8 | 2 * i)));
}

INLINE void unpack_q45_k(const uint8_t *p, bool five, struct row_block *out)
{
    const __m256i low4 = _mm256_set1_epi8(15), bit5 = _mm256_set1_epi8(16);
    const uint8_t *low = five ? p + 48 : p + 16;
    const __m256i high = five ? load_i(p + 16) : _mm256_setzero_si256();
    const __m128i packed = unpack_scales(p + 4);
    const __m256i scales = _mm256_broadcastsi128_si256(_mm_cvtepu8_epi16(packed));
    const __m128i mins = _mm_cvtepu8_epi16(_mm_srli_si128(packed, 8));
    out->d[0] = half_to_float(p);
    out->dmin = half_to_float(p + 2);
    _mm_store_si128((__m128i *)(void *)out->min, _mm_unpacklo_epi16(mins, mins));
    _mm_store_si128((__m128i *)(void *)(out->min + 8), _mm_unpackhi_epi16(mins, mins));
    for (int j = 0; j < 4; j++) {
        const __m256i b = load_i(low + j * 32);
        __m256i x = _mm256_and_si256(b, low4);
        __m256i y = _mm256_and_si256(_mm256_srli_epi16(b, 4), low4);
        if (five) {
            const __m256i hx = _mm256_srli_epi16(high, 2 * j);
            const __m256i hy = _mm256_srli_epi16(high, 2 * j + 1);
            x = _mm256_or_si256(x, _mm256_and_si256(_mm256_slli_epi16(hx, 4), bit5));
            y = _mm256_or_si256(y, _mm256_and_si256(_mm256_slli_epi16(hy, 4), bit5));
        }
        widen_scaled(x, spread_i16(scales, 2 * j), out->w + j * 64);
        widen_scaled(y, spread_i16(scales, 2 * j + 1), out->w + j * 64 + 32);
    }
}

// 32 weights of Q6_K, their first 16 with scale i, the others with scale i + 1 of scales_twice.
INLINE void store_q6(__m256i q, __m256i scales_twice, int i, int16_t *to)
{
    const __m256i centre = _mm256_set1_epi16(32);
    const __m256i a = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(q));
    const __m256i b = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(q, 1));
    store_i(to, _mm256_mullo_epi16(_mm256_sub_epi16(a, centre), spread_i16(scales_twice, i)));
    store_i(to + 16,
            _mm256_mullo_epi16(_mm256_sub_epi16(b, centre), spread_i16(scales_twice, i + 1)));
}

INLINE void unpack_q6_k(const uint8_t *p, struct row_block *out)
{
    const __m256i low4 = _mm256_set1_epi8(15), pair = _mm256_set1_epi8(0x30);
    out->d[0] = half_to_float(p + 208);
    for (int h = 0; h < 2; h++) {
        const __m256i l0 = load_i(p + h * 64), l1 = load_i(p + h * 64 + 32);
        const __m256i high = load_i(p + 128 + h * 32);
        const __m128i s = _mm_loadl_epi64((const __m128i *)(const void *)(p + 192 + h * 8));
        const __m256i scales = _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(s));
        int16_t *w = out->w + h * 128;
        const __m256i h0 = _mm256_and_si256(_mm256_slli_epi16(high, 4), pair);
        const __m256i h1 = _mm256_and_si256(_mm256_slli_epi16(high, 2), pair);
        const __m256i h2 = _mm256_and_si256(high, pair);
        const __m256i h3 = _mm256_and_si256(_mm256_srli_epi16(high, 2), pair);
        const __m256i q2 = _mm256_and_si256(_mm256_srli_epi16(l0, 4), low4);
        const __m256i q3 = _mm256_and_si256(_mm256_srli_epi16(l1, 4), low4);
        store_q6(_mm256_or_si256(_mm256_and_si256(l0, low4), h0), scales, 0, w);
        store_q6(_mm256_or_si256(_mm256_and_si256(l1, low4), h1), scales, 2, w + 32);
        store_q6(_mm256_or_si256(q2, h2), scales, 4, w + 64);
        store_q6(_mm256_or_si256(q3, h3), scales, 6, w + 96);
    }
}

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
    out->d[0] = avx2_quantize_vector(x, BLOCK_K, out->w, WEIGHT_MAX);
}

INLINE void unpack(enum fmt f, const uint8_t *p, uint32_t cols, struct row_block *out)
{
    switch (f) {
    case FMT_F32:
    case FMT_F16:
    case FMT_BF16: unpack_floats(f, p, cols, out); break;
    case FMT_Q8_0: unpack_q8_0(p, cols, out); break;
    case FMT_Q4_0: unpack_q4_0(p, cols, out); break;
    case FMT_Q4_K: unpack_q45_k(p, false, out); break;
    case FMT_Q5_K: unpack_q45_k(p, true, out); break;
    case FMT_Q6_K: unpack_q6_k(p, out); break;
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

// Eight blocks of Q8_0 without a stop in memory. Their scales come as one register: stored one by one
// and loaded together they would stall (no store forwarding).
INLINE void dot_q8_0(const uint8_t *p, const struct acts *a, uint32_t block, uint32_t n_rows,
                     float *acc)
{
    enum { BYTES = sizeof(struct block_Q8_0) };
    int16_t h[8];
    for (int s = 0; s < 8; s++) memcpy(&h[s], p + s * BYTES, sizeof h[s]);
    const __m256 d =
        _mm256_cvtph_ps(_mm_setr_epi16(h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]));
    for (uint32_t i = 0; i < n_rows; i++) {
        const int16_t *q = a->q + (size_t)i * a->k_pad + block * BLOCK_K;
        const float scale = a->scales[i * (a->k_pad / BLOCK_K) + block];
        __m256i v[8];
        float t[8];
        for (int s = 0; s < 8; s++) {
            const __m128i *b = (const __m128i *)(const void *)(p + s * BYTES + 2);
            const __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128(b));
            const __m256i high = _mm256_cvtepi8_epi16(_mm_loadu_si128(b + 1));
            v[s] = _mm256_add_epi32(_mm256_madd_epi16(low, load_i(q + s * 32)),
                                    _mm256_madd_epi16(high, load_i(q + s * 32 + 16)));
        }
        _mm256_storeu_ps(t, _mm256_mul_ps(_mm256_cvtepi32_ps(sum_each(v)), d));
        for (int s = 0; s < 8; s++) acc[i] = chain(acc[i], t[s], scale);
    }
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
        if (f == FMT_Q8_0 && cols == BLOCK_K) {
            dot_q8_0(row, a, b, n_rows, acc);
            row += n_bytes;
            continue;
        }
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

// Each run of 32 int16: first those with even index, then the odd ones.
INLINE void split_32(const int16_t *q, int16_t *to)
{
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0,
                                           1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m256i a = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(load_i(q), order), 0xd8);
    const __m256i b = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(load_i(q + 16), order), 0xd8);
    store_i(to, _mm256_permute2x128_si256(a, b, 0x20));
    store_i(to + 16, _mm256_permute2x128_si256(a, b, 0x31));
}

void avx2_split(const int16_t *q, uint32_t n, int16_t *to)
{
    for (uint32_t i = 0; i < n; i += 32) split_32(q + i, to + i);
}

// Sum of two groups of 32 nibbles with their scales: b holds 16 pairs of neighbours (low byte even).
INLINE __m256i two_groups(__m256i b, const int16_t *q, __m256i scale0, __m256i scale1)
{
    const __m256i low4 = _mm256_set1_epi16(15);
    const __m256i even0 = _mm256_and_si256(b, low4);
    const __m256i odd0 = _mm256_and_si256(_mm256_srli_epi16(b, 8), low4);
    const __m256i even1 = _mm256_and_si256(_mm256_srli_epi16(b, 4), low4);
    const __m256i odd1 = _mm256_srli_epi16(b, 12);
    const __m256i sum0 = _mm256_add_epi32(_mm256_madd_epi16(even0, load_i(q)),
                                          _mm256_madd_epi16(odd0, load_i(q + 16)));
    const __m256i sum1 = _mm256_add_epi32(_mm256_madd_epi16(even1, load_i(q + 32)),
                                          _mm256_madd_epi16(odd1, load_i(q + 48)));
    return _mm256_add_epi32(_mm256_mullo_epi32(sum0, scale0), _mm256_mullo_epi32(sum1, scale1));
}

// Q4_K without widening: activations in the order that split_32 gives.
INLINE void row_dot_q4_k(const uint8_t *row, uint32_t n_k, const struct acts *a, uint32_t n_rows,
                         float *out)
{
    float acc[ROW_BATCH] = {0};
    for (uint32_t b = 0; b * BLOCK_K < n_k; b++, row += sizeof(struct block_Q4_K)) {
        for (size_t i = 0; i < sizeof(struct block_Q4_K); i += 64)
            __builtin_prefetch(row + PREFETCH_BYTES + i);
        const __m128i packed = unpack_scales(row + 4);
        const __m256i scales = _mm256_cvtepu8_epi32(packed);
        const __m128i min8 = _mm_cvtepu8_epi16(_mm_srli_si128(packed, 8));
        const __m256i mins =
            _mm256_set_m128i(_mm_unpackhi_epi16(min8, min8), _mm_unpacklo_epi16(min8, min8));
        const float d = half_to_float(row), dmin = half_to_float(row + 2);
        __m256i sum[ROW_BATCH], spread[8];
        for (int j = 0; j < 8; j++)
            spread[j] = _mm256_permutevar8x32_epi32(scales, _mm256_set1_epi32(j));
        for (uint32_t i = 0; i < n_rows; i++) {
            const int16_t *q = a->split + (size_t)i * a->k_pad + b * BLOCK_K;
            sum[i] = _mm256_setzero_si256();
            for (int j = 0; j < 4; j++)
                sum[i] = _mm256_add_epi32(sum[i], two_groups(load_i(row + 16 + j * 32), q + j * 64,
                                                             spread[2 * j], spread[2 * j + 1]));
        }
        for (uint32_t i = 0; i < n_rows; i++) {
            const int16_t *sums = a->sums + (size_t)i * (a->k_pad / 16) + b * 16;
            const float scale = a->scales[i * (a->k_pad / BLOCK_K) + b];
            const int32_t min_sum = lanes_sum_i32(_mm256_madd_epi16(mins, load_i(sums)));
            acc[i] = chain(acc[i], (float)lanes_sum_i32(sum[i]) * d, scale);
            acc[i] = chain(acc[i], -((float)min_sum * dmin), scale);
        }
    }
    memcpy(out, acc, n_rows * sizeof *out);
}

void avx2_row_dot(enum fmt f, const uint8_t *row, uint32_t n_k, const struct acts *a,
                  uint32_t n_rows, float *out)
{
    if (f == FMT_Q4_K) {
        if (n_rows == 1)
            row_dot_q4_k(row, n_k, a, 1, out);
        else
            row_dot_q4_k(row, n_k, a, n_rows, out);
        return;
    }
    switch (f) {
#define FMT(id, name, gguf, block, bytes)                \
    case FMT_##id:                                       \
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
