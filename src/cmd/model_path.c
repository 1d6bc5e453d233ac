// A file wins over a name, so that what worked yesterday works after a pull.
#include "cmd/model_path.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/options.h"
#include "host/models.h"

static char found[4096];

void model_dir(struct buf *out)
{
    const char *home = options_env("HOME");
    models_dir(home == NULL ? "/root" : home, options_env("XDG_DATA_HOME"), out);
}

bool model_path(const char *name, const char **out, struct err *e)
{
    struct buf dir = {0}, path = {0};
    *out = name;
    if (access(name, F_OK) == 0 || name[0] == '/' || strncmp(name, "./", 2) == 0) return true;
    model_dir(&dir);
    bool ok = models_find(buf_cstr(&dir), name, &path, e);
    if (ok && path.n >= sizeof found) ok = err_set(e, ERR_INPUT, "the path is too long");
    if (ok) {
        snprintf(found, sizeof found, "%s", buf_cstr(&path));
        *out = found;
    }
    buf_free(&dir);
    buf_free(&path);
    return ok;
}
