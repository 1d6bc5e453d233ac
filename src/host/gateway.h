// What an agent gateway's configuration (openclaw.json, JSON5) says about its local provider.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

struct gateway {
    bool found, readable, has_provider, has_key;
    char why[160]; // what could not be read
    char base_url[160];
    int64_t context_window, timeout_s; // 0 = not set
};

// Reads the text; the provider is the one whose baseUrl fits the port, else one on loopback, else the first.
void gateway_read(struct gateway *g, struct str text, uint32_t port);
// Is it an address of this port that ends in /v1?
bool gateway_url_fits(const char *url, uint32_t port);
// JSON5 to JSON: comments, bare keys, single quotes, trailing commas, leading + and bare points, 0x numbers.
// Appends to out; false when a string or comment does not end.
bool json5_to_json(struct str text, struct buf *out);
