// Packed weights as the AVX-512 table multiplies them, with the instructions in C.
#if defined(__AVX2__)
#include "lib/avx512_in_c.h"

#include "compute/cpu/packed_avx512.c"
#endif
