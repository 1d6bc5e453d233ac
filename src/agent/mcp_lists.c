// One file a server and configuration, named by their hash: what changed is simply not found.
#include "agent/mcp_lists.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/tool_env.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/process.h"
#include "base/rundir.h"

enum { USED_FOR_S = 86400, MAX_FILE_BYTES = 32 << 20 };

static void put_text(struct buf *b, const char *text)
{
    buf_put(b, text != NULL ? text : "", (text != NULL ? strlen(text) : 0) + 1);
}

static void put_words(struct buf *b, const struct words *w)
{
    for (size_t i = 0; i < w->n; i++) put_text(b, w->p[i]);
    buf_c(b, '\n');
}

// A file that was installed anew has another time or size.
static void put_file(struct buf *b, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return;
    buf_printf(b, "%llu:%lld:%lld.%09ld\n", (unsigned long long)st.st_ino, (long long)st.st_size,
               (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

// The program, and arguments that are files: "node server.js".
static void put_programs(struct buf *b, const struct mcp_spec *spec, const struct mcp_place *place)
{
    struct buf path = {0}, program = {0};
    struct err ignored = {0};
    tool_env_path(place->environment, NULL, &path);
    if (process_find(&program, spec->command, buf_cstr(&path), &ignored))
        put_file(b, buf_cstr(&program));
    for (size_t i = 0; i < spec->args.n; i++) {
        buf_clear(&path);
        if (spec->args.p[i][0] != '/')
            buf_printf(&path, "%s/", spec->cwd != NULL ? spec->cwd : place->dir);
        buf_z(&path, spec->args.p[i]);
        put_file(b, buf_cstr(&path));
    }
    buf_free(&path);
    buf_free(&program);
}

static bool name_file(const char *dir, const struct mcp_spec *spec, const struct mcp_place *place,
                      struct buf *out)
{
    struct buf about = {0};
    if (dir == NULL) return false;
    put_text(&about, SUBMIND_VERSION);
    put_text(&about, spec->command);
    put_words(&about, &spec->args);
    put_words(&about, &spec->env);
    put_text(&about, spec->cwd != NULL ? spec->cwd : place->dir);
    put_text(&about, spec->url);
    put_words(&about, &spec->headers);
    if (spec->command != NULL) put_programs(&about, spec, place);
    struct hash128 h = hash128(about.p, about.n, 0);
    buf_printf(out, "%s/%s-%016llx%016llx.json", dir, spec->name, (unsigned long long)h.hi,
               (unsigned long long)h.lo);
    bool ok = !about.failed && !out->failed;
    buf_free(&about);
    return ok;
}

bool mcp_list_load(json_t **out, const char *dir, const struct mcp_spec *spec,
                   const struct mcp_place *place)
{
    struct buf path = {0}, text = {0};
    struct err ignored = {0};
    json_t *root = NULL;
    bool ok = name_file(dir, spec, place, &path) &&
              file_read_text(&text, buf_cstr(&path), MAX_FILE_BYTES, NULL, &ignored);
    if (ok) root = json_loadb(text.p != NULL ? text.p : "", text.n, 0, NULL);
    int64_t age_s = clock_unix() - json_integer_value(json_object_get(root, "at"));
    json_t *tools = json_object_get(root, "tools");
    ok = ok && json_is_array(tools) && age_s >= 0 && age_s < USED_FOR_S;
    if (ok) *out = json_incref(tools);
    json_decref(root);
    buf_free(&path);
    buf_free(&text);
    return ok;
}

void mcp_list_save(json_t *tools, const char *dir, const struct mcp_spec *spec,
                   const struct mcp_place *place)
{
    struct buf path = {0}, text = {0};
    struct err e = {0};
    if (!name_file(dir, spec, place, &path)) {
        buf_free(&path);
        return;
    }
    json_t *root = json_pack("{s:I, s:O}", "at", (json_int_t)clock_unix(), "tools", tools);
    char *dump = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
    bool ok = dump != NULL || err_set(&e, ERR_MEMORY, "no memory for a list");
    buf_z(&text, dump);
    redact_text(&place->secrets->redactor, &text);
    ok = ok && rundir_make_all(dir, &e) && file_replace(buf_cstr(&path), buf_view(&text), 0600, &e);
    if (!ok) log_debug("mcp", "the list of %s is not kept: %s", spec->name, e.msg);
    free(dump);
    json_decref(root);
    buf_free(&path);
    buf_free(&text);
}
