// Attention with AVX-512 VNNI, and the table of all AVX-512 kernels. Scores and weighted values are exact sums of
// 8-bit products (vpdpbusd) of the integers that kernels.h states, so it does not matter how many q vectors
// share a pass; up to 12 of them meet 32 keys or 32 columns of values in registers. Sums of floats have one
// order for a vector alone and for one among many.
#include "compute/cpu/attend_avx2.h"

#if defined(__AVX512VNNI__) // nothing on machines of another kind

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "compute/cpu/attend_heads.h"
#include "compute/cpu/lanes.h"
#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_avx512.h"
#include "compute/cpu/tile_avx512.h"

#if !defined(INLINE) // a test does without
#define INLINE static inline __attribute__((always_inline))
#endif

enum { WIDE = TILE_INPUTS, COLS = 32, PAGE_QUADS = PAGE_TOKENS / 4 };
#define AHEAD_HINT _MM_HINT_T1
#define EACH(i)    _Pragma("GCC unroll 12") for (uint32_t i = 0; i < n; i++)

INLINE __m512i load_z(const void *p)
{
    return _mm512_loadu_si512(p);
}

float avx512_quantize_query(const float *x, uint32_t n, int8_t *q, int32_t *bias)
{
    return head_quantize_query(x, n, 1, HEAD_MAX, q, bias);
}

// Where the next block of keys or values lies, as far as a tile of vectors asks for it.
struct ahead {
    const char *from; // or NULL
    uint32_t n_tiles; // that share the asking: 1 or 2
};

// sum[i][h] = start of vector i + w's half h times quad i of n, `x_stride` bytes apart, for n_quads of
// neighbours in memory; where `next` is not NULL for as many more, w's being there. `start` says which of
// both is signed (tile_avx512.h).
INLINE void multiply(const void *w, const void *next, size_t w_stride, const void *x,
                     size_t x_stride, uint32_t n_quads, const int32_t *start, struct ahead ahead,
                     const uint32_t n, __m512i (*sum)[2])
{
    if (n == WIDE) {
        tile_multiply(w, next, w_stride, x, x_stride, n_quads, start, ahead.from, ahead.n_tiles,
                      sum);
        return;
    }
    const char *at = x, *line = ahead.from ? ahead.from : at; // x is there anyway
    const size_t step = ahead.from ? AHEAD_LINES * LINE_BYTES / ahead.n_tiles : 0;
    EACH(i) sum[i][0] = sum[i][1] = _mm512_set1_epi32(start ? start[i] : 0);
    for (; w; w = next, next = NULL) {
        const char *wp = w;
        for (uint32_t p = 0; p < n_quads; p++, wp += w_stride, at += 4, line += step) {
            _mm_prefetch(line, AHEAD_HINT);
            _mm_prefetch(line + step / 2, AHEAD_HINT);
            const __m512i w0 = load_z(wp), w1 = load_z(wp + 64);
            EACH(i)
            {
                const __m512i quad = _mm512_set1_epi32(load_i32(at + i * x_stride));
                sum[i][0] = tile_add(sum[i][0], start ? w0 : quad, start ? quad : w0);
                sum[i][1] = tile_add(sum[i][1], start ? w1 : quad, start ? quad : w1);
            }
        }
    }
}

// What tile number `tile` of those for n vectors asks for of n_lines lines from `from` on (or NULL).
INLINE struct ahead ask_ahead(const void *from, uint32_t n_lines, uint32_t n, uint32_t tile)
{
    const uint32_t n_tiles = n > WIDE ? 2 : 1;
    if (!from || tile >= n_tiles) return (struct ahead){NULL, n_tiles};
    return (struct ahead){(const char *)from + (size_t)tile * (n_lines / n_tiles) * LINE_BYTES,
                          n_tiles};
}

// How many of n_left vectors the next tile takes.
INLINE uint32_t tile_rows(uint32_t n_left)
{
    return n_left >= WIDE ? WIDE : n_left >= 8 ? 8 : n_left >= 4 ? 4 : n_left >= 2 ? 2 : 1;
}

// ---- scores ---------------------------------------------------------------------------------

// n q vectors from i0 on times the 32 keys of a page; `ahead` is asked for on the way.
INLINE void score_tile(struct attend_tile *t, const struct kv_unit *u, uint32_t i0,
                       struct ahead ahead, const uint32_t n, float *scores)
{
    const uint32_t dim = t->head_dim;
    const __m512 k0 = _mm512_loadu_ps(u->k_scales), k1 = _mm512_loadu_ps(u->k_scales + 16);
    __m512i sum[WIDE][2];
    multiply(u->k, NULL, PAGE_TOKENS * 4, t->q + (size_t)i0 * dim, dim, dim / 4, t->q_bias + i0,
             ahead, n, sum);
    EACH(i)
    {
        const __m512 scale = _mm512_set1_ps(t->q_scale[i0 + i]);
        const __m512 a = _mm512_cvtepi32_ps(sum[i][0]), b = _mm512_cvtepi32_ps(sum[i][1]);
        float *to = scores + (i0 + i) * KEY_BLOCK;
        _mm512_storeu_ps(to, _mm512_mul_ps(_mm512_mul_ps(a, k0), scale));
        _mm512_storeu_ps(to + 16, _mm512_mul_ps(_mm512_mul_ps(b, k1), scale));
    }
}

// The first tiles of vectors ask for the page's successor.
static void score_page(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *u,
                       const struct kv_unit *next, float *scores)
{
    const uint32_t n_lines = t->head_dim * PAGE_TOKENS / LINE_BYTES;
    for (uint32_t i = first, n, tile = 0; i < end; i += n, tile++) {
        const struct ahead a = ask_ahead(next ? next->k : NULL, n_lines, end - first, tile);
        switch (n = tile_rows(end - i)) {
        case 1: score_tile(t, u, i, a, 1, scores); break;
        case 2: score_tile(t, u, i, a, 2, scores); break;
        case 4: score_tile(t, u, i, a, 4, scores); break;
        case 8: score_tile(t, u, i, a, 8, scores); break;
        default: score_tile(t, u, i, a, WIDE, scores); break;
        }
    }
}

// ---- softmax --------------------------------------------------------------------------------

enum { VECTORS = KEY_BLOCK / 16, SOFT_ROWS = 16 };
#define EACH_VECTOR(v) _Pragma("GCC unroll 4") for (uint32_t v = 0; v < VECTORS; v++)

// 2^x for x <= 0: what lies below -126 gives 0. 2^f for |f| <= 1/2 by the polynomial of degree 5 that is 1 at 0 and
// errs least elsewhere, by 2^-23 at most; so integers are exact. Rounded by an addition whose lowest bits are the
// integer.
INLINE __m512 exp2_z(__m512 x)
{
    const __m512 shift = _mm512_set1_ps(12582912.0f); // 3 * 2^22
    const __mmask16 alive = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_GE_OQ);
    const __m512 shifted = _mm512_add_ps(x, shift);
    const __m512 f = _mm512_sub_ps(x, _mm512_sub_ps(shifted, shift));
    __m512 p = _mm512_set1_ps(1.32647273e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.67151299e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.55073358e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.40222424e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93147004e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    const __m512i e = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(alive, _mm512_castps_si512(p), e));
}

// Over the lanes of vectors, by max or add:
//   op##_four(v): the four vectors of a row, lane by lane
//   op##_all(v): in all lanes what those of v give together
//   op##_each(v): in lane i what those of v[i], of 16, give together; the same bits as op##_all
#define FOLD_LANES(op)                                                                            \
    INLINE __m512 op##_four(const __m512 *v)                                                      \
    {                                                                                             \
        return _mm512_##op##_ps(_mm512_##op##_ps(v[0], v[1]), _mm512_##op##_ps(v[2], v[3]));      \
    }                                                                                             \
    INLINE __m512 op##_all(__m512 v)                                                              \
    {                                                                                             \
        v = _mm512_##op##_ps(v, _mm512_permute_ps(v, 0x4e));                                      \
        v = _mm512_##op##_ps(v, _mm512_permute_ps(v, 0xb1));                                      \
        v = _mm512_##op##_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));                                \
        return _mm512_##op##_ps(v, _mm512_shuffle_f32x4(v, v, 0x4e));                             \
    }                                                                                             \
    INLINE __m512 op##_each(const __m512 *v)                                                      \
    {                                                                                             \
        __m512 four[4];                                                                           \
        EACH_VECTOR(i)                                                                            \
        {                                                                                         \
            const __m512 *r = v + 4 * i;                                                          \
            const __m512 a =                                                                      \
                _mm512_##op##_ps(_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1])); \
            const __m512 b =                                                                      \
                _mm512_##op##_ps(_mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3])); \
            const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);                       \
            four[i] = _mm512_##op##_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),                \
                                       _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));               \
        }                                                                                         \
        const __m512 a = _mm512_##op##_ps(_mm512_shuffle_f32x4(four[0], four[1], 0x88),           \
                                          _mm512_shuffle_f32x4(four[0], four[1], 0xdd));          \
        const __m512 b = _mm512_##op##_ps(_mm512_shuffle_f32x4(four[2], four[3], 0x88),           \
                                          _mm512_shuffle_f32x4(four[2], four[3], 0xdd));          \
        return _mm512_##op##_ps(_mm512_shuffle_f32x4(a, b, 0x88),                                 \
                                _mm512_shuffle_f32x4(a, b, 0xdd));                                \
    }

FOLD_LANES(max)
FOLD_LANES(add)

INLINE void load_scales(const struct kv_unit *units, __m512 *scales)
{
    EACH_VECTOR(v)
    scales[v] = _mm512_loadu_ps(units[v * 16 / PAGE_TOKENS].v_scales + v * 16 % PAGE_TOKENS);
}

// Scores s to weights times values' scales; returns `sum` plus the weights. Hidden keys, whose scores are -INFINITY,
// weigh exactly 0, whatever their scales.
INLINE __m512 weigh(__m512 *s, const __m512 *scales, __m512 max, __m512 sum, uint64_t visible)
{
    EACH_VECTOR(v)
    {
        const __m512 p = exp2_z(_mm512_sub_ps(s[v], max));
        sum = _mm512_add_ps(sum, p);
        s[v] = _mm512_maskz_mul_ps((__mmask16)(visible >> v * 16), p, scales[v]);
    }
    return sum;
}

// What decides about the integers of q vectors, a lane each.
struct soft {
    __m512 mass, step, inverse;
    __mmask16 two; // vectors that have a second term
};

// top: the largest weight; total: of all; mass: before.
INLINE struct soft soft_of(__m512 top, __m512 total, __m512 mass, __m512 shrink)
{
    const __m512 most = _mm512_set1_ps(PROB_MAX);
    const __mmask16 some = _mm512_cmp_ps_mask(top, _mm512_setzero_ps(), _CMP_GT_OQ);
    struct soft x = {.mass = _mm512_add_ps(_mm512_mul_ps(mass, shrink), total),
                     .step = _mm512_div_ps(top, most),
                     .inverse = _mm512_maskz_div_ps(some, most, top)};
    const __m512 bound = _mm512_mul_ps(x.step, _mm512_set1_ps(TERM_BOUND));
    x.two = _mm512_cmp_ps_mask(bound, x.mass, _CMP_GT_OQ);
    return x;
}

// The scale of a first term whose integers add up to `all`, 0 where they are cut.
INLINE __m512 term_scale(const struct soft *x, __m512 total, __m512 all)
{
    const __mmask16 rounded = _mm512_cmp_ps_mask(all, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_mask_div_ps(x->step, rounded, total, all);
}

// 64 integers to bytes in order.
INLINE __m512i bytes_of(const __m512i *v)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i a = _mm512_packs_epi32(v[0], v[1]), b = _mm512_packs_epi32(v[2], v[3]);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(a, b));
}

// Weights s by `inverse` to nearest integers; returns what these add up to, spread over the lanes.
INLINE __m512 round_weights(const __m512 *s, __m512 inverse, uint8_t *q)
{
    __m512i v[VECTORS];
    EACH_VECTOR(i) v[i] = _mm512_cvtps_epi32(_mm512_mul_ps(s[i], inverse));
    const __m512i bytes = bytes_of(v);
    _mm512_storeu_si512(q, bytes);
    return _mm512_cvtepi32_ps(
        _mm512_dpbusd_epi32(_mm512_setzero_si512(), bytes, _mm512_set1_epi8(1)));
}

// Weights s by `inverse` cut to integers q, and what is left by PROB_MAX cut to integers low.
static void cut_weights(const __m512 *s, __m512 inverse, uint8_t *q, uint8_t *low)
{
    __m512i v[VECTORS], rest[VECTORS];
    EACH_VECTOR(i)
    {
        const __m512 x = _mm512_mul_ps(s[i], inverse);
        v[i] = _mm512_cvttps_epi32(x);
        const __m512 left = _mm512_sub_ps(x, _mm512_cvtepi32_ps(v[i]));
        rest[i] = _mm512_cvttps_epi32(_mm512_mul_ps(left, _mm512_set1_ps(PROB_MAX)));
    }
    _mm512_storeu_si512(q, bytes_of(v));
    _mm512_storeu_si512(low, bytes_of(rest));
}

// The integers of term `at`, with the second one that belongs to it where it has two; returns as round_weights.
INLINE __m512 put_integers(struct attend_tile *t, uint32_t at, const __m512 *s, __m512 inverse,
                           bool two)
{
    struct attend_term *high = &t->term[0], *low = &t->term[1];
    if (!two) return round_weights(s, inverse, high->q[at]);
    low->row[low->n] = high->row[at];
    low->scale[low->n] = high->scale[at] / PROB_MAX;
    low->shrink[low->n] = 1;
    cut_weights(s, inverse, high->q[at], low->q[low->n++]);
    return _mm512_setzero_ps();
}

// Scores of vector i, in units of log 2, become terms.
static void soften_row(struct attend_tile *t, const struct kv_unit *units, uint32_t i)
{
    const float *scores = t->scores + i * KEY_BLOCK;
    const uint32_t n = t->n_visible[i], at = t->term[0].n++;
    const uint64_t visible = n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1;
    __m512 s[VECTORS], scales[VECTORS];
    load_scales(units, scales);
    EACH_VECTOR(v)
    s[v] = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(visible >> v * 16),
                                scores + v * 16);
    const __m512 old = _mm512_set1_ps(t->max[i]), max = _mm512_max_ps(old, max_all(max_four(s)));
    const __m512 shrink = exp2_z(_mm512_sub_ps(old, max));
    const __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(t->sum[i]), shrink);
    _mm512_storeu_ps(t->sum[i], weigh(s, scales, max, sum, visible));
    const __m512 total = add_all(add_four(s)), mass = _mm512_set1_ps(t->mass[i]);
    const struct soft x = soft_of(max_all(max_four(s)), total, mass, shrink);
    t->max[i] = _mm512_cvtss_f32(max);
    t->mass[i] = _mm512_cvtss_f32(x.mass);
    t->term[0].row[at] = i;
    t->term[0].shrink[at] = _mm512_cvtss_f32(shrink);
    t->term[0].scale[at] = _mm512_cvtss_f32(x.step);
    const __m512 all = put_integers(t, at, s, x.inverse, x.two & 1);
    t->term[0].scale[at] = _mm512_cvtss_f32(term_scale(&x, total, add_all(all)));
}

// The same for 16 vectors from i on that see all keys: what is one number of a row is done for all at once.
static void soften_rows(struct attend_tile *t, const struct kv_unit *units, uint32_t i)
{
    float *scores = t->scores + i * KEY_BLOCK;
    struct attend_term *term = &t->term[0];
    const uint32_t at = term->n;
    __m512 top[SOFT_ROWS], sums[SOFT_ROWS], s[VECTORS], scales[VECTORS];
    _Alignas(64) float inverse[SOFT_ROWS];
    load_scales(units, scales);
    for (uint32_t r = 0; r < SOFT_ROWS; r++) {
        EACH_VECTOR(v) s[v] = _mm512_loadu_ps(scores + r * KEY_BLOCK + v * 16);
        top[r] = max_four(s);
    }
    const __m512 old = _mm512_loadu_ps(t->max + i), max = _mm512_max_ps(old, max_each(top));
    const __m512 shrink = exp2_z(_mm512_sub_ps(old, max));
    _mm512_storeu_ps(t->max + i, max);
    _mm512_storeu_ps(term->shrink + at, shrink);
    for (uint32_t r = 0; r < SOFT_ROWS; r++) {
        float *to = scores + r * KEY_BLOCK;
        const __m512 row_shrink = _mm512_set1_ps(term->shrink[at + r]);
        const __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(t->sum[i + r]), row_shrink);
        EACH_VECTOR(v) s[v] = _mm512_loadu_ps(to + v * 16);
        _mm512_storeu_ps(t->sum[i + r],
                         weigh(s, scales, _mm512_set1_ps(t->max[i + r]), sum, UINT64_MAX));
        EACH_VECTOR(v) _mm512_storeu_ps(to + v * 16, s[v]);
        top[r] = max_four(s);
        sums[r] = add_four(s);
    }
    const __m512 total = add_each(sums);
    const struct soft x = soft_of(max_each(top), total, _mm512_loadu_ps(t->mass + i), shrink);
    _mm512_storeu_ps(t->mass + i, x.mass);
    _mm512_storeu_ps(term->scale + at, x.step);
    _mm512_store_ps(inverse, x.inverse);
    term->n += SOFT_ROWS;
    for (uint32_t r = 0; r < SOFT_ROWS; r++) {
        EACH_VECTOR(v) s[v] = _mm512_loadu_ps(scores + r * KEY_BLOCK + v * 16);
        term->row[at + r] = i + r;
        sums[r] = put_integers(t, at + r, s, _mm512_set1_ps(inverse[r]), x.two >> r & 1);
    }
    _mm512_storeu_ps(term->scale + at, term_scale(&x, total, add_each(sums)));
}

static void soften(struct attend_tile *t, const struct kv_unit *units, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end;) {
        uint32_t n = 0; // neighbours that see all keys
        while (n < SOFT_ROWS && i + n < end && t->n_visible[i + n] == KEY_BLOCK) n++;
        if (n == SOFT_ROWS) {
            soften_rows(t, units, i);
            i += n;
            continue;
        }
        for (const uint32_t to = i + (n ? n : 1); i < to; i++)
            if (t->n_visible[i] > 0) soften_row(t, units, i);
    }
}

// ---- weighted values ------------------------------------------------------------------------

// 32 columns of the values from d on for n vectors of a term from i0 on; `ahead` is asked for on the way.
INLINE void value_tile(struct attend_tile *t, const struct attend_term *term,
                       const struct kv_unit *units, uint32_t n_pages, uint32_t d, uint32_t i0,
                       struct ahead ahead, const uint32_t n)
{
    __m512i sum[WIDE][2];
    multiply(units[0].v + d * 4, n_pages > 1 ? units[1].v + d * 4 : NULL, (size_t)t->head_dim * 4,
             term->q[i0], KEY_BLOCK, PAGE_QUADS, NULL, ahead, n, sum);
    EACH(i)
    {
        const __m512 shrink = _mm512_set1_ps(term->shrink[i0 + i]);
        const __m512 scale = _mm512_set1_ps(term->scale[i0 + i]);
        float *out = t->out + (size_t)term->row[i0 + i] * t->head_dim + d;
        for (int h = 0; h < 2; h++, out += 16) {
            const __m512 old = _mm512_mul_ps(_mm512_loadu_ps(out), shrink);
            _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][h]), scale, old));
        }
    }
}

static void add_values(struct attend_tile *t, const struct attend_term *term,
                       const struct kv_unit *units, uint32_t n_pages, uint32_t d, const void *ahead)
{
    for (uint32_t i = 0, n, tile = 0; i < term->n; i += n, tile++) {
        const struct ahead a = ask_ahead(ahead, COLS, term->n, tile);
        switch (n = tile_rows(term->n - i)) {
        case 1: value_tile(t, term, units, n_pages, d, i, a, 1); break;
        case 2: value_tile(t, term, units, n_pages, d, i, a, 2); break;
        case 4: value_tile(t, term, units, n_pages, d, i, a, 4); break;
        case 8: value_tile(t, term, units, n_pages, d, i, a, 8); break;
        default: value_tile(t, term, units, n_pages, d, i, a, WIDE); break;
        }
    }
}

// What of the next block's values is asked for while columns d .. d + 31 are worked on, a line a column: together all
// of them, in the order of memory (where head_dim is no multiple of 64, less or more at the end of a page).
static const void *values_ahead(const struct attend_tile *t, uint32_t d)
{
    const uint32_t page = 2 * d / t->head_dim, page_d = d - page * t->head_dim / 2;
    return page < t->n_ahead ? t->ahead[page].v + page_d * LINE_BYTES : NULL;
}

void avx512_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                   uint32_t n_pages)
{
    t->term[0].n = t->term[1].n = 0;
    for (uint32_t p = 0; p < n_pages; p++)
        score_page(t, first, end, &units[p], p < t->n_ahead ? &t->ahead[p] : NULL,
                   t->scores + p * PAGE_TOKENS);
    for (uint32_t p = 0; p < t->n_ahead; p++)
        for (uint32_t i = 0; i < 2 * PAGE_TOKENS; i += LINE_BYTES / sizeof(float))
            _mm_prefetch((const char *)(t->ahead[p].k_scales + i), AHEAD_HINT);
    const struct kv_unit both[KEY_PAGES] = {units[0], units[n_pages - 1]};
    soften(t, both, first, end);
    for (uint32_t d = 0; d < t->head_dim; d += COLS) {
        add_values(t, &t->term[0], units, n_pages, d, values_ahead(t, d));
        add_values(t, &t->term[1], units, n_pages, d, NULL);
    }
}

#if !defined(AVX512_NAME) // nor a test's
#define AVX512_NAME "AVX-512 VNNI"
#endif

const struct cpu_kernels cpu_kernels_avx512 = {
    .isa = AVX512_NAME,
    .numerics = 0x302,
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .keeps_panels = true,
    .quantize_group = avx512_quantize_group,
    .packed_dot = avx512_packed_dot,
    .tile_open = avx512_tile_open,
    .tile_dot = avx512_tile_dot,
    .quantize_head = avx2_quantize_head,
    .quantize_query = avx512_quantize_query,
    .rotate_back = avx2_rotate_back,
    .attend = avx512_attend,
    .asks_ahead = true,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .scan = {avx2_find_above, avx2_sum_exp},
    .peak = avx512_peak,
    .peak_name = "vpdpbusd, int8 products into int32",
};

#endif
