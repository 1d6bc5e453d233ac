// Products of packed weights and 8-bit activations with AVX-512 VNNI: a register holds four columns of
// 16 weight rows, vpdpbusd multiplies it with four broadcast activations. Sums and results of up to 12
// activation rows stay in registers for a whole weight row.
#include "compute/cpu/packed_avx512.h"

#if defined(__AVX512VNNI__) // nothing on machines of another kind

#include <stddef.h>

#include "compute/cpu/many_avx512.h"
#include "compute/cpu/quantize_256.h"

// How far ahead of a single row's reading memory is asked for.
enum { PREFETCH_BYTES = 4096 };

void avx512_quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                           const struct act_groups *to, uint32_t group)
{
    quantize_group(x, n_rows, n, to, group);
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

// The same for what a second term of sub-block i wants, which needs no minimums.
INLINE void open_sub(enum fmt f, const uint8_t *p, uint32_t i, struct scales *s)
{
    if (f != FMT_Q4_K && f != FMT_Q5_K) {
        open_block(f, p, s);
        return;
    }
    const struct packed_Q4_K *b = (const void *)p; // Q5_K begins with one
    const __m128i low = _mm_loadu_si128((const void *)b->scales[0][i % 4]);
    const __m128i high = _mm_loadu_si128((const void *)b->scales[2][i % 4]);
    const __m128i top = _mm_and_si128(_mm_srli_epi16(low, 2), _mm_set1_epi8(0x30));
    const __m128i scale = i < 4 ? _mm_and_si128(low, _mm_set1_epi8(63))
                                : _mm_or_si128(_mm_and_si128(high, _mm_set1_epi8(15)), top);
    _mm_store_si128((void *)s->scale[i], scale);
    s->d = load_halves(b->d);
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

// Of formats with minimums.
INLINE __m512 min_of(const struct scales *sc, uint32_t s)
{
    return _mm512_mul_ps(sc->dmin, load_bytes(sc->min[s]));
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
    const __m512 min = min_of(sc, s);
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
        open_sub(f, block, s, &sc);
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

// ---- many rows: a panel unpacked (tiles.h) ------------------------------------------------------

INLINE void open_panel(enum fmt f, const uint8_t *panel, uint32_t n_blocks, struct weight_tile *to)
{
    struct scales sc = {.d = _mm512_setzero_ps()};
    for (uint32_t b = 0; b < n_blocks; b++, to++) {
        const uint32_t s = b % PACK_SUBS;
        const uint8_t *p = panel + b / PACK_SUBS * pack_block_bytes(f);
        if (s == 0) open_block(f, p, &sc);
        for (uint32_t q = 0; q < PACK_QUADS; q++)
            _mm512_store_si512(to->w[q], weights_of(f, p, s, q));
        for (uint32_t h = 0; h < halves_of(f); h++)
            _mm512_store_ps(to->d[h], scale_of(f, p, &sc, s, h));
        if (has_min(f)) _mm512_store_ps(to->min, min_of(&sc, s));
    }
}

void avx512_tile_open(enum fmt f, const uint8_t *panel, uint32_t n_blocks, struct weight_tile *to)
{
    switch (f) {
    case FMT_Q8_0: open_panel(FMT_Q8_0, panel, n_blocks, to); break;
    case FMT_Q4_0: open_panel(FMT_Q4_0, panel, n_blocks, to); break;
    case FMT_Q4_K: open_panel(FMT_Q4_K, panel, n_blocks, to); break;
    case FMT_Q5_K: open_panel(FMT_Q5_K, panel, n_blocks, to); break;
    case FMT_Q6_K: open_panel(FMT_Q6_K, panel, n_blocks, to); break;
    default: break;
    }
}

// ---- many rows: products ------------------------------------------------------------------------

#define EACH_GROUP(g) _Pragma("GCC unroll 3") for (uint32_t g = 0; g < n / MANY_GROUP; g++)

// How many rows the next pass takes of n_left; rows behind the last are zero, up to a whole tile.
INLINE uint32_t many_rows(uint32_t n_left)
{
    return n_left > 8 ? 12 : n_left > 4 ? 8 : 4;
}

// Where a group of rows lies in a tile: its integers, and its first row's part of the rest.
struct many_at {
    const int8_t *q;
    const struct many_part {
        float scale[TILE_ROWS];
        int32_t half[2][TILE_ROWS], bias[TILE_ROWS];
        float sum[TILE_ROWS];
    } * of;
};

static_assert(offsetof(struct act_tile, bias) - offsetof(struct act_tile, scale) ==
                  offsetof(struct many_part, bias),
              "a part of a tile");

INLINE struct many_at many_at(const struct act_tile *a, uint32_t row, uint32_t n_blocks)
{
    const struct act_tile *tile = a + (size_t)(row / TILE_ROWS) * n_blocks;
    return (struct many_at){tile->q[row % TILE_ROWS],
                            (const void *)(tile->scale + row % TILE_ROWS)};
}

// The next columns. Two pointers that the compiler is not to trace: it would keep one for each row.
INLINE void many_next(struct many_at *at)
{
    at->q += sizeof(struct act_tile);
    at->of = (const void *)((const char *)at->of + sizeof(struct act_tile));
    __asm__("" : "+r"(at->q), "+r"(at->of));
}

// s = half h of the columns of w, or all of them, times n rows, of which four each lie at q[g]; bias[g] are the
// corrections for unsigned weights of those rows, where the format has them.
INLINE void sum_many(enum fmt f, const struct weight_tile *w, const int8_t *const *q,
                     const int32_t *const *bias, uint32_t h, const uint32_t n, __m512i *s)
{
    const int8_t *half[MANY_GROUPS];
    if (f == FMT_Q6_K) {
        for (uint32_t g = 0; g < n / MANY_GROUP; g++) half[g] = q[g] + h * PACK_COLS / 2;
        many_products(w->w[h * PACK_QUADS / 2][0], half, bias, true, n, s);
    } else {
        many_products(w->w[0][0], q, f == FMT_Q8_0 ? bias : NULL, false, n, s);
        EACH_ROW(t)
        {
            if (f != FMT_Q4_0) break;
            s[t] = _mm512_add_epi32(s[t], _mm512_set1_epi32(bias[t / 4][t % 4] / 16));
        }
    }
}

// out = n rows of a, from `row` on, times the panel w.
INLINE void many_high(enum fmt f, const struct weight_tile *w, const struct act_tile *a,
                      uint32_t row, uint32_t n_blocks, const uint32_t n, float (*out)[PANEL_ROWS])
{
    struct many_at at[MANY_GROUPS];
    __m512 acc[MANY_ROWS];
    EACH_ROW(t) acc[t] = _mm512_setzero_ps();
    EACH_GROUP(g) at[g] = many_at(a, row + g * MANY_GROUP, n_blocks);
    for (uint32_t b = 0; b < n_blocks; b++, w++) {
        for (uint32_t h = 0; h < halves_of(f); h++) {
            const int8_t *q[MANY_GROUPS];
            const int32_t *bias[MANY_GROUPS];
            __m512i s[MANY_ROWS];
            EACH_GROUP(g)
            {
                q[g] = at[g].q;
                bias[g] = (f == FMT_Q6_K ? at[g].of->half[h] : at[g].of->bias);
            }
            sum_many(f, w, q, bias, h, n, s);
            const __m512 d = _mm512_load_ps(w->d[h]);
            EACH_ROW(t)
            {
                const __m512 scale = _mm512_set1_ps(at[t / 4].of->scale[t % 4]);
                acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[t]), _mm512_mul_ps(d, scale), acc[t]);
            }
        }
        if (has_min(f)) {
            const __m512 min = _mm512_load_ps(w->min);
            EACH_ROW(t)
            {
                const __m512 sum = _mm512_set1_ps(at[t / 4].of->sum[t % 4]);
                acc[t] = _mm512_fnmadd_ps(min, sum, acc[t]);
            }
        }
        EACH_GROUP(g) many_next(&at[g]);
    }
    EACH_ROW(t) _mm512_storeu_ps(out[t], acc[t]);
}

// Second terms: rows [row, row + n) of l, as many as there are.
INLINE void many_low(enum fmt f, const struct weight_tile *w, const struct low_tile *l,
                     uint32_t row, const uint32_t n, float (*out)[PANEL_ROWS])
{
    const int8_t *q[MANY_GROUPS];
    const int32_t *bias[MANY_GROUPS];
    for (uint32_t h = 0; h < halves_of(f); h++) {
        __m512i s[MANY_ROWS];
        EACH_GROUP(g)
        {
            q[g] = l->q[row + g * MANY_GROUP];
            bias[g] = (f == FMT_Q6_K ? l->half[h] : l->bias) + row + g * MANY_GROUP;
        }
        sum_many(f, w, q, bias, h, n, s);
        const __m512 d = _mm512_load_ps(w->d[h]);
        EACH_ROW(t)
        {
            if (row + t >= l->n) break;
            float *to = out[l->row[row + t]];
            const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(l->scale[row + t]));
            _mm512_storeu_ps(to,
                             _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[t]), scale, _mm512_loadu_ps(to)));
        }
    }
}

INLINE void many_chunk(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                       uint32_t tile, float (*out)[PANEL_ROWS])
{
    const struct tile_chunk c = a->chunks[tile];
    const uint32_t n_blocks = a->n_blocks;
    const size_t at = (size_t)tile * n_blocks;
    for (uint32_t row = 0, n; row < c.n_rows; row += n) {
        switch (n = many_rows(c.n_rows - row)) {
        case 12: many_high(f, w, a->high + at, row, n_blocks, 12, out + row); break;
        case 8: many_high(f, w, a->high + at, row, n_blocks, 8, out + row); break;
        default: many_high(f, w, a->high + at, row, n_blocks, 4, out + row); break;
        }
    }
    for (const struct low_tile *l = a->low + at; l < a->low + at + c.n_low; l++) {
        for (uint32_t row = 0, n; row < l->n; row += n) {
            switch (n = many_rows(l->n - row)) {
            case 12: many_low(f, w + l->block, l, row, 12, out); break;
            case 8: many_low(f, w + l->block, l, row, 8, out); break;
            default: many_low(f, w + l->block, l, row, 4, out); break;
            }
        }
    }
}

void avx512_tile_dot(enum fmt f, const struct weight_tile *w, const struct act_tiles *a,
                     uint32_t tile, float (*out)[PANEL_ROWS])
{
    switch (f) {
    case FMT_Q8_0: many_chunk(FMT_Q8_0, w, a, tile, out); break;
    case FMT_Q4_0: many_chunk(FMT_Q4_0, w, a, tile, out); break;
    case FMT_Q6_K: many_chunk(FMT_Q6_K, w, a, tile, out); break;
    case FMT_Q4_K:
    case FMT_Q5_K: many_chunk(FMT_Q4_K, w, a, tile, out); break;
    default: break;
    }
}

#endif
