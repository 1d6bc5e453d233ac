// Attention with AVX-512 VNNI, and the table of all AVX-512 kernels. As in the AVX2 file scores and
// weighted values are exact sums of int16 products (here vpdpwssd), so it does not matter how many q
// vectors share a pass; up to 12 of them meet 32 keys or 32 columns of values in registers.
#include "compute/cpu/attend_avx2.h"

#if defined(__AVX512VNNI__) // nothing on machines of another kind

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "compute/cpu/linear_avx2.h"
#include "compute/cpu/packed_avx512.h"
#include "compute/cpu/tile_avx512.h"

#if !defined(INLINE) // a test does without
#define INLINE static inline __attribute__((always_inline))
#endif

enum { WIDE = TILE_INPUTS };
#define AHEAD_HINT _MM_HINT_T1
#define EACH(i)    _Pragma("GCC unroll 12") for (uint32_t i = 0; i < n; i++)

INLINE __m512i load_z(const void *p)
{
    return _mm512_loadu_si512(p);
}

// Where the next block of keys or values lies, as far as a tile of vectors asks for it.
struct ahead {
    const int16_t *from; // or NULL
    uint32_t n_tiles;    // that share the asking: 1 or 2
};

// sum[i][h] = w's half h times pair i of n, `x_stride` int16s apart, for n_pairs of neighbours in memory; where
// `next` is not NULL for as many more, w's being there.
INLINE void multiply(const int16_t *w, const int16_t *next, size_t w_stride, const int16_t *x,
                     size_t x_stride, uint32_t n_pairs, struct ahead ahead, const uint32_t n,
                     __m512i (*sum)[2])
{
    if (n == WIDE) {
        tile_multiply(w, next, w_stride * sizeof *w, x, x_stride * sizeof *x, n_pairs, ahead.from,
                      ahead.n_tiles, sum);
        return;
    }
    const char *line = (const void *)(ahead.from ? ahead.from : x); // x is there anyway
    const size_t step = ahead.from ? AHEAD_LINES * LINE_BYTES / ahead.n_tiles : 0;
    EACH(i) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    for (; w; w = next, next = NULL) {
        const int16_t *wp = w;
        for (uint32_t p = 0; p < n_pairs; p++, wp += w_stride, x += 2, line += step) {
            _mm_prefetch(line, AHEAD_HINT);
            _mm_prefetch(line + step / 2, AHEAD_HINT);
            const __m512i w0 = load_z(wp), w1 = load_z(wp + 32);
            EACH(i)
            {
                int32_t pair;
                memcpy(&pair, x + i * x_stride, sizeof pair);
                const __m512i both = _mm512_set1_epi32(pair);
                sum[i][0] = _mm512_dpwssd_epi32(sum[i][0], w0, both);
                sum[i][1] = _mm512_dpwssd_epi32(sum[i][1], w1, both);
            }
        }
    }
}

// What tile number `tile` of those for the vectors [first, end) asks for of n_lines lines from `from` on (or NULL).
INLINE struct ahead ask_ahead(const int16_t *from, uint32_t n_lines, uint32_t first, uint32_t end,
                              uint32_t tile)
{
    const uint32_t n = end - first > WIDE ? 2 : 1;
    if (!from || tile >= n) return (struct ahead){NULL, n};
    return (struct ahead){from + (size_t)tile * (n_lines / n) * (LINE_BYTES / sizeof *from), n};
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
    for (uint32_t d = 0; d < dim; d += SUM_COLS) {
        const uint32_t cols = dim - d < SUM_COLS ? dim - d : SUM_COLS;
        __m512i sum[WIDE][2];
        multiply(u->k + (size_t)d * PAGE_TOKENS, NULL, PAGE_TOKENS * 2, t->q + i0 * dim + d, dim,
                 cols / 2, ahead, n, sum);
        if (ahead.from) ahead.from += (size_t)cols * PAGE_TOKENS / ahead.n_tiles;
        EACH(i)
        {
            for (int h = 0; h < 2; h++) {
                float *to = scores + (i0 + i) * KEY_BLOCK + h * 16;
                __m512 s = _mm512_cvtepi32_ps(sum[i][h]);
                if (d) s = _mm512_add_ps(_mm512_loadu_ps(to), s);
                if (d + cols == dim) {
                    s = _mm512_mul_ps(s, _mm512_loadu_ps(u->k_scales + h * 16));
                    s = _mm512_mul_ps(s, _mm512_set1_ps(t->q_scale[i0 + i]));
                }
                _mm512_storeu_ps(to, s);
            }
        }
    }
}

// The first tiles of vectors ask for the page's successor.
static void score_page(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *u,
                       const struct kv_unit *next, float *scores)
{
    for (uint32_t i = first, n, tile = 0; i < end; i += n, tile++) {
        const struct ahead a = ask_ahead(next ? next->k : NULL, t->head_dim, first, end, tile);
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

// 2^x for x <= 0, as lanes_exp2 does it: what lies below -126 gives 0. Rounded by an addition whose lowest bits
// are the integer.
INLINE __m512 exp2_z(__m512 x)
{
    const __m512 shift = _mm512_set1_ps(12582912.0f); // 3 * 2^22
    const __mmask16 alive = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_GE_OQ);
    const __m512 shifted = _mm512_add_ps(x, shift);
    const __m512 f = _mm512_sub_ps(x, _mm512_sub_ps(shifted, shift));
    __m512 p = _mm512_set1_ps(1.5403530e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    const __m512i e = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(alive, _mm512_castps_si512(p), e));
}

enum { SCORE_VECTORS = KEY_BLOCK / 16, SOFT_ROWS = 16 };
#define EACH_VECTOR(v) _Pragma("GCC unroll 4") for (uint32_t v = 0; v < SCORE_VECTORS; v++)

// Weights of up to PROB_MAX as int16.
INLINE void store_probs(int16_t *probs, const __m512 *p, __m512 inverse)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
#pragma GCC unroll 2
    for (uint32_t v = 0; v < SCORE_VECTORS; v += 2) {
        const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(p[v], inverse));
        const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(p[v + 1], inverse));
        _mm512_storeu_si512(probs + v * 16,
                            _mm512_permutexvar_epi64(order, _mm512_packs_epi32(a, b)));
    }
}

// Scores, in units of log 2, become int16 weights; hidden keys weigh exactly 0.
static void soften_row(struct attend_tile *t, const struct kv_unit *units, uint32_t i)
{
    const float *scores = t->scores + i * KEY_BLOCK;
    int16_t *probs = t->probs + i * KEY_BLOCK;
    const uint32_t n = t->n_visible[i];
    t->shrink[i] = 1;
    t->prob_scale[i] = 0;
    if (n == 0) {
        memset(probs, 0, KEY_BLOCK * sizeof *probs);
        return;
    }
    const uint64_t visible = n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1;
    __m512 s[SCORE_VECTORS], top = _mm512_set1_ps(t->max[i]);
    EACH_VECTOR(v)
    {
        s[v] = _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(visible >> v * 16),
                                    scores + v * 16);
        top = _mm512_max_ps(top, s[v]);
    }
    const float max = _mm512_reduce_max_ps(top);
    const __m512 max16 = _mm512_set1_ps(max);
    const __m512 shrink = exp2_z(_mm512_sub_ps(_mm512_set1_ps(t->max[i]), max16));
    __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(t->sum[i]), shrink), prob_top = _mm512_setzero_ps();
    EACH_VECTOR(v)
    {
        const __m512 p = exp2_z(_mm512_sub_ps(s[v], max16));
        const float *scales = units[v * 16 / PAGE_TOKENS].v_scales + v * 16 % PAGE_TOKENS;
        sum = _mm512_add_ps(sum, p);
        s[v] = _mm512_maskz_mul_ps((__mmask16)(visible >> v * 16), p, _mm512_loadu_ps(scales));
        prob_top = _mm512_max_ps(prob_top, s[v]);
    }
    const float prob_max = _mm512_reduce_max_ps(prob_top);
    store_probs(probs, s, _mm512_set1_ps(prob_max > 0 ? PROB_MAX / prob_max : 0.0f));
    _mm512_storeu_ps(t->sum[i], sum);
    t->max[i] = max;
    t->shrink[i] = _mm512_cvtss_f32(shrink);
    t->prob_scale[i] = prob_max / PROB_MAX;
}

// Lane i: the largest of v[i].
INLINE __m512 max_each(const __m512 *v)
{
    __m512 four[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++, v += 4) {
        const __m512 a =
            _mm512_max_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
        const __m512 b =
            _mm512_max_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
        const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
        four[i] = _mm512_max_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),
                                _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 4; i += 2)
        four[i] = _mm512_max_ps(_mm512_shuffle_f32x4(four[i], four[i + 1], 0x88),
                                _mm512_shuffle_f32x4(four[i], four[i + 1], 0xdd));
    return _mm512_max_ps(_mm512_shuffle_f32x4(four[0], four[2], 0x88),
                         _mm512_shuffle_f32x4(four[0], four[2], 0xdd));
}

// The same for 16 vectors from i on that see all keys: what is one number of a row is done for all at once.
static void soften_rows(struct attend_tile *t, const struct kv_unit *units, uint32_t i)
{
    float *scores = t->scores + i * KEY_BLOCK;
    __m512 top[SOFT_ROWS], scales[SCORE_VECTORS];
    EACH_VECTOR(v)
    scales[v] = _mm512_loadu_ps(units[v * 16 / PAGE_TOKENS].v_scales + v * 16 % PAGE_TOKENS);
    for (uint32_t r = 0; r < SOFT_ROWS; r++) {
        const float *s = scores + r * KEY_BLOCK;
        top[r] = _mm512_max_ps(_mm512_max_ps(_mm512_loadu_ps(s), _mm512_loadu_ps(s + 16)),
                               _mm512_max_ps(_mm512_loadu_ps(s + 32), _mm512_loadu_ps(s + 48)));
    }
    const __m512 old = _mm512_loadu_ps(t->max + i), max = _mm512_max_ps(old, max_each(top));
    _mm512_storeu_ps(t->max + i, max);
    _mm512_storeu_ps(t->shrink + i, exp2_z(_mm512_sub_ps(old, max)));
    for (uint32_t r = 0; r < SOFT_ROWS; r++) {
        const __m512 row_max = _mm512_set1_ps(t->max[i + r]);
        __m512 p[SCORE_VECTORS];
        __m512 sum =
            _mm512_mul_ps(_mm512_loadu_ps(t->sum[i + r]), _mm512_set1_ps(t->shrink[i + r]));
        EACH_VECTOR(v)
        {
            float *s = scores + r * KEY_BLOCK + v * 16;
            p[v] = exp2_z(_mm512_sub_ps(_mm512_loadu_ps(s), row_max));
            sum = _mm512_add_ps(sum, p[v]);
            p[v] = _mm512_mul_ps(p[v], scales[v]);
            _mm512_storeu_ps(s, p[v]);
        }
        top[r] = _mm512_max_ps(_mm512_max_ps(p[0], p[1]), _mm512_max_ps(p[2], p[3]));
        _mm512_storeu_ps(t->sum[i + r], sum);
    }
    const __m512 prob_max = _mm512_max_ps(_mm512_setzero_ps(), max_each(top));
    const __m512 prob_one = _mm512_set1_ps(PROB_MAX);
    const __mmask16 some = _mm512_cmp_ps_mask(prob_max, _mm512_setzero_ps(), _CMP_GT_OQ);
    _Alignas(64) float inverse[SOFT_ROWS];
    _mm512_store_ps(inverse, _mm512_maskz_div_ps(some, prob_one, prob_max));
    _mm512_storeu_ps(t->prob_scale + i, _mm512_div_ps(prob_max, prob_one));
    for (uint32_t r = 0; r < SOFT_ROWS; r++) {
        __m512 p[SCORE_VECTORS];
        EACH_VECTOR(v) p[v] = _mm512_loadu_ps(scores + r * KEY_BLOCK + v * 16);
        store_probs(t->probs + (i + r) * KEY_BLOCK, p, _mm512_set1_ps(inverse[r]));
    }
}

void avx512_soften(struct attend_tile *t, const struct kv_unit *units, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end;) {
        uint32_t n = 0; // neighbours that see all keys
        while (n < SOFT_ROWS && i + n < end && t->n_visible[i + n] == KEY_BLOCK) n++;
        if (n == SOFT_ROWS) {
            soften_rows(t, units, i);
            i += n;
            continue;
        }
        for (const uint32_t to = i + (n ? n : 1); i < to; i++) soften_row(t, units, i);
    }
}

// ---- weighted values ------------------------------------------------------------------------

// 32 columns of the values from d on for n vectors from i0 on; `ahead` is asked for on the way.
INLINE void value_tile(struct attend_tile *t, const struct kv_unit *units, uint32_t n_pages,
                       uint32_t d, uint32_t i0, struct ahead ahead, const uint32_t n)
{
    __m512i sum[WIDE][2];
    multiply(units[0].v + d * 2, n_pages > 1 ? units[1].v + d * 2 : NULL, t->head_dim * 2,
             t->probs + i0 * KEY_BLOCK, KEY_BLOCK, PAGE_TOKENS / 2, ahead, n, sum);
    EACH(i)
    {
        const __m512 shrink = _mm512_set1_ps(t->shrink[i0 + i]);
        const __m512 scale = _mm512_set1_ps(t->prob_scale[i0 + i]);
        float *out = t->out + (i0 + i) * t->head_dim + d;
        for (int h = 0; h < 2; h++, out += 16) {
            const __m512 old = _mm512_mul_ps(_mm512_loadu_ps(out), shrink);
            _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][h]), scale, old));
        }
    }
}

// What of the next block's values is asked for while columns d .. d + 31 are worked on: together all of
// them, in the order of memory.
static const int16_t *values_ahead(const struct attend_tile *t, uint32_t d)
{
    const uint32_t page = 2 * d / t->head_dim, page_d = d - page * t->head_dim / 2;
    return page < t->n_ahead ? t->ahead[page].v + page_d * KEY_BLOCK : NULL;
}

static void add_values(struct attend_tile *t, uint32_t first, uint32_t end,
                       const struct kv_unit *units, uint32_t n_pages, uint32_t d)
{
    for (uint32_t i = first, n, tile = 0; i < end; i += n, tile++) {
        const struct ahead a = ask_ahead(values_ahead(t, d), 2 * PAGE_TOKENS, first, end, tile);
        switch (n = tile_rows(end - i)) {
        case 1: value_tile(t, units, n_pages, d, i, a, 1); break;
        case 2: value_tile(t, units, n_pages, d, i, a, 2); break;
        case 4: value_tile(t, units, n_pages, d, i, a, 4); break;
        case 8: value_tile(t, units, n_pages, d, i, a, 8); break;
        default: value_tile(t, units, n_pages, d, i, a, WIDE); break;
        }
    }
}

void avx512_attend(struct attend_tile *t, uint32_t first, uint32_t end, const struct kv_unit *units,
                   uint32_t n_pages)
{
    for (uint32_t p = 0; p < n_pages; p++)
        score_page(t, first, end, &units[p], p < t->n_ahead ? &t->ahead[p] : NULL,
                   t->scores + p * PAGE_TOKENS);
    for (uint32_t p = 0; p < t->n_ahead; p++)
        for (uint32_t i = 0; i < 2 * PAGE_TOKENS; i += LINE_BYTES / sizeof(float))
            _mm_prefetch((const char *)(t->ahead[p].k_scales + i), AHEAD_HINT);
    struct kv_unit both[KEY_PAGES] = {units[0], units[n_pages - 1]};
    avx512_soften(t, both, first, end);
    for (uint32_t d = 0; d < t->head_dim; d += 32) add_values(t, first, end, units, n_pages, d);
}

#if !defined(AVX512_NAME) // nor a test's
#define AVX512_NAME "AVX-512 VNNI"
#endif

const struct cpu_kernels cpu_kernels_avx512 = {
    .isa = AVX512_NAME,
    .numerics = 0x300,
    .quantize = avx2_quantize,
    .panel_expand = avx2_panel_expand,
    .panel_dot = avx2_panel_dot,
    .row_dot = avx2_row_dot,
    .keeps_panels = true,
    .split = avx2_split,
    .quantize_group = avx512_quantize_group,
    .packed_dot = avx512_packed_dot,
    .tile_open = avx512_tile_open,
    .tile_dot = avx512_tile_dot,
    .quantize_head = avx2_quantize_head,
    .attend = avx512_attend,
    .asks_ahead = true,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .scan = {avx2_find_above, avx2_sum_exp},
    .peak = avx512_peak,
    .peak_name = "vpdpbusd, int8 products into int32",
};

#endif
