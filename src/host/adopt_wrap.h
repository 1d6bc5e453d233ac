// What stands in front of llama-server on a command line: toolbox, distrobox, podman, env, nice and the like.
#pragma once

#include "base/err.h"
#include "host/cmdline.h"
#include "host/unit_env.h"

enum adopt_via { VIA_NOTHING, VIA_TOOLBOX, VIA_DISTROBOX, VIA_PODMAN };

enum { WRAP_MAX_VOLUMES = 32, WRAP_MAX_PORTS = 8, WRAP_MAX_LIMITS = 8 };

struct adopt_wrap {
    enum adopt_via via;
    const char *container; // a toolbox's name or the image; NULL without one
    const char *folder;    // where relative paths begin inside; NULL: not said
    struct {
        struct str host, inside;
    } volumes[WRAP_MAX_VOLUMES];
    size_t n_volumes;
    struct {
        struct str address, port, inside;
    } published[WRAP_MAX_PORTS]; // of --publish
    size_t n_published;
    struct str limits[WRAP_MAX_LIMITS]; // --memory 64g: what the container may not exceed
    size_t n_limits;
    struct unit_env *env; // what llama-server sees: the unit's, or in a container its own
    size_t at;            // of the first word behind llama-server
};

// Is a word llama-server, or an image whose entry point it is?
bool wrap_is_server(const char *word);
// ERR_FORMAT when no word is llama-server. env: the unit's variables.
bool wrap_read(struct adopt_wrap *out, const struct cmdline *c, struct unit_env *env,
               struct err *e);
// A path that llama-server was given, as it is outside; false when it lies inside a container only.
bool wrap_path(const struct adopt_wrap *w, const char *path, struct buf *out);
