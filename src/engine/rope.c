// Rotation frequencies, plain or stretched by YaRN. In f32 as Hugging Face's code computes them, since
// at position 40,000 the last bit of a frequency is 2e-3 radians.
// Sources: RoPE (arXiv 2104.09864), YaRN (arXiv 2309.00071), transformers' "yarn" rope_scaling.
#include <assert.h>
#include <math.h>

#include "engine/net.h"

static const float beta_fast = 32, beta_slow = 1; // turns over the original context
static const double two_pi = 6.283185307179586;

// The pair (as a real number) whose frequency turns n_turns times within n_ctx positions.
static double pair_of_turns(const struct model_config *c, uint32_t n_ctx, float n_turns)
{
    return c->head_dim * log(n_ctx / ((double)n_turns * two_pi)) / (2 * log((double)c->rope_base));
}

float net_rope_freqs(const struct model_config *c, uint32_t n_ctx, float *freqs, float *mscale)
{
    assert(c->head_dim % 2 == 0 && c->rope_orig_ctx > 0);
    float factor = c->rope_factor;
    if (n_ctx > c->n_ctx_train) factor = (float)n_ctx / (float)c->rope_orig_ctx;
    if (factor < 1) factor = 1;
    // Pairs before low turn often enough to be kept, those after high are slowed by the factor.
    double low = fmax(floor(pair_of_turns(c, c->rope_orig_ctx, beta_fast)), 0);
    double high = fmin(ceil(pair_of_turns(c, c->rope_orig_ctx, beta_slow)), c->head_dim - 1);
    if (high <= low) high = low + 0.001;
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        float keep = 1.0f / powf(c->rope_base, (float)(2 * i) / (float)c->head_dim);
        float slow = keep / factor;
        float ramp = (float)fmin(fmax((i - low) / (high - low), 0), 1);
        freqs[i] = slow * ramp + keep * (1 - ramp);
        if (factor == 1) freqs[i] = keep;
        if (c->rope_divisors != NULL) freqs[i] /= c->rope_divisors[i];
    }
    *mscale = factor > 1 ? 0.1f * logf(factor) + 1.0f : 1.0f;
    return factor;
}
