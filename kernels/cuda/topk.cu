// The end of a step: adjustments of logits, then the k best candidates of each row and the log of the
// sum of exponentials. A candidate is one 64-bit number, the ordered bits of its logit above the
// inverted token id, so that all differ and equal logits come by smaller id.
//   topk_scan   a block takes a piece of the row: adjustments, the best of each group of threads, sum
//   topk_keep   the k-th best of all groups' best is a bound that at least k reach; usually few do
//   topk        sorts these. Where too many reach the bound, it is found digit by digit from the top.
#include "kernels/common/port.h"
#include "kernels/common/args.h"

enum { BINS = 2048, DIGIT = 11, KEEP = TOPK_KEEP, THREADS = 1024, ROW_MAX = 128 };
enum { PIECES = TOPK_PIECES, PIECE_THREADS = 256, GROUP = PIECES * PIECE_THREADS / KEEP };

// This block's piece [from, end) of a row of n, in whole groups of four.
struct piece {
    uint32_t from, end;
};
DEV piece piece_of(uint32_t n, uint32_t i)
{
    const uint32_t each = ((n + PIECES - 1) / PIECES + 3) / 4 * 4, from = i * each;
    const piece p = {from < n ? from : n, from + each < n ? from + each : n};
    return p;
}

// An entry is applied by the thread that finds its token's first entry in the row, together with the later
// ones in order.
DEV void adjust(const args_topk &a, float *logits, uint32_t row, const piece &p)
{
    const uint32_t n = *a.n_entries;
    for (uint32_t i = tid(); i < n; i += n_threads()) {
        const topk_adjust_entry *e = a.entries + i;
        const int32_t token = e->token;
        if (e->out_row != row || (uint32_t)token < p.from || (uint32_t)token >= p.end) continue;
        bool first = true;
        for (uint32_t j = i; first && j > 0 && a.entries[j - 1].out_row == row; j--)
            first = a.entries[j - 1].token != token;
        if (!first) continue;
        float v = logits[token];
        for (uint32_t j = i; j < n && a.entries[j].out_row == row; j++) {
            const topk_adjust_entry c = a.entries[j];
            if (c.token != token) continue;
            v = c.divide && v > 0 ? v / c.scale : v * c.scale;
            v += c.add;
        }
        logits[token] = v;
    }
}

DEV uint64_t candidate(float v, uint32_t id)
{
    if (v != v) v = -INF_F;
    const uint32_t u = bits_of(v), key = u >> 31 ? ~u : u | 0x80000000u;
    return (uint64_t)key << 32 | (0xffffffffu - id);
}
DEV uint32_t candidate_id(uint64_t c) { return 0xffffffffu - (uint32_t)c; }
DEV float candidate_logit(uint64_t c)
{
    const uint32_t key = (uint32_t)(c >> 32);
    return float_of(key >> 31 ? key & 0x7fffffffu : ~key);
}

struct select_state {
    uint32_t bins[BINS];
    uint64_t kept[KEEP];
    uint32_t counts[33];
    uint64_t prefix;     // what the digits so far must be
    uint32_t above, bin; // candidates above the prefix; the digit chosen
    uint32_t total;      // of the chosen digit and above
    uint32_t n_kept;
};

// Finds the digit at which the candidates from the top reach k. Thread i holds bins of rank 2 i, 2 i + 1
// from the top.
DEV void choose_bin(select_state &s, uint32_t k)
{
    const uint32_t hi = BINS - 1 - 2 * tid(), lane = lane_id();
    const uint32_t c0 = s.bins[hi], c1 = s.bins[hi - 1];
    uint32_t sum = c0 + c1;
    for (uint32_t d = 1; d < 32; d <<= 1) {
        const uint32_t other = lane_get(sum, (lane - d) & 31);
        if (lane >= d) sum += other;
    }
    if (lane == 31) s.counts[warp_id()] = sum;
    sync_block();
    uint32_t before = s.above + sum - c0 - c1;
    for (uint32_t w = 0; w < warp_id(); w++) before += s.counts[w];
    sync_block();
    if (before < k && before + c0 >= k) {
        s.bin = hi;
        s.above = before;
        s.total = before + c0;
    } else if (before + c0 < k && before + c0 + c1 >= k) {
        s.bin = hi - 1;
        s.above = before + c0;
        s.total = before + c0 + c1;
    }
    sync_block();
}

// Sorts kept[0, n) downwards; n is a power of two, at most KEEP.
DEV void sort_kept(uint64_t *kept, uint32_t n)
{
    for (uint32_t size = 2; size <= n; size <<= 1)
        for (uint32_t step = size >> 1; step; step >>= 1) {
            const uint32_t i = tid(), j = i ^ step;
            if (i < n && j > i) {
                const uint64_t a = kept[i], b = kept[j];
                if ((a < b) == ((i & size) == 0)) {
                    kept[i] = b;
                    kept[j] = a;
                }
            }
            sync_block();
        }
}

// The bound at which no more than KEEP candidates are left, digit by digit.
DEV uint64_t exact_bound(select_state &s, const args_topk &a, const float *logits)
{
    uint32_t shift = 64;
    if (tid() == 0) s.prefix = 0, s.above = 0;
    do {
        shift -= DIGIT; // 53, 42, 31, 20, 9: below nine bits of id no more than 512 share a prefix
        s.bins[tid()] = s.bins[tid() + THREADS] = 0;
        sync_block();
        const uint64_t prefix = s.prefix;
        for (uint32_t i = tid(); i < a.n; i += THREADS) {
            const uint64_t c = candidate(logits[i], i);
            const bool mine = shift + DIGIT >= 64 || c >> (shift + DIGIT) == prefix;
            if (mine) shared_add(&s.bins[c >> shift & (BINS - 1)], 1);
        }
        sync_block();
        choose_bin(s, a.k);
        if (tid() == 0) s.prefix = prefix << DIGIT | s.bin;
        sync_block();
    } while (s.total > KEEP && shift > 9);
    return s.prefix << shift;
}

// Keeps the candidates that reach the bound, as far as there is room.
DEV void keep(select_state &s, const args_topk &a, const float *logits, uint64_t bound)
{
    s.kept[tid()] = 0;
    if (tid() == 0) s.n_kept = 0;
    sync_block();
    for (uint32_t i = tid(); i < a.n; i += THREADS) {
        const uint64_t c = candidate(logits[i], i);
        if (c < bound) continue;
        const uint32_t place = shared_add(&s.n_kept, 1);
        if (place < KEEP) s.kept[place] = c;
    }
    sync_block();
}

struct row_out {
    uint32_t n;
    float lse;
    int32_t ids[ROW_MAX];
    float logits[ROW_MAX];
};

DEV uint64_t lane_xor_64(uint64_t v, uint32_t mask)
{
    return (uint64_t)lane_xor((uint32_t)(v >> 32), mask) << 32 | lane_xor((uint32_t)v, mask);
}

// Sum or maximum over the block's eight warps, the same on all threads.
DEV float piece_reduce(float *box, float v, bool max)
{
    v = max ? warp_max(v) : warp_sum(v);
    sync_block();
    if (lane_id() == 0) box[warp_id()] = v;
    sync_block();
    v = box[0];
    for (uint32_t w = 1; w < PIECE_THREADS / 32; w++) v = max ? max_f(v, box[w]) : v + box[w];
    return v;
}

// Grid: (PIECES, out rows); PIECE_THREADS threads.
KERNEL void BOUNDS(256, 4) topk_scan(const args_topk a)
{
    __shared__ float box[PIECE_THREADS / 32];
    const uint32_t row = block_y();
    const piece p = piece_of(a.n, block_x());
    float *logits = a.logits + (uint64_t)row * a.stride;
    topk_work *work = a.work + row;
    dependents_launch();
    dependents_wait();
    adjust(a, logits, row, p);
    sync_block();
    uint64_t best = 0;
    float most = -INF_F, sum = 0;
    for (uint32_t i = p.from + tid(); i < p.end; i += PIECE_THREADS) {
        const float v = logits[i];
        const uint64_t c = candidate(v, i);
        best = c > best ? c : best;
        if (v == v) most = max_f(most, v);
    }
    for (uint32_t m = GROUP / 2; m; m >>= 1) {
        const uint64_t other = lane_xor_64(best, m);
        best = other > best ? other : best;
    }
    if (tid() % GROUP == 0) work->best[(block_x() * PIECE_THREADS + tid()) / GROUP] = best;
    most = piece_reduce(box, most, true);
    const float base = most == -INF_F ? 0.0f : most;
    for (uint32_t i = p.from + tid(); i < p.end; i += PIECE_THREADS) {
        const float v = logits[i];
        if (v == v) sum += exp2_fast((v - base) * 1.4426950408889634f);
    }
    sum = piece_reduce(box, sum, false);
    if (tid() != 0) return;
    work->most[block_x()] = most;
    work->sum[block_x()] = sum;
    if (block_x() == 0) work->n_kept = 0;
}

// Grid: (PIECES, out rows); THREADS threads.
KERNEL void BOUNDS(1024, 2) topk_keep(const args_topk a)
{
    __shared__ uint64_t kept[KEEP];
    const piece p = piece_of(a.n, block_x());
    const float *logits = a.logits + (uint64_t)block_y() * a.stride;
    topk_work *work = a.work + block_y();
    dependents_launch();
    dependents_wait();
    kept[tid()] = work->best[tid()];
    sync_block();
    sort_kept(kept, KEEP);
    const uint64_t bound = kept[a.k - 1];
    for (uint32_t i = p.from + tid(); i < p.end; i += THREADS) {
        const uint64_t c = candidate(logits[i], i);
        if (c < bound) continue;
        const uint32_t place = global_add(&work->n_kept, 1);
        if (place < KEEP) work->kept[place] = c;
    }
}

// The log of the sum of exponentials, by a warp.
DEV float log_sum(const topk_work *work)
{
    float most = -INF_F, sum = 0;
    for (uint32_t i = lane_id(); i < PIECES; i += 32) most = max_f(most, work->most[i]);
    most = warp_max(most);
    const float base = most == -INF_F ? 0.0f : most;
    for (uint32_t i = lane_id(); i < PIECES; i += 32)
        sum += work->sum[i] * exp2_fast((work->most[i] - base) * 1.4426950408889634f);
    return base + log2_fast(warp_sum(sum)) * 0.6931471805599453f;
}

// Grid: out rows; THREADS threads. k <= 128 and k <= n.
KERNEL void BOUNDS(1024, 1) topk(const args_topk a)
{
    __shared__ select_state s;
    dependents_launch();
    dependents_wait();
    const float *logits = a.logits + (uint64_t)block_x() * a.stride;
    const topk_work *work = a.work + block_x();
    uint32_t n = work->n_kept;
    if (n <= KEEP) {
        s.kept[tid()] = tid() < n ? work->kept[tid()] : 0;
        sync_block();
    } else {
        keep(s, a, logits, exact_bound(s, a, logits));
        n = s.n_kept;
    }
    uint32_t size = 2;
    while (size < n && size < KEEP) size <<= 1;
    sort_kept(s.kept, size);
    row_out *out = (row_out *)a.out + block_x();
    if (warp_id() == 0) {
        const float lse = log_sum(work);
        if (tid() == 0) {
            out->n = a.k;
            out->lse = lse;
        }
    }
    if (tid() < a.k) {
        out->ids[tid()] = (int32_t)candidate_id(s.kept[tid()]);
        out->logits[tid()] = candidate_logit(s.kept[tid()]);
    }
}
