// Invariant: an opened table has every function.
#include "serve/zmq_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

static struct {
    pthread_once_t once;
    bool opened; // written once
    struct err why;
    struct zmq_api api;
} zmq = {.once = PTHREAD_ONCE_INIT};

static bool find(void *library, const char *name, void *slot)
{
    void *f = dlsym(library, name);
    memcpy(slot, &f, sizeof f);
    return f != NULL || err_set(&zmq.why, ERR_NOT_FOUND, "libzmq.so.5 lacks %s", name);
}

static void open_once(void)
{
    void *library = dlopen("libzmq.so.5", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        err_set(&zmq.why, ERR_NOT_FOUND, "--kv-events needs ZeroMQ (Debian: libzmq5): %.200s",
                dlerror());
        return;
    }
    bool ok = true;
#define F(name) ok = ok && find(library, "zmq_" #name, &zmq.api.name);
    ZMQ_FUNCTIONS(F)
#undef F
    zmq.opened = ok;
}

const struct zmq_api *zmq_api_open(struct err *e)
{
    pthread_once(&zmq.once, open_once);
    if (zmq.opened) return &zmq.api;
    err_set(e, zmq.why.code, "%s", zmq.why.msg);
    return NULL;
}
