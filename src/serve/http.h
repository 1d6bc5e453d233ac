// libmicrohttpd and nothing else of the program's: a thread per connection, limits, headers. Starts
// and stops the daemon of a server; the rest of serve/ sees exchange.h.
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "serve/exchange.h"

// Begins to answer on sv->listener.
bool http_open(struct server *sv, struct err *e);
// No new connections from now on; those that are open go on.
void http_quiesce(struct server *sv);
// Closes what is still open and joins the threads.
void http_close(struct server *sv);
