// The table. Paths without /v1 are the names that other local servers have for the same things.
#include "serve/routes.h"

#include <stdio.h>
#include <string.h>

static const struct route routes[] = {
    // method, path, handler, public, needs the engine, probe
    {"GET", "/health", route_health, true, false, true},
    {"GET", "/v1/health", route_health, true, false, true},
    {"GET", "/version", route_version, false, false, true},
    {"GET", "/metrics", route_metrics, false, true, true},
    {"GET", "/slots", route_slots, false, true, true},
    {"GET", "/props", route_props, false, true, false},
    {"GET", "/v1/models", route_models, false, true, false},
    {"GET", "/models", route_models, false, true, false},
    {"POST", "/v1/chat/completions", route_chat, false, true, false},
    {"POST", "/chat/completions", route_chat, false, true, false},
    {"POST", "/v1/completions", route_completions, false, true, false},
    {"POST", "/completions", route_completions, false, true, false},
    {"POST", "/tokenize", route_tokenize, false, true, false},
    {"POST", "/detokenize", route_detokenize, false, true, false},
    {"POST", "/apply-template", route_apply_template, false, true, false},
};

static const struct route options_route = {"OPTIONS", "*", route_options, true, false, true};

enum { N_ROUTES = sizeof routes / sizeof routes[0] };

const struct route *route_find(const char *method, const char *path, char allow[32], struct err *e)
{
    const struct route *other = NULL;
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (strcmp(routes[i].path, path) != 0) continue;
        if (strcmp(routes[i].method, wanted) == 0) return &routes[i];
        other = &routes[i];
    }
    if (other == NULL) {
        err_set(e, ERR_NOT_FOUND, "there is no %.120s here; the API starts at /v1", path);
        return NULL;
    }
    bool get = strcmp(other->method, "GET") == 0;
    snprintf(allow, 32, "%s", get ? "GET, HEAD, OPTIONS" : "POST, OPTIONS");
    if (strcmp(method, "OPTIONS") == 0) return &options_route;
    err_set(e, ERR_METHOD, "%s takes %s, not %.20s", path, get ? "GET" : "POST", method);
    return NULL;
}
