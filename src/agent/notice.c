// Every way has ten seconds and none hinders the others. Texts go to a command as variables of its
// environment and to the rest as JSON, never into a command line.
#include "agent/notice.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/http_client.h"
#include "base/clock.h"
#include "base/process.h"

enum { LIMIT_MS = 10000, OUTPUT_BYTES = 400, MAX_ENVIRONMENT = 4096 };

bool notice_wanted(const struct notify_spec *s, const struct notice *n)
{
    bool failed = n->failed || str_eq(n->status, STR("failed"));
    switch (s->when) {
    case NOTIFY_ALWAYS: return true;
    case NOTIFY_FAILURE: return failed;
    case NOTIFY_ATTENTION: return failed || str_eq(n->status, STR("attention"));
    default: return false;
    }
}

static void put_json(const struct notice *n, struct buf *b)
{
    const struct {
        const char *key;
        struct str text;
    } texts[] = {
        {"name", str_from(n->name)}, {"run", str_from(n->id)}, {"outcome", str_from(n->outcome)},
        {"status", n->status},       {"report", n->report},    {"reason", n->reason},
        {"stage", n->stage}};
    buf_printf(b, "{\"at\":%lld", (long long)clock_unix());
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        buf_printf(b, ",\"%s\":", texts[i].key);
        buf_json(b, texts[i].text);
    }
    buf_c(b, '}');
}

static struct str words_of(const struct notice *n)
{
    return n->reason.n > 0 ? n->reason : n->report;
}

// ---- commands -------------------------------------------------------------------------------

// "NAME=value" without the bytes that an environment cannot hold.
static void put_variable(struct buf *all, const char *name, struct str value)
{
    buf_printf(all, "%s=", name);
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] != '\0') buf_c(all, value.p[i]);
    buf_c(all, '\0');
}

static const char *path_of(const char *const *environment)
{
    for (; *environment != NULL; environment++)
        if (strncmp(*environment, "PATH=", 5) == 0) return *environment + 5;
    return "/usr/local/bin:/usr/bin:/bin";
}

static bool run_command(const char *const *argv, const struct notice *n,
                        const char *const *environment, const char *dir, struct buf *said)
{
    struct buf variables = {0};
    const char *env[MAX_ENVIRONMENT + 8];
    size_t n_env = 0;
    struct process_result result = {0};
    struct err e = {0};
    const char *path = path_of(environment);
    put_variable(&variables, "SUBMIND_NAME", str_from(n->name));
    put_variable(&variables, "SUBMIND_RUN", str_from(n->id));
    put_variable(&variables, "SUBMIND_OUTCOME", str_from(n->outcome));
    put_variable(&variables, "SUBMIND_STATUS", n->status);
    put_variable(&variables, "SUBMIND_REPORT", n->report);
    put_variable(&variables, "SUBMIND_REASON", n->reason);
    for (const char *p = buf_cstr(&variables); p < variables.p + variables.n; p += strlen(p) + 1)
        env[n_env++] = p;
    for (; *environment != NULL && n_env < MAX_ENVIRONMENT; environment++)
        env[n_env++] = *environment;
    env[n_env] = NULL;
    struct process_spec spec = {.argv = argv,
                                .env = env,
                                .path = path,
                                .dir = dir,
                                .timeout_ms = LIMIT_MS,
                                .keep_bytes = OUTPUT_BYTES};
    bool ok = process_run(&spec, &result, &e);
    if (!ok)
        buf_printf(said, "%s", e.msg);
    else if (result.end == PROCESS_EXITED && result.code == 0)
        buf_z(said, "done");
    else
        buf_printf(said, "%s %d", result.end == PROCESS_EXITED ? "exit code" : "ended by signal",
                   result.code);
    ok = ok && result.end == PROCESS_EXITED && result.code == 0;
    process_result_free(&result);
    buf_free(&variables);
    return ok;
}

static bool by_command(const struct notify_spec *s, const struct notice *n,
                       const char *const *environment, const char *dir, struct buf *said)
{
    return run_command((const char *const *)s->command.p, n, environment, dir, said);
}

static bool by_desktop(const struct notify_spec *s, const struct notice *n,
                       const char *const *environment, const char *dir, struct buf *said)
{
    struct buf title = {0}, body = {0};
    (void)s;
    buf_printf(&title, "%s: %s", n->name, n->outcome);
    buf_str(&body, str_sub(words_of(n), 0, 300));
    const char *const argv[] = {"notify-send",    "--app-name=submind", "--",
                                buf_cstr(&title), buf_cstr(&body),      NULL};
    bool ok = run_command(argv, n, environment, dir, said);
    buf_free(&title);
    buf_free(&body);
    return ok;
}

// ---- file and web ---------------------------------------------------------------------------

// One write of one line, so that lines of several runs never mix.
static bool by_file(const struct notify_spec *s, const struct notice *n,
                    const char *const *environment, const char *dir, struct buf *said)
{
    struct buf line = {0};
    (void)environment;
    (void)dir;
    put_json(n, &line);
    buf_c(&line, '\n');
    int fd = open(s->file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && !line.failed && write(fd, line.p, line.n) == (ssize_t)line.n;
    buf_printf(said, "%s", ok ? "done" : strerror(errno));
    if (fd >= 0) close(fd);
    buf_free(&line);
    return ok;
}

// "https://host/a/b" -> the client's base and "/a/b".
static bool by_webhook(const struct notify_spec *s, const struct notice *n,
                       const char *const *environment, const char *dir, struct buf *said)
{
    struct buf base = {0}, body = {0};
    struct http_client *c = NULL;
    struct http_answer answer = {0};
    struct err e = {0};
    (void)environment;
    (void)dir;
    const char *path = strchr(strstr(s->webhook, "://") + 3, '/');
    buf_put(&base, s->webhook, path != NULL ? (size_t)(path - s->webhook) : strlen(s->webhook));
    put_json(n, &body);
    bool ok = http_client_open(&c, buf_cstr(&base), NULL, &e);
    if (ok) {
        struct http_call call = {.path = path != NULL ? path : "/",
                                 .body = buf_view(&body),
                                 .deadline_ns = clock_ns() + (uint64_t)LIMIT_MS * 1000000,
                                 .connect_ms = LIMIT_MS};
        http_client_call(c, &call, &answer);
        ok = answer.status >= 200 && answer.status < 300;
    }
    if (answer.status != 0)
        buf_printf(said, "status %ld", answer.status);
    else
        buf_z(said, e.code != ERR_NONE ? e.msg : answer.why[0] != '\0' ? answer.why : "no answer");
    http_answer_free(&answer);
    http_client_close(c);
    buf_free(&base);
    buf_free(&body);
    return ok;
}

bool notice_send(const struct notify_spec *s, const struct notice *n,
                 const char *const *environment, const char *dir, struct buf *said)
{
    const struct {
        const char *name;
        bool wanted;
        bool (*send)(const struct notify_spec *s, const struct notice *n,
                     const char *const *environment, const char *dir, struct buf *said);
    } ways[] = {{"command", s->command.n > 0, by_command},
                {"file", s->file != NULL, by_file},
                {"webhook", s->webhook != NULL, by_webhook},
                {"desktop", s->desktop, by_desktop}};
    bool ok = true;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (!ways[i].wanted) continue;
        buf_printf(said, "%s%s: ", said->n > 0 ? "; " : "", ways[i].name);
        ok = ways[i].send(s, n, environment, dir, said) && ok;
    }
    return ok;
}
