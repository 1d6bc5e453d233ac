// Sizes computed without overflow: each returns false, leaving *out alone, where the result does not fit.
#pragma once

#include <stdbool.h>
#include <stddef.h>

static inline bool size_add(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}
static inline bool size_mul(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}
