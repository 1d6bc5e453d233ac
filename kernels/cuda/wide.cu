// Products of packed weights with 9 to 128 columns on sm_90a: short prompts behind a cached prefix, many
// decode steps at once. Weights stream once and are expanded in registers, which are the left operand of
// wgmma; tiles of activations come by bulk copies in the order that the expansion has. A block owns 128
// rows (two groups of four warps, a panel a warp); where rows are few, blocks divide K and linear_sum adds.
//
// Equality: as in linear.cu; a column's sum runs over K in order, whatever columns stand beside it.
#include "kernels/cuda/hopper.h"
#include "kernels/cuda/linear.h"

extern __shared__ __attribute__((aligned(1024))) char shared_bytes[];

// Position p of step j of a granule holds column 16 t + 4 j + e for p = 2 t + e, and two further for
// p = 8 + 2 t + e (unit.h). Grid: (granules, columns of the tile / 32); 256 threads, 16 bytes each.
KERNEL void wide_tiles(const args_tiles a)
{
    const uint32_t granule = block_x(), col = block_y() * 32 + (tid() >> 3), c = tid() & 7;
    const uint32_t *x =
        (const uint32_t *)((const char *)a.x + ((uint64_t)col * a.n_granules + granule) * 128);
    dependents_launch();
    dependents_wait();
    u32x4 v = {0, 0, 0, 0};
    if (col < a.n) { // words 8 t + 2 j + h for t = 0..3
        v.x = x[c];
        v.y = x[8 + c];
        v.z = x[16 + c];
        v.w = x[24 + c];
    }
    // word 2 j + h of the loop above is chunk c = 2 j + h of the tile's row
    *(u32x4 *)((char *)a.out + ((uint64_t)granule * a.n_tile + col) * 128 + ((c ^ (col & 7)) * 16)) = v;
}

#if PORT_SM90

enum { STAGES = 4 };

template <int N> struct wide_sum {
    float c[N / 2];
};

DEV uint32_t full_at(uint32_t base, uint32_t s) { return base + s * 8; }
DEV uint32_t free_at(uint32_t base, uint32_t s) { return base + (STAGES + s) * 8; }

template <int N>
DEV void wide_fetch(const args_linear &a, uint32_t tiles, uint32_t bars, uint32_t granule, uint32_t stage)
{
    barrier_expect(full_at(bars, stage), N * 128);
    bulk_copy(tiles + stage * N * 128, (const char *)a.x + (uint64_t)granule * N * 128, N * 128,
              full_at(bars, stage));
}

// Units [u0, u1) of this warp's panel.
template <int KIND, int N>
DEV void wide_multiply(wide_sum<N> &sum, const char *w, const args_linear &a, uint32_t u0,
                       uint32_t u1, uint32_t tiles, uint32_t bars)
{
    constexpr uint32_t DEPTH = KIND == PACK_H16 ? 1 : 2;
    const uint32_t lane = lane_id(), first = u0 * 4, last = u1 * 4;
    const masks m = masks_make();
    granule<KIND> ring[DEPTH];
    scales sc, next;
    const char *at = w;
    scales_load<KIND>(sc, at, lane);
#pragma unroll
    for (uint32_t i = 0; i < DEPTH; i++) granule_load<KIND>(ring[i], at, i, lane);
    dependents_wait();
    if (tid() == 0)
        for (uint32_t i = 0; i < STAGES && first + i < last; i++)
            wide_fetch<N>(a, tiles, bars, first + i, i);
    uint32_t op[2][4][4];
#pragma unroll 1
    for (uint32_t u = u0; u < u1; u++) {
        const bool more = u + 1 < u1;
        const uint32_t phase = (u - u0) & 1;
        scales_load<KIND>(next, at + (more ? unit<KIND>::BYTES : 0), lane);
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) { // stages and granules of a unit are both four
            granule_operands<KIND>(ring[n % DEPTH], sc, n, m, op[n & 1]);
            if (n + DEPTH < 4 || more)
                granule_load<KIND>(ring[n % DEPTH], at + (n + DEPTH < 4 ? 0 : unit<KIND>::BYTES),
                                   (n + DEPTH) & 3, lane);
            barrier_wait(full_at(bars, n), phase);
            const uint64_t b = operand(tiles + n * N * 128, 16, 1024);
            wg_begin();
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) wg_rk(sum.c, op[n & 1][j], b + j * 2);
            wg_commit();
            wg_wait<1>(); // the granule before is done: its registers and its stage are free
            const uint32_t before = (n + 3) & 3, at_granule = u * 4 + n;
            if (at_granule == first) continue;
            if (lane == 0) barrier_arrive(free_at(bars, before));
            if (tid() == 0 && at_granule + 3 < last) {
                barrier_wait(free_at(bars, before), n == 0 ? phase ^ 1 : phase);
                wide_fetch<N>(a, tiles, bars, at_granule + 3, before);
            }
        }
        at += more ? unit<KIND>::BYTES : 0;
        sc = next;
    }
    wg_wait<0>();
}

// Eight columns at a time through shared memory, [8][128 rows].
template <int N>
DEV void wide_finish(const wide_sum<N> &sum, const args_linear &a, const linear_part &m, uint32_t block,
                     uint32_t slice, uint32_t n_blocks)
{
    float *box = (float *)shared_bytes;
    const uint32_t g = lane_id() >> 2, t = lane_id() & 3, r = tid() & 127;
#pragma unroll
    for (uint32_t i = 0; i < N / 8; i++) {
        float *to = box + warp_id() * 16 + g;
        sync_block();
        to[(2 * t) * 128] = sum.c[i * 4];
        to[(2 * t + 1) * 128] = sum.c[i * 4 + 1];
        to[(2 * t) * 128 + 8] = sum.c[i * 4 + 2];
        to[(2 * t + 1) * 128 + 8] = sum.c[i * 4 + 3];
        sync_block();
        for (uint32_t c = tid() >> 7; c < 8; c += 2) {
            const uint32_t col = i * 8 + c;
            const float v = box[c * 128 + r];
            if (col >= a.n) continue;
            if (a.n_slices > 1) {
                a.slices[((uint64_t)slice * a.n + col) * (n_blocks * 128) + block * 128 + r] = v;
            } else if (a.mode == LINEAR_SWIGLU) {
                const uint32_t row = block * 64 + r;
                if (r < 64 && row < m.n_rows)
                    store_gated(m, a.part[1], row, col, v * a.alpha, box[c * 128 + r + 64] * a.alpha);
            } else {
                const uint32_t row = (block - m.block0) * 128 + r;
                if (row < m.n_rows) store_one(m, a.mode, row, col, v * a.alpha);
            }
        }
    }
}

template <int KIND, int N> DEV void wide(const args_linear &a)
{
    const uint32_t block = block_x(), slice = block_y(), warp = warp_id();
    const bool gated = a.mode == LINEAR_SWIGLU;
    const linear_part m = part_get(a, gated ? 0 : part_of(a, block));
    const uint32_t n_panels = (m.n_rows + 15) / 16;
    const uint32_t want = gated ? block * 4 + (warp & 3) : (block - m.block0) * 8 + warp;
    const uint32_t panel = want < n_panels ? want : n_panels - 1; // beyond the end: not stored
    const void *base = gated && warp >= 4 ? a.part[1].w : m.w;
    const uint32_t u0 = a.n_units * slice / a.n_slices, u1 = a.n_units * (slice + 1) / a.n_slices;
    const uint64_t unit0 = (uint64_t)panel * a.n_units + u0;
    const uint32_t tiles = shared_addr(shared_bytes), bars = tiles + STAGES * N * 128;
    dependents_launch();
    if (tid() == 0) {
        for (uint32_t i = 0; i < STAGES; i++) {
            barrier_init(full_at(bars, i), 1);
            barrier_init(free_at(bars, i), 8);
        }
        barrier_fence_init();
    }
    sync_block();
    wide_sum<N> sum;
#pragma unroll
    for (uint32_t i = 0; i < N / 2; i++) sum.c[i] = 0;
    wide_multiply<KIND, N>(sum, unit_at<KIND>(base, unit0), a, u0, u1, tiles, bars);
    wide_finish<N>(sum, a, m, block, slice, grid_blocks());
}
#endif

#if PORT_SM90
#define WIDE_BODY(kind, n) wide<PACK_##kind, n>(a)
#else
#define WIDE_BODY(kind, n) (void)a
#endif
#define WIDE_KERNEL(kind, n, blocks)                                                         \
    KERNEL void BOUNDS(256, blocks) wide_##kind##_##n(const args_linear a)                   \
    {                                                                                        \
        WIDE_BODY(kind, n);                                                                  \
    }
#define WIDE_KERNELS(kind)                                                                   \
    WIDE_KERNEL(kind, 32, 2)                                                                 \
    WIDE_KERNEL(kind, 64, 2)                                                                 \
    WIDE_KERNEL(kind, 128, 1)

WIDE_KERNELS(H16)
WIDE_KERNELS(Q8_0)
WIDE_KERNELS(Q4_0)
WIDE_KERNELS(Q5_1)
WIDE_KERNELS(Q4_K)
WIDE_KERNELS(Q5_K)
WIDE_KERNELS(Q6_K)
