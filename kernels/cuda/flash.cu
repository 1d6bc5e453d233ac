// Attention of long prompts on sm_90a, head_dim 128: a block takes 128 queries of one head over all their
// keys, 128 keys at a time. One thread fetches pages with bulk copies, two stages deep; two groups of four
// warps each own 64 queries, multiply from shared memory (wgmma) and keep softmax and sums in registers.
// The pages hold keys and values in the swizzled order that wgmma reads, so a page is copied as it lies.
//
// flash_pack_128 does the same for a few rows behind a long context: the heads that share a key/value head
// fill the block's 128 queries, blocks divide the keys, and attend_merge adds their parts.
//
// group_128 does the work of attend_128 (attend.cu: items, parts, merges) for up to 64 rows that share their pages:
// one group of four warps, 64 keys at a time, a warp of its own for the copies, two blocks a multiprocessor.
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

DEV void fetch_tile(const kv_place &kv, const char *const page[2], uint32_t head, uint32_t to,
                    uint32_t barrier)
{
    barrier_expect(barrier, TILE);
    for (uint32_t h = 0; h < 2; h++)
        for (uint32_t p = 0; p < 2; p++)
            bulk_copy(to + h * HALF + p * PAGE_HALF,
                      page[p] + (uint64_t)head * kv.head_bytes + h * PAGE_HALF, PAGE_HALF, barrier);
}

// Keys of steps [step0, step0 + n_steps) of 128; last: the sequence's last page that holds keys.
template <class ARGS>
DEV void fetch(const ARGS &a, uint32_t table, uint32_t last, uint32_t kv_head, uint32_t step0,
               uint32_t n_steps, uint32_t base)
{
    for (uint32_t i = 0; i < n_steps; i++) {
        const uint32_t stage = i % STAGES, turn = (i / STAGES & 1) ^ 1;
        const char *page[2];
        for (uint32_t p = 0; p < 2; p++) {
            const uint32_t want = 2 * (step0 + i) + p, n = want < last ? want : last; // any valid page
            page[p] = a.kv.base + a.kv.pages[table + n] * a.kv.page_bytes;
        }
        const uint32_t to = base + TILE + stage * 2 * TILE;
        barrier_wait(bar(base, 1, stage), turn);
        fetch_tile(a.kv, page, kv_head, to, bar(base, 0, stage));
        barrier_wait(bar(base, 3, stage), turn);
        fetch_tile(a.kv, page, a.kv.n_kv_heads + kv_head, to + TILE, bar(base, 2, stage));
    }
}

// One query row of this group's 64 into shared memory, swizzled like the keys; two threads a row, half_bytes
// between the halves of rows.
DEV void query_load(const void *from, uint32_t row, uint32_t group, char *shared, uint32_t half_bytes)
{
    const uint32_t half = tid() & 1;
    const u32x4 *q = (const u32x4 *)from + half * 8;
#pragma unroll
    for (uint32_t c = 0; c < 8; c++)
        *(u32x4 *)(shared + half * half_bytes + row * 128 + ((c ^ (row & 7)) * 16)) = q[c];
    fence_async();
    sync_group(1 + group);
}

struct rows_state {
    float most[2], sum[2];
};

// Scores to weights: s becomes exp2(scale * s - max), o shrinks to the new maximum. pos: the last key that
// rows r and r + 8 of this lane see.
template <int N>
DEV void softmax(float (&s)[N], float (&o)[64], rows_state &st, float scale, int32_t key0,
                 const int32_t pos[2], bool mask)
{
    const uint32_t t = lane_id() & 3;
    if (mask) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int32_t key = key0 + (i >> 2) * 8 + (int32_t)(2 * t) + (i & 1);
            if (key > pos[i >> 1 & 1]) s[i] = -INF_F;
        }
    }
    float most[2] = {st.most[0], st.most[1]};
#pragma unroll
    for (int i = 0; i < N; i++) most[i >> 1 & 1] = max_f(most[i >> 1 & 1], s[i]);
    float shrink[2], base[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        most[r] = max_f(most[r], lane_xor_f(most[r], 1));
        most[r] = max_f(most[r], lane_xor_f(most[r], 2));
        const float safe = most[r] == -INF_F ? 0.0f : most[r]; // no key seen yet
        shrink[r] = exp2_fast((st.most[r] - safe) * scale);
        st.most[r] = most[r];
        base[r] = -safe * scale;
        st.sum[r] *= shrink[r];
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        s[i] = exp2_fast(__builtin_fmaf(s[i], scale, base[i >> 1 & 1]));
        st.sum[i >> 1 & 1] += s[i];
    }
#pragma unroll
    for (int i = 0; i < 64; i++) o[i] *= shrink[i >> 1 & 1];
}

// Steps [step0, step0 + n_steps) of 128 keys; first: the least position of the group's rows.
DEV void attend_steps(float (&o)[64], rows_state &st, const int32_t pos[2], int32_t first, float scale,
                      uint32_t group, uint32_t step0, uint32_t n_steps, uint32_t base)
{
    const uint64_t q = operand(base + group * 8192, 16, 1024);
    float s[64];
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
        const int32_t key0 = (int32_t)((step0 + i) * KEYS);
        softmax(s, o, st, scale, key0, pos, key0 + KEYS - 1 > first);
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
        st.sum[r] += lane_xor_f(st.sum[r], 1);
        st.sum[r] += lane_xor_f(st.sum[r], 2);
    }
}

// This lane's first row of the block's 128; the other is eight below.
DEV uint32_t my_row(uint32_t group) { return group * 64 + (warp_id() & 3) * 16 + (lane_id() >> 2); }

DEV void attend_tile(const args_flash &a, const attn_tile &tile, uint32_t head, uint32_t group,
                     uint32_t n_steps, uint32_t base)
{
    float o[64];
    rows_state st = {{-INF_F, -INF_F}, {0, 0}};
    const uint32_t row = my_row(group), load = group * 64 + (tid() & 127) / 2;
    const int32_t pos[2] = {(int32_t)(tile.pos0 + row), (int32_t)(tile.pos0 + row + 8)};
    const uint32_t from = tile.row0 + (load < tile.n_rows ? load : tile.n_rows - 1);
    query_load((const uint16_t *)a.q + (uint64_t)from * a.stride + head * 128, load, group, shared_bytes, HALF);
    attend_steps(o, st, pos, (int32_t)(tile.pos0 + group * 64), a.scale_log2, group, 0, n_steps, base);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (row + 8 * r >= tile.n_rows) continue;
        const float inverse = 1.0f / st.sum[r];
        uint32_t *out = (uint32_t *)((uint16_t *)a.out + (uint64_t)(tile.row0 + row + 8 * r) * a.stride +
                                     head * 128);
#pragma unroll
        for (int j = 0; j < 16; j++)
            out[j * 4 + (lane_id() & 3)] =
                h2_pack(o[j * 4 + 2 * r] * inverse, o[j * 4 + 2 * r + 1] * inverse);
    }
}

DEV void attend_pack(const args_pack &a, const attn_pack &pack, uint32_t kv_head, uint32_t group,
                     uint32_t n_steps, uint32_t base)
{
    float o[64];
    rows_state st = {{-INF_F, -INF_F}, {0, 0}};
    const uint32_t heads = a.n_heads / a.kv.n_kv_heads, row = my_row(group);
    const uint32_t load = group * 64 + (tid() & 127) / 2, n = pack.n_rows * heads;
    const uint32_t from = load < n ? load : n - 1;
    const int32_t pos[2] = {(int32_t)(pack.pos0 + row / heads), (int32_t)(pack.pos0 + (row + 8) / heads)};
    query_load((const uint16_t *)a.q + (uint64_t)(pack.row0 + from / heads) * a.stride +
                   (kv_head * heads + from % heads) * 128,
               load, group, shared_bytes, HALF);
    attend_steps(o, st, pos, (int32_t)(pack.pos0 + group * 64 / heads), a.scale_log2, group,
                 pack.key0 / KEYS, n_steps, base);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const uint32_t i = row + 8 * r, t = lane_id() & 3;
        if (i >= n) continue;
        const uint32_t part = pack.part0 + i / heads * pack.n_splits + pack.key0 / PACK_KEYS;
        float *to = a.parts + ((uint64_t)part * a.n_heads + kv_head * heads + i % heads) * 132;
#pragma unroll
        for (int j = 0; j < 16; j++) {
            to[j * 8 + 2 * t] = o[j * 4 + 2 * r];
            to[j * 8 + 2 * t + 1] = o[j * 4 + 2 * r + 1];
        }
        if (t == 0) {
            to[128] = st.most[r] * a.scale_log2;
            to[129] = st.sum[r];
        }
    }
}

DEV void barriers_make(uint32_t base)
{
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
}

// ---- rows that share their pages ----------------------------------------------------------------

enum {
    PAGE = KV_PAGE_TOKENS * 256, // bytes of a head's keys or values
    RING = GROUP_RING,           // of these on their way: keys, values, keys, ...
    RING_BARS_AT = (1 + RING) * PAGE
};

DEV uint32_t ring_full(uint32_t base, uint32_t i) { return base + RING_BARS_AT + i % RING * 8; }
DEV uint32_t ring_free(uint32_t base, uint32_t i) { return ring_full(base, i) + RING * 8; }
DEV uint32_t ring_at(uint32_t base, uint32_t i) { return base + (1 + i % RING) * PAGE; }

// By a whole warp; a lane knows a page. n_old: of the pages, those that no kernel of this step writes.
DEV void group_fetch(const args_split &a, const attn_item &item, uint32_t kv_head, uint32_t n_pages,
                     uint32_t n_old, uint32_t base)
{
    const uint32_t lane = lane_id(), mine = a.kv.pages[item.table + (lane < n_pages ? lane : 0)];
#pragma unroll 1
    for (uint32_t i = 0; i < 2 * n_pages; i++) {
        const uint32_t page = lane_get(mine, i >> 1), head = (i & 1) * a.kv.n_kv_heads + kv_head;
        if (i == 2 * n_old) dependents_wait();
        if (lane != 0) continue;
        barrier_wait(ring_free(base, i), (i / RING & 1) ^ 1);
        barrier_expect(ring_full(base, i), PAGE);
        bulk_copy(ring_at(base, i), a.kv.base + page * a.kv.page_bytes + (uint64_t)head * a.kv.head_bytes,
                  PAGE, ring_full(base, i));
    }
}

// Byte of element e of row r in 64 rows of 128, as queries and pages have it.
DEV uint32_t element_at(uint32_t r, uint32_t e)
{
    return e / 64 * PAGE_HALF + r * 128 + ((e / 8 & 7) ^ (r & 7)) * 16 + e % 8 * 2;
}

// A head's norm and rotation by a warp: element k of a lane is element(k), and turns with k + 2.
struct head_turn {
    float w[4], s[2], c[2];
};
DEV uint32_t element(const args_group &a, uint32_t k)
{
    return a.neox ? lane_id() + 32 * k : 2 * lane_id() + (k & 1) * 64 + (k >> 1);
}
DEV void turn_weights(head_turn &h, const args_group &a, const float *w)
{
#pragma unroll
    for (uint32_t k = 0; k < 4; k++) h.w[k] = w ? w[element(a, k)] : 1.0f;
}
DEV void turn_angles(head_turn &h, const args_group &a, uint32_t pos)
{
#pragma unroll
    for (uint32_t k = 0; k < 2; k++) {
        sin_cos((float)pos * a.freqs[lane_id() + 32 * k], h.s[k], h.c[k]);
        h.s[k] *= a.mscale;
        h.c[k] *= a.mscale;
    }
}
DEV void turn_head(const head_turn &h, const args_group &a, bool norm, const uint16_t *from, uint16_t out[4])
{
    float x[4], sum = 0;
#pragma unroll
    for (uint32_t k = 0; k < 4; k++) x[k] = half_at(from + element(a, k));
    if (norm) {
#pragma unroll
        for (uint32_t k = 0; k < 4; k++) sum += x[k] * x[k];
        const float scale = 1.0f / sqrt_f(warp_sum(sum) / 128.0f + a.eps);
#pragma unroll
        for (uint32_t k = 0; k < 4; k++) x[k] *= scale * h.w[k];
    }
#pragma unroll
    for (uint32_t k = 0; k < 2; k++) {
        out[k] = half_bits(turned(x[k], -x[k + 2], h.s[k], h.c[k]));
        out[k + 2] = half_bits(turned(x[k + 2], x[k], h.s[k], h.c[k]));
    }
}

// What this step adds to a sequence, as its block and warp have it: keys in warp 2, values in warp 3.
struct new_row {
    bool here;
    uint32_t slot;
    uint16_t x[4];
};

// Turned queries into shared memory; new keys and values into their page.
DEV void group_turn(const args_group &a, const attn_item &item, uint32_t kv_head, uint32_t heads,
                    uint32_t n_pages, new_row &add)
{
    const args_split &s = a.split;
    const uint32_t n = item.n_queries * heads, warp = warp_id(), mine = item.pos[0];
    head_turn q, k;
    turn_weights(q, a, a.q_norm);
    turn_weights(k, a, a.k_norm);
    turn_angles(q, a, item.pos[warp < n ? warp / heads : 0]);
    turn_angles(k, a, mine);
    // a cut that several share has no row's own position in it
    add.here = item.n_queries == 1 && mine - item.key0 < SPLIT_KEYS;
    add.slot = mine % KV_PAGE_TOKENS;
    const uint32_t page = s.kv.pages[item.table + n_pages - 1];
    dependents_wait();
    uint32_t last = warp / heads;
    for (uint32_t i = warp; i < n; i += 4) {
        uint16_t x[4];
        const uint32_t query = i / heads;
        if (query != last) turn_angles(q, a, item.pos[query]);
        last = query;
        turn_head(q, a, a.q_norm != 0,
                  (const uint16_t *)s.q + (uint64_t)item.row[query] * s.stride + (kv_head * heads + i % heads) * 128,
                  x);
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) *(uint16_t *)(shared_bytes + element_at(i, element(a, e))) = x[e];
    }
    fence_async();
    if (add.here && warp >= 2) {
        const uint16_t *from = (const uint16_t *)(warp == 2 ? a.k : a.v) + (uint64_t)item.row[0] * a.stride_k +
                               kv_head * 128;
        if (warp == 2)
            turn_head(k, a, a.k_norm != 0, from, add.x);
        else
            for (uint32_t e = 0; e < 4; e++) add.x[e] = from[element(a, e)];
        char *to = s.kv.base + page * s.kv.page_bytes +
                   (uint64_t)((warp - 2) * s.kv.n_kv_heads + kv_head) * s.kv.head_bytes;
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) *(uint16_t *)(to + element_at(add.slot, element(a, e))) = add.x[e];
    }
    sync_group(1);
}

// The last page came without this step's row.
DEV void group_add(const args_group &a, const new_row &add, uint32_t n, uint32_t base)
{
    const uint32_t i = 2 * n, j = i + 1;
    barrier_wait(ring_full(base, i), i / RING & 1);
    barrier_wait(ring_full(base, j), j / RING & 1);
    if (warp_id() >= 2) {
        char *to = shared_bytes + ring_at(0, warp_id() == 2 ? i : j);
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) *(uint16_t *)(to + element_at(add.slot, element(a, e))) = add.x[e];
        fence_async();
    }
    sync_group(1);
}

template <bool ROPE>
DEV void group_steps(float (&o)[64], rows_state &st, const int32_t pos[2], int32_t first, const args_group &a,
                     const attn_item &item, const new_row &add, uint32_t n_pages, uint32_t base)
{
    const uint64_t q = operand(base, 16, 1024);
    const int32_t item_key0 = (int32_t)item.key0;
    float s[32];
#pragma unroll
    for (int i = 0; i < 64; i++) o[i] = 0;
#pragma unroll 1
    for (uint32_t n = 0; n < n_pages; n++) {
        const uint32_t i = 2 * n, j = i + 1;
        const uint64_t k = operand(ring_at(base, i), 16, 1024), v = operand(ring_at(base, j), PAGE_HALF, 1024);
        if (ROPE && add.here && n + 1 == n_pages) group_add(a, add, n, base);
        barrier_wait(ring_full(base, i), i / RING & 1);
        wg_begin();
#pragma unroll
        for (int d = 0; d < 8; d++)
            wg_64_kk(s, q + (d / 4 * PAGE_HALF + d % 4 * 32) / 16, k + (d / 4 * PAGE_HALF + d % 4 * 32) / 16,
                     d > 0);
        wg_commit();
        wg_wait<0>();
        if (lane_id() == 0) barrier_arrive(ring_free(base, i));
        const int32_t key0 = item_key0 + (int32_t)(n * KV_PAGE_TOKENS);
        softmax(s, o, st, a.split.scale_log2, key0, pos, key0 + KV_PAGE_TOKENS - 1 > first);
        uint32_t p[4][4];
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) p[m][e] = h2_pack(s[m * 8 + e * 2], s[m * 8 + e * 2 + 1]);
        barrier_wait(ring_full(base, j), j / RING & 1);
        wg_begin();
#pragma unroll
        for (int m = 0; m < 4; m++) wg_128_rn(o, p[m], v + m * 2048 / 16);
        wg_commit();
        wg_wait<0>();
        if (lane_id() == 0) barrier_arrive(ring_free(base, j));
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        st.sum[r] += lane_xor_f(st.sum[r], 1);
        st.sum[r] += lane_xor_f(st.sum[r], 2);
    }
}

// Row i of the item: what this lane has of it.
DEV void group_store(const args_split &a, const attn_item &item, uint32_t kv_head, uint32_t heads,
                     uint32_t i, const float (&o)[64], int r, float most, float sum)
{
    const uint32_t query = i / heads, head = kv_head * heads + i % heads, t = lane_id() & 3;
    const uint32_t part = item.part[query];
    if (part == ATTN_WHOLE) {
        const float inverse = 1.0f / sum;
        uint32_t *out = (uint32_t *)((uint16_t *)a.out + (uint64_t)item.row[query] * a.stride + head * 128);
#pragma unroll
        for (int j = 0; j < 16; j++)
            out[j * 4 + t] = h2_pack_clamped(o[j * 4 + 2 * r] * inverse, o[j * 4 + 2 * r + 1] * inverse);
        return;
    }
    float *to = a.parts + ((uint64_t)part * a.n_heads + head) * 132;
#pragma unroll
    for (int j = 0; j < 16; j++) {
        const u32x2 v = {bits_of(o[j * 4 + 2 * r]), bits_of(o[j * 4 + 2 * r + 1])};
        *(u32x2 *)(to + j * 8 + 2 * t) = v;
    }
    if (t == 0) {
        to[128] = most * a.scale_log2;
        to[129] = sum;
    }
}

template <bool ROPE>
DEV void group_attend(const args_group &a, const attn_item &item, uint32_t kv_head, uint32_t heads,
                      uint32_t n_pages, uint32_t base)
{
    float o[64];
    rows_state st = {{-INF_F, -INF_F}, {0, 0}};
    new_row add = {false, 0, {0, 0, 0, 0}};
    const uint32_t n = item.n_queries * heads, row = my_row(0), load = tid() / 2;
    const uint32_t from = load < n ? load : n - 1;
    int32_t first = 0x7fffffff, pos[2];
    for (uint32_t i = 0; i < item.n_queries; i++)
        first = (int32_t)item.pos[i] < first ? (int32_t)item.pos[i] : first;
    for (int r = 0; r < 2; r++) // rows that are not there see all: what they give is not stored
        pos[r] = row + 8 * r < n ? (int32_t)item.pos[(row + 8 * r) / heads] : 0x7fffffff;
    if (ROPE) {
        group_turn(a, item, kv_head, heads, n_pages, add);
    } else {
        const uint16_t *q = (const uint16_t *)a.split.q + (uint64_t)item.row[from / heads] * a.split.stride +
                            (kv_head * heads + from % heads) * 128;
        dependents_wait();
        query_load(q, load, 0, shared_bytes, PAGE_HALF);
    }
    group_steps<ROPE>(o, st, pos, first, a, item, add, n_pages, base);
#pragma unroll
    for (int r = 0; r < 2; r++)
        if (row + 8 * r < n)
            group_store(a.split, item, kv_head, heads, row + 8 * r, o, r, st.most[r], st.sum[r]);
}

template <bool ROPE> DEV void group_128_all(const args_group &a)
{
    const attn_item &item = a.split.items[block_x()]; // it came with the batch, as page tables did
    const uint32_t base = shared_addr(shared_bytes), heads = a.split.n_heads / a.split.kv.n_kv_heads;
    const uint32_t n_pages = (item.n_keys + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    dependents_launch();
    if (item.n_queries == 0) return;
    if (tid() == 0) {
        for (uint32_t i = 0; i < RING; i++) {
            barrier_init(ring_full(base, i), 1);
            barrier_init(ring_free(base, i), 4);
        }
        barrier_fence_init();
    }
    sync_block();
    if (warp_id() == 4)
        group_fetch(a.split, item, block_y(), n_pages, ROPE ? n_pages : item.n_old, base);
    else
        group_attend<ROPE>(a, item, block_y(), heads, n_pages, base);
}
#endif

// Grid: (items, key/value heads); 160 threads. No item has more than 64 rows (queries times heads a key/value head).
// group_rope_128: queries, keys and values as the product gave them; it turns them and writes the pages as well.
#if PORT_SM90
#define GROUP_BODY(rope) group_128_all<rope>(a)
#else
#define GROUP_BODY(rope) (void)a
#endif
KERNEL void BOUNDS(160, 3) group_128(const args_group a) { GROUP_BODY(false); }
KERNEL void BOUNDS(160, 3) group_rope_128(const args_group a) { GROUP_BODY(true); }

// Grid: tiles of each head, the heads of a key/value head together; 384 threads.
KERNEL void BOUNDS(384, 1) flash_128(const args_flash a)
{
#if PORT_SM90
    const uint32_t group = a.n_heads / a.kv.n_kv_heads, per_kv = a.n_tiles * group;
    const uint32_t kv_head = block_x() / per_kv, rest = block_x() % per_kv;
    const uint32_t head = kv_head * group + rest % group, role = tid() >> 7;
    const uint32_t base = shared_addr(shared_bytes);
    dependents_launch();
    barriers_make(base);
    dependents_wait();
    const attn_tile tile = a.tiles[rest / group];
    const uint32_t end = tile.pos0 + tile.n_rows - 1, n_steps = end / KEYS + 1;
    if (role == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (tid() == 0) fetch(a, tile.table, end / KV_PAGE_TOKENS, kv_head, 0, n_steps, base);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        attend_tile(a, tile, head, role - 1, n_steps, base);
    }
#endif
}

// Grid: (packs, key/value heads); 384 threads.
KERNEL void BOUNDS(384, 1) flash_pack_128(const args_pack a)
{
#if PORT_SM90
    const uint32_t role = tid() >> 7, base = shared_addr(shared_bytes);
    dependents_launch();
    barriers_make(base);
    dependents_wait();
    const attn_pack pack = a.packs[block_x()];
    const uint32_t n_steps = (pack.n_keys + KEYS - 1) / KEYS;
    const uint32_t last = (pack.key0 + pack.n_keys - 1) / KV_PAGE_TOKENS;
    if (role == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (tid() == 0) fetch(a, pack.table, last, block_y(), pack.key0 / KEYS, n_steps, base);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        attend_pack(a, pack, block_y(), role - 1, n_steps, base);
    }
#endif
}
