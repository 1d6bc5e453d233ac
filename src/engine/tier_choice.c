// Pages are useful from the front only, and computing goes from the front. So a run of pages [first, end) is loaded while
// those before it are computed, and what is behind it is computed last.
// Invariant: the choice is never slower than computing all, as far as load_s and page_s are right.
#include "engine/tier_choice.h"

// Loading and computing at once hinder each other, in memory and in cores: what that saves has to be worth it.
static const double worth_splitting = 0.8, worth_loading = 0.95;

static struct tier_choice quicker(struct tier_choice a, struct tier_choice b)
{
    return b.seconds < a.seconds ? b : a;
}

struct tier_choice tier_choose(const double *load_s, uint32_t n, double page_s, double cost_s)
{
    const struct tier_choice compute = {0, 0, n * page_s};
    struct tier_choice load = compute, both = compute;
    double all_s = 0, rest_s = 0; // of pages [0, end), [first, end)
    for (uint32_t end = 1, first = 0; end <= n; end++) {
        const double after_s = (n - end) * page_s + (end < n ? cost_s : 0) + cost_s;
        all_s += load_s[end - 1];
        rest_s += load_s[end - 1];
        // for every end, as many as can be computed until the rest has come; never fewer than for the end before
        while (first + 1 < end && (first + 1) * page_s <= rest_s - load_s[first])
            rest_s -= load_s[first++];
        load = quicker(load, (struct tier_choice){0, end, all_s + after_s});
        both = quicker(both, (struct tier_choice){first, end, rest_s + after_s});
        if (first + 1 < end) // one more: then computing takes longer
            both =
                quicker(both, (struct tier_choice){first + 1, end, (first + 1) * page_s + after_s});
    }
    both.seconds += cost_s; // of the step that ends where the loaded ones begin
    if (both.seconds < worth_splitting * load.seconds) load = both;
    return load.seconds < worth_loading * compute.seconds ? load : compute;
}
