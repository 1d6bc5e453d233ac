// Products of packed weights and 8-bit activations with AVX-512 VNNI: a register holds four columns of
// 16 weight rows, vpdpbusd multiplies it with four broadcast activations. Sums and results of up to 12
// activation rows stay in registers for a whole weight row.
#include "compute/cpu/packed_avx512.h"

#if defined(__AVX512VNNI__) // nothing on machines of another kind

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

// How far ahead of a single row's reading memory is asked for.
enum { PREFETCH_BYTES = 4096 };

// ---- quantising -----------------------------------------------------------------------------

// 32 values of one row as integers.
struct ints {
    __m512i a, b;
};

INLINE struct ints round_32(__m512 a, __m512 b, float inverse)
{
    const __m512 z = _mm512_set1_ps(inverse);
    return (struct ints){_mm512_cvtps_epi32(_mm512_mul_ps(a, z)),
                         _mm512_cvtps_epi32(_mm512_mul_ps(b, z))};
}

// Into their place in a block; returns their sum.
INLINE int32_t put_32(struct ints v, float scale, uint32_t r, struct act_block *out)
{
    const int32_t sum_a = _mm512_reduce_add_epi32(v.a), sum_b = _mm512_reduce_add_epi32(v.b);
    int32_t quads[PACK_QUADS];
    _mm_storeu_si128((__m128i *)(void *)quads, _mm512_cvtsepi32_epi8(v.a));
    _mm_storeu_si128((__m128i *)(void *)(quads + 4), _mm512_cvtsepi32_epi8(v.b));
    for (uint32_t i = 0; i < PACK_QUADS; i++) memcpy(out->q[i][r], &quads[i], sizeof quads[i]);
    out->scale[r] = scale;
    out->bias[r] = -128 * (sum_a + sum_b);
    out->half[0][r] = -32 * sum_a;
    out->half[1][r] = -32 * sum_b;
    return sum_a + sum_b;
}

// What rounding to v left over, in steps of 1 / LOW_STEPS.
INLINE struct ints left_32(__m512 a, __m512 b, struct ints v, float inverse)
{
    const __m512 z = _mm512_set1_ps(inverse);
    a = _mm512_fmsub_ps(a, z, _mm512_cvtepi32_ps(v.a));
    b = _mm512_fmsub_ps(b, z, _mm512_cvtepi32_ps(v.b));
    return round_32(a, b, LOW_STEPS);
}

// Row r of one block; true if a second block was written, which then is wholly defined.
INLINE bool quantize_32(__m512 a, __m512 b, float bound, uint32_t r, bool has_low,
                        struct act_block *high, struct act_block *low)
{
    const float max = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const float inverse = max > 0 ? 127.0f / max : 0.0f, scale = max / 127.0f;
    const struct ints v = round_32(a, b, inverse);
    float sum = (float)put_32(v, scale, r, high);
    if (max > bound) {
        if (!has_low) memset(low, 0, sizeof *low);
        has_low = true;
        const struct ints l = left_32(a, b, v, inverse);
        sum += (float)put_32(l, scale / LOW_STEPS, r, low) / LOW_STEPS;
    }
    high->sum[r] = scale * sum;
    return has_low;
}

// LOW_ABOVE_TENTHS / 10 times the root mean square.
static float outlier_bound(const float *x, uint32_t n)
{
    __m512 sum = _mm512_setzero_ps();
    for (uint32_t k = 0; k < n; k += 16) {
        const uint32_t left = n - k;
        const __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
        const __m512 v = _mm512_maskz_loadu_ps(mask, x + k);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    return LOW_ABOVE_TENTHS / 10.0f * sqrtf(_mm512_reduce_add_ps(sum) / (float)n);
}

void avx512_quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                           const struct act_groups *to, uint32_t group)
{
    const size_t first = (size_t)group * to->n_blocks;
    struct act_block *high = to->high + first, *low = to->low + first;
    uint16_t *low_at = to->low_at + first;
    float bound[ACT_GROUP];
    uint32_t n_low = 0;
    for (uint32_t r = 0; r < n_rows; r++) bound[r] = outlier_bound(x[r], n);
    for (uint32_t i = 0; i < to->n_blocks; i++) {
        const uint32_t k = i * PACK_COLS, left = n - k < PACK_COLS ? n - k : PACK_COLS;
        const uint32_t mask = left == PACK_COLS ? UINT32_MAX : (1u << left) - 1;
        bool has_low = false;
        for (uint32_t r = 0; r < n_rows; r++)
            has_low = quantize_32(_mm512_maskz_loadu_ps((__mmask16)mask, x[r] + k),
                                  _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x[r] + k + 16),
                                  bound[r], r, has_low, &high[i], &low[n_low]);
        if (has_low) low_at[n_low++] = (uint16_t)i;
    }
    to->n_low[group] = n_low;
}

// ---- formats --------------------------------------------------------------------------------

// The scales of one block, spread for use.
struct scales {
    _Alignas(64) uint8_t scale[PACK_SUBS][PANEL_ROWS];
    _Alignas(64) uint8_t min[PACK_SUBS][PANEL_ROWS];
    __m512 d, dmin;
};

INLINE __m512i load_z(const void *p)
{
    return _mm512_loadu_si512(p);
}

INLINE __m512 load_halves(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

INLINE __m512 load_bytes(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128((const void *)p)));
}

INLINE __m512i low_bits(__m512i v, int bits)
{
    return _mm512_and_si512(v, _mm512_set1_epi8((char)((1 << bits) - 1)));
}

// The six-bit scales and minimums that Q4_K and Q5_K pack into 12 bytes.
INLINE void open_k(const struct packed_Q4_K *b, struct scales *s)
{
    const __m512i low = load_z(b->scales[0]), min = load_z(b->scales[1]),
                  high = load_z(b->scales[2]);
    const __m512i two = _mm512_set1_epi8(0x30);
    const __m512i scale_top = _mm512_and_si512(_mm512_srli_epi16(low, 2), two);
    const __m512i min_top = _mm512_and_si512(_mm512_srli_epi16(min, 2), two);
    _mm512_store_si512(s->scale[0], low_bits(low, 6));
    _mm512_store_si512(s->scale[4], _mm512_or_si512(low_bits(high, 4), scale_top));
    _mm512_store_si512(s->min[0], low_bits(min, 6));
    _mm512_store_si512(s->min[4],
                       _mm512_or_si512(low_bits(_mm512_srli_epi16(high, 4), 4), min_top));
    s->d = load_halves(b->d);
    s->dmin = load_halves(b->dmin);
}

INLINE void open_block(enum fmt f, const uint8_t *p, struct scales *s)
{
    if (f == FMT_Q4_K) open_k((const void *)p, s);
    if (f == FMT_Q5_K) open_k(&((const struct packed_Q5_K *)(const void *)p)->low, s);
    if (f == FMT_Q6_K) s->d = load_halves(((const struct packed_Q6_K *)(const void *)p)->d);
}

INLINE uint32_t halves_of(enum fmt f)
{
    return f == FMT_Q6_K ? 2 : 1; // scales in 32 columns
}

// Scale number h of sub-block s.
INLINE __m512 scale_of(enum fmt f, const uint8_t *p, const struct scales *sc, uint32_t s,
                       uint32_t h)
{
    if (f == FMT_Q8_0) return load_halves(((const struct packed_Q8_0 *)(const void *)p)->d[s]);
    if (f == FMT_Q4_0) return load_halves(((const struct packed_Q4_0 *)(const void *)p)->d[s]);
    if (f == FMT_Q6_K) {
        const struct packed_Q6_K *b = (const void *)p;
        const __m128i bytes = _mm_loadu_si128((const void *)b->scales[2 * s + h]);
        return _mm512_mul_ps(sc->d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
    }
    return _mm512_mul_ps(sc->d, load_bytes(sc->scale[s]));
}

INLINE __m512i nibbles(const pack_quad w[][PACK_QUADS], uint32_t s, uint32_t q)
{
    const __m512i both = load_z(w[s / 2][q]);
    return low_bits(s % 2 ? _mm512_srli_epi16(both, 4) : both, 4);
}

// Quad q of sub-block s, unsigned.
INLINE __m512i weights_of(enum fmt f, const uint8_t *p, uint32_t s, uint32_t q)
{
    if (f == FMT_Q8_0) return load_z(((const struct packed_Q8_0 *)(const void *)p)->w[s][q]);
    if (f == FMT_Q4_0) return nibbles(((const struct packed_Q4_0 *)(const void *)p)->w, s, q);
    if (f == FMT_Q4_K) return nibbles(((const struct packed_Q4_K *)(const void *)p)->w, s, q);
    if (f == FMT_Q5_K) {
        const struct packed_Q5_K *b = (const void *)p;
        const __m512i high = _mm512_srl_epi16(load_z(b->high[q]), _mm_cvtsi32_si128((int)s));
        return _mm512_or_si512(nibbles(b->low.w, s, q), _mm512_slli_epi16(low_bits(high, 1), 4));
    }
    const struct packed_Q6_K *b = (const void *)p;
    const __m512i high =
        _mm512_srl_epi16(load_z(b->high[s / 4][q]), _mm_cvtsi32_si128((int)(2 * (s % 4))));
    return _mm512_or_si512(nibbles(b->w, s, q), _mm512_slli_epi16(low_bits(high, 2), 4));
}

// What the sum of row t starts with: the correction for unsigned weights.
INLINE __m512i bias_of(enum fmt f, const struct act_block *a, uint32_t h, uint32_t t)
{
    if (f == FMT_Q8_0) return _mm512_set1_epi32(a->bias[t]);
    if (f == FMT_Q4_0) return _mm512_srai_epi32(_mm512_set1_epi32(a->bias[t]), 4);
    if (f == FMT_Q6_K) return _mm512_set1_epi32(a->half[h][t]);
    return _mm512_setzero_si512();
}

// ---- products -------------------------------------------------------------------------------

INLINE __m512i quad_of(const struct act_block *a, uint32_t q, uint32_t t)
{
    int32_t v;
    memcpy(&v, a->q[q][t], sizeof v);
    return _mm512_set1_epi32(v);
}

#define EACH_ROW(t) _Pragma("GCC unroll 12") for (uint32_t t = 0; t < n; t++)

// Integer products of sub-block s for n rows of activations: row t stands in group t / 4, `stride`
// blocks after the first.
INLINE void add_products(enum fmt f, const uint8_t *p, const struct scales *sc, uint32_t s,
                         const struct act_block *a, size_t stride, const uint32_t n, __m512 *acc)
{
    const uint32_t halves = halves_of(f), quads = PACK_QUADS / halves;
    for (uint32_t h = 0; h < halves; h++) {
        __m512i sum[PACKED_ROWS];
        EACH_ROW(t) sum[t] = bias_of(f, a + t / 4 * stride, h, t % 4);
#pragma GCC unroll 8
        for (uint32_t q = h * quads; q < (h + 1) * quads; q++) {
            const __m512i w = weights_of(f, p, s, q);
            EACH_ROW(t)
            sum[t] = _mm512_dpbusd_epi32(sum[t], w, quad_of(a + t / 4 * stride, q, t % 4));
        }
        const __m512 d = scale_of(f, p, sc, s, h);
        EACH_ROW(t)
        {
            const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(a[t / 4 * stride].scale[t % 4]));
            acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t]), scale, acc[t]);
        }
    }
}

INLINE void add_mins(const struct scales *sc, uint32_t s, const struct act_block *a, size_t stride,
                     const uint32_t n, __m512 *acc)
{
    const __m512 min = _mm512_mul_ps(sc->dmin, load_bytes(sc->min[s]));
    EACH_ROW(t)
    acc[t] = _mm512_fnmadd_ps(min, _mm512_set1_ps(a[t / 4 * stride].sum[t % 4]), acc[t]);
}

INLINE void add_high(enum fmt f, const uint8_t *p, uint32_t n_k, const struct act_block *a,
                     size_t stride, const uint32_t n, float (*out)[PANEL_ROWS])
{
    const size_t block_bytes = pack_block_bytes(f);
    __m512 acc[PACKED_ROWS];
    EACH_ROW(t) acc[t] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < n_k; k += BLOCK_K, p += block_bytes) {
        struct scales sc;
        open_block(f, p, &sc);
        if (n == 1)
            for (size_t i = 0; i < block_bytes; i += 64)
                _mm_prefetch((const char *)p + PREFETCH_BYTES + i, _MM_HINT_T0);
        const uint32_t n_subs = (n_k - k < BLOCK_K ? n_k - k : BLOCK_K) / PACK_COLS;
        for (uint32_t s = 0; s < n_subs; s++, a++) {
            add_products(f, p, &sc, s, a, stride, n, acc);
            if (has_min(f)) add_mins(&sc, s, a, stride, n, acc);
        }
    }
    EACH_ROW(t) _mm512_storeu_ps(out[t], acc[t]);
}

// The n_low second blocks of one group of rows.
INLINE void add_low(enum fmt f, const uint8_t *p, const struct act_block *low, const uint16_t *at,
                    uint32_t n_low, float (*out)[PANEL_ROWS])
{
    const uint32_t n = ACT_GROUP;
    __m512 acc[ACT_GROUP];
    EACH_ROW(t) acc[t] = _mm512_loadu_ps(out[t]);
    for (uint32_t i = 0; i < n_low; i++) {
        const uint8_t *block = p + at[i] / PACK_SUBS * pack_block_bytes(f);
        struct scales sc;
        open_block(f, block, &sc);
        add_products(f, block, &sc, at[i] % PACK_SUBS, low + i, 0, n, acc);
    }
    EACH_ROW(t) _mm512_storeu_ps(out[t], acc[t]);
}

// How many rows the next pass takes of n_left, all kernels being of whole groups but the smallest.
INLINE uint32_t pass_rows(uint32_t n_left)
{
    return n_left > 8 ? 12 : n_left > 4 ? 8 : n_left > 2 ? 4 : n_left;
}

INLINE void run(enum fmt f, const uint8_t *p, uint32_t n_k, const struct act_groups *g,
                uint32_t group, uint32_t n, float (*out)[PANEL_ROWS])
{
    const size_t stride = g->n_blocks;
    const struct act_block *a = g->high + group * stride;
    switch (pass_rows(n)) {
    case 1: add_high(f, p, n_k, a, stride, 1, out); break;
    case 2: add_high(f, p, n_k, a, stride, 2, out); break;
    case 4: add_high(f, p, n_k, a, stride, 4, out); break;
    case 8: add_high(f, p, n_k, a, stride, 8, out); break;
    default: add_high(f, p, n_k, a, stride, 12, out); break;
    }
    for (uint32_t i = group; i * ACT_GROUP < group * ACT_GROUP + n; i++, out += ACT_GROUP)
        if (g->n_low[i])
            add_low(f, p, g->low + i * stride, g->low_at + i * stride, g->n_low[i], out);
}

void avx512_packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                       uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    switch (f) {
    case FMT_Q8_0: run(FMT_Q8_0, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q4_0: run(FMT_Q4_0, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q4_K: run(FMT_Q4_K, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q5_K: run(FMT_Q5_K, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q6_K: run(FMT_Q6_K, panel, n_k, a, group, n_rows, out); break;
    default: break;
    }
}

#endif
