// One function runs them all; nothing here goes through a shell.
#include "host/systemd.h"

#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/process.h"

enum { MAX_ARGS = 12, KEEP_BYTES = 256 << 10, WAIT_MS = 1200000 };

static bool call(const struct systemd *s, const char *const *argv, struct process_result *r,
                 struct err *e)
{
    const struct process_spec spec = {.argv = argv,
                                      .env = s->environment,
                                      .path = s->path,
                                      .timeout_ms = WAIT_MS,
                                      .keep_bytes = KEEP_BYTES};
    return process_run(&spec, r, e);
}

// systemctl with up to three words; true when it ended well.
static bool systemctl(const struct systemd *s, const char *const *words, struct buf *out,
                      struct err *e)
{
    const char *argv[MAX_ARGS] = {"systemctl", s->system ? "--system" : "--user"};
    struct process_result r = {0};
    size_t n = 2;
    for (; *words != NULL && n + 1 < MAX_ARGS; words++) argv[n++] = *words;
    argv[n] = NULL;
    if (!call(s, argv, &r, e)) return false;
    const struct str text = str_trim(buf_view(&r.head));
    const bool ok = r.end == PROCESS_EXITED && r.code == 0;
    if (ok && out != NULL) buf_str(out, text);
    if (!ok)
        err_set(e, ERR_IO, "systemctl %s%s %s failed: %.*s", s->system ? "" : "--user ", argv[2],
                argv[3] != NULL ? argv[3] : "", (int)(text.n < 300 ? text.n : 300), text.p);
    process_result_free(&r);
    return ok;
}

bool systemd_do(const struct systemd *s, const char *verb, const char *unit, struct err *e)
{
    const char *const words[] = {verb, unit, NULL};
    return systemctl(s, words, NULL, e);
}

bool systemd_property(const struct systemd *s, const char *unit, const char *property,
                      struct buf *out, struct err *e)
{
    const char *const words[] = {"show", "-P", property, unit, NULL};
    return systemctl(s, words, out, e);
}

bool systemd_cat(const struct systemd *s, const char *unit, struct buf *out, struct err *e)
{
    const char *const words[] = {"cat", unit, "--no-pager", NULL};
    return systemctl(s, words, out, e);
}

void systemd_journal(const struct systemd *s, const char *unit, unsigned n_lines, struct buf *out)
{
    char lines[16];
    snprintf(lines, sizeof lines, "%u", n_lines);
    const char *const argv[] = {"journalctl", s->system ? "--system" : "--user",
                                "--unit",     unit,
                                "--no-pager", "--lines",
                                lines,        NULL};
    struct process_result r = {0};
    struct err ignored = {0};
    if (call(s, argv, &r, &ignored)) buf_str(out, str_trim(buf_view(&r.head)));
    process_result_free(&r);
}

// Tried, since three settings of the kernel and AppArmor can each forbid it; Ubuntu 24.04's lets the name space
// be made, but not used.
bool systemd_name_spaces(void)
{
    int status = -1;
    const pid_t child = fork();
    if (child == 0) {
        const bool ok = unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
                        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
        _exit(ok ? 0 : 1);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}
