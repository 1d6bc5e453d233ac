// What packed_tile.h needs of the processor: tiles of 8-bit integers (AMX) and 16 floats at once
// (AVX-512). Where the compiler is not told of them, the same in C, as Intel's manual defines the
// instructions: exact integer sums, one rounding a fused operation.
#pragma once

#include <assert.h>
#include <string.h>

#include "compute/cpu/tiles.h"

#if defined(__AMX_INT8__) || defined(__AMXINT8__) // gcc; clang 14

#include <immintrin.h>

#define TILE_INLINE    static inline __attribute__((always_inline))
#define TILE_UNROLL(n) _Pragma(n)

typedef __m512 lanes_16;

static inline lanes_16 v_set(float x)
{
    return _mm512_set1_ps(x);
}
static inline lanes_16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void v_store(float *p, lanes_16 v)
{
    _mm512_storeu_ps(p, v);
}
static inline lanes_16 v_integers(const int32_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_loadu_si512(p));
}
static inline lanes_16 v_halves(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline lanes_16 v_mul(lanes_16 a, lanes_16 b)
{
    return _mm512_mul_ps(a, b);
}
static inline lanes_16 v_add(lanes_16 a, lanes_16 b)
{
    return _mm512_add_ps(a, b);
}
static inline lanes_16 v_fma(lanes_16 a, lanes_16 b, lanes_16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline lanes_16 v_fnma(lanes_16 a, lanes_16 b, lanes_16 c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(struct tile_config) == 64, "as the instruction reads it");

// For products of rows of n_quads * 4 columns. Registers: 0 to 3 sums; 4 and 5 rows of activations; 6 and 7
// weights. There are no others behind these names: what is to overlap must not share one.
static inline void tiles_begin(uint32_t n_quads)
{
    const uint16_t bytes = (uint16_t)(n_quads * 4);
    const uint8_t rows = (uint8_t)n_quads;
    const struct tile_config config = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, bytes, bytes, 64, 64},
        .rows = {16, 16, 16, 16, 16, 16, rows, rows},
    };
    // gcc 12 takes _tile_loadconfig to read a pointer's width of it, and leaves out what is set beyond
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

static inline void tiles_end(void)
{
    _tile_release();
}

#define TILE_PRODUCT(sum, a, b)            \
    do {                                   \
        _tile_loadd(a, q, PACK_COLS);      \
        _tile_loadd(b, w, PANEL_ROWS * 4); \
        _tile_zero(sum);                   \
        _tile_dpbssd(sum, a, b);           \
    } while (0)

// Register `sum` = 16 rows at q times 16 weight rows at w.
static inline __attribute__((always_inline)) void tile_product(const uint32_t sum, const void *q,
                                                               const void *w)
{
    switch (sum) {
    case 0: TILE_PRODUCT(0, 4, 6); break;
    case 1: TILE_PRODUCT(1, 5, 7); break;
    case 2: TILE_PRODUCT(2, 4, 6); break;
    default: TILE_PRODUCT(3, 5, 7); break;
    }
}

static inline __attribute__((always_inline)) void tile_store(const uint32_t sum, void *to)
{
    switch (sum) {
    case 0: _tile_stored(0, to, 64); break;
    case 1: _tile_stored(1, to, 64); break;
    case 2: _tile_stored(2, to, 64); break;
    default: _tile_stored(3, to, 64); break;
    }
}

#else

#include <math.h>

#include "base/half.h"

#define TILE_INLINE    static inline
#define TILE_UNROLL(n) // what is unrolled for registers takes minutes to compile without them

typedef struct {
    float f[16];
} lanes_16;

#define EACH_LANE(i) for (int i = 0; i < 16; i++)

static inline lanes_16 v_set(float x)
{
    lanes_16 v;
    EACH_LANE(i) v.f[i] = x;
    return v;
}
static inline lanes_16 v_load(const float *p)
{
    lanes_16 v;
    memcpy(v.f, p, sizeof v.f);
    return v;
}
static inline void v_store(float *p, lanes_16 v)
{
    memcpy(p, v.f, sizeof v.f);
}
static inline lanes_16 v_integers(const int32_t *p)
{
    lanes_16 v;
    EACH_LANE(i) v.f[i] = (float)p[i];
    return v;
}
static inline lanes_16 v_halves(const uint16_t *p)
{
    lanes_16 v;
    EACH_LANE(i) v.f[i] = f16_to_f32(p[i]);
    return v;
}
static inline lanes_16 v_mul(lanes_16 a, lanes_16 b)
{
    EACH_LANE(i) a.f[i] *= b.f[i];
    return a;
}
static inline lanes_16 v_add(lanes_16 a, lanes_16 b)
{
    EACH_LANE(i) a.f[i] += b.f[i];
    return a;
}
static inline lanes_16 v_fma(lanes_16 a, lanes_16 b, lanes_16 c)
{
    EACH_LANE(i) a.f[i] = fmaf(a.f[i], b.f[i], c.f[i]);
    return a;
}
static inline lanes_16 v_fnma(lanes_16 a, lanes_16 b, lanes_16 c)
{
    EACH_LANE(i) a.f[i] = fmaf(-a.f[i], b.f[i], c.f[i]);
    return a;
}

static _Thread_local struct {
    uint32_t n_quads;
    int32_t sums[4][16][16];
} tile_registers;

static inline void tiles_begin(uint32_t n_quads)
{
    tile_registers.n_quads = n_quads;
}
static inline void tiles_end(void) {}

static inline void tile_product(uint32_t sum, const void *q, const void *w)
{
    const int8_t *a = q, *b = w;
    for (int r = 0; r < TILE_ROWS; r++)
        for (int c = 0; c < PANEL_ROWS; c++) {
            int32_t *s = &tile_registers.sums[sum][r][c];
            *s = 0;
            for (uint32_t i = 0; i < tile_registers.n_quads * 4; i++)
                *s += a[r * PACK_COLS + (int)i] * b[i / 4 * 64 + (uint32_t)c * 4 + i % 4];
        }
}
static inline void tile_store(uint32_t sum, void *to)
{
    memcpy(to, tile_registers.sums[sum], sizeof tile_registers.sums[sum]);
}

#endif
