// The bootstrap must be the same bytes for the same files, on every run and machine: fixed order,
// no locale, no times, no absolute paths. What is too long is cut at a line's end and says so.
#include "agent/workspace.h"

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/skills.h"
#include "agent/tool_text.h"
#include "base/file.h"
#include "base/utf8.h"

enum { SLACK_BYTES = 65536, MAX_FILES = 200 }; // SLACK: white space in front, a BOM, CRs

static const char *const first_files[] = {"AGENTS.md", "SOUL.md",  "IDENTITY.md",
                                          "USER.md",   "TOOLS.md", "MEMORY.md"};
static const char *const skipped_files[] = {"README.md", "BOOTSTRAP.md", "HEARTBEAT.md"};

// ---- which files ----------------------------------------------------------------------------

static size_t rank_of(const char *name)
{
    size_t n = sizeof first_files / sizeof first_files[0];
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, first_files[i]) == 0) return i;
    return n;
}

static int by_rank(const void *pa, const void *pb)
{
    const struct workspace_part *a = pa, *b = pb;
    size_t rank_a = rank_of(a->name), rank_b = rank_of(b->name);
    if (rank_a != rank_b) return rank_a < rank_b ? -1 : 1;
    return strcmp(a->name, b->name);
}

// A name stands in quotes in the bootstrap: nothing in it may end them, or the line.
static bool is_wanted(const char *name)
{
    if (name[0] == '.' || !str_ends(str_from(name), STR(".md"))) return false;
    for (const char *p = name; *p != '\0'; p++)
        if ((unsigned char)*p < 32 || strchr("\"<>\x7f", *p) != NULL) return false;
    for (size_t i = 0; i < sizeof skipped_files / sizeof skipped_files[0]; i++)
        if (strcmp(name, skipped_files[i]) == 0) return false;
    return true;
}

static bool is_file(const char *dir, const char *name)
{
    struct buf path = {0};
    struct stat st;
    buf_printf(&path, "%s/%s", dir, name);
    bool yes = stat(buf_cstr(&path), &st) == 0 && S_ISREG(st.st_mode);
    buf_free(&path);
    return yes;
}

static bool put_part(struct workspace *w, const char *name, struct err *e)
{
    if (w->n_parts == MAX_FILES)
        return err_set(e, ERR_INPUT, "%.200s has more than %d Markdown files", w->dir, MAX_FILES);
    struct workspace_part *p = realloc(w->parts, (w->n_parts + 1) * sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for the workspace");
    w->parts = p;
    p[w->n_parts] = (struct workspace_part){.name = strdup(name)};
    if (p[w->n_parts].name == NULL) return err_set(e, ERR_MEMORY, "no memory for the workspace");
    w->n_parts++;
    return true;
}

static bool list_files(struct workspace *w, struct err *e)
{
    DIR *d = opendir(w->dir);
    bool ok = true;
    if (d == NULL) return err_errno(e, ERR_INPUT, "cannot list the workspace %.200s", w->dir);
    for (struct dirent *entry; ok && (entry = readdir(d)) != NULL;)
        if (is_wanted(entry->d_name) && is_file(w->dir, entry->d_name))
            ok = put_part(w, entry->d_name, e);
    closedir(d);
    if (ok && w->n_parts > 0) qsort(w->parts, w->n_parts, sizeof *w->parts, by_rank);
    return ok;
}

// ---- their text -----------------------------------------------------------------------------

// At most limit bytes of s, ending with a line where one ends in the last quarter, else with a
// whole character.
static struct str cut(struct str s, size_t limit)
{
    if (s.n <= limit) return s;
    s.n = limit;
    size_t newline = str_rfind(s, STR("\n"));
    if (newline != SIZE_MAX && newline >= limit - limit / 4) return str_sub(s, 0, newline);
    return str_sub(s, 0, limit - utf8_partial_tail(s));
}

static void put_text(struct workspace *w, struct workspace_part *part, struct str text,
                     size_t limit)
{
    struct str kept = cut(text, limit);
    part->kept_bytes = kept.n;
    buf_str(&w->bootstrap, kept);
    if (kept.n < part->file_bytes)
        buf_printf(&w->bootstrap, "\n[%s is cut here: %zu of %zu bytes left out; limit %zu bytes]",
                   part->name, part->file_bytes - kept.n, part->file_bytes, limit);
}

static bool put_file(struct workspace *w, struct workspace_part *part, size_t room, struct err *e)
{
    struct buf path = {0}, text = {0};
    size_t limit = w->config.file_bytes < room ? w->config.file_bytes : room, total = 0;
    buf_printf(&path, "%s/%s", w->dir, part->name);
    bool ok = file_read_text(&text, buf_cstr(&path), limit + SLACK_BYTES, &total, e);
    if (ok) {
        struct str all = str_trim(buf_view(&text));
        part->file_bytes = total <= limit + SLACK_BYTES ? all.n : total;
        part->no_text = tool_text_is_binary(all);
        buf_printf(&w->bootstrap, "\n<file name=\"%s\">\n", part->name);
        if (part->no_text)
            buf_printf(&w->bootstrap, "[%s is left out: %zu bytes that are no UTF-8 text]",
                       part->name, part->file_bytes);
        else
            put_text(w, part, all, limit);
        buf_z(&w->bootstrap, "\n</file>\n");
    }
    buf_free(&path);
    buf_free(&text);
    return ok;
}

static bool assemble(struct workspace *w, struct err *e)
{
    size_t used = 0;
    buf_z(&w->bootstrap, "You are a sub-mind: you do one small background task and report back.\n"
                         "Use the tools where the task needs them, then report in one or two "
                         "sentences. Never invent "
                         "results. If a tool fails, say so.\n");
    for (size_t i = 0; i < w->n_parts; i++) {
        size_t room = w->config.total_bytes > used ? w->config.total_bytes - used : 0;
        w->parts[i].at = w->bootstrap.n;
        if (!put_file(w, &w->parts[i], room, e)) return false;
        w->parts[i].n = w->bootstrap.n - w->parts[i].at;
        used += w->parts[i].kept_bytes;
    }
    w->skills_at = w->bootstrap.n;
    if (!skills_put(w->dir, &w->bootstrap, &w->n_skills, e)) return false;
    return !w->bootstrap.failed || err_set(e, ERR_MEMORY, "no memory for the bootstrap");
}

// ---- the workspace --------------------------------------------------------------------------

bool workspace_open(struct workspace *out, const char *dir, struct err *e)
{
    struct workspace w = {.dir = realpath(dir, NULL)};
    struct stat st;
    if (w.dir == NULL) return err_errno(e, ERR_INPUT, "cannot find the workspace %.200s", dir);
    bool ok = stat(w.dir, &st) == 0 && S_ISDIR(st.st_mode);
    if (!ok) err_set(e, ERR_INPUT, "the workspace %.200s is no folder", dir);
    ok = ok && workspace_config_open(&w.config, w.dir, e) && list_files(&w, e) && assemble(&w, e);
    if (ok)
        *out = w;
    else
        workspace_close(&w);
    return ok;
}

void workspace_close(struct workspace *w)
{
    for (size_t i = 0; i < w->n_parts; i++) free(w->parts[i].name);
    free(w->parts);
    free(w->dir);
    buf_free(&w->bootstrap);
    workspace_config_close(&w->config);
    *w = (struct workspace){0};
}
