// Publishes what comes into the cache and leaves it over ZeroMQ, so that routers can send a request to
// the server that has its prefix. A PUB socket carries batches [topic, number, payload]; a ROUTER socket
// answers "from number N on" with what was sent since, for those who came late.
//
// A page is told once for each place where it lies, under the same hash: on the device (medium GPU), on disk (STORAGE;
// after a restart all that lies there with its whole path). What lies in host memory is not told.
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/str.h"
#include "engine/engine.h"

struct kv_events;

struct kv_events_settings {
    const char *address; // "tcp://*:5557" binds, "tcp://router:5557" connects
    const char *replay;  // the same for replays; NULL: none
    const char *topic;   // NULL: kv@HOST:PORT@MODEL
    struct str endpoint; // HOST:PORT of the API, for the topic
    struct str model;
    uint64_t numbers_max; // of batches, before they begin again at 0; 0: the usual
};

// Starts to listen to the engine. ERR_INPUT: an address that ZeroMQ does not take.
bool kv_events_open(struct kv_events **out, struct engine *en, const struct kv_events_settings *s,
                    struct err *e);
// Before the engine goes; NULL is fine.
void kv_events_close(struct kv_events *k);
