// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

// Length in bytes of the valid sequence at p (1..4); 0 when there is none or it is cut short.
size_t utf8_valid_len(const char *p, size_t n);
// True when all of s is valid.
bool utf8_valid(struct str s);
// How many bytes at the end of s are the start of a sequence that more bytes could complete (0..3).
size_t utf8_partial_tail(struct str s);
// Decodes the sequence at p into *cp and returns its length; 0 as utf8_valid_len.
size_t utf8_decode(const char *p, size_t n, uint32_t *cp);
// Writes cp's sequence to out[4] and returns its length; 0 for what is no scalar value.
size_t utf8_encode(uint32_t cp, char out[4]);
