// Which table of kernels this processor runs. A new instruction set is a row of the table and a file
// named for it, which the build compiles for it.
#include <string.h>

#include "compute/cpu/cpu.h"

// F16C came before AVX2 in every line of processors; clang 14 cannot ask for it.
static bool can_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

static bool can_avx512(void)
{
#if defined(__x86_64__)
    return can_avx2() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

static bool can_always(void)
{
    return true;
}

// Best first.
static const struct isa {
    const char *device;
    const struct cpu_kernels *k;
    bool (*can)(void);
} isas[] = {
#if defined(__x86_64__)
    {"cpu:avx512", &cpu_kernels_avx512, can_avx512},
    {"cpu:avx2", &cpu_kernels_avx2, can_avx2},
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
    return err_set(e, ERR_NOT_FOUND, "no device %s: take cpu, cpu:avx512, cpu:avx2 or cpu:portable",
                   device);
}
