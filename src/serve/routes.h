// Which function answers which path.
#pragma once

#include <stdbool.h>

#include "serve/exchange.h"

struct route {
    const char *method, *path;
    bool (*handle)(struct exchange *x); // false: close the connection
    bool public;                        // needs no key
    bool needs_engine;                  // 503 while loading
    bool probe;                         // asked all the time: logged at debug level only
    bool private;                       // for this machine, or with a key
};

// The route, or NULL with e filled (404, or 405 with allow naming what the path takes). HEAD finds
// GET's route, OPTIONS finds any and gets the allowed methods.
const struct route *route_find(const char *method, const char *path, char allow[32], struct err *e);

bool route_health(struct exchange *x);
bool route_version(struct exchange *x);
bool route_models(struct exchange *x);
bool route_model(struct exchange *x);
bool route_props(struct exchange *x);
bool route_slots(struct exchange *x);
bool route_metrics(struct exchange *x);
bool route_chat(struct exchange *x);
bool route_completions(struct exchange *x);
bool route_tokenize(struct exchange *x);
bool route_detokenize(struct exchange *x);
bool route_apply_template(struct exchange *x);
bool route_chat_render(struct exchange *x);
bool route_completions_render(struct exchange *x);
bool route_cache_list(struct exchange *x);
bool route_cache_stats(struct exchange *x);
bool route_cache_explain(struct exchange *x);
bool route_cache_warm(struct exchange *x);
bool route_cache_pin(struct exchange *x);
bool route_cache_unpin(struct exchange *x);
bool route_cache_verify(struct exchange *x);
bool route_cache_drop(struct exchange *x);
bool route_options(struct exchange *x);
