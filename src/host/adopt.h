// A unit that runs llama-server, read as one of ours: directly, from a shell's text, or through toolbox,
// distrobox, podman or docker.
#pragma once

#include "base/err.h"
#include "host/adopt_wrap.h"
#include "host/llama_flags.h"
#include "host/unit_file.h"

enum { ADOPT_MAX_LOST = 64 };

struct adopt {
    enum adopt_via via;
    const char *container;  // the box's name or the image; NULL without one
    struct llama_plan plan; // paths are the host's
    const char *user;       // User= of the unit; NULL: none
    // What the unit says beside its command line and we do not take over: "Nice=5", ...
    struct str lost[ADOPT_MAX_LOST];
    size_t n_lost;
};

struct adopt_place {
    const char *unit; // its name, "llama.service"
    bool system;
    const char *home, *runtime; // of its manager
};

// ERR_FORMAT when the unit does not run llama-server or names no model; ERR_INPUT for flags that are not
// llama-server's own. Reads the files of EnvironmentFile=, --env-file, and a script that ExecStart names.
bool adopt_read(struct adopt *out, const struct unit_file *u, const struct adopt_place *place,
                struct arena *a, struct err *e);
