// The definition of every weight format: decoding a row to float, in plain C. Kernels are checked
// against this; nothing fast lives here.
#pragma once

#include <stddef.h>

#include "kernels/common/formats.h"

// Decodes n_cols weights (a multiple of the format's block) of one row to out[n_cols].
void quant_decode_row(enum fmt f, const void *row, float *out, size_t n_cols);
// Encodes n_cols floats as format f: the plain round-to-nearest way, for tests and synthetic models.
// Only F32, F16, BF16, Q8_0 and Q4_0 are encoded; returns false for the others.
bool quant_encode_row(enum fmt f, const float *in, void *row, size_t n_cols);
