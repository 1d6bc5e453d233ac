// Every step that was done stands in a log with the command that takes it back, written before it is done, so
// that a step that breaks off can be undone too. Nothing touches the boot entry without --boot.
#include "cmd/doctor_mend.h"

#include <jansson.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "host/remedy.h"

enum { MAX_LOG = 1 << 20, MAX_LINES = 256 };

static void log_path(struct buf *out)
{
    options_home(out, "XDG_STATE_HOME", ".local/state");
    if (out->n == 0) buf_z(out, "/root/.local/state/submind");
    buf_z(out, "/doctor-undo.jsonl");
}

// Through sh, with this terminal: the text is the table's own, and sudo may ask for a password.
static bool run(const char *text, struct err *e)
{
    struct buf script = {0};
    if (geteuid() == 0 && access("/usr/bin/sudo", X_OK) != 0)
        buf_z(&script, "command -v sudo >/dev/null || sudo() { \"$@\"; }\n");
    buf_z(&script, text);
    char sh[] = "sh", c[] = "-euc";
    char *argv[] = {sh, c, NULL, NULL};
    pid_t pid;
    int status = 0;
    buf_cstr(&script);
    argv[2] = script.p;
    fflush(stdout);
    const int error = posix_spawnp(&pid, "sh", NULL, NULL, argv, environ);
    if (error == 0) waitpid(pid, &status, 0);
    buf_free(&script);
    if (error != 0) return err_set(e, ERR_IO, "cannot run sh: %s", strerror(error));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
    return err_set(e, ERR_IO, "it ended with code %d",
                   WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static bool ask(const struct settings *s, const char *question)
{
    char line[16] = "";
    if (s->yes) return true;
    printf("%s [y/N] ", question);
    fflush(stdout);
    return fgets(line, sizeof line, stdin) != NULL && (line[0] == 'y' || line[0] == 'Y');
}

// ---- doing ------------------------------------------------------------------------------------------

static bool note(const char *remedy, const char *did, const char *undo, struct err *e)
{
    struct buf path = {0}, line = {0}, old = {0};
    struct err ignored = {0};
    log_path(&path);
    file_read(&old, buf_cstr(&path), MAX_LOG, &ignored);
    buf_printf(&old, "{\"time\":%lld,\"remedy\":\"%s\",\"did\":", (long long)clock_unix(), remedy);
    buf_json(&old, str_from(did));
    buf_z(&old, ",\"undo\":");
    buf_json(&old, str_from(undo));
    buf_z(&old, "}\n");
    bool ok = !old.failed && file_replace(buf_cstr(&path), buf_view(&old), 0600, e);
    buf_free(&path);
    buf_free(&line);
    buf_free(&old);
    return ok;
}

static bool do_one(const struct settings *s, const struct doctor_step *step, const char *did,
                   const char *undo, size_t *n_done, struct err *e)
{
    struct err failed = {0};
    printf("\n%s: %s\n    %s\n", step->what, step->seen, did);
    if (!ask(s, "do this?")) return true;
    if (!note(step->remedy, did, undo, e)) return false;
    if (run(did, &failed))
        (*n_done)++;
    else
        printf("failed: %s (submind doctor --undo takes it back)\n", failed.msg);
    return true;
}

static bool do_boot(const struct doctor *d, const struct settings *s,
                    const struct doctor_step *steps, size_t n, size_t *n_done, struct err *e)
{
    const char *names[N_CHECKS];
    struct buf did = {0}, undo = {0};
    const struct doctor_step boot = {
        .remedy = "boot", .what = "kernel command line", .seen = "counts after a reboot"};
    size_t n_names = 0;
    for (size_t i = 0; i < n; i++)
        if (steps[i].kind == AT_BOOT) names[n_names++] = steps[i].remedy;
    if (n_names == 0) return true;
    const enum remedy_kind kind = remedy_boot(d, names, n_names, false, &did);
    remedy_boot(d, names, n_names, true, &undo);
    bool ok = true;
    if (kind == BY_HAND)
        printf("\n%s\n    yours to do: %s\n", boot.what, buf_cstr(&did));
    else if (!s->boot)
        printf(
            "\nthe kernel's command line is left alone; with --boot this would be done:\n    %s\n",
            buf_cstr(&did));
    else
        ok = do_one(s, &boot, buf_cstr(&did), buf_cstr(&undo), n_done, e);
    buf_free(&did);
    buf_free(&undo);
    return ok;
}

bool doctor_mend(const struct doctor *d, const struct settings *s, struct err *e)
{
    struct doctor_step steps[N_CHECKS];
    const size_t n = doctor_steps(d, steps);
    size_t n_done = 0;
    bool ok = true, reboot = false;
    if (!d->here && !s->here)
        return err_set(e, ERR_INPUT,
                       "--root shows another machine; --here says that it is this one after all");
    if (d->host.container[0] != '\0' && !s->here)
        return err_set(e, ERR_INPUT,
                       "this is the inside of a container; run it on the machine itself");
    for (size_t i = 0; i < n && ok; i++) {
        struct buf did = {0}, undo = {0};
        remedy_text(d, steps[i].remedy, &did);
        const bool safe = steps[i].kind == USER || steps[i].kind == SUDO;
        if (steps[i].kind == AT_BOOT) {
            reboot = true;
        } else if (safe && remedy_undo(d, steps[i].remedy, &undo)) {
            ok = do_one(s, &steps[i], buf_cstr(&did), buf_cstr(&undo), &n_done, e);
        } else {
            printf("\n%s: %s\n    yours to do: %s\n", steps[i].what, steps[i].seen, buf_cstr(&did));
            reboot = reboot || steps[i].kind == REBOOT;
        }
        buf_free(&did);
        buf_free(&undo);
    }
    ok = ok && do_boot(d, s, steps, n, &n_done, e);
    if (ok)
        printf("\n%zu done%s%s\n", n_done,
               n_done > 0 ? "; submind doctor --undo takes it back" : "",
               reboot ? "; what changes the kernel or its command line counts after a reboot" : "");
    return ok;
}

// ---- taking back --------------------------------------------------------------------------------------

static size_t split_lines(struct str text, struct str lines[MAX_LINES])
{
    size_t n = 0;
    while (text.n > 0 && n < MAX_LINES) {
        const size_t end = str_find(text, STR("\n"), 0);
        const struct str line = str_trim(str_sub(text, 0, end));
        text = end == SIZE_MAX ? (struct str){0} : str_sub(text, end + 1, text.n);
        if (line.n > 0) lines[n++] = line;
    }
    return n;
}

// *keep: the step stays in the log.
static bool undo_one(const struct settings *s, struct str line, bool *keep, struct err *e)
{
    struct err failed = {0};
    json_t *root = json_loadb(line.p, line.n, 0, NULL);
    const char *remedy = json_string_value(json_object_get(root, "remedy"));
    const char *undo = json_string_value(json_object_get(root, "undo"));
    *keep = true;
    if (remedy == NULL || undo == NULL) {
        json_decref(root);
        return err_set(e, ERR_FORMAT, "a line of the log is not what was written: %.80s", line.p);
    }
    printf("\n%s\n    %s\n", remedy, undo);
    if (ask(s, "take it back?")) {
        *keep = !run(undo, &failed);
        if (*keep) printf("failed: %s\n", failed.msg);
    }
    json_decref(root);
    return true;
}

bool doctor_undo(const struct settings *s, struct err *e)
{
    struct buf path = {0}, text = {0}, rest = {0};
    struct str lines[MAX_LINES];
    bool kept[MAX_LINES], ok = true;
    size_t n_back = 0;
    struct err local = {0};
    log_path(&path);
    if (!file_read(&text, buf_cstr(&path), MAX_LOG, &local) && local.code != ERR_NOT_FOUND)
        ok = err_set(e, local.code, "%s", local.msg);
    const size_t n = ok ? split_lines(buf_view(&text), lines) : 0;
    for (size_t i = n; i > 0 && ok; i--) {
        ok = undo_one(s, lines[i - 1], &kept[i - 1], e);
        n_back += !kept[i - 1];
    }
    for (size_t i = 0; i < n && ok; i++)
        if (kept[i]) buf_printf(&rest, "%.*s\n", (int)lines[i].n, lines[i].p);
    ok = ok && (n == 0 || file_replace(buf_cstr(&path), buf_view(&rest), 0600, e));
    if (ok) printf(n == 0 ? "nothing was done by --fix\n" : "\n%zu taken back\n", n_back);
    buf_free(&path);
    buf_free(&text);
    buf_free(&rest);
    return ok;
}
