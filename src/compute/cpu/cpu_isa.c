// Which table of kernels this processor runs. A new instruction set is a row of the table and a file
// named for it, which the build compiles for it.
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "base/str.h"
#include "compute/cpu/cpu.h"

#if defined(__x86_64__)
// All that the build compiles *_avx2.c for; F16C is leaf 1, bit 29 of ecx, for which clang 14 has no name.
static bool can_avx2(void)
{
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2") && __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

// The compiler's own name for it came later than the instruction: leaf 7, 1, bit 4 of eax.
static bool can_avxvnni(void)
{
    unsigned a, b, c, d;
    return can_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

static bool can_avx512(void)
{
    return can_avx2() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}

// Leaf 7, bits 24 and 25 of edx: tiles, of 8-bit integers. The system grants their registers, or does not.
static bool can_amx(void)
{
    unsigned a, b, c, d;
    return can_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 3) == 3 &&
           threads_may_use_tiles();
}
#endif

#if defined(__aarch64__)
// Bits of the Linux interface (asm/hwcap.h), which older headers lack.
enum { HWCAP_DOTPROD = 1 << 20, HWCAP2_MATRIX = 1 << 13 };

static bool can_dotprod(void)
{
    return getauxval(AT_HWCAP) & HWCAP_DOTPROD;
}

static bool can_i8mm(void)
{
    return can_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_MATRIX);
}
#endif

static bool can_always(void)
{
    return true;
}

// Best first. AMX's tiles of bytes stand behind AVX-512, whose bits they give: where both were timed in
// turn (bench/SPEED.md), they were slower at every length of prompt. --device cpu:amx takes them.
static const struct isa {
    const char *device;
    const struct cpu_kernels *k;
    bool (*can)(void);
} isas[] = {
#if defined(__x86_64__)
    {"cpu:avx512", &cpu_kernels_avx512, can_avx512},
    {"cpu:amx", &cpu_kernels_amx, can_amx}, // the same bits
    {"cpu:avxvnni", &cpu_kernels_avxvnni, can_avxvnni},
    {"cpu:avx2", &cpu_kernels_avx2, can_avx2},
#elif defined(__aarch64__)
    {"cpu:i8mm", &cpu_kernels_i8mm, can_i8mm},
    {"cpu:dotprod", &cpu_kernels_dotprod, can_dotprod},
#endif
    {"cpu:portable", &cpu_kernels_c, can_always},
};

bool cpu_isa_choose(const struct cpu_kernels **out, const char *device, struct err *e)
{
    const bool any = !device || strcmp(device, "cpu") == 0;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (!any && strcmp(device, isas[i].device) != 0) continue;
        *out = isas[i].k;
        if (isas[i].can()) return true;
        if (!any) return err_set(e, ERR_NOT_FOUND, "this processor cannot do %s", device);
    }
    struct buf known = {0};
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++)
        buf_printf(&known, ", %s", isas[i].device);
    err_set(e, ERR_NOT_FOUND, "no device %s: take cpu%s", device, buf_cstr(&known));
    buf_free(&known);
    return false;
}
