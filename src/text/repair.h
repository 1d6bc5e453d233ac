// Bytes that should be UTF-8 -> bytes that are.
#pragma once

#include "base/str.h"

// Appends s with one U+FFFD for each byte sequence that is not UTF-8: a cut character is one, any
// other byte is one ("substitution of maximal subparts", Unicode 15, section 3.9). Bytes equal to
// drop are left out; drop < 0: none is.
void repair_utf8(struct buf *out, struct str s, int drop);
