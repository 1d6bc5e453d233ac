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

struct sums {
    int32_t a, b;
};

INLINE struct sums sum_32(struct ints v)
{
    return (struct sums){_mm512_reduce_add_epi32(v.a), _mm512_reduce_add_epi32(v.b)};
}

INLINE void store_32(struct ints v, void *to)
{
    _mm_storeu_si128((__m128i *)to, _mm512_cvtsepi32_epi8(v.a));
    _mm_storeu_si128((__m128i *)to + 1, _mm512_cvtsepi32_epi8(v.b));
}

// v, the rounded values, into row r of a block.
INLINE void put_high(struct ints v, float scale, uint32_t r, struct act_block *out)
{
    const struct sums s = sum_32(v);
    int32_t quads[PACK_QUADS];
    store_32(v, quads);
    for (uint32_t i = 0; i < PACK_QUADS; i++) memcpy(out->q[i][r], &quads[i], sizeof quads[i]);
    out->scale[r] = scale;
    out->sum[r] = scale * (float)(s.a + s.b);
    out->bias[r] = -128 * (s.a + s.b);
    out->half[0][r] = -32 * s.a;
    out->half[1][r] = -32 * s.b;
}

// What rounding a and b to v left over, in steps of 1 / LOW_STEPS.
INLINE void put_low(__m512 a, __m512 b, struct ints v, float inverse, float scale, uint32_t at,
                    struct act_low *out)
{
    const __m512 z = _mm512_set1_ps(inverse);
    a = _mm512_fmsub_ps(a, z, _mm512_cvtepi32_ps(v.a));
    b = _mm512_fmsub_ps(b, z, _mm512_cvtepi32_ps(v.b));
    const struct ints l = round_32(a, b, LOW_STEPS);
    const struct sums s = sum_32(l);
    store_32(l, out->q);
    out->scale = scale / LOW_STEPS;
    out->bias = -128 * (s.a + s.b);
    out->half[0] = -32 * s.a;
    out->half[1] = -32 * s.b;
    out->at = at;
}

// Sixteen values from column k on of n, zeros behind them.
INLINE __m512 load_cols(const float *x, uint32_t k, uint32_t n)
{
    const uint32_t left = k < n ? n - k : 0;
    const __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
    return _mm512_maskz_loadu_ps(mask, x + k);
}

// Each block's absmax into its scale[r]; returns the absmax above which a second term is needed.
INLINE float find_outliers(const float *x, uint32_t n, uint32_t n_blocks, uint32_t r,
                           struct act_block *blocks)
{
    __m512 squares = _mm512_setzero_ps();
    float top = 0, error = 0;
    for (uint32_t i = 0; i < n_blocks; i++) {
        const __m512 a = load_cols(x, i * PACK_COLS, n), b = load_cols(x, i * PACK_COLS + 16, n);
        const float max = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
        squares = _mm512_fmadd_ps(a, a, _mm512_fmadd_ps(b, b, squares));
        blocks[i].scale[r] = max;
        top = max > top ? max : top;
        error += max * max;
    }
    const float bound = ERROR_BOUND / (float)PACK_COLS * _mm512_reduce_add_ps(squares);
    // Steps of 3 dB: at most one octave of errors is taken that need not be. Ends where nothing is left.
    for (float last = -1; error > bound && error != last;) {
        last = error;
        top *= 0.84f;
        error = 0;
        for (uint32_t i = 0; i < n_blocks; i++)
            if (blocks[i].scale[r] <= top) error += blocks[i].scale[r] * blocks[i].scale[r];
        if (error == last && top > 0) last = -1; // no block between the steps
    }
    return top;
}

static void quantize_row(const float *x, uint32_t n, uint32_t r, uint32_t n_blocks,
                         struct act_block *high, struct act_low *low, uint32_t *n_low)
{
    const float bound = find_outliers(x, n, n_blocks, r, high);
    *n_low = 0;
    for (uint32_t i = 0; i < n_blocks; i++) {
        const __m512 a = load_cols(x, i * PACK_COLS, n), b = load_cols(x, i * PACK_COLS + 16, n);
        const float max = high[i].scale[r], scale = max / 127.0f;
        const float inverse = max > 0 ? 127.0f / max : 0.0f;
        const struct ints v = round_32(a, b, inverse);
        put_high(v, scale, r, &high[i]);
        if (!(max > bound)) continue;
        struct act_low *l = &low[(*n_low)++];
        put_low(a, b, v, inverse, scale, i, l);
        high[i].sum[r] += l->scale * (float)(l->bias / -128);
    }
}

void avx512_quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                           const struct act_groups *to, uint32_t group)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        const size_t row = (size_t)group * ACT_GROUP + r;
        quantize_row(x[r], n, r, to->n_blocks, to->high + (size_t)group * to->n_blocks,
                     to->low + row * to->n_blocks, &to->n_low[row]);
    }
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

// An eighth of what lies PREFETCH_BYTES ahead: asked for all at once it would fill the core's queue.
INLINE void fetch_ahead(const uint8_t *p, size_t block_bytes, uint32_t s)
{
    const size_t part = block_bytes / PACK_SUBS, first = (s * part + 63) / 64 * 64;
    for (size_t i = first; i < (s + 1) * part; i += 64)
        _mm_prefetch((const char *)p + PREFETCH_BYTES + i, _MM_HINT_T0);
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
        const uint32_t n_subs = (n_k - k < BLOCK_K ? n_k - k : BLOCK_K) / PACK_COLS;
        for (uint32_t s = 0; s < n_subs; s++, a++) {
            if (n <= 4) fetch_ahead(p, block_bytes, s);
            add_products(f, p, &sc, s, a, stride, n, acc);
            if (has_min(f)) add_mins(&sc, s, a, stride, n, acc);
        }
    }
    EACH_ROW(t) _mm512_storeu_ps(out[t], acc[t]);
}

// The correction for unsigned weights that a sum starts with, as bias_of.
INLINE __m512i low_bias(enum fmt f, const struct act_low *a, uint32_t h)
{
    if (f == FMT_Q8_0) return _mm512_set1_epi32(a->bias);
    if (f == FMT_Q4_0) return _mm512_set1_epi32(a->bias / 16);
    if (f == FMT_Q6_K) return _mm512_set1_epi32(a->half[h]);
    return _mm512_setzero_si512();
}

// The second terms of one row.
INLINE void add_low(enum fmt f, const uint8_t *p, const struct act_low *low, uint32_t n_low,
                    float *out)
{
    const uint32_t halves = halves_of(f), quads = PACK_QUADS / halves;
    __m512 acc = _mm512_loadu_ps(out);
    for (const struct act_low *l = low; l < low + n_low; l++) {
        const uint8_t *block = p + l->at / PACK_SUBS * pack_block_bytes(f);
        const uint32_t s = l->at % PACK_SUBS;
        struct scales sc;
        open_block(f, block, &sc);
        for (uint32_t h = 0; h < halves; h++) {
            __m512i sum = low_bias(f, l, h);
#pragma GCC unroll 8
            for (uint32_t q = h * quads; q < (h + 1) * quads; q++) {
                int32_t quad;
                memcpy(&quad, l->q[q], sizeof quad);
                sum = _mm512_dpbusd_epi32(sum, weights_of(f, block, s, q), _mm512_set1_epi32(quad));
            }
            const __m512 scale =
                _mm512_mul_ps(scale_of(f, block, &sc, s, h), _mm512_set1_ps(l->scale));
            acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, acc);
        }
    }
    _mm512_storeu_ps(out, acc);
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
    for (size_t t = 0, row = (size_t)group * ACT_GROUP; t < n; t++, row++)
        if (g->n_low[row]) add_low(f, p, g->low + row * stride, g->n_low[row], out[t]);
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
