// Products of up to eight columns that stand one after another in a decode step (out; gate and up; down; the next
// layer's queries, keys and values), in one launch: a block stays on each multiprocessor, takes its panels of each
// product, and all blocks meet between two products. As launches of their own, each of them begins and ends with
// memory idle; here weights come through a ring in shared memory, and a warp asks for those of the products to come
// while it waits for the others.
//
// A warp has a ring of its own and fills it itself: pieces in the order in which it will want them, through all
// panels and products (chain_walk). So a slot needs no other guard than a barrier that counts its bytes.
//
// Equality: K is divided, and sums are added, as few_* do (linear.cu); results are the same bits.
#include "kernels/cuda/few.h"
#include "kernels/cuda/hopper.h"

extern __shared__ __attribute__((aligned(128))) char shared_bytes[];

#if PORT_SM90

// A piece is what a slot holds: a whole unit, or of 16-bit weights, whose granules need no scales, a granule.
template <int WARPS_, int SLOTS_, int SLOT_BYTES_, int KIND_> struct chain_class {
    enum {
        WARPS = WARPS_,
        SLOTS = SLOTS_,
        SLOT_BYTES = SLOT_BYTES_,
        UNIT_BYTES = unit<KIND_>::BYTES,
        PIECES = UNIT_BYTES / SLOT_BYTES_, // of a unit
        KIND = KIND_,
        RING_BYTES = SLOTS_ * SLOT_BYTES_,
        BOX = WARPS_ * 2 * 32, // vectors of a turn's sums; turns alternate between two boxes
        AHEAD = 4              // granules whose activations are on their way
    };
};
#define CLASS(name, warps, slots, bytes, least) typedef chain_class<warps, slots, bytes, PACK_##name> class_##name;
CHAIN_CLASSES(CLASS)
#undef CLASS

// What a product means for a warp.
struct chain_share {
    uint32_t first, stride, n_panels; // of its team
    uint32_t u0, u1;                  // its units of a panel
};
template <class C> DEV chain_share share_of(const args_chain &c, uint32_t product, uint32_t warp)
{
    chain_share s;
    const uint32_t n_warps = c.n_warps[product], team = warp / n_warps, member = warp % n_warps;
    const uint32_t n_units = c.product[product].n_units;
    const uint32_t each = n_units / n_warps, rest = n_units % n_warps;
    s.first = team * grid_blocks() + block_x();
    s.stride = C::WARPS / n_warps * grid_blocks();
    s.n_panels = c.n_panels[product];
    s.u0 = member * each + (member < rest ? member : rest);
    s.u1 = s.u0 + each + (member < rest ? 1 : 0);
    return s;
}

// Where a warp's copies are: the next piece to ask for. Kept by the warp's first lane.
struct chain_walk {
    uint32_t product, panel, unit, sub, n_sub; // sub: piece of the unit, gate before up
    chain_share share;
    const char *at[2]; // the panel's units, of gate and of up
    uint32_t n_sides;  // matrices side by side, 1 or 2
};

template <class C> DEV void walk_panel(const args_chain &c, chain_walk &w)
{
    const args_linear &a = c.product[w.product];
    const bool gated = a.mode == LINEAR_SWIGLU;
    const uint32_t i = gated ? 0 : part_of(a, w.panel);
    const linear_part m = part_get(a, i);
    w.n_sides = gated ? 2 : 1;
    w.n_sub = C::PIECES * w.n_sides;
    const uint64_t offset = (uint64_t)(w.panel - (gated ? 0 : m.block0)) * a.n_units * C::UNIT_BYTES;
    w.at[0] = (const char *)m.w + offset;
    w.at[1] = (const char *)a.part[1].w + offset;
    w.unit = w.share.u0;
    w.sub = 0;
}

// From (product, panel) on to the first panel of which this warp has units.
template <class C> DEV void walk_find(const args_chain &c, chain_walk &w, uint32_t warp)
{
    while (w.product < c.n_products && (w.panel >= w.share.n_panels || w.share.u0 == w.share.u1)) {
        if (++w.product >= c.n_products) return;
        w.share = share_of<C>(c, w.product, warp);
        w.panel = w.share.first;
    }
    if (w.product < c.n_products) walk_panel<C>(c, w);
}

template <class C> DEV chain_walk walk_begin(const args_chain &c, uint32_t warp)
{
    chain_walk w;
    w.product = 0;
    w.share = share_of<C>(c, 0, warp);
    w.panel = w.share.first;
    w.unit = w.sub = w.n_sub = w.n_sides = 0;
    w.at[0] = w.at[1] = NULL;
    walk_find<C>(c, w, warp);
    return w;
}

template <class C> DEV void walk_next(const args_chain &c, chain_walk &w, uint32_t warp)
{
    if (++w.sub < w.n_sub) return;
    w.sub = 0;
    if (++w.unit < w.share.u1) return;
    w.panel += w.share.stride;
    walk_find<C>(c, w, warp);
}

// A warp's ring; bars: a barrier a slot. Slots are used in turn, parity says in which round.
struct chain_ring {
    char *slots;
    uint32_t bars, slot, parity;
    chain_walk walk;
};

// Asks for the walk's next piece, into a slot that nobody reads any more. By one lane.
template <class C> DEV void ring_fill(const args_chain &c, chain_ring &r, uint32_t slot, uint32_t warp)
{
    chain_walk &w = r.walk;
    if (w.product >= c.n_products) return;
    const char *side = w.n_sides == 2 && (w.sub & 1) ? w.at[1] : w.at[0];
    const char *from = side + (uint64_t)w.unit * C::UNIT_BYTES + w.sub / w.n_sides * C::SLOT_BYTES;
    barrier_expect(r.bars + slot * 8, C::SLOT_BYTES);
    bulk_copy(shared_addr(r.slots) + slot * C::SLOT_BYTES, from, C::SLOT_BYTES, r.bars + slot * 8);
    walk_next<C>(c, w, warp);
}

template <class C> DEV chain_ring ring_open(const args_chain &c, uint32_t bars, uint32_t warp)
{
    chain_ring r;
    r.slots = shared_bytes + warp * C::RING_BYTES;
    r.bars = bars + warp * (C::SLOTS * 8);
    r.slot = r.parity = 0;
    r.walk = walk_begin<C>(c, warp);
    if (lane_id() == 0) {
        for (uint32_t i = 0; i < C::SLOTS; i++) barrier_init(r.bars + i * 8, 1);
        barrier_fence_init();
        fence_async();
        for (uint32_t i = 0; i < C::SLOTS; i++) ring_fill<C>(c, r, i, warp);
    }
    sync_warp();
    return r;
}

// The piece `ahead` places on, once it is there.
template <class C> DEV const char *ring_wait(const chain_ring &r, uint32_t ahead)
{
    const uint32_t on = r.slot + ahead, slot = on < C::SLOTS ? on : on - C::SLOTS;
    barrier_wait(r.bars + slot * 8, r.parity ^ (on < C::SLOTS ? 0 : 1));
    return r.slots + slot * C::SLOT_BYTES;
}

// The first n pieces were read by all lanes.
template <class C> DEV void ring_release(const args_chain &c, chain_ring &r, uint32_t n, uint32_t warp)
{
    sync_warp();
    for (uint32_t i = 0; i < n; i++) {
        if (lane_id() == 0) ring_fill<C>(c, r, r.slot, warp);
        if (++r.slot == C::SLOTS) r.slot = 0, r.parity ^= 1;
    }
}

// The product's activations into the block's own cache, as far as it has room: else each warp would wait for each of
// its first panel's granules. What it returns must be used, later on, or nothing would be read.
DEV uint32_t activations_warm(const args_linear &a)
{
    enum { MOST = 48 << 10, LINE = 128 };
    const uint32_t all = a.n * a.n_units * 512, n = all < MOST ? all : MOST;
    uint32_t seen = 0;
    for (uint32_t i = tid() * LINE; i < n; i += n_threads() * LINE)
        seen |= *(const uint32_t *)((const char *)a.x + i);
    return seen;
}

struct activations {
    u32x4 lo, hi;
};
DEV activations activations_load(const char *x)
{
    const activations v = {*(const u32x4 *)x, *(const u32x4 *)(x + 16)};
    return v;
}

// This warp's units [u0, u1) of NP panels.
template <class C, int NP>
DEV void chain_units(float sum[NP][4], const args_chain &c, chain_ring &r, const args_linear &a,
                     const chain_share &s, uint32_t warp)
{
    constexpr int KIND = C::KIND;
    constexpr bool WHOLE = KIND != PACK_H16; // a piece is a unit
    const uint32_t lane = lane_id(), col = lane >> 2;
    const masks m = masks_make();
    // columns beyond the last repeat it: what they give is not stored
    const uint32_t from = col < a.n ? col : a.n - 1;
    const char *x = (const char *)a.x + ((uint64_t)from * a.n_units * 256 + s.u0 * 256 + (lane & 3) * 16) * 2;
    if (s.u0 >= s.u1) return;
    activations ring[C::AHEAD];
#pragma unroll
    for (uint32_t i = 0; i < C::AHEAD; i++) ring[i] = activations_load(x + i * 128);
#pragma unroll 1
    for (uint32_t u = s.u0; u < s.u1; u++) {
        const char *unit0[NP];
        scales sc[NP];
#pragma unroll
        for (uint32_t p = 0; p < NP; p++) {
            if (WHOLE) {
                unit0[p] = ring_wait<C>(r, p);
                scales_load<KIND>(sc[p], unit0[p], lane);
            }
        }
#pragma unroll
        for (uint32_t n = 0; n < 4; n++) {
            activations &now = ring[n % C::AHEAD];
            const uint32_t b[8] = {now.lo.x, now.lo.y, now.lo.z, now.lo.w, now.hi.x, now.hi.y, now.hi.z, now.hi.w};
            if (n + C::AHEAD < 4 || u + 1 < s.u1) now = activations_load(x + (n + C::AHEAD) * 128);
            granule<KIND> in[NP];
#pragma unroll
            for (uint32_t p = 0; p < NP; p++)
                granule_load<KIND, true>(in[p], WHOLE ? unit0[p] : ring_wait<C>(r, p), WHOLE ? n : 0, lane);
            if (!WHOLE || n == 3) ring_release<C>(c, r, NP, warp);
#pragma unroll
            for (uint32_t p = 0; p < NP; p++) {
                uint32_t op[4][4];
                granule_operands<KIND>(in[p], sc[p], n, m, op);
#pragma unroll
                for (uint32_t j = 0; j < 4; j++) mma_16x8x16(sum[p], op[j], b[2 * j], b[2 * j + 1]);
            }
        }
        x += 512;
    }
}

DEV void sync_team(uint32_t team, uint32_t threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(threads) : "memory");
}

// This block's panels of one product. What is wanted at a panel's end is asked for at its beginning.
template <class C, int NP>
DEV void chain_product(const args_chain &c, chain_ring &r, uint32_t product, float *factors)
{
    const args_linear &a = c.product[product];
    const uint32_t warp = warp_id(), n_warps = c.n_warps[product], team = warp / n_warps;
    const chain_share s = share_of<C>(c, product, warp);
    float *factor = factors + team * 8; // of its own, so that only the team waits for them
    f32x4 *boxes = (f32x4 *)(shared_bytes + C::WARPS * C::RING_BYTES) + team * n_warps * 64;
    const uint32_t seen = activations_warm(a);
    uint32_t turn = 0;
#pragma unroll 1
    for (uint32_t panel = s.first; panel < s.n_panels; panel += s.stride, turn++) {
        const uint32_t i = NP == 2 ? 0 : part_of(a, panel);
        const linear_part m = part_get(a, i);
        const uint32_t here = NP == 2 ? panel : panel - m.block0;
        const few_team t = {boxes + (turn & 1) * C::BOX, factor, tid() - team * n_warps * 32, warp % n_warps, n_warps};
        const few_old old = few_look(a, m, here, t, NP == 2);
        float sum[NP][4];
#pragma unroll
        for (uint32_t p = 0; p < NP; p++) sum[p][0] = sum[p][1] = sum[p][2] = sum[p][3] = 0;
        chain_units<C, NP>(sum, c, r, a, s, warp);
        if (turn == 0 && a.row_squares) column_factors(a, factor, warp % n_warps, n_warps);
        few_put<NP>(sum, t);
        sync_team(team, n_warps * 32);
        few_store<NP>(old, a, m, here, t);
    }
    if (seen == 0xffffffffu) factors[C::WARPS / 4 * 8] = 0; // no two f16 of activations are that
}

// Until every block has come here: what they wrote is then seen by all. arrived counts on from launch to launch.
DEV void blocks_meet(uint64_t *arrived, uint64_t &target)
{
    sync_block();
    if (tid() == 0) {
        uint64_t seen;
        fence_device();
        asm volatile("atom.global.add.u64 %0, [%1], 1;" : "=l"(seen) : "l"(arrived) : "memory");
        target = target ? target + grid_blocks() : (seen / grid_blocks() + 1) * grid_blocks();
        do
            asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(seen) : "l"(arrived) : "memory");
        while (seen < target);
        fence_device();
    }
    sync_block();
}

// Grid: a block a multiprocessor, all of them live at once.
template <class C> DEV void chain(const args_chain &c)
{
    __shared__ uint64_t bars[C::WARPS * C::SLOTS];
    __shared__ float factors[C::WARPS / 4 * 8 + 1]; // a team has four warps or more; one that nobody uses
    const uint32_t warp = warp_id();
    uint64_t target = 0;
    chain_ring ring = ring_open<C>(c, shared_addr(bars), warp);
    dependents_launch();
    dependents_wait();
#pragma unroll 1
    for (uint32_t i = 0; i < c.n_products; i++) {
        const args_linear &a = c.product[i];
        if (i) blocks_meet(c.arrived, target);
        if (a.mode == LINEAR_SWIGLU)
            chain_product<C, 2>(c, ring, i, factors);
        else
            chain_product<C, 1>(c, ring, i, factors);
    }
}
#define CHAIN(name) chain<class_##name>(c)
#else
#define CHAIN(name) (void)c
#endif

#define CHAIN_KERNEL(name, warps, slots, slot_bytes, least)                                  \
    KERNEL void BOUNDS((warps)*32, 1) chain_##name(const PARAM_FIXED args_chain c)           \
    {                                                                                        \
        CHAIN(name);                                                                         \
    }
CHAIN_CLASSES(CHAIN_KERNEL)
