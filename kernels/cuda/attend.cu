// Attention of few queries over long contexts: decode steps and short prefills. The keys of a sequence
// are cut at multiples of SPLIT_KEYS; a block takes one cut of one key/value head for up to eight queries
// that share its pages (decode steps on a common prefix, or neighbouring rows of a prompt), so shared
// keys are read once. A second kernel merges the cuts.
//
// Equality: cuts stand at absolute positions and are merged in order, whatever the batch holds.
#include "kernels/common/port.h"
#include "kernels/common/args.h"

extern __shared__ __attribute__((aligned(1024))) char shared_bytes[];

enum { TOKENS = KV_PAGE_TOKENS, N_WARPS = 4, PART_PAD = 4 };

// Byte of chunk c (eight elements) of token s in an f16 tile.
DEV uint32_t tile_at(uint32_t s, uint32_t c)
{
    return (((c >> 3) * TOKENS + s) * 8 + ((c & 7) ^ (s & 7))) * 16;
}

// One page's keys or values of a head into shared memory, as an f16 tile.
template <int HD> DEV void page_load(char *to, const char *from, uint32_t q8)
{
    if (!q8) {
        for (uint32_t i = tid(); i < TOKENS * HD / 8; i += N_WARPS * 32)
            copy16_async(to + i * 16, from + i * 16);
        return;
    }
    const uint16_t *scales = (const uint16_t *)(from + TOKENS * HD);
    for (uint32_t i = tid(); i < TOKENS * HD / 16; i += N_WARPS * 32) {
        const uint32_t e = i * 16, s = e / 64 % TOKENS, c = e / 64 / TOKENS * 8 + e % 64 / 8;
        const u32x4 v = *(const u32x4 *)(from + e);
        const float d = half_at(scales + s * (HD / 32) + c / 4);
        const uint32_t w[4] = {v.x, v.y, v.z, v.w}, scale = h2_same(d);
        uint32_t out[8];
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t biased = w[j] ^ 0x80808080u;
            out[2 * j] = h2_mul(h2_sub(byte_perm(biased, 0x64646464u, 0x4140), 0x64806480u), scale);
            out[2 * j + 1] = h2_mul(h2_sub(byte_perm(biased, 0x64646464u, 0x4342), 0x64806480u), scale);
        }
        const u32x4 lo = {out[0], out[1], out[2], out[3]}, hi = {out[4], out[5], out[6], out[7]};
        *(u32x4 *)(to + tile_at(s, c)) = lo;
        *(u32x4 *)(to + tile_at(s, c + 1)) = hi;
    }
}

template <int HD> struct query_state {
    uint32_t q[HD / 16][4];
    float o[HD / 8][4];
    float most[2], sum[2];
    int32_t pos[2]; // last key a row sees; -1 where there is no row
};

// Scores of KW keys from key `kb` of the page, softmax, and their values added.
template <int HD, int KW>
DEV void attend_keys(query_state<HD> &st, const char *k, const char *v, uint32_t kb, int32_t key0,
                     float scale)
{
    const uint32_t lane = lane_id(), t = lane & 3;
    float s[KW / 8][4];
#pragma unroll
    for (uint32_t n = 0; n < KW / 8; n++) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
        for (uint32_t d = 0; d < HD / 32; d++) {
            uint32_t b[4];
            tiles_load(b, k + tile_at(kb + n * 8 + (lane & 7), d * 4 + (lane >> 3)));
            mma_16x8x16(s[n], st.q[2 * d], b[0], b[1]);
            mma_16x8x16(s[n], st.q[2 * d + 1], b[2], b[3]);
        }
    }
    float most[2] = {st.most[0], st.most[1]}, shrink[2];
#pragma unroll
    for (uint32_t n = 0; n < KW / 8; n++)
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) {
            const int32_t key = key0 + (int32_t)(kb + n * 8 + 2 * t + (e & 1));
            s[n][e] = key <= st.pos[e >> 1] ? s[n][e] * scale : -INF_F;
            most[e >> 1] = max_f(most[e >> 1], s[n][e]);
        }
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) {
        most[r] = max_f(most[r], lane_xor_f(most[r], 1));
        most[r] = max_f(most[r], lane_xor_f(most[r], 2));
        const float base = most[r] == -INF_F ? 0.0f : most[r];
        shrink[r] = exp2_fast(st.most[r] - base);
        st.most[r] = most[r];
        most[r] = base;
        st.sum[r] *= shrink[r];
    }
#pragma unroll
    for (uint32_t d = 0; d < HD / 8; d++)
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) st.o[d][e] *= shrink[e >> 1];
#pragma unroll
    for (uint32_t n = 0; n < KW / 8; n++)
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) {
            s[n][e] = exp2_fast(s[n][e] - most[e >> 1]);
            st.sum[e >> 1] += s[n][e];
        }
#pragma unroll
    for (uint32_t n = 0; n < KW / 16; n++) {
        const uint32_t p[4] = {h2_pack(s[2 * n][0], s[2 * n][1]), h2_pack(s[2 * n][2], s[2 * n][3]),
                               h2_pack(s[2 * n + 1][0], s[2 * n + 1][1]),
                               h2_pack(s[2 * n + 1][2], s[2 * n + 1][3])};
#pragma unroll
        for (uint32_t d = 0; d < HD / 16; d++) {
            uint32_t b[4];
            tiles_load_t(b, v + tile_at(kb + n * 16 + (lane >> 3 & 1) * 8 + (lane & 7),
                                        2 * d + (lane >> 4)));
            mma_16x8x16(st.o[2 * d], p, b[0], b[1]);
            mma_16x8x16(st.o[2 * d + 1], p, b[2], b[3]);
        }
    }
}

// Adds up the warps' shares of each row and writes the part.
template <int HD, int MT>
DEV void write_parts(const query_state<HD> &st, const args_split &a, const attn_item &item,
                     uint32_t kv_head)
{
    constexpr uint32_t SHARES = N_WARPS / MT, ROWS = MT * 16;
    float *o = (float *)shared_bytes;                // [SHARES][ROWS][HD]
    float *stat = o + SHARES * ROWS * HD;            // [SHARES][ROWS][2]
    const uint32_t lane = lane_id(), g = lane >> 2, t = lane & 3;
    const uint32_t row0 = warp_id() % MT * 16, share = warp_id() / MT;
    const uint32_t group = a.n_heads / a.kv.n_kv_heads;
    sync_block();
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) {
        float sum = st.sum[r];
        sum += lane_xor_f(sum, 1);
        sum += lane_xor_f(sum, 2);
        const uint32_t at = share * ROWS + row0 + g + 8 * r;
#pragma unroll
        for (uint32_t d = 0; d < HD / 8; d++) {
            o[at * HD + d * 8 + 2 * t] = st.o[d][2 * r];
            o[at * HD + d * 8 + 2 * t + 1] = st.o[d][2 * r + 1];
        }
        if (t == 0) {
            stat[at * 2] = st.most[r];
            stat[at * 2 + 1] = sum;
        }
    }
    sync_block();
    const uint32_t n_rows = item.n_queries * group;
    for (uint32_t i = tid(); i < n_rows * HD; i += N_WARPS * 32) {
        const uint32_t row = i / HD, d = i % HD;
        float most = -INF_F, sum = 0, v = 0;
        for (uint32_t s = 0; s < SHARES; s++) most = max_f(most, stat[(s * ROWS + row) * 2]);
        const float base = most == -INF_F ? 0.0f : most;
        for (uint32_t s = 0; s < SHARES; s++) {
            const float f = exp2_fast(stat[(s * ROWS + row) * 2] - base);
            sum += f * stat[(s * ROWS + row) * 2 + 1];
            v += f * o[(s * ROWS + row) * HD + d];
        }
        const uint32_t i_part = item.part[row / group], head = kv_head * group + row % group;
        if (i_part == ATTN_WHOLE) {
            ((uint16_t *)a.out)[(uint64_t)item.row[row / group] * a.stride + head * HD + d] = half_bits(v / sum);
            continue;
        }
        float *to = a.parts + ((uint64_t)i_part * a.n_heads + head) * (HD + PART_PAD);
        to[d] = v;
        if (d == 0) {
            to[HD] = most;
            to[HD + 1] = sum;
        }
    }
}

enum { STAGES = 3 }; // pages on their way, the one at work included

template <int HD>
DEV void fetch_page(const args_split &a, const attn_item &item, uint32_t kv_head, uint32_t p)
{
    constexpr uint32_t TILE = TOKENS * HD * 2;
    char *to = shared_bytes + p % STAGES * 2 * TILE;
    const char *page = a.kv.base + a.kv.pages[item.table + p] * a.kv.page_bytes;
    page_load<HD>(to, page + (uint64_t)kv_head * a.kv.head_bytes, a.q8);
    page_load<HD>(to + TILE, page + (uint64_t)(a.kv.n_kv_heads + kv_head) * a.kv.head_bytes, a.q8);
}

template <int HD, int MT>
DEV void attend_item(const args_split &a, const attn_item &item, uint32_t kv_head)
{
    constexpr uint32_t KW = TOKENS / (N_WARPS / MT), TILE = TOKENS * HD * 2;
    const uint32_t lane = lane_id(), g = lane >> 2, t = lane & 3;
    const uint32_t group = a.n_heads / a.kv.n_kv_heads, n_pages = (item.n_keys + TOKENS - 1) / TOKENS;
#pragma unroll 1
    for (uint32_t p = 0; p < STAGES - 1; p++) {
        if (p < n_pages) fetch_page<HD>(a, item, kv_head, p);
        copies_commit();
    }
    query_state<HD> st;
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) {
        const uint32_t row = warp_id() % MT * 16 + g + 8 * r;
        const bool live = row < item.n_queries * group;
        const uint32_t i = live ? row / group : 0;
        st.pos[r] = live ? (int32_t)item.pos[i] : -1;
        st.most[r] = -INF_F;
        st.sum[r] = 0;
        const uint32_t *q = (const uint32_t *)((const uint16_t *)a.q + (uint64_t)item.row[i] * a.stride +
                                               (kv_head * group + (live ? row % group : 0)) * HD);
#pragma unroll
        for (uint32_t d = 0; d < HD / 16; d++) {
            st.q[d][r] = q[d * 8 + t];
            st.q[d][r + 2] = q[d * 8 + 4 + t];
        }
    }
#pragma unroll
    for (uint32_t d = 0; d < HD / 8; d++) st.o[d][0] = st.o[d][1] = st.o[d][2] = st.o[d][3] = 0;
#pragma unroll 1
    for (uint32_t p = 0; p < n_pages; p++) {
        copies_wait<STAGES - 2>();
        sync_block();
        if (p + STAGES - 1 < n_pages) fetch_page<HD>(a, item, kv_head, p + STAGES - 1);
        copies_commit();
        const char *k = shared_bytes + p % STAGES * 2 * TILE;
        attend_keys<HD, KW>(st, k, k + TILE, warp_id() / MT * KW, (int32_t)(item.key0 + p * TOKENS),
                            a.scale_log2);
    }
    copies_wait<0>();
    write_parts<HD, MT>(st, a, item, kv_head);
}

// Grid: (items, key/value heads); 128 threads; shared: STAGES pages of keys and values. MT 1: no item has
// more than 16 rows (queries times heads a key/value head); the smaller code is fetched faster.
template <int HD, int MT> DEV void attend(const args_split &a)
{
    dependents_launch();
    dependents_wait();
    const attn_item &item = a.items[block_x()];
    const uint32_t rows = item.n_queries * (a.n_heads / a.kv.n_kv_heads);
    if (rows == 0) return;
    if (MT == 1 || rows <= 16)
        attend_item<HD, 1>(a, item, block_y());
    else
        attend_item<HD, MT>(a, item, block_y());
}

KERNEL void BOUNDS(128, 2) attend_64_1(const args_split a) { attend<64, 1>(a); }
KERNEL void BOUNDS(128, 2) attend_64_4(const args_split a) { attend<64, 4>(a); }
KERNEL void BOUNDS(128, 2) attend_128_1(const args_split a) { attend<128, 1>(a); }
KERNEL void BOUNDS(128, 2) attend_128_4(const args_split a) { attend<128, 4>(a); }

// Grid: (merges, heads); 256 threads: warp w adds parts w, w + 8, ..., then the warps in order.
KERNEL void attend_merge(const args_merge a)
{
    __shared__ float box[8][132];
    dependents_launch();
    dependents_wait();
    const attn_merge m = a.merges[block_x()];
    const uint32_t head = block_y(), lane = lane_id(), warp = warp_id(), hd = a.head_dim;
    if (m.n_parts == 0) return;
    const uint64_t step = (uint64_t)a.n_heads * (hd + PART_PAD);
    const float *first = a.parts + (uint64_t)m.part0 * step + head * (hd + PART_PAD);
    float most = -INF_F, sum = 0, v[4] = {0, 0, 0, 0};
    for (uint32_t i = lane; i < m.n_parts; i += 32) most = max_f(most, first[i * step + hd]);
    most = warp_max(most);
#pragma unroll 2
    for (uint32_t i = warp; i < m.n_parts; i += 8) {
        const float *p = first + i * step, f = exp2_fast(p[hd] - most);
        sum += f * p[hd + 1];
        if (lane * 4 >= hd) continue;
        const f32x4 o = *(const f32x4 *)(p + lane * 4);
        v[0] += f * o.x;
        v[1] += f * o.y;
        v[2] += f * o.z;
        v[3] += f * o.w;
    }
    if (lane * 4 < hd) {
        const f32x4 o = {v[0], v[1], v[2], v[3]};
        *(f32x4 *)&box[warp][lane * 4] = o;
    }
    if (lane == 0) box[warp][128] = sum;
    sync_block();
    const uint32_t d = tid();
    if (d >= hd) return;
    float out = 0, all = 0;
    for (uint32_t w = 0; w < 8; w++) {
        out += box[w][d];
        all += box[w][128];
    }
    ((uint16_t *)a.out)[(uint64_t)m.row * a.stride + head * hd + d] = half_bits(out / all);
}

// q8_0 pages of one layer as f16 pages. Grid: (pages, 2 * n_kv_heads); 128 threads.
KERNEL void kv_dequant(const args_kv_dequant a)
{
    dependents_launch();
    dependents_wait();
    const uint32_t hd = (a.head_dim + 63) / 64 * 64;
    const char *from = a.kv.base + a.kv.pages[a.table + block_x()] * a.kv.page_bytes +
                       (uint64_t)block_y() * a.kv.head_bytes;
    char *to = a.out + (a.out_page0 + block_x()) * a.out_page_bytes + (uint64_t)block_y() * TOKENS * hd * 2;
    if (hd == 64)
        page_load<64>(to, from, 1);
    else
        page_load<128>(to, from, 1);
}
