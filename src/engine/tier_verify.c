// Every page on disk, read and verified outside the engine thread: requests go on meanwhile, and what
// they need is read by other threads.
#include <stdlib.h>

#include "base/clock.h"
#include "engine/tier.h"

enum { BATCH = 64 };

static bool check_all(const struct tier *t, struct store *store, bool (*stop)(void *arg), void *arg,
                      struct cache_check *out, struct err *e)
{
    struct store_entry entries[BATCH];
    size_t next = 0, n;
    bool ok = true;
    void *record = malloc(t->record_stride);
    if (record == NULL) return err_set(e, ERR_MEMORY, "no memory to read a page");
    while (ok && (n = store_list(store, &next, entries, NULL, BATCH)) > 0)
        for (size_t i = 0; ok && i < n; i++) {
            if (stop(arg)) ok = err_set(e, ERR_SHUTDOWN, "the server is stopping");
            const enum store_result r =
                store_get(store, entries[i].key, entries[i].parent, NULL, record);
            if (r == STORE_MISSING) continue; // made room for others meanwhile
            out->pages++;
            out->bytes += t->record_stride;
            if (r == STORE_BAD) out->bad++;
        }
    free(record);
    return ok;
}

bool tier_verify(struct tier *t, bool (*stop)(void *arg), void *arg, struct cache_check *out,
                 struct err *e)
{
    const uint64_t start = clock_ns();
    struct store *store = NULL;
    if (t != NULL) {
        pthread_mutex_lock(&t->lock);
        store = t->open;
        pthread_mutex_unlock(&t->lock);
    }
    if (store == NULL)
        return err_set(e, ERR_UNSUPPORTED,
                       "nothing is kept on disk (see --cache-dir and the server's log)");
    struct cache_check check = {0};
    if (!check_all(t, store, stop, arg, &check, e)) return false;
    check.seconds = clock_ms_since(start) / 1e3;
    *out = check;
    return true;
}
