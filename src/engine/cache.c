// What people and routes ask of the prefix tree from outside the engine thread.
#include "engine/engine.h"

const char *engine_cache_reason(enum cache_reason r)
{
    static const char *const names[CACHE_REASONS] = {
        [CACHE_NOT_LOOKED] = "not looked up", [CACHE_WHOLE] = "whole", [CACHE_ENDS] = "ends",
        [CACHE_DIFFERS] = "differs",          [CACHE_COLD] = "cold",   [CACHE_EVICTED] = "evicted",
    };
    return names[r];
}
