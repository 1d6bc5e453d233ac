// The tiers below the device in the server's words.
#pragma once

#include "serve/routes.h"

// Members "ram", "disk" and "restores" of an object that is under way: begins with a comma.
void tier_stats_json(struct buf *b, const struct tier_figures *t, const char *cache_type);
