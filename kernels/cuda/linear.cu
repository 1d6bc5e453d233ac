// Products of packed weights with a few columns of activations (decode steps, short prompts, logits).
// Weights stream once from memory, are expanded to f16 in registers and multiplied on the matrix unit;
// no library, no expanded copy.
//   few_*   up to 8 columns: a block's warps share a panel (with SWIGLU one of gate, one of up) and
//           divide K; activations come from the caches
//   some_*  up to 64 columns a block: a warp owns a panel, eight panels share the activations in shared
//           memory; where rows are few, blocks divide K and linear_sum adds their slices
//
// Equality: how K is divided depends on the matrix alone and sums are added in a fixed order, so a
// column's result does not depend on the columns beside it.
#include "kernels/cuda/few.h"

extern __shared__ __attribute__((aligned(128))) char shared_bytes[];

// ---- up to eight columns ------------------------------------------------------------------------

// This warp's units [u0, u1) of NP panels.
template <int KIND, int NP>
DEV void few_multiply(float sum[NP][4], const char *const w[NP], const args_linear &a,
                      uint32_t u0, uint32_t u1)
{
    // granules in flight: enough bytes for the memory's latency, few enough registers
    constexpr uint32_t DEPTH = KIND == PACK_H16   ? (NP == 1 ? 2 : 1)
                               : KIND == PACK_Q8_0 ? (NP == 1 ? 4 : 1)
                                                   : 4;
    const uint32_t lane = lane_id(), col = lane >> 2;
    const masks m = masks_make();
    granule<KIND> ring[NP][DEPTH];
    scales sc[NP], next[NP];
    const char *at[NP];
    if (u0 >= u1) return;
#pragma unroll
    for (uint32_t p = 0; p < NP; p++) {
        at[p] = unit_at<KIND>(w[p], u0);
        scales_load<KIND>(sc[p], at[p], lane);
#pragma unroll
        for (uint32_t i = 0; i < DEPTH; i++) granule_load<KIND>(ring[p][i], at[p], i, lane);
    }
    dependents_wait();
    // columns beyond the last repeat it: what they give is not stored
    const uint32_t from = col < a.n ? col : a.n - 1;
    const char *x = (const char *)a.x + ((uint64_t)from * a.n_units * 256 + u0 * 256 + (lane & 3) * 16) * 2;
#pragma unroll 1
    for (uint32_t u = u0; u < u1; u++) {
        const bool more = u + 1 < u1;
        const uint32_t step = more ? unit<KIND>::BYTES : 0;
#pragma unroll
        for (uint32_t p = 0; p < NP; p++) scales_load<KIND>(next[p], at[p] + step, lane);
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) {
            const u32x4 lo = *(const u32x4 *)(x + n * 128), hi = *(const u32x4 *)(x + n * 128 + 16);
            const uint32_t b[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
#pragma unroll
            for (uint32_t p = 0; p < NP; p++) {
                uint32_t op[4][4];
                granule_operands<KIND>(ring[p][n % DEPTH], sc[p], n, m, op);
                if (n + DEPTH < 4 || more)
                    granule_load<KIND>(ring[p][n % DEPTH], at[p] + (n + DEPTH < 4 ? 0 : unit<KIND>::BYTES),
                                       (n + DEPTH) & 3, lane);
#pragma unroll
                for (uint32_t j = 0; j < 4; j++) mma_16x8x16(sum[p], op[j], b[2 * j], b[2 * j + 1]);
            }
        }
        x += 512;
#pragma unroll
        for (uint32_t p = 0; p < NP; p++) {
            at[p] += step;
            sc[p] = next[p];
        }
    }
}

template <int KIND, int NP>
DEV void stage_fetch(char *box, const char *const w[NP], uint32_t u, uint32_t slot)
{
    constexpr uint32_t BYTES = unit<KIND>::BYTES;
#pragma unroll
    for (uint32_t p = 0; p < NP; p++)
#pragma unroll
        for (uint32_t i = 0; i < (BYTES + 511) / 512; i++) {
            const uint32_t at = i * 512 + lane_id() * 16;
            if (at < BYTES)
                copy16_async(box + (slot * NP + p) * BYTES + at, w[p] + (uint64_t)u * BYTES + at);
        }
}

template <int KIND, int NP, int STAGES>
DEV void few_stages(float sum[NP][4], const char *const w[NP], const args_linear &a, uint32_t u0,
                    uint32_t u1)
{
    constexpr uint32_t BYTES = unit<KIND>::BYTES, N = STAGES;
    const uint32_t lane = lane_id(), col = lane >> 2;
    const masks m = masks_make();
    char *box = shared_bytes + warp_id() * (N * NP * BYTES);
#pragma unroll
    for (uint32_t i = 0; i < N - 1; i++) {
        if (u0 + i < u1) stage_fetch<KIND, NP>(box, w, u0 + i, i);
        copies_commit();
    }
    dependents_wait();
    // columns beyond the last repeat it: what they give is not stored
    const uint32_t from = col < a.n ? col : a.n - 1;
    const char *x = (const char *)a.x + ((uint64_t)from * a.n_units * 256 + u0 * 256 + (lane & 3) * 16) * 2;
    uint32_t slot = 0;
#pragma unroll 1
    for (uint32_t u = u0; u < u1; u++) {
        const char *unit0 = box + slot * NP * BYTES;
        scales sc[NP];
        copies_wait<N - 2>();
        sync_warp();
        const uint32_t into = slot == 0 ? N - 1 : slot - 1; // read one unit ago
        if (u + N - 1 < u1) stage_fetch<KIND, NP>(box, w, u + N - 1, into);
        copies_commit();
        float part[NP][4];
#pragma unroll
        for (uint32_t p = 0; p < NP; p++) {
            scales_load<KIND>(sc[p], unit0 + p * BYTES, lane);
            part[p][0] = part[p][1] = part[p][2] = part[p][3] = 0;
        }
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) {
            const u32x4 lo = *(const u32x4 *)(x + n * 128), hi = *(const u32x4 *)(x + n * 128 + 16);
            const uint32_t b[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
#pragma unroll
            for (uint32_t p = 0; p < NP; p++) {
                granule<KIND> in;
                uint32_t op[4][4];
                granule_load<KIND, true>(in, unit0 + p * BYTES, n, lane);
                granule_plain<KIND>(in, sc[p], n, m, op);
#pragma unroll
                for (uint32_t j = 0; j < 4; j++) mma_16x8x16(part[p], op[j], b[2 * j], b[2 * j + 1]);
            }
        }
#pragma unroll
        for (uint32_t p = 0; p < NP; p++)
#pragma unroll
            for (uint32_t i = 0; i < 4; i++)
                sum[p][i] = __builtin_fmaf(part[p][i], unit_factor<KIND>(sc[p], i >> 1), sum[p][i]);
        x += 512;
        slot = slot + 1 == N ? 0 : slot + 1;
    }
    copies_wait<0>();
    sync_block(); // the sums go where units were
}

template <int KIND, int NP>
DEV void few_staged(float sum[NP][4], const char *const w[NP], const args_linear &a, uint32_t u0,
                    uint32_t u1)
{
    if (FEW_STAGES(NP, n_threads() >> 5, unit<KIND>::BYTES) == 3)
        few_stages<KIND, NP, 3>(sum, w, a, u0, u1);
    else
        few_stages<KIND, NP, 2>(sum, w, a, u0, u1);
}

// Panel `panel` of part m, and with NP 2 of the up projection.
template <int KIND, int NP> DEV void few_panel(const args_linear &a, const linear_part &m, uint32_t panel)
{
    const uint32_t n_warps = n_threads() >> 5, warp = warp_id();
    const uint64_t unit0 = (uint64_t)panel * a.n_units;
    const char *w[NP];
#pragma unroll
    for (uint32_t p = 0; p < NP; p++) w[p] = unit_at<KIND>(p ? a.part[1].w : m.w, unit0);
    const uint32_t each = a.n_units / n_warps, rest = a.n_units % n_warps;
    const uint32_t u0 = warp * each + (warp < rest ? warp : rest);
    float sum[NP][4];
#pragma unroll
    for (uint32_t p = 0; p < NP; p++) sum[p][0] = sum[p][1] = sum[p][2] = sum[p][3] = 0;
    dependents_launch();
    const uint32_t u1 = u0 + each + (warp < rest ? 1 : 0);
    if (staged<KIND>::YES)
        few_staged<KIND, NP>(sum, w, a, u0, u1);
    else
        few_multiply<KIND, NP>(sum, w, a, u0, u1);
    dependents_wait(); // also where this warp had no units
    __shared__ float factor[8];
    const few_team team = {(f32x4 *)shared_bytes, factor, tid(), warp, n_warps};
    const few_old old = few_look(a, m, panel, team, NP == 2);
    few_put<NP>(sum, team);
    if (a.row_squares) column_factors(a, factor, warp, n_warps);
    sync_block();
    few_store<NP>(old, a, m, panel, team);
}

// Grid: panels of all parts; NP 2: of the gate.
template <int KIND, int NP> DEV void few(const args_linear &a)
{
    const linear_part m = part_get(a, NP == 2 ? 0 : part_of(a, block_x()));
    few_panel<KIND, NP>(a, m, NP == 2 ? block_x() : block_x() - m.block0);
}

// ---- up to 64 columns a block --------------------------------------------------------------------

enum { SOME_WARPS = 4, SOME_STAGES = 4, SOME_ROWS = SOME_WARPS * 32 };

// Activations of one granule: [NT * 8 columns][64] f16 in 128-byte rows, chunk c of row r at c ^ (r % 8).
template <int NT>
DEV void some_fetch(const args_linear &a, char *to, uint32_t col0, uint32_t granule)
{
#pragma unroll
    for (uint32_t i = tid(); i < NT * 64; i += SOME_WARPS * 32) {
        const uint32_t r = i >> 3, c = i & 7, col = col0 + r < a.n ? col0 + r : a.n - 1;
        copy16_async(to + r * 128 + ((c ^ (r & 7)) * 16),
                     (const char *)a.x + ((uint64_t)col * a.n_units * 256 + granule * 64 + c * 8) * 2);
    }
}

// Units [u0, u1) of two panels a warp.
template <int KIND, int NT>
DEV void some_multiply(float sum[2][NT][4], const char *const w[2], const args_linear &a,
                       uint32_t col0, uint32_t u0, uint32_t u1)
{
    constexpr uint32_t DEPTH = KIND == PACK_H16 || KIND == PACK_Q8_0 ? 1 : 2;
    constexpr uint32_t STAGE = NT * 1024;
    const uint32_t lane = lane_id(), g = lane >> 2, t = lane & 3, last = u1 * 4;
    const masks m = masks_make();
    granule<KIND> ring[2][DEPTH];
    scales sc[2], next[2];
    const char *at[2];
#pragma unroll
    for (uint32_t p = 0; p < 2; p++) {
        at[p] = unit_at<KIND>(w[p], u0);
        scales_load<KIND>(sc[p], at[p], lane);
#pragma unroll
        for (uint32_t i = 0; i < DEPTH; i++) granule_load<KIND>(ring[p][i], at[p], i, lane);
    }
    dependents_wait();
#pragma unroll
    for (uint32_t i = 0; i < SOME_STAGES - 1; i++) {
        if (u0 * 4 + i < last) some_fetch<NT>(a, shared_bytes + i * STAGE, col0, u0 * 4 + i);
        copies_commit();
    }
#pragma unroll 1
    for (uint32_t u = u0; u < u1; u++) {
        const bool more = u + 1 < u1;
        const uint32_t step = more ? unit<KIND>::BYTES : 0;
#pragma unroll
        for (uint32_t p = 0; p < 2; p++) scales_load<KIND>(next[p], at[p] + step, lane);
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) {
            const uint32_t ahead = u * 4 + n + SOME_STAGES - 1;
            const char *tile = shared_bytes + n * STAGE; // stages and granules of a unit are both four
            uint32_t op[2][4][4];
#pragma unroll
            for (uint32_t p = 0; p < 2; p++) {
                granule_operands<KIND>(ring[p][n % DEPTH], sc[p], n, m, op[p]);
                if (n + DEPTH < 4 || more)
                    granule_load<KIND>(ring[p][n % DEPTH], at[p] + (n + DEPTH < 4 ? 0 : unit<KIND>::BYTES),
                                       (n + DEPTH) & 3, lane);
            }
            copies_wait<SOME_STAGES - 2>();
            sync_block();
            if (ahead < last)
                some_fetch<NT>(a, shared_bytes + (n + SOME_STAGES - 1) % SOME_STAGES * STAGE, col0, ahead);
            copies_commit();
#pragma unroll
            for (uint32_t i = 0; i < NT; i++) {
                const char *row = tile + (i * 8 + g) * 128;
                const u32x4 lo = *(const u32x4 *)(row + ((2 * t) ^ g) * 16);
                const u32x4 hi = *(const u32x4 *)(row + ((2 * t + 1) ^ g) * 16);
#pragma unroll
                for (uint32_t p = 0; p < 2; p++) {
                    mma_16x8x16(sum[p][i], op[p][0], lo.x, lo.y);
                    mma_16x8x16(sum[p][i], op[p][1], lo.z, lo.w);
                    mma_16x8x16(sum[p][i], op[p][2], hi.x, hi.y);
                    mma_16x8x16(sum[p][i], op[p][3], hi.z, hi.w);
                }
            }
        }
#pragma unroll
        for (uint32_t p = 0; p < 2; p++) {
            at[p] += step;
            sc[p] = next[p];
        }
    }
    copies_wait<0>();
}

// Tile i of eight columns into shared memory, [8][128 rows]: row 32 warp + 16 panel + r.
template <int NT> DEV void some_spread(const float sum[2][NT][4], uint32_t i, float *box)
{
    const uint32_t g = lane_id() >> 2, t = lane_id() & 3;
#pragma unroll
    for (uint32_t p = 0; p < 2; p++) {
        float *to = box + warp_id() * 32 + p * 16 + g;
        to[(2 * t) * SOME_ROWS] = sum[p][i][0];
        to[(2 * t + 1) * SOME_ROWS] = sum[p][i][1];
        to[(2 * t) * SOME_ROWS + 8] = sum[p][i][2];
        to[(2 * t + 1) * SOME_ROWS + 8] = sum[p][i][3];
    }
}

template <int NT>
DEV void some_finish(const float sum[2][NT][4], const args_linear &a, const linear_part &m, uint32_t block,
                     uint32_t col0, uint32_t slice, uint32_t n_blocks)
{
    float *box = (float *)shared_bytes;
#pragma unroll
    for (uint32_t i = 0; i < NT; i++) {
        sync_block();
        some_spread<NT>(sum, i, box);
        sync_block();
        const uint32_t r = tid();
        for (uint32_t c = 0; c < 8; c++) {
            const uint32_t col = col0 + i * 8 + c;
            const float v = box[c * SOME_ROWS + r];
            if (col >= a.n) continue;
            if (a.n_slices > 1) {
                a.slices[((uint64_t)slice * a.n + col) * (n_blocks * SOME_ROWS) + block * SOME_ROWS + r] = v;
            } else if (a.mode == LINEAR_SWIGLU) {
                const uint32_t row = block * (SOME_ROWS / 2) + r / 32 * 16 + r % 16;
                if (r % 32 < 16 && row < m.n_rows)
                    store_gated(m, a.part[1], row, col, v * a.alpha, box[c * SOME_ROWS + r + 16] * a.alpha);
            } else {
                const uint32_t row = (block - m.block0) * SOME_ROWS + r;
                if (row < m.n_rows) store_one(m, a.mode, row, col, v * a.alpha);
            }
        }
    }
}

// Grid: (blocks of 128 rows of all parts, or of 64 rows of gate and of up; column blocks * slices).
template <int KIND, int NT> DEV void some(const args_linear &a, uint32_t n_blocks)
{
    const uint32_t block = block_x(), slice = block_y() % a.n_slices, warp = warp_id();
    const uint32_t col0 = block_y() / a.n_slices * NT * 8;
    const bool gated = a.mode == LINEAR_SWIGLU;
    const linear_part m = part_get(a, gated ? 0 : part_of(a, block));
    const uint32_t n_panels = (m.n_rows + 15) / 16;
    const char *w[2];
#pragma unroll
    for (uint32_t p = 0; p < 2; p++) {
        const uint32_t want = gated ? block * 4 + warp : (block - m.block0) * 8 + warp * 2 + p;
        const uint32_t panel = want < n_panels ? want : n_panels - 1; // beyond the end: not stored
        const void *base = gated && p ? a.part[1].w : m.w;
        w[p] = unit_at<KIND>(base, (uint64_t)panel * a.n_units);
    }
    const uint32_t u0 = a.n_units * slice / a.n_slices, u1 = a.n_units * (slice + 1) / a.n_slices;
    float sum[2][NT][4];
#pragma unroll
    for (uint32_t p = 0; p < 2; p++)
#pragma unroll
        for (uint32_t i = 0; i < NT; i++) sum[p][i][0] = sum[p][i][1] = sum[p][i][2] = sum[p][i][3] = 0;
    dependents_launch();
    some_multiply<KIND, NT>(sum, w, a, col0, u0, u1);
    some_finish<NT>(sum, a, m, block, col0, slice, n_blocks);
}

// The slices of `some`, added in order. Grid: (blocks of 128 rows, columns); 128 threads.
KERNEL void linear_sum(const args_linear a)
{
    dependents_launch();
    dependents_wait();
    const uint32_t block = block_x(), col = block_y(), rows = grid_blocks() * 128;
    const linear_part m = part_get(a, part_of(a, block));
    const uint32_t row = (block - m.block0) * 128 + tid();
    if (row >= m.n_rows) return;
    float v = 0;
    for (uint32_t s = 0; s < a.n_slices; s++)
        v += a.slices[((uint64_t)s * a.n + col) * rows + block * 128 + tid()];
    store_one(m, a.mode, row, col, v * a.alpha);
}

// The second bound asks for registers that let as many blocks live on a multiprocessor.
#define FEW_KERNEL(kind, np, threads, blocks)                                                \
    KERNEL void BOUNDS(threads, blocks) few_##kind##_##np(const args_linear a)               \
    {                                                                                        \
        few<PACK_##kind, np>(a);                                                             \
    }
#define SOME_KERNEL(kind, nt)                                                                \
    KERNEL void BOUNDS(SOME_WARPS * 32, 3) some_##kind##_##nt(const args_linear a)           \
    {                                                                                        \
        some<PACK_##kind, nt>(a, grid_blocks());                                             \
    }
#define LINEAR_KERNELS(kind, blocks)                                                         \
    FEW_KERNEL(kind, 1, 256, 3)                                                              \
    FEW_KERNEL(kind, 2, 128, blocks)                                                         \
    SOME_KERNEL(kind, 2)                                                                     \
    SOME_KERNEL(kind, 4)                                                                     \
    SOME_KERNEL(kind, 8)

LINEAR_KERNELS(H16, 6)
LINEAR_KERNELS(Q8_0, 6)
LINEAR_KERNELS(Q4_0, 5)
LINEAR_KERNELS(Q5_1, 5)
LINEAR_KERNELS(Q4_K, 5)
LINEAR_KERNELS(Q5_K, 5)
LINEAR_KERNELS(Q6_K, 5)

// Parts of different staged kinds in one launch: queries and keys beside values of more bits.
KERNEL void BOUNDS(256, 3) few_mixed(const args_linear a)
{
    const uint32_t i = part_of(a, block_x());
    const linear_part m = part_get(a, i);
    const uint32_t panel = block_x() - m.block0;
    if (a.pack[i] == PACK_Q4_K)
        few_panel<PACK_Q4_K, 1>(a, m, panel);
    else if (a.pack[i] == PACK_Q5_K)
        few_panel<PACK_Q5_K, 1>(a, m, panel);
    else if (a.pack[i] == PACK_Q5_1)
        few_panel<PACK_Q5_1, 1>(a, m, panel);
    else
        few_panel<PACK_Q6_K, 1>(a, m, panel);
}
