// Attention of the AVX-512 table, and that table, with the instructions in C.
#if defined(__AVX2__)
#include "lib/avx512_in_c.h"

#include "compute/cpu/attend_avx512.c"
#endif
