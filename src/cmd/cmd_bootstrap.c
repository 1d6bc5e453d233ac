// submind bootstrap: what a run of this workspace sends before its task, part by part in tokens, and
// what keeps runs from sharing it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/run_history.h"
#include "agent/trunk.h"
#include "agent/workspace.h"
#include "base/clock.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/places.h"
#include "engine/engine.h"
#include "text/drift.h"

enum { FRESH_S = 3600, NOTE_BYTES = 400, SHOWN_BYTES = 40 };

struct part {
    const char *name;
    struct str text;
    size_t n_tokens;
    char note[NOTE_BYTES]; // what a reader should know; empty: nothing
    bool breaks;           // it keeps runs from sharing what follows
    bool suspect;          // it may: it looks like something that is written anew every day
};

struct view {
    const struct settings *s;
    struct workspace ws;
    struct engine *engine;
    struct buf prompt; // as the model gets it
    struct buf before; // the bootstrap of the newest run in the records
    struct part *parts;
    size_t n, n_total; // tokens of the prompt
};

// ---- tokens ---------------------------------------------------------------------------------

static bool count_tokens(const struct view *v, struct str text, bool control, size_t *n,
                         struct err *e)
{
    struct ids ids = {0};
    bool ok = tokenizer_encode(engine_tokenizer(v->engine), text, control ? TOKENIZE_CONTROL : 0,
                               &ids, e);
    *n = ids.n;
    ids_free(&ids);
    return ok;
}

// The whole request through the model's template: what stands around the parts counts too.
static bool render(struct view *v, struct err *e)
{
    struct arena a = {0};
    struct buf json = {0}, lists = {0};
    struct value request;
    struct chat_request chat = {.add_generation_prompt = true, .thinking = -1};
    if (engine_chat(v->engine) == NULL)
        return err_set(e, ERR_UNSUPPORTED, "this model has no chat template");
    bool ok = trunk_request(v->ws.dir, (const char *const *)environ, place_lists_dir(v->s, &lists),
                            &json, e) &&
              value_parse(&request, &a, buf_view(&json), e);
    if (ok) {
        chat.messages = value_get(request, "messages");
        chat.tools = value_get(request, "tools");
        chat.kwargs = value_get(request, "chat_template_kwargs");
        ok = chat_check(&chat.messages, &chat.tools, &a, e) &&
             chat_render(engine_chat(v->engine), &chat, false, &a, &v->prompt, e) &&
             count_tokens(v, buf_view(&v->prompt), true, &v->n_total, e);
    }
    buf_free(&json);
    buf_free(&lists);
    arena_free(&a);
    return ok;
}

// ---- what breaks sharing --------------------------------------------------------------------

// Is today's date in the text? An example, or something that is written anew every day.
static bool holds_today(struct str text)
{
    char days[3][40];
    time_t now = (time_t)clock_unix();
    struct tm tm;
    localtime_r(&now, &tm);
    strftime(days[0], sizeof days[0], "%Y-%m-%d", &tm);
    strftime(days[1], sizeof days[1], "%d.%m.%Y", &tm);
    strftime(days[2], sizeof days[2], "%B %d, %Y", &tm);
    for (size_t i = 0; i < 3; i++)
        if (str_find(text, str_from(days[i]), 0) != SIZE_MAX) return true;
    return false;
}

static void note(struct part *p, bool breaks, const char *text)
{
    size_t n = strlen(p->note);
    snprintf(p->note + n, sizeof p->note - n, "%s%s", n > 0 ? "; " : "", text);
    p->breaks |= breaks;
}

// A link that leads out of the workspace: what stands there goes to the model too.
static void note_link(const struct view *v, const char *path, struct part *p)
{
    struct stat st;
    char text[300];
    size_t n = strlen(v->ws.dir);
    char *real = lstat(path, &st) == 0 && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL;
    if (real != NULL && (strncmp(real, v->ws.dir, n) != 0 || real[n] != '/')) {
        snprintf(text, sizeof text, "a link to %.200s", real);
        note(p, false, text);
    }
    free(real);
}

static void note_file(const struct view *v, const struct workspace_part *w, struct part *p)
{
    struct buf path = {0};
    struct stat st;
    char text[100];
    buf_printf(&path, "%s/%s", v->ws.dir, w->name);
    if (w->kept_bytes < w->file_bytes && !w->no_text) {
        snprintf(text, sizeof text, "cut: %zu of %zu bytes left out", w->file_bytes - w->kept_bytes,
                 w->file_bytes);
        note(p, false, text);
    }
    if (w->no_text) note(p, false, "left out: no UTF-8 text");
    note_link(v, buf_cstr(&path), p);
    if (stat(buf_cstr(&path), &st) == 0 && clock_unix() - st.st_mtime < FRESH_S) {
        snprintf(text, sizeof text, "changed %lld min ago",
                 (long long)(clock_unix() - st.st_mtime) / 60);
        note(p, false, text);
    }
    p->suspect = holds_today(p->text);
    if (p->suspect) note(p, false, "holds today's date: is it written anew every day?");
    buf_free(&path);
}

static struct str line_start(struct str s)
{
    s = str_sub(s, 0, str_find(s, STR("\n"), 0));
    return str_sub(s, 0, s.n < SHOWN_BYTES ? s.n : SHOWN_BYTES);
}

static void tell_difference(struct part *p, struct str now, struct str old, size_t at)
{
    struct drift d = {0};
    struct err ignored = {0};
    char text[NOTE_BYTES];
    size_t line = 1;
    for (const char *c = p->text.p; c < now.p + at; c++) line += *c == '\n';
    snprintf(text, sizeof text,
             "line %zu differs from the last run's: the next run computes anew from there",
             line > 2 ? line - 2 : line); // the part begins with an empty line and its tag
    note(p, true, text);
    if (!drift_find(&d, now, old, at, &ignored) || !d.volatile_text) return;
    struct str ours = line_start(d.ours), theirs = line_start(d.theirs);
    snprintf(text, sizeof text, "%s: \"%.*s\", then \"%.*s\"", d.kind, (int)theirs.n, theirs.p,
             (int)ours.n, ours.p);
    note(p, true, text);
}

// The newest run that is on record sent something else from here on.
static void note_difference(struct view *v)
{
    struct str now = buf_view(&v->ws.bootstrap), old = buf_view(&v->before);
    size_t at = 0;
    if (old.n == 0 || str_eq(now, old)) return;
    while (at < now.n && at < old.n && now.p[at] == old.p[at]) at++;
    for (size_t i = 0; i < v->n; i++) {
        struct part *p = &v->parts[i];
        size_t from = (size_t)(p->text.p - now.p);
        bool inside = p->text.p >= now.p && from <= at && at < from + p->text.n;
        if (inside) {
            tell_difference(p, now, old, at);
            return;
        }
    }
}

// ---- parts ----------------------------------------------------------------------------------

static bool add(struct view *v, const char *name, struct str text, struct err *e)
{
    if (text.n == 0) return true;
    struct part *p = &v->parts[v->n++];
    *p = (struct part){.name = name, .text = text};
    return count_tokens(v, text, false, &p->n_tokens, e);
}

static bool make_parts(struct view *v, struct err *e)
{
    const struct workspace *w = &v->ws;
    struct str all = buf_view(&w->bootstrap);
    v->parts = calloc(w->n_parts + 3, sizeof *v->parts);
    if (v->parts == NULL) return err_set(e, ERR_MEMORY, "no memory for the parts");
    size_t opening = w->n_parts > 0 ? w->parts[0].at : w->skills_at;
    bool ok = add(v, "(opening)", str_sub(all, 0, opening), e);
    for (size_t i = 0; ok && i < w->n_parts; i++) {
        ok = add(v, w->parts[i].name, str_sub(all, w->parts[i].at, w->parts[i].n), e);
        if (ok) note_file(v, &w->parts[i], &v->parts[v->n - 1]);
    }
    return ok && add(v, "(skills)", str_sub(all, w->skills_at, SIZE_MAX), e);
}

static void read_last(struct view *v)
{
    struct run_store store = {0};
    struct err ignored = {0};
    struct buf dir = {0};
    if (place_state_dir(v->s, &dir) && run_store_open(&store, buf_cstr(&dir), &ignored)) {
        run_history_bootstrap(&store, v->ws.dir, &v->before, &ignored);
        run_store_close(&store);
    }
    buf_free(&dir);
}

// ---- output ---------------------------------------------------------------------------------

static void print_table(const struct view *v)
{
    size_t sum = 0, at = 0, broken = SIZE_MAX, suspect = SIZE_MAX;
    printf("%-24s  %8s  %7s  %7s  %s\n", "PART", "BYTES", "TOKENS", "FROM", "");
    for (size_t i = 0; i < v->n; i++) {
        const struct part *p = &v->parts[i];
        printf("%-24s  %8zu  %7zu  %7zu  %s%s\n", p->name, p->text.n, p->n_tokens, at,
               p->breaks ? "! " : "", p->note);
        if (p->breaks && broken == SIZE_MAX) broken = at;
        if (p->suspect && suspect == SIZE_MAX) suspect = at;
        at += p->n_tokens;
        sum += p->n_tokens;
    }
    size_t rest = v->n_total > sum ? v->n_total - sum : 0;
    printf("%-24s  %8s  %7zu  %7zu  %s\n", "(tools and template)", "", rest, at, "");
    printf("%-24s  %8zu  %7zu\n\n", "all", v->prompt.n, v->n_total);
    printf("Behind it, different for every run: the task, its inputs, notes, date and run id.\n");
    if (broken != SIZE_MAX)
        printf("Marked with \"!\": runs share the first %zu tokens only. Move what changes to the "
               "end, or into the task.\n",
               broken);
    else if (suspect != SIZE_MAX)
        printf(
            "Runs share all of it today; tomorrow only the first %zu tokens, if what holds today's "
            "date\nis written anew every day.\n",
            suspect);
    else
        printf("Nothing in it keeps runs from sharing all of it.\n");
}

static void print_json(const struct view *v)
{
    struct buf b = {0};
    buf_z(&b, "{\"workspace\":");
    buf_json(&b, str_from(v->ws.dir));
    buf_printf(&b, ",\"tokens\":%zu,\"bytes\":%zu,\"parts\":[", v->n_total, v->prompt.n);
    for (size_t i = 0; i < v->n; i++) {
        const struct part *p = &v->parts[i];
        buf_z(&b, i > 0 ? ",\n {\"name\":" : "\n {\"name\":");
        buf_json(&b, str_from(p->name));
        buf_printf(&b, ",\"bytes\":%zu,\"tokens\":%zu,\"breaks_sharing\":%s,\"note\":", p->text.n,
                   p->n_tokens, p->breaks ? "true" : "false");
        buf_json(&b, str_from(p->note));
        buf_c(&b, '}');
    }
    buf_z(&b, "]}\n");
    fwrite(b.p, 1, b.n, stdout);
    buf_free(&b);
}

static bool show(struct view *v, struct err *e)
{
    struct engine_settings es;
    if (!options_engine(v->s, &es, e)) return false;
    es.vocab_only = true;
    es.device = "cpu";
    bool ok = workspace_open(&v->ws, v->s->workspace != NULL ? v->s->workspace : ".", e) &&
              engine_open(&v->engine, &es, e) && render(v, e) && make_parts(v, e);
    if (!ok) return false;
    read_last(v);
    note_difference(v);
    if (v->s->text)
        fwrite(v->prompt.p, 1, v->prompt.n, stdout);
    else if (v->s->json)
        print_json(v);
    else
        print_table(v);
    return true;
}

int cmd_bootstrap(int argc, char **argv)
{
    struct settings s;
    struct err e = {0};
    if (!options_parse(&s, C_BOOTSTRAP, argc, argv, &e)) return cmd_fail("bootstrap", &e);
    if (s.help) {
        printf("usage: submind bootstrap [flags]\n\nWhat a run of this workspace sends before its "
               "task, in the model's tokens, and what in it\nkeeps runs from sharing it.\n\n");
        options_help(C_BOOTSTRAP, "bootstrap");
        return 0;
    }
    struct view v = {.s = &s};
    bool ok = s.n_args == 0 || err_set(&e, ERR_INPUT, "bootstrap takes no words; --workspace DIR");
    ok = ok && show(&v, &e);
    engine_close(v.engine);
    workspace_close(&v.ws);
    free(v.parts);
    buf_free(&v.prompt);
    buf_free(&v.before);
    return ok ? 0 : cmd_fail("bootstrap", &e);
}
