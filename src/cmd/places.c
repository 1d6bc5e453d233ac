// The XDG base directory specification, with what it says about variables that are not set.
#include "cmd/places.h"

#include <string.h>
#include <unistd.h>

#include "base/rundir.h"

const char *place_variable(const char *name)
{
    size_t n = strlen(name);
    for (char **p = environ; *p != NULL; p++)
        if (strncmp(*p, name, n) == 0 && (*p)[n] == '=' && (*p)[n + 1] != '\0') return *p + n + 1;
    return NULL;
}

void place_runtime_dir(const struct settings *s, struct buf *out)
{
    if (s->runtime_dir != NULL)
        buf_z(out, s->runtime_dir);
    else
        rundir_default(place_variable("XDG_RUNTIME_DIR"), out);
}

bool place_state_dir(const struct settings *s, struct buf *out)
{
    const char *state = place_variable("XDG_STATE_HOME"), *home = place_variable("HOME");
    if (s->state_dir != NULL)
        buf_z(out, s->state_dir);
    else if (state != NULL && state[0] == '/')
        buf_printf(out, "%s/submind", state);
    else if (home != NULL && home[0] == '/')
        buf_printf(out, "%s/.local/state/submind", home);
    return out->n > 0 && !str_eq(buf_view(out), STR("off"));
}

const char *place_lists_dir(const struct settings *s, struct buf *out)
{
    if (!place_state_dir(s, out)) return NULL;
    buf_z(out, "/mcp");
    return buf_cstr(out);
}
