// Conversions between IEEE binary16, bfloat16 and binary32, by bits.
#include "base/half.h"

uint16_t f32_to_bf16(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u); // NaN stays NaN
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = h >> 10 & 0x1fu, fraction = h & 0x3ffu;
    if (exponent == 0x1f) return f32_from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return f32_from_bits(sign | (exponent + 112u) << 23 | fraction << 13);
    float f = (float)fraction * 0x1p-24f; // zero and subnormals, exact
    return f32_from_bits(sign | f32_bits(f));
}

uint16_t f32_to_f16(float f)
{
    uint32_t u = f32_bits(f), sign = u >> 16 & 0x8000u;
    uint32_t a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); // rounds to infinity
    if (a < 0x38800000u) {                                   // subnormal: the addition rounds
        float r = f32_from_bits(a) + 0.5f;
        return (uint16_t)(sign | (f32_bits(r) - 0x3f000000u));
    }
    return (uint16_t)(sign | (a + 0xfffu + (a >> 13 & 1u) - (112u << 23)) >> 13);
}
