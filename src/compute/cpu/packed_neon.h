// Products of packed weights (repack.h) and 8-bit activations on aarch64: the text of two files that are
// compiled for different instructions (packed_dotprod.c: SDOT; packed_i8mm.c: SMMLA for whole groups of
// activation rows). A register holds four columns of four weight rows; an act_block's quad is one
// register too, one activation row a lane. Integer sums being exact and the float operations those of
// repack.h, results equal the AVX-512 table's bit for bit.
//
// Weights are taken signed here: Q8_0's with their top bit turned, which is the bias of the unsigned form;
// all others are below 64.
#pragma once

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "compute/cpu/repack.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    LANE_ROWS = 4,    // weight rows of a register
    PASS_VECTORS = 2, // registers of a pass: 8 weight rows, so that all sums stay in registers
    PASSES = PANEL_ROWS / LANE_ROWS / PASS_VECTORS,
};

// ---- quantising ---------------------------------------------------------------------------------

struct floats_32 {
    float32x4_t v[8];
};
struct ints_32 {
    int32x4_t v[8];
};

// n <= 32 values, the rest zero.
INLINE struct floats_32 load_32(const float *x, uint32_t n)
{
    struct floats_32 out;
    float padded[PACK_COLS];
    if (n < PACK_COLS) {
        memset(padded, 0, sizeof padded);
        memcpy(padded, x, n * sizeof *x);
        x = padded;
    }
    for (int i = 0; i < 8; i++) out.v[i] = vld1q_f32(x + 4 * i);
    return out;
}

INLINE struct ints_32 round_32(struct floats_32 x, float inverse)
{
    struct ints_32 out;
    for (int i = 0; i < 8; i++) out.v[i] = vcvtnq_s32_f32(vmulq_n_f32(x.v[i], inverse));
    return out;
}

struct half_sums {
    int32_t a, b;
};

INLINE struct half_sums sum_32(const struct ints_32 *v)
{
    const int32x4_t *w = v->v;
    return (struct half_sums){vaddvq_s32(vaddq_s32(vaddq_s32(w[0], w[1]), vaddq_s32(w[2], w[3]))),
                              vaddvq_s32(vaddq_s32(vaddq_s32(w[4], w[5]), vaddq_s32(w[6], w[7])))};
}

INLINE void store_32(const struct ints_32 *v, int8_t *to)
{
    for (int h = 0; h < 2; h++) {
        const int32x4_t *w = v->v + 4 * h;
        const int16x8_t a = vcombine_s16(vqmovn_s32(w[0]), vqmovn_s32(w[1]));
        const int16x8_t b = vcombine_s16(vqmovn_s32(w[2]), vqmovn_s32(w[3]));
        vst1q_s8(to + 16 * h, vcombine_s8(vqmovn_s16(a), vqmovn_s16(b)));
    }
}

// v, the rounded values, into row r of a block.
INLINE void put_high(const struct ints_32 *v, float scale, uint32_t r, struct act_block *out)
{
    const struct half_sums s = sum_32(v);
    int8_t bytes[PACK_COLS];
    store_32(v, bytes);
    for (int i = 0; i < PACK_QUADS; i++) memcpy(out->q[i][r], bytes + 4 * i, 4);
    out->scale[r] = scale;
    out->sum[r] = scale * (float)(s.a + s.b);
    out->bias[r] = -128 * (s.a + s.b);
    out->half[0][r] = -32 * s.a;
    out->half[1][r] = -32 * s.b;
}

// What rounding x to v left over, in steps of 1 / LOW_STEPS.
INLINE void put_low(const struct floats_32 *x, const struct ints_32 *v, float inverse, float scale,
                    uint32_t at, struct act_low *out)
{
    struct floats_32 left;
    for (int i = 0; i < 8; i++)
        left.v[i] = vfmaq_n_f32(vnegq_f32(vcvtq_f32_s32(v->v[i])), x->v[i], inverse);
    const struct ints_32 l = round_32(left, LOW_STEPS);
    const struct half_sums s = sum_32(&l);
    store_32(&l, out->q[0]);
    out->scale = scale / LOW_STEPS;
    out->bias = -128 * (s.a + s.b);
    out->half[0] = -32 * s.a;
    out->half[1] = -32 * s.b;
    out->at = at;
}

INLINE struct floats_32 load_block(const float *x, uint32_t i, uint32_t n)
{
    const uint32_t k = i * PACK_COLS;
    return load_32(x + k, n - k < PACK_COLS ? n - k : PACK_COLS);
}

// Each block's absmax into its scale[r]; returns the absmax above which a second term is needed. Sums in
// the order of the AVX-512 table.
INLINE float find_outliers(const float *x, uint32_t n, uint32_t n_blocks, uint32_t r,
                           struct act_block *blocks)
{
    float32x4_t square[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    float top = 0, error = 0;
    for (uint32_t i = 0; i < n_blocks; i++) {
        const struct floats_32 v = load_block(x, i, n);
        float32x4_t most = vdupq_n_f32(0);
        for (int j = 0; j < 4; j++) {
            square[j] = vfmaq_f32(square[j], v.v[4 + j], v.v[4 + j]);
            square[j] = vfmaq_f32(square[j], v.v[j], v.v[j]);
            most = vmaxq_f32(most, vmaxq_f32(vabsq_f32(v.v[j]), vabsq_f32(v.v[4 + j])));
        }
        const float max = vmaxvq_f32(most);
        blocks[i].scale[r] = max;
        top = max > top ? max : top;
        error += max * max;
    }
    const float32x4_t four =
        vaddq_f32(vaddq_f32(square[0], square[2]), vaddq_f32(square[1], square[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    const float bound =
        ERROR_BOUND / (float)PACK_COLS * (vget_lane_f32(two, 0) + vget_lane_f32(two, 1));
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

INLINE void quantize_row(const float *x, uint32_t n, uint32_t r, uint32_t n_blocks,
                         struct act_block *high, struct act_low *low, uint32_t *n_low)
{
    const float bound = find_outliers(x, n, n_blocks, r, high);
    *n_low = 0;
    for (uint32_t i = 0; i < n_blocks; i++) {
        const struct floats_32 v = load_block(x, i, n);
        const float max = high[i].scale[r], scale = max / 127.0f;
        const float inverse = max > 0 ? 127.0f / max : 0.0f;
        const struct ints_32 q = round_32(v, inverse);
        put_high(&q, scale, r, &high[i]);
        if (!(max > bound)) continue;
        struct act_low *l = &low[(*n_low)++];
        put_low(&v, &q, inverse, scale, i, l);
        high[i].sum[r] += l->scale * (float)(l->bias / -128);
    }
}

INLINE void quantize_group(const float *const *x, uint32_t n_rows, uint32_t n,
                           const struct act_groups *to, uint32_t group)
{
    struct act_block *high = to->high + (size_t)group * to->n_blocks;
    for (uint32_t r = 0; r < n_rows; r++) {
        const size_t row = (size_t)group * ACT_GROUP + r;
        quantize_row(x[r], n, r, to->n_blocks, high, to->low + row * to->n_blocks, &to->n_low[row]);
    }
}

// ---- formats ------------------------------------------------------------------------------------

// The scales of one block of the K formats, spread for use.
struct scales {
    uint8_t scale[PACK_SUBS][PANEL_ROWS], min[PACK_SUBS][PANEL_ROWS];
};

// The six-bit scales and minimums that Q4_K and Q5_K pack into 12 bytes.
INLINE void open_k(const struct packed_Q4_K *b, struct scales *s)
{
    for (int i = 0; i < 4; i++) {
        const uint8x16_t low = vld1q_u8(b->scales[0][i]), min = vld1q_u8(b->scales[1][i]);
        const uint8x16_t high = vld1q_u8(b->scales[2][i]);
        const uint8x16_t six = vdupq_n_u8(63), four = vdupq_n_u8(15), two = vdupq_n_u8(0x30);
        vst1q_u8(s->scale[i], vandq_u8(low, six));
        vst1q_u8(s->min[i], vandq_u8(min, six));
        vst1q_u8(s->scale[4 + i],
                 vorrq_u8(vandq_u8(high, four), vandq_u8(vshrq_n_u8(low, 2), two)));
        vst1q_u8(s->min[4 + i], vorrq_u8(vshrq_n_u8(high, 4), vandq_u8(vshrq_n_u8(min, 2), two)));
    }
}

INLINE void open_block(enum fmt f, const uint8_t *p, struct scales *s)
{
    if (f == FMT_Q4_K) open_k((const void *)p, s);
    if (f == FMT_Q5_K) open_k(&((const struct packed_Q5_K *)(const void *)p)->low, s);
}

INLINE const struct packed_Q4_K *k_part(enum fmt f, const uint8_t *p)
{
    return f == FMT_Q5_K ? &((const struct packed_Q5_K *)(const void *)p)->low : (const void *)p;
}

INLINE float32x4_t load_halves(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

// Four bytes as floats.
INLINE float32x4_t load_bytes(const uint8_t *p, bool is_signed)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    const uint8x8_t b = vreinterpret_u8_u32(vdup_n_u32(four));
    const int16x8_t w =
        is_signed ? vmovl_s8(vreinterpret_s8_u8(b)) : vreinterpretq_s16_u16(vmovl_u8(b));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(w)));
}

INLINE uint32_t halves_of(enum fmt f)
{
    return f == FMT_Q6_K ? 2 : 1; // scales in 32 columns
}

// Scale number h of sub-block s for the four rows from `row` on.
INLINE float32x4_t scale_of(enum fmt f, const uint8_t *p, const struct scales *sc, uint32_t s,
                            uint32_t h, uint32_t row)
{
    if (f == FMT_Q8_0)
        return load_halves(((const struct packed_Q8_0 *)(const void *)p)->d[s] + row);
    if (f == FMT_Q4_0)
        return load_halves(((const struct packed_Q4_0 *)(const void *)p)->d[s] + row);
    if (f == FMT_Q6_K) {
        const struct packed_Q6_K *b = (const void *)p;
        return vmulq_f32(load_halves(b->d + row),
                         load_bytes((const uint8_t *)b->scales[2 * s + h] + row, true));
    }
    return vmulq_f32(load_halves(k_part(f, p)->d + row), load_bytes(sc->scale[s] + row, false));
}

INLINE uint8x16_t nibbles(const pack_quad w[][PACK_QUADS], uint32_t s, uint32_t q, uint32_t row)
{
    const uint8x16_t both = vld1q_u8(w[s / 2][q][row]);
    return s % 2 ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15));
}

// n bits from bit `from` on of each byte, as bits 4 and up.
INLINE uint8x16_t high_bits(const pack_quad high[], uint32_t q, uint32_t row, uint32_t from, int n)
{
    const uint8x16_t b = vshlq_u8(vld1q_u8(high[q][row]), vdupq_n_s8((int8_t) - (int)from));
    return vshlq_n_u8(vandq_u8(b, vdupq_n_u8((uint8_t)((1 << n) - 1))), 4);
}

// Quad q of sub-block s for the four rows from `row` on, signed.
INLINE int8x16_t weights_of(enum fmt f, const uint8_t *p, uint32_t s, uint32_t q, uint32_t row)
{
    uint8x16_t w;
    if (f == FMT_Q8_0) {
        w = veorq_u8(vld1q_u8(((const struct packed_Q8_0 *)(const void *)p)->w[s][q][row]),
                     vdupq_n_u8(0x80));
    } else if (f == FMT_Q4_0) {
        w = nibbles(((const struct packed_Q4_0 *)(const void *)p)->w, s, q, row);
    } else if (f == FMT_Q6_K) {
        const struct packed_Q6_K *b = (const void *)p;
        w = vorrq_u8(nibbles(b->w, s, q, row), high_bits(b->high[s / 4], q, row, 2 * (s % 4), 2));
    } else {
        w = nibbles(k_part(f, p)->w, s, q, row);
        if (f == FMT_Q5_K)
            w = vorrq_u8(
                w, high_bits(((const struct packed_Q5_K *)(const void *)p)->high, q, row, s, 1));
    }
    return vreinterpretq_s8_u8(w);
}

// What the sum of row t starts with.
INLINE int32_t bias_of(enum fmt f, const struct act_block *a, uint32_t h, uint32_t t)
{
    if (f == FMT_Q4_0) return a->bias[t] >> 4;
    if (f == FMT_Q6_K) return a->half[h][t];
    return 0;
}

// ---- products -----------------------------------------------------------------------------------

// Integer sums: [activation row][register of four weight rows].
struct sums {
    int32x4_t v[ACT_GROUP][PASS_VECTORS];
};

// Lanes of SDOT are constants: one case a row.
#define ADD_LANE(t)                                 \
    if (t < n)                                      \
        for (uint32_t v = 0; v < PASS_VECTORS; v++) \
    out->v[t][v] = vdotq_laneq_s32(out->v[t][v], w[v], acts, t)

// Quads [q, end) of sub-block s, weight rows from `row` on, times n activation rows.
INLINE void sum_by_lane(enum fmt f, const uint8_t *p, uint32_t s, uint32_t q, uint32_t end,
                        uint32_t row, const struct act_block *a, const uint32_t n, struct sums *out)
{
    for (; q < end; q++) {
        const int8x16_t acts = vld1q_s8(a->q[q][0]);
        int8x16_t w[PASS_VECTORS];
        for (uint32_t v = 0; v < PASS_VECTORS; v++)
            w[v] = weights_of(f, p, s, q, row + v * LANE_ROWS);
        ADD_LANE(0);
        ADD_LANE(1);
        ADD_LANE(2);
        ADD_LANE(3);
    }
}

#if defined(__ARM_FEATURE_MATMUL_INT8)
// The same for a whole group, two quads at a time: SMMLA multiplies two weight rows by two activation
// rows over eight columns.
INLINE void sum_by_matrix(enum fmt f, const uint8_t *p, uint32_t s, uint32_t q, uint32_t end,
                          uint32_t row, const struct act_block *a, struct sums *out)
{
    int32x4_t m[PASS_VECTORS][2][2]; // [register][pair of weight rows][pair of activation rows]
    for (uint32_t i = 0; i < PASS_VECTORS * 4; i++) m[i / 4][i / 2 % 2][i % 2] = vdupq_n_s32(0);
    for (; q < end; q += 2) {
        const int32x4_t a0 = vreinterpretq_s32_s8(vld1q_s8(a->q[q][0]));
        const int32x4_t a1 = vreinterpretq_s32_s8(vld1q_s8(a->q[q + 1][0]));
        const int8x16_t act[2] = {vreinterpretq_s8_s32(vzip1q_s32(a0, a1)),
                                  vreinterpretq_s8_s32(vzip2q_s32(a0, a1))};
        for (uint32_t v = 0; v < PASS_VECTORS; v++) {
            const uint32_t r = row + v * LANE_ROWS;
            const int32x4_t w0 = vreinterpretq_s32_s8(weights_of(f, p, s, q, r));
            const int32x4_t w1 = vreinterpretq_s32_s8(weights_of(f, p, s, q + 1, r));
            const int8x16_t w[2] = {vreinterpretq_s8_s32(vzip1q_s32(w0, w1)),
                                    vreinterpretq_s8_s32(vzip2q_s32(w0, w1))};
            for (int i = 0; i < 4; i++)
                m[v][i / 2][i % 2] = vmmlaq_s32(m[v][i / 2][i % 2], w[i / 2], act[i % 2]);
        }
    }
    for (uint32_t v = 0; v < PASS_VECTORS; v++)
        for (uint32_t t = 0; t < 2; t++) {
            int32x4_t *even = &out->v[2 * t][v], *odd = &out->v[2 * t + 1][v];
            *even = vaddq_s32(*even, vuzp1q_s32(m[v][0][t], m[v][1][t]));
            *odd = vaddq_s32(*odd, vuzp2q_s32(m[v][0][t], m[v][1][t]));
        }
}
#endif

// Sub-block s of a block, weight rows from `row` on, times the first n rows of a group, into acc.
INLINE void add_products(enum fmt f, const uint8_t *p, const struct scales *sc, uint32_t s,
                         uint32_t row, const struct act_block *a, const uint32_t n,
                         float32x4_t acc[ACT_GROUP][PASS_VECTORS])
{
    const uint32_t halves = halves_of(f), quads = PACK_QUADS / halves;
    for (uint32_t h = 0; h < halves; h++) {
        struct sums sum;
        for (uint32_t t = 0; t < n; t++)
            for (uint32_t v = 0; v < PASS_VECTORS; v++)
                sum.v[t][v] = vdupq_n_s32(bias_of(f, a, h, t));
#if defined(__ARM_FEATURE_MATMUL_INT8)
        if (n == ACT_GROUP)
            sum_by_matrix(f, p, s, h * quads, (h + 1) * quads, row, a, &sum);
        else
#endif
            sum_by_lane(f, p, s, h * quads, (h + 1) * quads, row, a, n, &sum);
        for (uint32_t v = 0; v < PASS_VECTORS; v++) {
            const float32x4_t d = scale_of(f, p, sc, s, h, row + v * LANE_ROWS);
            for (uint32_t t = 0; t < n; t++)
                acc[t][v] =
                    vfmaq_f32(acc[t][v], vcvtq_f32_s32(sum.v[t][v]), vmulq_n_f32(d, a->scale[t]));
        }
    }
}

INLINE void add_mins(enum fmt f, const uint8_t *p, const struct scales *sc, uint32_t s,
                     uint32_t row, const struct act_block *a, const uint32_t n,
                     float32x4_t acc[ACT_GROUP][PASS_VECTORS])
{
    for (uint32_t v = 0; v < PASS_VECTORS; v++) {
        const uint32_t r = row + v * LANE_ROWS;
        const float32x4_t min =
            vmulq_f32(load_halves(k_part(f, p)->dmin + r), load_bytes(sc->min[s] + r, false));
        for (uint32_t t = 0; t < n; t++) acc[t][v] = vfmsq_n_f32(acc[t][v], min, a->sum[t]);
    }
}

INLINE void load_acc(float32x4_t acc[ACT_GROUP][PASS_VECTORS], float (*out)[PANEL_ROWS],
                     uint32_t row, const uint32_t n)
{
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t v = 0; v < PASS_VECTORS; v++)
            acc[t][v] = vld1q_f32(out[t] + row + v * LANE_ROWS);
}

INLINE void store_acc(float32x4_t acc[ACT_GROUP][PASS_VECTORS], float (*out)[PANEL_ROWS],
                      uint32_t row, const uint32_t n)
{
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t v = 0; v < PASS_VECTORS; v++)
            vst1q_f32(out[t] + row + v * LANE_ROWS, acc[t][v]);
}

// All first blocks of one group, n of its rows.
INLINE void add_high(enum fmt f, const uint8_t *p, uint32_t n_k, const struct act_block *a,
                     const uint32_t n, float (*out)[PANEL_ROWS])
{
    memset(out, 0, n * sizeof *out);
    for (uint32_t k = 0; k < n_k; k += BLOCK_K, p += pack_block_bytes(f), a += PACK_SUBS) {
        const uint32_t n_subs = (n_k - k < BLOCK_K ? n_k - k : BLOCK_K) / PACK_COLS;
        struct scales sc;
        open_block(f, p, &sc);
        for (uint32_t pass = 0; pass < PASSES; pass++) {
            const uint32_t row = pass * PASS_VECTORS * LANE_ROWS;
            float32x4_t acc[ACT_GROUP][PASS_VECTORS];
            load_acc(acc, out, row, n);
            for (uint32_t s = 0; s < n_subs; s++) {
                add_products(f, p, &sc, s, row, a + s, n, acc);
                if (has_min(f)) add_mins(f, p, &sc, s, row, a + s, n, acc);
            }
            store_acc(acc, out, row, n);
        }
    }
}

// What the sum of a second term starts with, as bias_of.
INLINE int32_t low_bias(enum fmt f, const struct act_low *l, uint32_t h)
{
    return f == FMT_Q4_0 ? l->bias / 16 : f == FMT_Q6_K ? l->half[h] : 0;
}

// The second terms of one row.
INLINE void add_low(enum fmt f, const uint8_t *p, const struct act_low *low, uint32_t n_low,
                    float *out)
{
    const uint32_t halves = halves_of(f), quads = PACK_QUADS / halves;
    for (const struct act_low *l = low; l < low + n_low; l++) {
        const uint8_t *block = p + l->at / PACK_SUBS * pack_block_bytes(f);
        const uint32_t s = l->at % PACK_SUBS;
        struct scales sc;
        open_block(f, block, &sc);
        for (uint32_t row = 0; row < PANEL_ROWS; row += LANE_ROWS) {
            float32x4_t acc = vld1q_f32(out + row);
            for (uint32_t h = 0; h < halves; h++) {
                int32x4_t sum = vdupq_n_s32(low_bias(f, l, h));
                for (uint32_t q = h * quads; q < (h + 1) * quads; q++) {
                    int32_t quad;
                    memcpy(&quad, l->q[q], sizeof quad);
                    sum = vdotq_s32(sum, weights_of(f, block, s, q, row),
                                    vreinterpretq_s8_s32(vdupq_n_s32(quad)));
                }
                acc = vfmaq_f32(acc, vcvtq_f32_s32(sum),
                                vmulq_n_f32(scale_of(f, block, &sc, s, h, row), l->scale));
            }
            vst1q_f32(out + row, acc);
        }
    }
}

INLINE void dot_group(enum fmt f, const uint8_t *p, uint32_t n_k, const struct act_groups *g,
                      uint32_t group, const uint32_t n, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    add_high(f, p, n_k, g->high + (size_t)group * g->n_blocks, n, out);
    for (size_t t = 0, row = (size_t)group * ACT_GROUP; t < n_rows; t++, row++)
        if (g->n_low[row]) add_low(f, p, g->low + row * g->n_blocks, g->n_low[row], out[t]);
}

INLINE void dot_rows(enum fmt f, const uint8_t *p, uint32_t n_k, const struct act_groups *g,
                     uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    for (uint32_t r = 0; r < n_rows; r += ACT_GROUP, group++, out += ACT_GROUP) {
        if (n_rows - r == 1)
            dot_group(f, p, n_k, g, group, 1, 1, out);
        else if (n_rows - r == 2)
            dot_group(f, p, n_k, g, group, 2, 2, out);
        else // a third row alone is no quicker than four
            dot_group(f, p, n_k, g, group, ACT_GROUP,
                      n_rows - r < ACT_GROUP ? n_rows - r : ACT_GROUP, out);
    }
}

INLINE void packed_dot(enum fmt f, const uint8_t *panel, uint32_t n_k, const struct act_groups *a,
                       uint32_t group, uint32_t n_rows, float (*out)[PANEL_ROWS])
{
    switch (f) {
    case FMT_Q8_0: dot_rows(FMT_Q8_0, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q4_0: dot_rows(FMT_Q4_0, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q4_K: dot_rows(FMT_Q4_K, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q5_K: dot_rows(FMT_Q5_K, panel, n_k, a, group, n_rows, out); break;
    case FMT_Q6_K: dot_rows(FMT_Q6_K, panel, n_k, a, group, n_rows, out); break;
    default: break;
    }
}
