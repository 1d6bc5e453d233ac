// Unicode's normalisation form C, quick for text that has it already.
// Source: UAX #15; the tables are utf8proc's.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

// One per caller, starts as {0}, grows as needed.
struct nfc_work {
    int32_t *points, *sorted; // [cap] code points
    size_t cap;
};

// Appends the NFC of s (valid UTF-8) to out; false: no memory. Linear in s.n.
bool nfc_put(struct buf *out, struct str s, struct nfc_work *w);
void nfc_work_free(struct nfc_work *w);
