// Attention of long prompts on sm_90a, head_dim 128: a block takes 128 queries of one head over all their
// keys, 128 keys at a time. One thread fetches pages with bulk copies, two stages deep; two groups of four
// warps each own 64 queries, multiply from shared memory (wgmma) and keep softmax and sums in registers.
// The pages hold keys and values in the swizzled order that wgmma reads, so a page is copied as it lies.
//
// Equality: a query sees its keys in steps of 128 from position 0; what is masked adds nothing, so a row's
// result does not depend on how the prompt was cut.
#include "kernels/cuda/hopper.h"
#include "kernels/common/args.h"

extern __shared__ __attribute__((aligned(1024))) char shared_bytes[];

#if PORT_SM90

enum {
    KEYS = 128,
    TILE = KEYS * 256,       // bytes of 128 x 128 f16
    HALF = TILE / 2,         // 64 columns
    PAGE_HALF = HALF / 2,    // 64 tokens x 64 columns
    STAGES = 2,
    BAR_AT = TILE + STAGES * 2 * TILE
};

// Barriers by stage: keys full, keys free, values full, values free.
DEV uint32_t bar(uint32_t base, uint32_t kind, uint32_t stage)
{
    return base + BAR_AT + (kind * STAGES + stage) * 8;
}

DEV void fetch_tile(const args_flash &a, const char *const page[2], uint32_t head, uint32_t to,
                    uint32_t barrier)
{
    barrier_expect(barrier, TILE);
    for (uint32_t h = 0; h < 2; h++)
        for (uint32_t p = 0; p < 2; p++)
            bulk_copy(to + h * HALF + p * PAGE_HALF,
                      page[p] + (uint64_t)head * a.kv.head_bytes + h * PAGE_HALF, PAGE_HALF, barrier);
}

DEV void fetch(const args_flash &a, const attn_tile &tile, uint32_t kv_head, uint32_t n_steps,
               uint32_t base)
{
    const uint32_t last = (tile.pos0 + tile.n_rows - 1) / KV_PAGE_TOKENS;
    for (uint32_t i = 0; i < n_steps; i++) {
        const uint32_t stage = i % STAGES, turn = (i / STAGES & 1) ^ 1;
        const char *page[2];
        for (uint32_t p = 0; p < 2; p++) {
            const uint32_t n = 2 * i + p < last ? 2 * i + p : last; // beyond the end: any valid page
            page[p] = a.kv.base + a.kv.pages[tile.table + n] * a.kv.page_bytes;
        }
        const uint32_t to = base + TILE + stage * 2 * TILE;
        barrier_wait(bar(base, 1, stage), turn);
        fetch_tile(a, page, kv_head, to, bar(base, 0, stage));
        barrier_wait(bar(base, 3, stage), turn);
        fetch_tile(a, page, a.kv.n_kv_heads + kv_head, to + TILE, bar(base, 2, stage));
    }
}

// This group's 64 queries into shared memory, swizzled like the keys.
DEV void queries_load(const args_flash &a, const attn_tile &tile, uint32_t head, uint32_t group,
                      char *shared)
{
    const uint32_t i = tid() & 127, row = group * 64 + i / 2, half = i & 1;
    const uint32_t from = row < tile.n_rows ? row : tile.n_rows - 1;
    const u32x4 *q = (const u32x4 *)((const uint16_t *)a.q + (uint64_t)(tile.row0 + from) * a.stride +
                                     head * 128 + half * 64);
#pragma unroll
    for (uint32_t c = 0; c < 8; c++)
        *(u32x4 *)(shared + half * HALF + row * 128 + ((c ^ (row & 7)) * 16)) = q[c];
    fence_async();
    sync_group(1 + group);
}

struct rows_state {
    float most[2], sum[2];
};

// Scores to weights: s becomes exp2(scale * s - max), o shrinks to the new maximum.
DEV void softmax(float s[64], float o[64], rows_state &st, float scale, int32_t key0, int32_t pos,
                 bool mask)
{
    const uint32_t t = lane_id() & 3;
    if (mask) {
#pragma unroll
        for (int i = 0; i < 64; i++) {
            const int32_t key = key0 + (i >> 2) * 8 + (int32_t)(2 * t) + (i & 1);
            if (key > pos + (i & 2 ? 8 : 0)) s[i] = -INF_F;
        }
    }
    float most[2] = {st.most[0], st.most[1]};
#pragma unroll
    for (int i = 0; i < 64; i++) most[i >> 1 & 1] = max_f(most[i >> 1 & 1], s[i]);
    float shrink[2], base[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        most[r] = max_f(most[r], lane_xor_f(most[r], 1));
        most[r] = max_f(most[r], lane_xor_f(most[r], 2));
        shrink[r] = exp2_fast((st.most[r] - most[r]) * scale);
        st.most[r] = most[r];
        base[r] = -most[r] * scale;
        st.sum[r] *= shrink[r];
    }
#pragma unroll
    for (int i = 0; i < 64; i++) {
        s[i] = exp2_fast(__builtin_fmaf(s[i], scale, base[i >> 1 & 1]));
        st.sum[i >> 1 & 1] += s[i];
        o[i] *= shrink[i >> 1 & 1];
    }
}

DEV void attend_tile(const args_flash &a, const attn_tile &tile, uint32_t head, uint32_t group,
                     uint32_t n_steps, uint32_t base)
{
    float s[64], o[64];
    rows_state st = {{-INF_F, -INF_F}, {0, 0}};
    const uint32_t row = group * 64 + (warp_id() & 3) * 16 + (lane_id() >> 2);
    const int32_t pos = (int32_t)(tile.pos0 + row), first = (int32_t)(tile.pos0 + group * 64);
    const uint64_t q = operand(base + group * 8192, 16, 1024);
#pragma unroll
    for (int i = 0; i < 64; i++) o[i] = 0;
    for (uint32_t i = 0; i < n_steps; i++) {
        const uint32_t stage = i % STAGES, turn = i / STAGES & 1, at = base + TILE + stage * 2 * TILE;
        const uint64_t k = operand(at, 16, 1024), v = operand(at + TILE, HALF, 1024);
        barrier_wait(bar(base, 0, stage), turn);
        wg_begin();
#pragma unroll
        for (int d = 0; d < 8; d++)
            wg_128_kk(s, q + (d / 4 * HALF + d % 4 * 32) / 16, k + (d / 4 * HALF + d % 4 * 32) / 16, d > 0);
        wg_commit();
        wg_wait<0>();
        if ((tid() & 127) == 0) barrier_arrive(bar(base, 1, stage));
        const int32_t key0 = (int32_t)(i * KEYS);
        softmax(s, o, st, a.scale_log2, key0, pos, key0 + KEYS - 1 > first);
        uint32_t p[8][4];
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) p[n][e] = h2_pack(s[n * 8 + e * 2], s[n * 8 + e * 2 + 1]);
        barrier_wait(bar(base, 2, stage), turn);
        wg_begin();
#pragma unroll
        for (int n = 0; n < 8; n++) wg_128_rn(o, p[n], v + n * 2048 / 16);
        wg_commit();
        wg_wait<0>();
        if ((tid() & 127) == 0) barrier_arrive(bar(base, 3, stage));
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum = st.sum[r];
        sum += lane_xor_f(sum, 1);
        sum += lane_xor_f(sum, 2);
        if (row + 8 * r >= tile.n_rows) continue;
        const float inverse = 1.0f / sum;
        uint32_t *out = (uint32_t *)((uint16_t *)a.out + (uint64_t)(tile.row0 + row + 8 * r) * a.stride +
                                     head * 128);
#pragma unroll
        for (int j = 0; j < 16; j++)
            out[j * 4 + (lane_id() & 3)] =
                h2_pack(o[j * 4 + 2 * r] * inverse, o[j * 4 + 2 * r + 1] * inverse);
    }
}
#endif

// Grid: tiles of each head, the heads of a key/value head together; 384 threads.
KERNEL void BOUNDS(384, 1) flash_128(const args_flash a)
{
#if PORT_SM90
    const uint32_t group = a.n_heads / a.kv.n_kv_heads, per_kv = a.n_tiles * group;
    const uint32_t kv_head = block_x() / per_kv, rest = block_x() % per_kv;
    const uint32_t head = kv_head * group + rest % group, role = tid() >> 7;
    const uint32_t base = shared_addr(shared_bytes);
    dependents_launch();
    if (tid() == 0) {
        for (uint32_t i = 0; i < STAGES; i++) {
            barrier_init(bar(base, 0, i), 1);
            barrier_init(bar(base, 1, i), 2);
            barrier_init(bar(base, 2, i), 1);
            barrier_init(bar(base, 3, i), 2);
        }
        barrier_fence_init();
    }
    sync_block();
    dependents_wait();
    const attn_tile tile = a.tiles[rest / group];
    const uint32_t n_steps = (tile.pos0 + tile.n_rows - 1) / KEYS + 1;
    if (role == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (tid() == 0) fetch(a, tile, kv_head, n_steps, base);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        queries_load(a, tile, head, role - 1, shared_bytes);
        attend_tile(a, tile, head, role - 1, n_steps, base);
    }
#endif
}
