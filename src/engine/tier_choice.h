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
// load_s[n]: what each page takes to come, where they come one behind the other. page_s: what computing one takes. cost_s:
// what loading any costs besides, and what a step more for those behind them costs.
struct tier_choice tier_choose(const double *load_s, uint32_t n, double page_s, double cost_s);

// A disk is shared with others and its speed is known from one reading: pages on it are taken to need so much longer than
// that, and their restore to cost so much besides (a GPU's step of few rows behind 13,000 tokens: 16 ms where the same rows
// in a longer step take 3).
#define TIER_FAR_DOUBT  1.25
#define TIER_FAR_COST_S 0.010
