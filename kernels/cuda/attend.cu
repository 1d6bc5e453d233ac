// Attention of few queries over long contexts: decode steps and short prefills. The keys of a sequence
// are cut at multiples of SPLIT_KEYS; a block takes one cut of one key/value head for up to eight queries
// that share its pages (decode steps on a common prefix, or neighbouring rows of a prompt), so shared
// keys are read once. A second kernel merges the cuts.
//
// Equality: cuts stand at absolute positions and are merged in order, whatever the batch holds.
#include "kernels/common/port.h"
#include "kernels/common/args.h"

extern __shared__ __attribute__((aligned(1024))) char shared_bytes[];

enum { TOKENS = KV_PAGE_TOKENS, PART_PAD = 4 };

// Byte of chunk c (eight elements) of token s in an f16 tile.
DEV uint32_t tile_at(uint32_t s, uint32_t c)
{
    return (((c >> 3) * TOKENS + s) * 8 + ((c & 7) ^ (s & 7))) * 16;
}

// One page's keys or values of a head, as they lie.
DEV void page_load(char *to, const char *from, uint32_t n_bytes)
{
    for (uint32_t i = tid() * 16; i < n_bytes; i += n_threads() * 16) copy16_async(to + i, from + i);
}

// A q8_0 page's keys or values of a head as an f16 tile.
template <int HD> DEV void page_expand(char *to, const char *from)
{
    const uint16_t *scales = (const uint16_t *)(from + TOKENS * HD);
    for (uint32_t i = tid(); i < TOKENS * HD / 16; i += n_threads()) {
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

// exp2(scale * score - maximum) of a row pair; `whole`: every row sees all of these keys.
template <int HD, int N>
DEV void soften(query_state<HD> &st, float s[N][4], int32_t key0, float scale, bool whole)
{
    const int32_t first = key0 + (int32_t)(2 * (lane_id() & 3));
    if (!whole) {
#pragma unroll
        for (uint32_t n = 0; n < N; n++)
#pragma unroll
            for (uint32_t e = 0; e < 4; e++)
                if (first + (int32_t)(n * 8 + (e & 1)) > st.pos[e >> 1]) s[n][e] = -INF_F;
    }
    float base[2];
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) {
        float most = st.most[r]; // of scores times scale
#pragma unroll
        for (uint32_t n = 0; n < N; n++)
            most = max_f(most, max_f(s[n][2 * r], s[n][2 * r + 1]) * scale);
        most = max_f(most, lane_xor_f(most, 1));
        most = max_f(most, lane_xor_f(most, 2));
        const float safe = most == -INF_F ? 0.0f : most; // no key seen yet
        const float shrink = exp2_fast(st.most[r] - safe);
        st.most[r] = most;
        base[r] = -safe;
        st.sum[r] *= shrink;
#pragma unroll
        for (uint32_t d = 0; d < HD / 8; d++) {
            st.o[d][2 * r] *= shrink;
            st.o[d][2 * r + 1] *= shrink;
        }
    }
#pragma unroll
    for (uint32_t n = 0; n < N; n++)
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) {
            s[n][e] = exp2_fast(__builtin_fmaf(s[n][e], scale, base[e >> 1]));
            st.sum[e >> 1] += s[n][e];
        }
}

// Where this lane's rows of tiles begin in a page's keys or values, by the parity of the chunk of four: what is
// added to them is then a constant.
struct lane_places {
    uint32_t k[2], v[4];
};
DEV lane_places places_make(uint32_t kb)
{
    const uint32_t lane = lane_id(), s = lane & 7;
    lane_places p;
#pragma unroll
    for (uint32_t i = 0; i < 2; i++) p.k[i] = tile_at(kb + s, i * 4 + (lane >> 3));
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) p.v[i] = tile_at(kb + (lane >> 3 & 1) * 8 + s, 2 * i + (lane >> 4));
    return p;
}

// KW keys of a page, the first of them key0: scores, softmax, and their values added.
template <int HD, int KW>
DEV void attend_keys(query_state<HD> &st, shared_at k, shared_at v, const lane_places &at, int32_t key0,
                     float scale, bool whole)
{
    constexpr uint32_t HALF = TOKENS * 128; // bytes of 64 columns
    float s[KW / 8][4];
#pragma unroll
    for (uint32_t n = 0; n < KW / 8; n++) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
        for (uint32_t d = 0; d < HD / 32; d++) {
            uint32_t b[4];
            tiles_load(b, k + at.k[d & 1] + (d >> 1) * HALF + n * 1024);
            mma_16x8x16(s[n], st.q[2 * d], b[0], b[1]);
            mma_16x8x16(s[n], st.q[2 * d + 1], b[2], b[3]);
        }
    }
    soften<HD, KW / 8>(st, s, key0, scale, whole);
#pragma unroll
    for (uint32_t n = 0; n < KW / 16; n++) {
        const uint32_t p[4] = {h2_pack(s[2 * n][0], s[2 * n][1]), h2_pack(s[2 * n][2], s[2 * n][3]),
                               h2_pack(s[2 * n + 1][0], s[2 * n + 1][1]),
                               h2_pack(s[2 * n + 1][2], s[2 * n + 1][3])};
#pragma unroll
        for (uint32_t d = 0; d < HD / 16; d++) {
            uint32_t b[4];
            tiles_load_t(b, v + at.v[d & 3] + (d >> 2) * HALF + n * 2048);
            mma_16x8x16(st.o[2 * d], p, b[0], b[1]);
            mma_16x8x16(st.o[2 * d + 1], p, b[2], b[3]);
        }
    }
}

// The warps' shares of the block's rows, in shared memory.
template <int HD, int MT, int WARPS>
DEV void put_shares(const query_state<HD> &st, float *o, float *stat)
{
    constexpr uint32_t ROWS = MT * 16;
    const uint32_t lane = lane_id(), g = lane >> 2, t = lane & 3;
    const uint32_t row0 = warp_id() % MT * 16, share = warp_id() / MT;
    sync_block();
#pragma unroll
    for (uint32_t r = 0; r < 2; r++) {
        float sum = st.sum[r];
        sum += lane_xor_f(sum, 1);
        sum += lane_xor_f(sum, 2);
        const uint32_t at = share * ROWS + row0 + g + 8 * r;
#pragma unroll
        for (uint32_t d = 0; d < HD / 8; d++) {
            const u32x2 v = {bits_of(st.o[d][2 * r]), bits_of(st.o[d][2 * r + 1])};
            *(u32x2 *)(o + at * HD + d * 8 + 2 * t) = v;
        }
        if (t == 0) {
            stat[at * 2] = st.most[r];
            stat[at * 2 + 1] = sum;
        }
    }
    sync_block();
}

// Adds up the shares of each row, a warp a row, and writes the part.
template <int HD, int MT, int WARPS>
DEV void write_parts(const query_state<HD> &st, const args_split &a, const attn_item &item,
                     uint32_t kv_head)
{
    constexpr uint32_t SHARES = WARPS / MT, ROWS = MT * 16;
    float *o = (float *)shared_bytes;     // [SHARES][ROWS][HD]
    float *stat = o + SHARES * ROWS * HD; // [SHARES][ROWS][2]
    const uint32_t group = a.n_heads / a.kv.n_kv_heads, n_rows = item.n_queries * group;
    put_shares<HD, MT, WARPS>(st, o, stat);
    const uint32_t d = lane_id() * (HD / 32);
    for (uint32_t row = warp_id(); row < n_rows; row += WARPS) {
        float most = -INF_F, sum = 0, v[HD / 32] = {0};
#pragma unroll
        for (uint32_t s = 0; s < SHARES; s++) most = max_f(most, stat[(s * ROWS + row) * 2]);
        const float base = most == -INF_F ? 0.0f : most;
#pragma unroll
        for (uint32_t s = 0; s < SHARES; s++) {
            const float f = exp2_fast(stat[(s * ROWS + row) * 2] - base);
            sum += f * stat[(s * ROWS + row) * 2 + 1];
#pragma unroll
            for (uint32_t e = 0; e < HD / 32; e++) v[e] += f * o[(s * ROWS + row) * HD + d + e];
        }
        const uint32_t part = item.part[row / group], head = kv_head * group + row % group;
        if (part == ATTN_WHOLE) {
            uint16_t *to = (uint16_t *)a.out + (uint64_t)item.row[row / group] * a.stride + head * HD + d;
#pragma unroll
            for (uint32_t e = 0; e < HD / 32; e++) to[e] = half_bits(v[e] / sum);
            continue;
        }
        float *to = a.parts + ((uint64_t)part * a.n_heads + head) * (HD + PART_PAD);
#pragma unroll
        for (uint32_t e = 0; e < HD / 32; e++) to[d + e] = v[e];
        if (lane_id() == 0) {
            to[HD] = most;
            to[HD + 1] = sum;
        }
    }
}

enum { STAGES = 3 }; // pages on their way, the one at work included

// Shared memory: STAGES pages of keys and values as they lie; of q8_0 they are smaller, and one page of them as f16
// stands behind.
template <int HD> struct places {
    enum {
        TILE = TOKENS * HD * 2,
        RAW = TOKENS * HD + TOKENS * (HD / 32) * 2,
        WIDE_AT = (STAGES * 2 * RAW + 1023) / 1024 * 1024
    };
};

template <int HD>
DEV void fetch_page(const args_split &a, const attn_item &item, uint32_t kv_head, uint32_t p)
{
    const uint32_t size = a.q8 ? places<HD>::RAW : places<HD>::TILE;
    char *to = shared_bytes + p % STAGES * 2 * size;
    const char *page = a.kv.base + a.kv.pages[item.table + p] * a.kv.page_bytes;
    page_load(to, page + (uint64_t)kv_head * a.kv.head_bytes, size);
    page_load(to + size, page + (uint64_t)(a.kv.n_kv_heads + kv_head) * a.kv.head_bytes, size);
}

// Where page p's keys stand as f16 for the block; the values follow.
template <int HD> DEV shared_at page_at(const args_split &a, uint32_t p)
{
    typedef places<HD> P;
    const shared_at base = shared_place(shared_bytes);
    if (!a.q8) return base + p % STAGES * 2 * P::TILE;
    const char *raw = shared_bytes + p % STAGES * 2 * P::RAW;
    page_expand<HD>(shared_bytes + P::WIDE_AT, raw);
    page_expand<HD>(shared_bytes + P::WIDE_AT + P::TILE, raw + P::RAW);
    sync_block();
    return base + P::WIDE_AT;
}

template <int HD, int MT, int WARPS>
DEV void attend_item(const args_split &a, const attn_item &item, uint32_t kv_head)
{
    constexpr uint32_t KW = TOKENS / (WARPS / MT), TILE = TOKENS * HD * 2;
    const uint32_t lane = lane_id(), g = lane >> 2, t = lane & 3;
    const uint32_t group = a.n_heads / a.kv.n_kv_heads, n_pages = (item.n_keys + TOKENS - 1) / TOKENS;
    const uint32_t n_old = item.n_old < STAGES - 1 ? item.n_old : STAGES - 1; // what is not written now
#pragma unroll 1
    for (uint32_t p = 0; p < STAGES - 1; p++) {
        if (p == n_old) dependents_wait();
        if (p < n_pages) fetch_page<HD>(a, item, kv_head, p);
        copies_commit();
    }
    dependents_wait();
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
    // keys before `seen` all rows of this warp's tile see; rows that are not there do not matter
    int32_t seen = 0x7fffffff;
#pragma unroll
    for (uint32_t r = 0; r < 2; r++)
        if (st.pos[r] >= 0 && st.pos[r] < seen) seen = st.pos[r] + 1;
    for (uint32_t m = 4; m < 32; m <<= 1) {
        const int32_t other = (int32_t)lane_xor((uint32_t)seen, m);
        seen = other < seen ? other : seen;
    }
    const uint32_t kb = warp_id() / MT * KW, item_key0 = item.key0;
    const lane_places at = places_make(kb);
#pragma unroll 1
    for (uint32_t p = 0; p < n_pages; p++) {
        copies_wait<STAGES - 2>();
        sync_block();
        if (p + STAGES - 1 < n_pages) fetch_page<HD>(a, item, kv_head, p + STAGES - 1);
        copies_commit();
        const shared_at k = page_at<HD>(a, p);
        const int32_t key0 = (int32_t)(item_key0 + p * TOKENS);
        attend_keys<HD, KW>(st, k, k + TILE, at, key0 + (int32_t)kb, a.scale_log2, key0 + TOKENS <= seen);
    }
    copies_wait<0>();
    write_parts<HD, MT, WARPS>(st, a, item, kv_head);
}

// Grid: (items, key/value heads); shared: STAGES pages of keys and values. *_1, 128 threads: no item has more than
// 16 rows (queries times heads a key/value head). *_4, 256 threads: up to 64 rows; up to 32 of them are worked on
// as in *_1, bit for bit.
template <int HD, int MT> DEV void attend(const args_split &a)
{
    dependents_launch();
    const attn_item &item = a.items[block_x()]; // it came with the batch, as page tables did
    const uint32_t rows = item.n_queries * (a.n_heads / a.kv.n_kv_heads);
    if (rows == 0) return;
    if (MT == 1)
        attend_item<HD, 1, 4>(a, item, block_y());
    else if (rows <= 32)
        attend_item<HD, 2, 8>(a, item, block_y());
    else
        attend_item<HD, 4, 8>(a, item, block_y());
}

KERNEL void BOUNDS(128, 2) attend_64_1(const args_split a) { attend<64, 1>(a); }
KERNEL void BOUNDS(256, 2) attend_64_4(const args_split a) { attend<64, 4>(a); }
KERNEL void BOUNDS(128, 2) attend_128_1(const args_split a) { attend<128, 1>(a); }
KERNEL void BOUNDS(256, 2) attend_128_4(const args_split a) { attend<128, 4>(a); }

// Grid: (merges, heads); 256 threads: warp w adds parts w, w + 8, ..., then the warps in order.
KERNEL void attend_merge(const args_merge a)
{
    __shared__ float box[8][132];
    dependents_launch();
    const attn_merge m = a.merges[block_x()];
    dependents_wait();
    const uint32_t head = block_y(), lane = lane_id(), warp = warp_id(), hd = a.head_dim;
    if (m.n_parts == 0) return;
    const uint64_t step = (uint64_t)a.n_heads * (hd + PART_PAD);
    const float *first = a.parts + (uint64_t)m.part0 * step + head * (hd + PART_PAD);
    float most = -INF_F, sum = 0, v[4] = {0, 0, 0, 0};
    for (uint32_t i = lane; i < m.n_parts; i += 32) most = max_f(most, first[i * step + hd]);
    most = warp_max(most);
#pragma unroll 4
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
        page_expand<64>(to, from);
    else
        page_expand<128>(to, from);
}
