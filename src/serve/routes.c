// The table. Paths without /v1 are the names that other local servers have for the same things.
#include "serve/routes.h"

#include <stdio.h>
#include <string.h>

static const struct route routes[] = {
    // method, path, handler, public, needs the engine, probe, private
    {"GET", "/health", route_health, true, false, true, false},
    {"GET", "/v1/health", route_health, true, false, true, false},
    {"GET", "/version", route_version, false, false, true, false},
    {"GET", "/metrics", route_metrics, false, true, true, false},
    {"GET", "/slots", route_slots, false, true, true, false},
    {"GET", "/props", route_props, false, true, false, false},
    {"GET", "/v1/models", route_models, false, true, false, false},
    {"GET", "/models", route_models, false, true, false, false},
    {"GET", "/v1/models/", route_model, false, true, false, false},
    {"POST", "/v1/chat/completions", route_chat, false, true, false, false},
    {"POST", "/chat/completions", route_chat, false, true, false, false},
    {"POST", "/v1/completions", route_completions, false, true, false, false},
    {"POST", "/completions", route_completions, false, true, false, false},
    {"POST", "/v1/chat/completions/render", route_chat_render, false, true, false, false},
    {"POST", "/v1/completions/render", route_completions_render, false, true, false, false},
    {"POST", "/tokenize", route_tokenize, false, true, false, false},
    {"POST", "/detokenize", route_detokenize, false, true, false, false},
    {"POST", "/apply-template", route_apply_template, false, true, false, false},
    {"GET", "/submind/cache", route_cache_list, false, true, false, true},
    {"GET", "/submind/cache/stats", route_cache_stats, false, true, false, true},
    {"POST", "/submind/cache/explain", route_cache_explain, false, true, false, true},
    {"POST", "/submind/cache/verify", route_cache_verify, false, true, false, true},
    {"POST", "/submind/cache/warm", route_cache_warm, false, true, false, true},
    {"POST", "/submind/cache/pin", route_cache_pin, false, true, false, true},
    {"POST", "/submind/cache/unpin", route_cache_unpin, false, true, false, true},
    {"POST", "/submind/cache/drop", route_cache_drop, false, true, false, true},
};

static const struct route options_route = {"OPTIONS", "*", route_options, true, false, true, false};

enum { N_ROUTES = sizeof routes / sizeof routes[0] };

// A path that ends in "/" stands for all that have something behind it.
static bool is_path(const struct route *r, const char *path)
{
    size_t n = strlen(r->path);
    bool open = r->path[n - 1] == '/';
    return open ? strncmp(r->path, path, n) == 0 && path[n] != '\0' : strcmp(r->path, path) == 0;
}

const struct route *route_find(const char *method, const char *path, char allow[32], struct err *e)
{
    const struct route *other = NULL;
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (!is_path(&routes[i], path)) continue;
        if (strcmp(routes[i].method, wanted) == 0) return &routes[i];
        other = &routes[i];
    }
    if (other == NULL) {
        err_set(e, ERR_NOT_FOUND,
                "there is no %.120s here; there are /v1/chat/completions, /v1/completions, "
                "/v1/models, /health, /metrics and what the README names",
                path);
        return NULL;
    }
    bool get = strcmp(other->method, "GET") == 0;
    snprintf(allow, 32, "%s", get ? "GET, HEAD, OPTIONS" : "POST, OPTIONS");
    if (strcmp(method, "OPTIONS") == 0) return &options_route;
    err_set(e, ERR_METHOD, "%s takes %s, not %.20s", path, get ? "GET" : "POST", method);
    return NULL;
}
