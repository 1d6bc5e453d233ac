// Numbers as JSON writes them, as places of a grammar (text/grammar.h): at most 15 digits before and behind
// the point, which a double holds exactly, and two of an exponent. https://www.rfc-editor.org/rfc/rfc8259#section-6
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "text/grammar.h"

#define JSON_WHOLE_MAX 1000000000000000ll // the first whole number of more digits

// Each returns the place where the number begins; next is what follows it.
uint32_t json_integer(struct grammar *g, uint32_t next);
uint32_t json_number(struct grammar *g, uint32_t next);
// From least to most, both within JSON_WHOLE_MAX, least not above most; with `integers` these only, else
// also what lies between them.
uint32_t json_number_between(struct grammar *g, bool integers, int64_t least, int64_t most,
                             uint32_t next);
