// What the server says about the tiers below the device.
#include "serve/tier_route.h"

void tier_stats_json(struct buf *b, const struct tier_figures *t, const char *cache_type)
{
    buf_printf(b, ",\"cache_type\":\"%s\"", cache_type);
    buf_printf(b, ",\"ram\":{\"pages\":%llu,\"bytes\":%llu}", (unsigned long long)t->ram_pages,
               (unsigned long long)t->ram_bytes);
    buf_printf(b, ",\"disk\":{\"open\":%s,\"writer\":%s,\"pages\":%llu,\"bytes\":%llu",
               t->disk_open ? "true" : "false", t->disk_writer ? "true" : "false",
               (unsigned long long)t->disk_pages, (unsigned long long)t->disk_bytes);
    buf_printf(b, ",\"cap_bytes\":%llu,\"saved\":%llu,\"unsaved\":%llu,\"bad\":%llu}",
               (unsigned long long)t->disk_cap_bytes, (unsigned long long)t->saved,
               (unsigned long long)t->skipped, (unsigned long long)t->bad);
    buf_printf(b, ",\"restores\":{\"n\":%llu,\"seconds\":%.3f,\"warmed_pages\":%llu}",
               (unsigned long long)t->restores, t->restore_seconds, (unsigned long long)t->warmed);
}

bool route_cache_verify(struct exchange *x)
{
    struct err e = {0};
    struct buf b = {0};
    struct cache_check c;
    if (!engine_cache_verify(x->sv->engine, &c, &e)) return exchange_send_error(x, &e);
    buf_printf(&b, "{\"pages\":%llu,\"bytes\":%llu,\"bad\":%llu,\"seconds\":%.3f}",
               (unsigned long long)c.pages, (unsigned long long)c.bytes, (unsigned long long)c.bad,
               c.seconds);
    return exchange_send_json(x, &b);
}
