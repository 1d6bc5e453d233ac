// How well a text is foretold: the negative log likelihood of each next token, through the network's
// own steps. For measuring arithmetic, not for serving: no scheduler, no cache, one text at a time.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/net.h"

struct score_settings {
    struct net *net; // borrowed, as kv; opened with max_out >= n_rows
    struct dbuf *kv; // at least the pages of n_ctx tokens
    uint32_t n_vocab;
    uint32_t page_tokens;
    uint32_t n_ctx;  // tokens of a window
    uint32_t n_rows; // rows of a step
};

// Cuts ids into windows of n_ctx tokens, each read from an empty context, and sums -log p (nats) of
// every token but a window's first. *n_scored: how many there were. ERR_MEMORY, ERR_DEVICE.
bool score_text(const struct score_settings *s, const int32_t *ids, size_t n_ids, double *nll,
                size_t *n_scored, struct err *e);
