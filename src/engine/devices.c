// The devices that a model could run on, for `submind inspect devices`. Nothing stays open.
#include <stdio.h>

#include "compute/backend.h"
#include "engine/engine.h"

// Fills d; returns how many devices the backend has.
static uint32_t look_at(const struct backend_class *class, uint32_t i, struct engine_device *d)
{
    struct backend_info info = {0};
    *d = (struct engine_device){.kv_type = kv_type_name(class->kv_type)};
    d->usable = backend_look(class, i, &info, &d->why);
    const bool numbered = d->usable ? info.n_devices > 0 : i > 0;
    snprintf(d->name, sizeof d->name, numbered ? "%s:%u" : "%s", class->name, i);
    if (!d->usable) return 1;
    snprintf(d->what, sizeof d->what, "%s", info.device);
    d->mem_total_bytes = info.mem_total_bytes;
    d->mem_free_bytes = info.mem_free_bytes;
    return numbered ? info.n_devices : 1;
}

size_t engine_devices(struct engine_device *out, size_t max)
{
    size_t n = 0;
    for (const struct backend_class *const *b = backend_list(); *b != NULL; b++) {
        const uint32_t have = n < max ? look_at(*b, 0, &out[n]) : 0;
        for (uint32_t i = 0; i < have && n < max; i++, n++)
            if (i > 0) look_at(*b, i, &out[n]);
    }
    return n;
}
