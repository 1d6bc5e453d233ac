// A unit of packed weights (kernels/common/pack.h) in registers: loads, and the conversion of one
// granule to the f16 operands of a matrix instruction. Every kernel that reads weights goes through
// this, so embedding, small products and the expansion for the library see the same values.
//
// Scales, one set per row: s of Q4_K and Q5_K is [row][half h][granule] pairs of bytes (scale, min), half
// h being columns 32 h .. 32 h + 31 of a granule; s of Q8_0 and Q4_0 is [row][h][granule] f16; s of Q6_K is
// [row][t][granule] bytes, biased by 128, s of Q5_1 there pairs of f16 (factor, addend); d of Q4_K and Q5_K is the pair (d, dmin / d), of Q6_K f16.
//
// High bits stand where a shift by a constant, often none, puts them over the low ones: bit 4 for even p, bit
// 8 for odd p (high_bit).
#pragma once

#include "kernels/common/port.h"
#include "kernels/common/pack.h"

enum { MAGIC = 0x64006400 }; // f16 1024 in both halves: low bits added to it are integers

template <int KIND> struct unit {
    enum {
        Q_CHUNKS = KIND == PACK_H16 ? 4 : KIND == PACK_Q8_0 ? 2 : 1, // 16-byte chunks of a granule
        H_WORDS = KIND == PACK_Q5_K || KIND == PACK_Q5_1 ? 1 : KIND == PACK_Q6_K ? 2 : 0,
        BYTES = (int)pack_unit_bytes(KIND),
        H_AT = (int)pack_q_bytes(KIND),
        S_AT = H_AT + (int)pack_h_bytes(KIND),
        D_AT = S_AT + (int)pack_s_bytes(KIND)
    };
};

// The bits of one granule.
template <int KIND> struct granule {
    u32x4 q[unit<KIND>::Q_CHUNKS];
    uint32_t h[unit<KIND>::H_WORDS ? unit<KIND>::H_WORDS : 1];
};

// The scales of a unit for this lane's two rows.
struct scales {
    uint32_t s[2][4], d[2];
};

template <int KIND, bool SHARED = false>
DEV void granule_load(granule<KIND> &to, const char *at, uint32_t n, uint32_t lane)
{
    typedef unit<KIND> U;
#pragma unroll
    for (uint32_t c = 0; c < U::Q_CHUNKS; c++)
    {
        const char *p = at + ((n * U::Q_CHUNKS + c) * 32 + lane) * 16;
        to.q[c] = SHARED ? *(const u32x4 *)p : load_stream(p);
    }
    if (U::H_WORDS == 1) to.h[0] = *(const uint32_t *)(at + U::H_AT + (n * 32 + lane) * 4);
    if (KIND == PACK_Q6_K) {
        const u32x2 v = *(const u32x2 *)(at + U::H_AT + (n * 32 + lane) * 8);
        to.h[0] = v.x;
        to.h[U::H_WORDS > 1 ? 1 : 0] = v.y;
    }
}

// Where unit i of a packed matrix is.
template <int KIND> DEV const char *unit_at(const void *w, uint64_t i)
{
    return (const char *)w + i * unit<KIND>::BYTES;
}

template <int KIND> DEV void scales_load(scales &to, const char *at, uint32_t lane)
{
    typedef unit<KIND> U;
    const uint32_t g = lane >> 2, t = lane & 3;
    if (KIND == PACK_H16) return;
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) {
        const uint32_t row = g + 8 * r;
        if (KIND == PACK_Q6_K) {
            to.s[r][0] = *(const uint32_t *)(at + U::S_AT + (row * 4 + t) * 4);
            to.d[r] = *(const uint16_t *)(at + U::D_AT + row * 2);
            continue;
        }
        if (KIND == PACK_Q5_1) {
            const u32x4 v = *(const u32x4 *)(at + U::S_AT + (row * 4 + t) * 16);
            to.s[r][0] = v.x;
            to.s[r][1] = v.y;
            to.s[r][2] = v.z;
            to.s[r][3] = v.w;
            continue;
        }
        const u32x2 v = *(const u32x2 *)(at + U::S_AT + (row * 2 + (t >> 1)) * 8);
        to.s[r][0] = v.x;
        to.s[r][1] = v.y;
        if (KIND == PACK_Q4_K || KIND == PACK_Q5_K)
            to.d[r] = *(const uint32_t *)(at + U::D_AT + row * 4);
    }
}

// (d, -dmin) from (d, dmin / d).
DEV uint32_t minimum_of(uint32_t d)
{
    const uint32_t product = h2_mul(d, byte_perm(d, d, 0x1032));
    return byte_perm(d, product ^ 0x80008000u, 0x5410);
}

// The factor (and, where there is one, what is added) of granule n for row r, in both halves.
template <int KIND>
DEV void scale_of(const scales &sc, uint32_t r, uint32_t n, uint32_t &mul, uint32_t &add)
{
    add = 0;
    if (KIND == PACK_Q4_K || KIND == PACK_Q5_K) {
        const uint32_t pair = byte_perm(sc.s[r][n >> 1], 0x64646464u, n & 1 ? 0x4342 : 0x4140);
        const uint32_t v = h2_mul(h2_sub(pair, MAGIC), minimum_of(sc.d[r]));
        mul = byte_perm(v, v, 0x1010);
        add = byte_perm(v, v, 0x3232);
    } else if (KIND == PACK_Q6_K) {
        const uint32_t sel = 0x4040 + n * 0x0101;
        const uint32_t v = h2_sub(byte_perm(sc.s[r][0], 0x64646464u, sel), 0x64806480u);
        mul = h2_mul(v, byte_perm(sc.d[r], sc.d[r], 0x1010));
    } else if (KIND == PACK_Q5_1) {
        const uint32_t v = sc.s[r][n];
        mul = byte_perm(v, v, 0x1010);
        add = byte_perm(v, v, 0x3232);
    } else {
        const uint32_t v = sc.s[r][n >> 1];
        mul = byte_perm(v, v, n & 1 ? 0x3232 : 0x1010);
    }
}

// Constants of the conversion, held in registers over a loop.
struct masks {
    uint32_t low, high, magic;
};
DEV masks masks_make(void)
{
    const masks m = {kept(0x000f000fu), kept(0x00f000f0u), kept(MAGIC)};
    return m;
}

// Where the high bits of step j, operand p are in their word, in each half.
template <int KIND> static __host__ __device__ constexpr int high_bit(int j, int p)
{
    const int pair = KIND != PACK_Q6_K ? j >> 1 : j & 1; // which of the two places for even and odd p
    const int step = KIND != PACK_Q6_K ? 2 * (j & 1) + (p >> 1) : 2 * (p >> 1);
    return (pair == 0 ? (p & 1 ? 8 : 4) : (p & 1 ? 12 : 0)) + step;
}

DEV uint32_t shifted(uint32_t v, int right) { return right >= 0 ? v >> right : v << -right; }

// Step j's bits put over `base` in both halves: q[0], q[2] of row g at bit 0; q[1], q[3] of row g + 8 at bit 4,
// so sixteen times as large.
template <int KIND>
DEV void bits_of_step(const granule<KIND> &in, uint32_t j, const masks &m, uint32_t base, uint32_t q[4])
{
    constexpr uint32_t WORDS = unit<KIND>::H_WORDS ? unit<KIND>::H_WORDS : 1;
    const uint32_t w = j == 0 ? in.q[0].x : j == 1 ? in.q[0].y : j == 2 ? in.q[0].z : in.q[0].w;
    const uint32_t w8 = w >> 8, h = in.h[KIND == PACK_Q6_K ? (j >> 1) % WORDS : 0];
#pragma unroll
    for (int p = 0; p < 4; p++) {
        q[p] = and_or(p & 2 ? w8 : w, p & 1 ? m.high : m.low, base);
        const uint32_t mask = (KIND != PACK_Q6_K ? 0x00010001u : 0x00030003u) << (p & 1 ? 8 : 4);
        if (unit<KIND>::H_WORDS)
            q[p] = and_or(shifted(h, high_bit<KIND>((int)j, p) - (p & 1 ? 8 : 4)), mask, q[p]);
    }
}

// Integers of step j as f16 pairs: q[0], q[2] of row g, q[1], q[3] of row g + 8.
template <int KIND>
DEV void integers(const granule<KIND> &in, uint32_t j, const masks &m, uint32_t q[4])
{
    if (KIND == PACK_Q8_0) {
        const u32x4 c = in.q[(j >> 1) % unit<KIND>::Q_CHUNKS];
        const uint32_t lo = j & 1 ? c.z : c.x, hi = j & 1 ? c.w : c.y;
        q[0] = h2_sub(byte_perm(lo, 0x64646464u, 0x4140), 0x64806480u);
        q[1] = h2_sub(byte_perm(lo, 0x64646464u, 0x4342), 0x64806480u);
        q[2] = h2_sub(byte_perm(hi, 0x64646464u, 0x4140), 0x64806480u);
        q[3] = h2_sub(byte_perm(hi, 0x64646464u, 0x4342), 0x64806480u);
        return;
    }
    // 1024 + zero, and -64 - zero for what is 1024 + 16 q
    const uint32_t even = KIND == PACK_Q4_0 ? 0x64086408u : KIND == PACK_Q6_K ? 0x64206420u : MAGIC;
    const uint32_t odd = KIND == PACK_Q4_0   ? 0xd480d480u
                         : KIND == PACK_Q6_K ? 0xd600d600u
                                             : 0xd400d400u;
    bits_of_step<KIND>(in, j, m, m.magic, q);
    q[0] = h2_sub(q[0], even);
    q[1] = h2_fma(q[1], 0x2c002c00u, odd); // 1/16
    q[2] = h2_sub(q[2], even);
    q[3] = h2_fma(q[3], 0x2c002c00u, odd);
}

// Granule n as the a operands of its four steps.
template <int KIND>
DEV void granule_operands(const granule<KIND> &in, const scales &sc, uint32_t n, const masks &m,
                          uint32_t a[4][4])
{
    if (KIND == PACK_H16) {
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            const u32x4 c = in.q[j % unit<KIND>::Q_CHUNKS];
            a[j][0] = c.x;
            a[j][1] = c.y;
            a[j][2] = c.z;
            a[j][3] = c.w;
        }
        return;
    }
    uint32_t mul[2], add[2];
    scale_of<KIND>(sc, 0, n, mul[0], add[0]);
    scale_of<KIND>(sc, 1, n, mul[1], add[1]);
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) {
        uint32_t q[4];
        integers<KIND>(in, j, m, q);
#pragma unroll
        for (uint32_t p = 0; p < 4; p++)
            a[j][p] = KIND == PACK_Q4_K || KIND == PACK_Q5_K || KIND == PACK_Q5_1
                          ? h2_fma(q[p], mul[p & 1], add[p & 1])
                          : h2_mul(q[p], mul[p & 1]);
    }
}

// The same for K formats without the unit's d, in nine instructions for eight weights instead of thirteen: a few
// bits at the end of an f16 are a subnormal number, and matrix unit and arithmetic take those at full speed.
// Operands are the weights over unit_factor; factors and minima are at f16's precision as above, integers exact.
template <int KIND>
DEV void granule_plain(const granule<KIND> &in, const scales &sc, uint32_t n, const masks &m,
                       uint32_t a[4][4])
{
    if (KIND == PACK_Q5_1) { // no d
        granule_operands<KIND>(in, sc, n, m, a);
        return;
    }
    uint32_t mul[2], add[2];
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) {
        if (KIND == PACK_Q6_K) { // scale 2^8 (2^4 for row g + 8) and -32 scale 2^-16
            const uint32_t sel = 0x4040 + n * 0x0101;
            const uint32_t v = h2_sub(byte_perm(sc.s[r][0], 0x64646464u, sel), 0x64806480u);
            mul[r] = h2_mul(v, r ? 0x4c004c00u : 0x5c005c00u);
            add[r] = h2_mul(mul[r], r ? 0x82008200u : 0x80208020u);
        } else { // scale 2^10 (2^6) and -min dmin / d 2^-14
            const uint32_t pair = byte_perm(sc.s[r][n >> 1], 0x64646464u, n & 1 ? 0x4342 : 0x4140);
            const uint32_t ratio = h2_mul(sc.d[r], 0x84008400u); // -2^-14
            const uint32_t by = byte_perm(r ? 0x54005400u : 0x64006400u, ratio, 0x7610);
            const uint32_t v = h2_mul(h2_sub(pair, MAGIC), by);
            mul[r] = byte_perm(v, v, 0x1010);
            add[r] = byte_perm(v, v, 0x3232);
        }
    }
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) {
        uint32_t q[4];
        bits_of_step<KIND>(in, j, m, 0, q);
#pragma unroll
        for (uint32_t p = 0; p < 4; p++) a[j][p] = h2_fma(q[p], mul[p & 1], add[p & 1]);
    }
}
template <int KIND> DEV float unit_factor(const scales &sc, uint32_t r)
{
    return KIND == PACK_Q5_1 ? 1.0f : h_lo(sc.d[r]) * (KIND == PACK_Q6_K ? 65536.0f : 16384.0f);
}
