// The one place that knows the device compiler: nvcc, clang for NVIDIA without any CUDA installation,
// and clang for AMD (HIP, wave32) without ROCm. Kernels are written with what stands here and with
// nothing of a vendor's headers. A pair of f16 travels as a uint32_t, low half first.
//
// Invariant: every function means the same on all three; where AMD lacks an instruction (mma,
// ldmatrix, asynchronous copies) a plain form with the same lane layout stands in: right first.
#pragma once

#if defined(__HIP__) && !defined(PORT_AMD)
#define PORT_AMD 1
#else
#define PORT_AMD 0
#endif

#if !defined(__CUDACC__) || (defined(__clang__) && !defined(__CUDACC_VER_MAJOR__))
#ifndef __host__
#define __host__ __attribute__((host))
#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#endif
#ifndef __CUDACC__
#define __CUDACC__ 1
#endif
#define PORT_BARE 1 // no vendor header was included
#else
#define PORT_BARE 0
#endif

#include <stddef.h>
#include <stdint.h>

#define DEV static __device__ inline __attribute__((always_inline))
#define KERNEL extern "C" __global__
// A kernel's argument that is only read, also by an index: stays where the launch put it.
#if PORT_BARE
#define PARAM_FIXED
#else
#define PARAM_FIXED __grid_constant__
#endif
#if PORT_BARE
#define BOUNDS(threads, blocks) __attribute__((launch_bounds(threads, blocks)))
#if PORT_AMD
#undef BOUNDS
#define BOUNDS(threads, blocks) __attribute__((amdgpu_flat_work_group_size(1, threads)))
#endif
#else
#define BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#endif

struct u32x2 {
    uint32_t x, y;
} __attribute__((aligned(8)));
struct u32x4 {
    uint32_t x, y, z, w;
} __attribute__((aligned(16)));
struct f32x4 {
    float x, y, z, w;
} __attribute__((aligned(16)));

// sm_90 with the 'a' features (wgmma, bulk copies): the compiler says so in different words.
#if !PORT_AMD && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define PORT_SM90 1
#else
#define PORT_SM90 0
#endif

// ---- where am I -------------------------------------------------------------------------------

#if PORT_AMD
DEV uint32_t tid(void) { return __builtin_amdgcn_workitem_id_x(); }
DEV uint32_t block_x(void) { return __builtin_amdgcn_workgroup_id_x(); }
DEV uint32_t block_y(void) { return __builtin_amdgcn_workgroup_id_y(); }
DEV uint32_t n_threads(void) { return __builtin_amdgcn_workgroup_size_x(); }
DEV void sync_block(void)
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
DEV void sync_warp(void)
{
    __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
    __builtin_amdgcn_wave_barrier();
}
#else
DEV uint32_t tid(void)
{
    uint32_t v;
    asm("mov.u32 %0, %%tid.x;" : "=r"(v));
    return v;
}
DEV uint32_t block_x(void)
{
    uint32_t v;
    asm("mov.u32 %0, %%ctaid.x;" : "=r"(v));
    return v;
}
DEV uint32_t block_y(void)
{
    uint32_t v;
    asm("mov.u32 %0, %%ctaid.y;" : "=r"(v));
    return v;
}
DEV uint32_t n_threads(void)
{
    uint32_t v;
    asm("mov.u32 %0, %%ntid.x;" : "=r"(v));
    return v;
}
DEV void sync_block(void) { asm volatile("bar.sync 0;" ::: "memory"); }
DEV void sync_warp(void) { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }
#endif
DEV uint32_t lane_id(void) { return tid() & 31; }
DEV uint32_t warp_id(void) { return tid() >> 5; }

// Programmatic dependent launch: the next kernel may start; wait until the previous one's writes
// are visible. Every kernel waits before it touches what another kernel wrote or reads. Without the
// launch attribute, and on older chips, both do nothing.
DEV void dependents_launch(void)
{
#if PORT_SM90
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
DEV void dependents_wait(void)
{
#if PORT_SM90
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#if PORT_SM90
// What this thread wrote, and saw written, before it is seen by others of the device that see what it writes after.
DEV void fence_device(void) { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
#endif

// ---- lanes of a warp exchange -----------------------------------------------------------------

DEV uint32_t bits_of(float f)
{
    union {
        float f;
        uint32_t u;
    } v;
    v.f = f;
    return v.u;
}
DEV float float_of(uint32_t u)
{
    union {
        float f;
        uint32_t u;
    } v;
    v.u = u;
    return v.f;
}
#if PORT_AMD
DEV uint32_t lane_get(uint32_t v, uint32_t lane)
{
    return (uint32_t)__builtin_amdgcn_ds_bpermute((int)(lane * 4), (int)v);
}
DEV uint32_t lane_xor(uint32_t v, uint32_t mask) { return lane_get(v, lane_id() ^ mask); }
#else
DEV uint32_t lane_get(uint32_t v, uint32_t lane)
{
    uint32_t r;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(r) : "r"(v), "r"(lane));
    return r;
}
DEV uint32_t lane_xor(uint32_t v, uint32_t mask)
{
    uint32_t r;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(r) : "r"(v), "r"(mask));
    return r;
}
#endif
DEV float lane_xor_f(float v, uint32_t mask) { return float_of(lane_xor(bits_of(v), mask)); }
DEV float warp_sum(float v)
{
    for (uint32_t m = 16; m; m >>= 1) v += lane_xor_f(v, m);
    return v;
}
DEV float max_f(float a, float b) { return a > b ? a : b; }
DEV float warp_max(float v)
{
    for (uint32_t m = 16; m; m >>= 1) v = max_f(v, lane_xor_f(v, m));
    return v;
}

// ---- arithmetic -------------------------------------------------------------------------------

#define INF_F (__builtin_inff())

#if PORT_AMD
typedef _Float16 half2v __attribute__((ext_vector_type(2)));
DEV half2v h2_of(uint32_t u)
{
    union {
        uint32_t u;
        half2v h;
    } v;
    v.u = u;
    return v.h;
}
DEV uint32_t u_of(half2v h)
{
    union {
        uint32_t u;
        half2v h;
    } v;
    v.h = h;
    return v.u;
}
DEV uint32_t h2_sub(uint32_t a, uint32_t b) { return u_of(h2_of(a) - h2_of(b)); }
DEV uint32_t h2_mul(uint32_t a, uint32_t b) { return u_of(h2_of(a) * h2_of(b)); }
DEV uint32_t h2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    return u_of(__builtin_elementwise_fma(h2_of(a), h2_of(b), h2_of(c)));
}
DEV float h_lo(uint32_t a) { return (float)h2_of(a).x; }
DEV float h_hi(uint32_t a) { return (float)h2_of(a).y; }
DEV uint32_t h2_pack(float lo, float hi)
{
    half2v h;
    h.x = (_Float16)lo;
    h.y = (_Float16)hi;
    return u_of(h);
}
DEV uint32_t byte_perm(uint32_t a, uint32_t b, uint32_t sel)
{
    // v_perm_b32 numbers the bytes of the second operand 0..3; the selector is a nibble a byte here
    const uint32_t s = (sel & 7) | (sel >> 4 & 7) << 8 | (sel >> 8 & 7) << 16 | (sel >> 12 & 7) << 24;
    return __builtin_amdgcn_perm(b, a, s);
}
DEV float exp2_fast(float x) { return __builtin_amdgcn_exp2f(x); }
DEV float log2_fast(float x) { return __builtin_amdgcn_logf(x); }
DEV float rcp_fast(float x) { return __builtin_amdgcn_rcpf(x); }
DEV float sqrt_f(float x) { return __builtin_amdgcn_sqrtf(x); }
DEV float sin_small(float x) { return __builtin_amdgcn_sinf(x * 0.15915494309189535f); }
DEV float cos_small(float x) { return __builtin_amdgcn_cosf(x * 0.15915494309189535f); }
DEV uint32_t shared_add(uint32_t *p, uint32_t v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
DEV uint32_t global_add(uint32_t *p, uint32_t v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
#else
DEV uint32_t h2_sub(uint32_t a, uint32_t b)
{
    uint32_t r;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
DEV uint32_t h2_mul(uint32_t a, uint32_t b)
{
    uint32_t r;
    asm("mul.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
DEV uint32_t h2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t r;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
DEV float h_lo(uint32_t a)
{
    float f;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(f) : "r"(a));
    return f;
}
DEV float h_hi(uint32_t a)
{
    float f;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h;}" : "=f"(f) : "r"(a));
    return f;
}
DEV uint32_t h2_pack(float lo, float hi)
{
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
// Four bytes of (b, a), picked by the nibbles of sel: 0..3 are a's, 4..7 are b's.
DEV uint32_t byte_perm(uint32_t a, uint32_t b, uint32_t sel)
{
    uint32_t r;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(sel));
    return r;
}
DEV float exp2_fast(float x)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEV float log2_fast(float x)
{
    float r;
    asm("lg2.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEV float rcp_fast(float x)
{
    float r;
    asm("rcp.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEV float sqrt_f(float x)
{
    float r;
    asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEV float sin_small(float x)
{
    float r;
    asm("sin.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEV float cos_small(float x)
{
    float r;
    asm("cos.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEV uint32_t shared_add(uint32_t *p, uint32_t v)
{
    uint32_t r, at;
    uint64_t wide;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(wide) : "l"(p));
    at = (uint32_t)wide;
    asm volatile("atom.shared.add.u32 %0, [%1], %2;" : "=r"(r) : "r"(at), "r"(v) : "memory");
    return r;
}
DEV uint32_t global_add(uint32_t *p, uint32_t v)
{
    uint32_t r;
    asm volatile("atom.global.add.u32 %0, [%1], %2;" : "=r"(r) : "l"(p), "r"(v) : "memory");
    return r;
}
#endif
// Pairs to 8-bit floats (e4m3: 4 bits of exponent, 3 of mantissa, 448 at most), the first in the low byte. Chips
// without them have no kernels that use them.
#if PORT_SM90
DEV uint32_t e4m3_of_f16(uint32_t h2)
{
    uint16_t r;
    asm("cvt.rn.satfinite.e4m3x2.f16x2 %0, %1;" : "=h"(r) : "r"(h2));
    return r;
}
DEV uint32_t e4m3_of_f32(float lo, float hi)
{
    uint16_t r;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(hi), "f"(lo));
    return r;
}
#endif
// (a & mask) | bits. The constants pass through registers, so that it is one instruction: two immediate
// operands would be two.
#if PORT_AMD
DEV uint32_t and_or(uint32_t a, uint32_t mask, uint32_t bits) { return (a & mask) | bits; }
#else
DEV uint32_t and_or(uint32_t a, uint32_t mask, uint32_t bits)
{
    uint32_t r;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(a), "r"(mask), "r"(bits));
    return r;
}
#endif
// A constant that the compiler keeps in a register instead of folding it.
DEV uint32_t kept(uint32_t v)
{
#if !PORT_AMD
    asm volatile("" : "+r"(v));
#endif
    return v;
}
// A float in both halves, kept inside f16's range.
DEV float h_clamp(float x) { return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x; }
DEV uint32_t h2_pack_clamped(float lo, float hi) { return h2_pack(h_clamp(lo), h_clamp(hi)); }
DEV uint32_t h2_same(float x) { return h2_pack(x, x); }
DEV float half_at(const uint16_t *p) { return h_lo(*p); }
DEV uint16_t half_bits(float x) { return (uint16_t)h2_pack_clamped(x, 0.0f); }

// sin and cos of an angle of up to some 1e6: brought to [-pi, pi] in three steps (Cody and Waite), so
// that what is lost is the angle's own rounding.
DEV void sin_cos(float angle, float &s, float &c)
{
    const float turns = angle * 0.15915494309189535f;
    const float n = (float)(int32_t)(turns + (turns < 0 ? -0.5f : 0.5f));
    float r = __builtin_fmaf(-n, 6.28125f, angle);
    r = __builtin_fmaf(-n, 1.9350051879882812e-3f, r);
    r = __builtin_fmaf(-n, 3.0199159819567e-7f, r);
    s = sin_small(r);
    c = cos_small(r);
}

// One of a pair that turns, rounded alike wherever it is done: x c + y s.
DEV float turned(float x, float y, float s, float c) { return __builtin_fmaf(x, c, y * s); }

// ---- matrix tiles -----------------------------------------------------------------------------
// c[16][8] += a[16][16] b[16][8], f16 operands, f32 sums. With g = lane / 4 and t = lane % 4:
// a0 (g; 2t, 2t+1), a1 (g+8; same), a2 (g; 2t+8, +9), a3 (g+8; same); b0 (2t, 2t+1; g), b1 (2t+8, +9; g);
// c0, c1 (g; 2t, 2t+1), c2, c3 (g+8; same).

#if PORT_AMD
DEV void mma_16x8x16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    const uint32_t lane = lane_id(), g = lane >> 2, t = lane & 3;
    for (uint32_t s = 0; s < 4; s++) {
        const uint32_t from_a = g * 4 + s;
        uint32_t row[4];
        for (int i = 0; i < 4; i++) row[i] = lane_get(a[i], from_a);
        for (uint32_t e = 0; e < 2; e++) {
            const uint32_t from_b = (2 * t + e) * 4 + s;
            const uint32_t x = lane_get(b0, from_b), y = lane_get(b1, from_b);
            c[e] += h_lo(row[0]) * h_lo(x) + h_hi(row[0]) * h_hi(x) + h_lo(row[2]) * h_lo(y) +
                    h_hi(row[2]) * h_hi(y);
            c[2 + e] += h_lo(row[1]) * h_lo(x) + h_hi(row[1]) * h_hi(x) + h_lo(row[3]) * h_lo(y) +
                        h_hi(row[3]) * h_hi(y);
        }
    }
}
#else
DEV void mma_16x8x16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

// ---- shared memory ----------------------------------------------------------------------------

#if !PORT_AMD
DEV uint32_t shared_addr(const void *p)
{
    uint64_t a;
    asm("cvta.to.shared.u64 %0, %1;" : "=l"(a) : "l"(p));
    return (uint32_t)a;
}
#endif

// A place in shared memory that loads of tiles take: bytes may be added to it.
#if PORT_AMD
typedef const char *shared_at;
DEV shared_at shared_place(const void *p) { return (const char *)p; }
#else
typedef uint32_t shared_at;
DEV shared_at shared_place(const void *p) { return shared_addr(p); }
#endif

// Four 8 x 8 tiles of f16: lane l names row l % 8 of tile l / 8 (16 bytes). Register i of a lane then
// holds elements 2t, 2t+1 of row g of tile i; transposed: rows 2t, 2t+1 of column g.
#if PORT_AMD
DEV uint32_t tile_word(const void *mine, uint32_t i)
{
    const uint32_t lane = lane_id(), from = i * 8 + (lane >> 2);
    const uint64_t p = (uint64_t)mine;
    const uint64_t at = lane_get((uint32_t)p, from) | (uint64_t)lane_get((uint32_t)(p >> 32), from) << 32;
    return ((const uint32_t *)at)[lane & 3];
}
DEV uint32_t tile_word_t(const void *mine, uint32_t i)
{
    const uint32_t lane = lane_id(), g = lane >> 2, t = lane & 3;
    uint32_t r = 0;
    for (uint32_t e = 0; e < 2; e++) {
        const uint32_t from = i * 8 + 2 * t + e;
        const uint64_t p = (uint64_t)mine;
        const uint64_t at =
            lane_get((uint32_t)p, from) | (uint64_t)lane_get((uint32_t)(p >> 32), from) << 32;
        r |= (uint32_t)((const uint16_t *)at)[g] << 16 * e;
    }
    return r;
}
DEV void tiles_load(uint32_t r[4], shared_at row)
{
    for (uint32_t i = 0; i < 4; i++) r[i] = tile_word(row, i);
}
DEV void tiles_load_t(uint32_t r[4], shared_at row)
{
    for (uint32_t i = 0; i < 4; i++) r[i] = tile_word_t(row, i);
}
DEV void copy16_async(void *to, const void *from) { *(u32x4 *)to = *(const u32x4 *)from; }
DEV void copies_commit(void) {}
template <int N> DEV void copies_wait(void) {}
DEV u32x4 load_stream(const void *p) { return *(const u32x4 *)p; }
#else
DEV void tiles_load(uint32_t r[4], shared_at row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
DEV void tiles_load_t(uint32_t r[4], shared_at row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
// 16 bytes from global to shared memory, asynchronously: commit closes a group, wait<N> leaves the
// N latest groups in flight.
DEV void copy16_async(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_addr(to)), "l"(from)
                 : "memory");
}
DEV void copies_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEV void copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
// 16 bytes that are read once: past the first-level cache.
DEV u32x4 load_stream(const void *p)
{
    u32x4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}
#endif
