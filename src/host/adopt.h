// A unit that runs llama-server, read as one of ours: through toolbox, podman or directly.
#pragma once

#include "base/err.h"
#include "host/llama_flags.h"
#include "host/unit_file.h"

enum adopt_via { VIA_NOTHING, VIA_TOOLBOX, VIA_PODMAN };

struct adopt {
    enum adopt_via via;
    const char *container;  // toolbox's name or the image; NULL without one
    struct llama_plan plan; // paths are the host's
    struct str user;        // User= of the unit; empty: none
    // What the unit says beside its command line and we do not take over: "Nice=5", ...
    struct str lost[64];
    size_t n_lost;
};

// ERR_FORMAT when the unit does not run llama-server; ERR_INPUT for flags that are not its own.
bool adopt_read(struct adopt *out, const struct unit_file *u, const char *home, const char *runtime,
                struct arena *a, struct err *e);
