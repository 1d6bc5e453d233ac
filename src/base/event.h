// A wake-up between threads that poll() can wait on beside a socket (Linux eventfd).
#pragma once

#include <stdbool.h>

#include "base/err.h"

struct event {
    int fd; // poll for POLLIN
};

bool event_open(struct event *out, struct err *e);
void event_signal(struct event *ev); // never blocks; many signals before a clear are one
void event_clear(struct event *ev);  // never blocks
void event_close(struct event *ev);
