// Who may call: API keys, Host names, content types. Pure functions over header texts.
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

// Compares in a time that depends on the lengths only, over all keys.
bool guard_key_ok(const struct str *keys, size_t n_keys, struct str given);
// The key in "Bearer KEY" (scheme in any case); empty when there is none.
struct str guard_bearer(struct str authorization);
// On a loopback address a foreign Host means that a web page rebound its own name to this machine
// (DNS rebinding). Allowed: localhost, *.localhost, loopback addresses, and the names of the comma
// separated list extra; the port does not matter.
bool guard_host_ok(struct str host, struct str extra);
struct sockaddr;
// An address of this machine's loopback: 127.*, ::1, or the former written as the latter.
bool guard_address_local(const struct sockaddr *a);
// application/json, with or without parameters.
bool guard_is_json(struct str content_type);
