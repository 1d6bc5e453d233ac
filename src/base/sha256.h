// SHA-256 (FIPS 180-4), for files that somebody else names by it. Our own keys are XXH3 (base/hash.h).
#pragma once

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t h[8];
    uint64_t n_bytes;
    unsigned char block[64];
};

void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *p, size_t n);
// Ends it: 64 hexadecimal digits and a NUL.
void sha256_hex(struct sha256 *s, char out[65]);
