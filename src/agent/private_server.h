// Which server a run uses: the one that is named, else one that answers on 127.0.0.1:8080, else a
// private one of this user behind a Unix socket, started when it is not there and shared by all
// runs that want the same model, so that the next run finds it warm. It ends by itself when it is
// idle.
#pragma once

#include "agent/http_client.h"

struct server_wish {         // all borrowed
    const char *url;         // NULL: look for one
    const char *key;         // API key or NULL
    bool private_only;       // do not look at 127.0.0.1:8080 (a model was asked for by file)
    const char *runtime_dir; // where socket, lock and log live; NULL = XDG_RUNTIME_DIR or /tmp
    const char *const
        *args; // further arguments of `submind serve` (--model FILE ...), NULL-terminated
    const char *const *environment;
    uint32_t idle_exit_s; // 0 = 900
    uint64_t deadline_ns;
    const atomic_int *cancel;
    // What is going on while a server starts or loads; may be NULL.
    void (*on_wait)(void *arg, struct str what);
    void *arg;
};

// *out is owned by the caller. Errors: ERR_NO_SERVER (with the end of its log), ERR_TIMEOUT,
// ERR_CANCELLED.
bool server_find(struct http_client **out, const struct server_wish *w, bool *is_private,
                 struct err *e);
