// What `submind serve --workspace DIR` does when the model is loaded: asks its own server, as any client
// would, to compute and pin the workspace's trunk.
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/str.h"

struct serve_warm {
    const char *dir; // NULL: nothing to do
    bool public;
    struct str key;        // empty: none
    const char *lists_dir; // place_lists_dir
    // its own
    char url[160];
    atomic_int cancel;
    pthread_t thread;
    bool started;
};

// For serve_settings.on_ready: arg is a struct serve_warm.
void serve_warm_start(void *arg, const char *url);
void serve_warm_stop(struct serve_warm *w); // waits for its end; cancels what is under way
