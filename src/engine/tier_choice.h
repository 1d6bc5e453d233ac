// Load or compute: which pages of those that the lower tiers hold are brought back, known before anything is read. Pure:
// no clock, no state, only what each page takes.
#pragma once

#include <stdint.h>

// Pages [first, end) come back; those before first are computed meanwhile, those from end on after that. first == end:
// nothing comes back.
struct tier_choice {
    uint32_t first, end;
    double seconds; // until all n pages are there
};
// load_s[n]: what each page takes to come, where they come one behind the other. page_s: what computing one takes.
struct tier_choice tier_choose(const double *load_s, uint32_t n, double page_s);
