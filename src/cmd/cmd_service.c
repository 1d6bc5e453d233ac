// submind service: the table of actions, and those that are short.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "cmd/actions.h"
#include "cmd/cmd.h"
#include "cmd/service.h"

enum { MAX_UNIT = 1 << 20, SHOWN_LINES = 100 };

static void on_signal(int number)
{
    (void)number;
    atomic_store(&service_cancelled, 1);
}

// ---- install ------------------------------------------------------------------------------------

static void set_defaults(struct cmdline *flags)
{
    char drain[16];
    snprintf(drain, sizeof drain, "%d", SERVICE_DRAIN_S);
    if (cmdline_flag(flags, "drain") == NULL) cmdline_set(flags, "drain", drain);
    if (!cmdline_has(flags, "--accept-when-ready")) cmdline_z(flags, "--accept-when-ready");
}

static bool start_installed(struct service *sv, const struct service_before *b,
                            const struct cmdline *flags, struct str unit, struct str socket,
                            struct err *e)
{
    struct err ignored = {0};
    uint32_t kept;
    if (!service_keep(&sv->files, &kept, e)) return false;
    if (b->existed && !str_eq(buf_view(&b->socket), socket)) { // another port: it has to be let go
        systemd_do(&sv->manager, "stop", buf_cstr(&sv->files.socket_name), &ignored);
        systemd_do(&sv->manager, "stop", buf_cstr(&sv->files.service_name), &ignored);
    }
    return service_write_units(sv, unit, socket, e) && service_apply(sv, unit, flags, e);
}

// Somebody else on the port would only show as a failed job.
static bool check_port(struct service *sv, const struct cmdline *flags, struct err *e)
{
    const char *host = cmdline_flag(flags, "host"), *port = cmdline_flag(flags, "port");
    struct buf state = {0};
    struct err ignored = {0};
    systemd_property(&sv->manager, buf_cstr(&sv->files.socket_name), "ActiveState", &state,
                     &ignored);
    const bool ours = strcmp(buf_cstr(&state), "active") == 0;
    buf_free(&state);
    if (ours || cmdline_flag(flags, "unix-socket") != NULL) return true;
    if (service_port_is_free(host, port)) return true;
    return err_set(e, ERR_INPUT,
                   "somebody listens on port %s already; a llama-server unit is taken over with "
                   "submind service adopt UNIT, any other needs another --port",
                   port == NULL ? "8080" : port);
}

static bool install(struct service *sv, struct err *e)
{
    struct cmdline flags = {.arena = &sv->arena};
    struct buf unit = {0}, socket = {0}, tail = {0};
    struct service_before before = {0};
    bool ok = service_given_flags(sv, &flags, e);
    set_defaults(&flags);
    ok = ok && service_texts(sv, &flags, NULL, &unit, &socket, e);
    if (ok && !sv->s.dry_run) ok = check_port(sv, &flags, e);
    if (ok && sv->s.dry_run) {
        printf("# %s\n%s\n# %s\n%s", buf_cstr(&sv->files.socket), buf_cstr(&socket),
               buf_cstr(&sv->files.unit), buf_cstr(&unit));
    } else if (ok) {
        service_before_read(sv, &before);
        ok = start_installed(sv, &before, &flags, buf_view(&unit), buf_view(&socket), e);
        if (!ok) {
            service_log_tail(sv, &tail);
            fprintf(stderr, "%s\n", buf_cstr(&tail));
            service_put_back(sv, &before);
            err_prefix(e, before.existed ? "the service before was put back: "
                                         : "nothing is left installed: ");
        } else {
            struct buf stream = {0}, record = {0};
            service_listen_stream(&flags, &stream);
            printf("%s runs and answered a completion on %s\n", buf_cstr(&sv->files.service_name),
                   buf_cstr(&stream));
            if (!sv->system)
                printf("to let it run while you are not logged in: loginctl enable-linger\n");
            buf_printf(&record, "{\"time\":%lld,\"action\":\"install\",\"result\":\"ok\"}",
                       (long long)clock_unix());
            ok = service_record(&sv->files, buf_view(&record), e);
            buf_free(&stream);
            buf_free(&record);
        }
    }
    service_before_free(&before);
    buf_free(&unit);
    buf_free(&socket);
    buf_free(&tail);
    return ok;
}

// ---- the short ones -------------------------------------------------------------------------------

static bool uninstall(struct service *sv, struct err *e)
{
    struct err ignored = {0};
    struct buf text = {0};
    if (!file_read(&text, buf_cstr(&sv->files.unit), MAX_UNIT, &ignored)) {
        buf_free(&text);
        return err_set(e, ERR_NOT_FOUND, "no service \"%s\" is installed", sv->name);
    }
    buf_free(&text);
    uint32_t kept;
    const char *old = service_adopted(sv, &kept);
    service_remove_units(sv);
    printf("%s is stopped and removed; its records stay in %s\n", buf_cstr(&sv->files.service_name),
           buf_cstr(&sv->files.state_dir));
    if (old != NULL)
        printf("%s, whose place it had, is still there: systemctl%s enable --now %s\n", old,
               sv->system ? "" : " --user", old);
    service_forget_adopted(sv);
    return true;
}

static bool status(struct service *sv, struct err *e)
{
    struct cmdline flags = {.arena = &sv->arena};
    struct str image = {0};
    struct buf state = {0}, restarts = {0};
    struct err down = {0};
    const char *url, *key;
    const char *service = buf_cstr(&sv->files.service_name);
    bool ok = service_load(sv, &flags, &image, e) && service_url(sv, &flags, &url, &key, e) &&
              systemd_property(&sv->manager, service, "ActiveState", &state, e) &&
              systemd_property(&sv->manager, service, "NRestarts", &restarts, e);
    if (ok) {
        const bool up = service_glance(url, key, NULL, &down);
        const char *model = cmdline_flag(&flags, "model"), *device = cmdline_flag(&flags, "device");
        if (sv->s.json) {
            struct buf b = {0};
            buf_printf(&b, "{\"service\":\"%s\",\"state\":\"%s\",\"restarts\":%d,\"healthy\":%s,",
                       service, buf_cstr(&state), atoi(buf_cstr(&restarts)), up ? "true" : "false");
            buf_printf(&b, "\"url\":\"%s\",\"model\":", url);
            buf_json(&b, str_from(model == NULL ? "built-in" : model));
            buf_printf(&b, ",\"device\":\"%s\",\"kept\":%u}", device == NULL ? "auto" : device,
                       service_kept_newest(&sv->files));
            printf("%s\n", buf_cstr(&b));
            buf_free(&b);
        } else {
            printf("%s: %s, %s restarts\nserver  %s: %s\nmodel   %s\ndevice  %s%s%.*s\n", service,
                   buf_cstr(&state), buf_cstr(&restarts), url, up ? "healthy" : down.msg,
                   model == NULL ? "built-in" : model, device == NULL ? "auto" : device,
                   image.n > 0 ? " in " : "", (int)image.n, image.n > 0 ? image.p : "");
        }
        if (!up) ok = err_set(e, ERR_NO_SERVER, "%s", down.msg);
    }
    buf_free(&state);
    buf_free(&restarts);
    return ok;
}

static bool logs(struct service *sv, struct err *e)
{
    struct buf text = {0}, program = {0};
    const char *unit = buf_cstr(&sv->files.service_name);
    bool ok = true;
    if (sv->s.follow) {
        char manager[] = "--user", system[] = "--system", f[] = "--follow", u[] = "--unit";
        char *argv[] = {NULL, sv->system ? system : manager, f, u, sv->files.service_name.p, NULL};
        ok = process_find(&program, "journalctl", sv->manager.path, e);
        argv[0] = program.p;
        if (ok) execv(buf_cstr(&program), argv);
        if (ok) ok = err_errno(e, ERR_IO, "cannot run journalctl");
        buf_free(&program);
        return ok;
    }
    systemd_journal(&sv->manager, unit, SHOWN_LINES, &text);
    printf("%s\n", buf_cstr(&text));
    buf_free(&text);
    return true;
}

static bool history(struct service *sv, struct err *e)
{
    struct buf text = {0};
    bool ok = service_records(&sv->files, &text, e);
    if (ok) printf("%s", buf_cstr(&text));
    buf_free(&text);
    return ok;
}

static bool clean(struct service *sv, struct err *e)
{
    (void)e;
    const size_t n = service_clean(&sv->files, service_kept_newest(&sv->files));
    printf("removed %zu kept unit%s; a rollback has nothing to go back to now\n", n,
           n == 1 ? "" : "s");
    return true;
}

// ---- the table ------------------------------------------------------------------------------------

static bool do_switch(struct service *sv, struct err *e)
{
    return service_switch(sv, e);
}
static bool adopt(struct service *sv, struct err *e)
{
    return service_adopt(sv, sv->s.args[1], e);
}
static bool gateway(struct service *sv, struct err *e)
{
    return service_gateway(sv, sv->s.args[1], e);
}

static const struct {
    const char *name; // of actions.def
    bool (*run)(struct service *sv, struct err *e);
} actions[] = {
    {"install", install},     {"status", status},    {"logs", logs},
    {"adopt", adopt},         {"switch", do_switch}, {"rollback", service_rollback},
    {"history", history},     {"gateway", gateway},  {"clean", clean},
    {"uninstall", uninstall},
};
enum { N_ACTIONS = sizeof actions / sizeof actions[0] };

static int help(void)
{
    printf("usage: submind service ACTION [flags]\n\n");
    actions_help("service");
    printf("install and switch take the flags of submind serve too.\n\n");
    options_help(C_SERVICE, "service");
    return 0;
}

static bool run(struct service *sv, struct err *e)
{
    const char *name = sv->s.args[0];
    const struct action *a = actions_find("service", name);
    for (size_t i = 0; i < N_ACTIONS && a != NULL; i++) {
        if (strcmp(name, actions[i].name) != 0) continue;
        const int want = *a->argument == '\0' ? 1 : 2;
        if (sv->s.n_args < want) return err_set(e, ERR_INPUT, "%s needs %s", name, a->argument);
        if (sv->s.n_args > want)
            return err_set(e, ERR_INPUT, "unexpected \"%s\"", sv->s.args[want]);
        return service_open(sv, e) && actions[i].run(sv, e);
    }
    return err_set(e, ERR_INPUT, "there is no action \"%s\"; --help lists them", name);
}

int cmd_service(int argc, char **argv)
{
    struct err e = {0};
    struct service sv = {0};
    const struct sigaction stop = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    if (!options_parse(&sv.s, (enum command_bit)(C_SERVICE | C_SERVE), argc, argv, &e))
        return cmd_fail("service", &e);
    if (sv.s.help || sv.s.n_args == 0) return help();
    log_set_level(sv.s.verbose ? LOG_DEBUG : LOG_WARN);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    bool ok = run(&sv, &e);
    service_close(&sv);
    return ok ? 0 : cmd_fail("service", &e);
}
