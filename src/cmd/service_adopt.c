// service adopt UNIT: a llama-server unit becomes ours. The old unit is never changed; with --now both are
// measured, and if ours is better it gets the port from the running server, is watched, and only then the old one
// is stopped, when its answers have ended. If ours fails meanwhile, the old one has never gone.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "cmd/model_path.h"
#include "cmd/service.h"
#include "host/adopt.h"
#include "host/handover.h"

enum { DRAIN_POLL_MS = 200, IDLE_S = 20 }; // llama-server closes what is idle for 5 s

static void list(const struct adopt *a, const char *unit)
{
    static const char *const kinds[] = {"kept", "otherwise", "LOST"};
    static const char *const via[] = {"", "toolbox", "distrobox", "podman"};
    if (a->via != VIA_NOTHING)
        printf("%s runs llama-server through %s%s%s; ours runs on the machine itself. In a\n"
               "container: submind service switch --to container:IMAGE (see packaging/).\n",
               unit, via[a->via], a->container == NULL ? "" : " ",
               a->container == NULL ? "" : a->container);
    for (size_t i = 0; i < a->plan.n_notes; i++)
        printf("  %-10s %-24s %s\n", kinds[a->plan.notes[i].kind], a->plan.notes[i].flag,
               a->plan.notes[i].text);
    for (size_t i = 0; i < a->n_lost; i++)
        printf("  %-10s %.*s\n", kinds[2], (int)a->lost[i].n, a->lost[i].p);
    if (a->n_lost > 0)
        printf("what is lost and wanted again: systemctl edit, or a flag of submind serve\n");
}

// A key on the old command line becomes a file that only its user reads.
static bool put_key(struct service *sv, struct adopt *a, struct err *e)
{
    struct buf path = {0};
    if (a->plan.api_key.n == 0) return true;
    buf_printf(&path, "%s/api-keys", buf_cstr(&sv->files.state_dir));
    bool ok = sv->s.dry_run || file_replace(buf_cstr(&path), a->plan.api_key, 0600, e);
    cmdline_set(&a->plan.words, "api-key-file", buf_cstr(&path));
    buf_free(&path);
    return ok;
}

static bool read_unit(struct service *sv, const char *name, struct adopt *a, struct err *e)
{
    struct buf text = {0};
    struct unit_file u;
    const struct adopt_place place = {
        .unit = name,
        .system = sv->system,
        .home = sv->system ? "/root" : sv->home, // %h is the manager's
        .runtime = sv->system || sv->runtime == NULL ? "/run" : sv->runtime};
    bool ok = systemd_cat(&sv->manager, name, &text, e);
    if (!ok) {
        const struct err why = *e;
        *e = (struct err){0};
        buf_free(&text);
        return err_set(e, ERR_NOT_FOUND, "%.300s; %s", why.msg,
                       sv->system ? "a user's unit is adopted by that user, with --user"
                                  : "a unit of the system is adopted with sudo");
    }
    ok = unit_parse(&u, buf_view(&text), &sv->arena, e) && adopt_read(a, &u, &place, &sv->arena, e);
    if (ok) sv->run_as = a->user;
    buf_free(&text);
    return ok || err_prefix(e, "%s: ", name);
}

// Looked for before anything is stopped; a model given by name becomes its file, for the service's user has no
// models of its own.
static bool find_model(struct cmdline *flags, struct err *e)
{
    const char *path;
    if (!model_path(cmdline_flag(flags, "model"), &path, e)) return false;
    if (access(path, R_OK) != 0)
        return err_errno(e, ERR_NOT_FOUND, "the unit's model %.300s", path);
    cmdline_set(flags, "model", path);
    return true;
}

static bool write_beside(struct service *sv, const char *old, struct str unit, struct str socket,
                         struct err *e)
{
    if (!file_replace(buf_cstr(&sv->files.socket), socket, 0644, e) ||
        !file_replace(buf_cstr(&sv->files.unit), unit, 0644, e) ||
        !systemd_do(&sv->manager, "daemon-reload", NULL, e))
        return false;
    printf("\nwritten, not started: %s\nto take over: submind service adopt %s --now\n",
           buf_cstr(&sv->files.unit), old);
    return true;
}

static bool record(struct service *sv, const char *action, const char *old, const char *result,
                   const struct buf *measured, struct err *e)
{
    struct buf line = {0};
    buf_printf(&line, "{\"time\":%lld,\"action\":\"%s\",\"from\":", (long long)clock_unix(),
               action);
    buf_json(&line, str_from(old));
    buf_printf(&line, ",\"result\":\"%s\"%.*s}", result, (int)measured->n,
               measured->n == 0 ? "" : measured->p);
    const bool written = service_record(&sv->files, buf_view(&line), e);
    buf_free(&line);
    return written;
}

// ---- back to the old unit -------------------------------------------------------------------------

static void put_adopted_path(const struct service *sv, struct buf *out)
{
    buf_printf(out, "%.*s/adopted", (int)sv->files.state_dir.n, sv->files.state_dir.p);
}

// "llama.service 3": taken over when 3 was the newest kept setup of ours.
static bool remember(struct service *sv, const char *old, struct err *e)
{
    struct buf path = {0}, text = {0};
    put_adopted_path(sv, &path);
    buf_printf(&text, "%s %u\n", old, service_kept_newest(&sv->files));
    const bool ok = file_replace(buf_cstr(&path), buf_view(&text), 0644, e);
    buf_free(&path);
    buf_free(&text);
    return ok;
}

const char *service_adopted(struct service *sv, uint32_t *kept)
{
    struct buf path = {0}, text = {0};
    struct err ignored = {0};
    const char *old = NULL;
    *kept = 0;
    put_adopted_path(sv, &path);
    if (file_read(&text, buf_cstr(&path), UNIT_MAX_BYTES, &ignored) && text.n > 0) {
        const struct str whole = str_trim(buf_view(&text));
        const size_t space = str_find(whole, STR(" "), 0);
        if (space != SIZE_MAX) *kept = (uint32_t)strtoul(buf_cstr(&text) + space, NULL, 10);
        old = arena_str(&sv->arena, str_sub(whole, 0, space)).p;
    }
    buf_free(&path);
    buf_free(&text);
    return old;
}

void service_forget_adopted(struct service *sv)
{
    struct buf path = {0};
    put_adopted_path(sv, &path);
    unlink(buf_cstr(&path));
    buf_free(&path);
}

static void stop_ours(struct service *sv)
{
    struct err ignored = {0};
    systemd_do(&sv->manager, "stop", buf_cstr(&sv->files.socket_name), &ignored);
    systemd_do(&sv->manager, "stop", buf_cstr(&sv->files.service_name), &ignored);
}

bool service_give_back(struct service *sv, const char *old, struct err *e)
{
    struct cmdline flags = {.arena = &sv->arena};
    struct str image;
    const struct buf nothing = {0};
    const char *url, *key;
    if (!service_load(sv, &flags, &image, e) || !service_url(sv, &flags, &url, &key, e))
        return false;
    stop_ours(sv);
    bool ok = systemd_do(&sv->manager, "disable", buf_cstr(&sv->files.socket_name), e) &&
              systemd_do(&sv->manager, "disable", buf_cstr(&sv->files.service_name), e) &&
              systemd_do(&sv->manager, "enable", old, e) &&
              systemd_do(&sv->manager, "start", old, e) &&
              service_probe(url, key, SERVICE_START_WAIT_S, e);
    if (!ok) return err_prefix(e, "roll-back to %s: ", old);
    service_forget_adopted(sv);
    printf("%s serves again; ours is stopped and disabled, and still there\n", old);
    return record(sv, "rollback", old, "ok", &nothing, e);
}

// ---- taking over ----------------------------------------------------------------------------------

// The policy: ours has to be quicker. A server that is not up cannot be measured, and is replaced as it is.
static bool is_better(struct service *sv, const char *old, const struct cmdline *flags, bool *wins,
                      struct buf *measured, struct err *e)
{
    const char *url, *key;
    struct err down = {0};
    *wins = true;
    if (sv->s.no_measure) return true;
    if (!service_url(sv, flags, &url, &key, e)) return false;
    if (!service_glance(url, key, NULL, &down)) {
        printf("%s does not answer (%s): nothing to measure\n", old, down.msg);
        return true;
    }
    return service_compare(sv, old, url, key, flags, wins, measured, e) ||
           err_prefix(e, "measuring both at once (--no-measure leaves it out): ");
}

// A socket unit that may listen beside somebody else: for as long as the hand-over takes.
static bool write_shared(struct service *sv, struct str socket, struct err *e)
{
    static const char section[] = "[Socket]\n";
    const size_t at = str_find(socket, str_from(section), 0) + sizeof section - 1;
    struct buf text = {0};
    buf_str(&text, str_sub(socket, 0, at));
    buf_z(&text, "ReusePort=yes\n");
    buf_str(&text, str_sub(socket, at, socket.n));
    const bool ok = file_replace(buf_cstr(&sv->files.socket), buf_view(&text), 0644, e);
    buf_free(&text);
    return ok;
}

static bool open_handover(struct service *sv, const struct cmdline *flags, struct handover *h,
                          struct err *e)
{
    const char *host = cmdline_flag(flags, "host"), *port = cmdline_flag(flags, "port");
    if (cmdline_flag(flags, "unix-socket") != NULL)
        return err_set(e, ERR_UNSUPPORTED, "it listens on a path");
    if (host == NULL || strcmp(host, "localhost") == 0) host = "127.0.0.1";
    return handover_open(h, host, port == NULL ? 8080 : (uint32_t)strtoul(port, NULL, 10),
                         sv->system ? 0 : (uint32_t)geteuid(), e);
}

// Ours on the port, answering and watched. With a hand-over the old server runs all the while, and keeps all
// connections until ours has loaded its model; else it has to be stopped first.
static bool start_ours(struct service *sv, const char *old, const struct cmdline *flags,
                       struct str unit, struct str socket, struct handover *h, struct err *e)
{
    const char *url, *key;
    bool ok = service_url(sv, flags, &url, &key, e);
    if (ok && h->fd > 0)
        ok = write_shared(sv, socket, e) &&
             file_replace(buf_cstr(&sv->files.unit), unit, 0644, e) &&
             systemd_do(&sv->manager, "daemon-reload", NULL, e) &&
             systemd_do(&sv->manager, "start", buf_cstr(&sv->files.socket_name), e) &&
             systemd_do(&sv->manager, "restart", buf_cstr(&sv->files.service_name), e) &&
             handover_point(h, true, e) && service_probe(url, key, SERVICE_START_WAIT_S, e);
    else if (ok)
        ok = file_replace(buf_cstr(&sv->files.socket), socket, 0644, e) &&
             systemd_do(&sv->manager, "stop", old, e) && service_apply(sv, unit, flags, e);
    return ok && service_watch(sv, flags, e);
}

// Until the old server has no connection left: first by itself, as what is idle is closed; then it is told to
// close each between two answers, which a client that sends at that moment may notice.
static void drain(struct handover *h)
{
    static const double limits_s[] = {IDLE_S, SERVICE_DRAIN_S};
    for (size_t i = 0; i < 2; i++) {
        const uint64_t start = clock_ns();
        do clock_sleep_ms(DRAIN_POLL_MS);
        while (handover_left(h) > 0 && clock_ms_since(start) < limits_s[i] * 1e3 &&
               atomic_load(&service_cancelled) == 0);
        handover_retire(h);
    }
}

static bool retire_old(struct service *sv, const char *old, struct str socket, struct handover *h,
                       struct err *e)
{
    if (h->fd > 0) {
        fprintf(stderr, "ours has the port; the last answers of %s end\n", old);
        drain(h);
    }
    return systemd_do(&sv->manager, "stop", old, e) &&
           file_replace(buf_cstr(&sv->files.socket), socket, 0644, e) &&
           systemd_do(&sv->manager, "daemon-reload", NULL, e) &&
           systemd_do(&sv->manager, "disable", old, e) &&
           systemd_do(&sv->manager, "enable", buf_cstr(&sv->files.socket_name), e) &&
           systemd_do(&sv->manager, "enable", buf_cstr(&sv->files.service_name), e);
}

// Both at once only where both were measured: then there is memory for two.
static bool take_over(struct service *sv, const char *old, const struct cmdline *flags,
                      struct str unit, struct str socket, bool measured, struct err *e)
{
    struct err ignored = {0}, why = {0};
    struct buf tail = {0};
    struct handover h = {0};
    struct service_before before = {0};
    service_before_read(sv, &before);
    if (!measured) err_set(&why, ERR_UNSUPPORTED, "both were not measured, so memory may be short");
    if (measured && open_handover(sv, flags, &h, &why))
        fprintf(stderr, "starting ours beside %s, on the same port\n", old);
    else // with running answers it may take as long as its own TimeoutStopSec= allows
        fprintf(stderr, "stopping %s first, which cuts its answers off: %s\n", old, why.msg);
    bool ok = start_ours(sv, old, flags, unit, socket, &h, e) && retire_old(sv, old, socket, &h, e);
    if (ok) {
        printf("%s answers in the place of %s, which is stopped and disabled, and still there\n",
               buf_cstr(&sv->files.service_name), old);
    } else {
        service_log_tail(sv, &tail);
        fprintf(stderr, "%s\n", buf_cstr(&tail));
        if (h.fd > 0) handover_point(&h, false, &ignored);
        service_put_back(sv, &before);
        systemd_do(&sv->manager, "enable", old, &ignored);
        systemd_do(&sv->manager, "start", old, &ignored);
        err_prefix(e, "%s serves as before: ", old);
    }
    handover_close(&h);
    service_before_free(&before);
    buf_free(&tail);
    return ok;
}

static bool adopt_now(struct service *sv, const char *old, const struct cmdline *flags,
                      struct str unit, struct str socket, struct err *e)
{
    struct buf measured = {0};
    struct err ignored = {0};
    bool wins, ok = is_better(sv, old, flags, &wins, &measured, e);
    if (ok && !wins && !sv->s.force) {
        printf("nothing was changed; --force takes over all the same\n");
        ok = record(sv, "adopt", old, "kept the old unit", &measured, e);
    } else if (ok) {
        ok = take_over(sv, old, flags, unit, socket, measured.n > 0, e);
        if (ok)
            ok = remember(sv, old, e) && record(sv, "adopt", old, "ok", &measured, e);
        else
            record(sv, "adopt", old, "failed, the old unit runs again", &measured, &ignored);
    }
    buf_free(&measured);
    return ok;
}

bool service_adopt(struct service *sv, const char *old, struct err *e)
{
    struct adopt a;
    struct buf unit = {0}, socket = {0};
    char drain[16];
    uint32_t kept = 0;
    if (!read_unit(sv, old, &a, e) || !put_key(sv, &a, e)) return false;
    struct cmdline *flags = &a.plan.words;
    snprintf(drain, sizeof drain, "%d", SERVICE_DRAIN_S);
    cmdline_set(flags, "drain", drain);
    cmdline_z(flags, "--accept-when-ready");
    bool ok = sv->s.dry_run || find_model(flags, e);
    ok = ok && service_texts(sv, flags, NULL, &unit, &socket, e);
    if (ok) list(&a, old);
    if (ok && sv->s.dry_run) {
        printf("\n%s\n%s", buf_cstr(&socket), buf_cstr(&unit));
    } else if (ok) {
        ok = service_keep(&sv->files, &kept, e);
        if (ok && sv->s.now) {
            ok = adopt_now(sv, old, flags, buf_view(&unit), buf_view(&socket), e);
        } else if (ok) {
            ok = write_beside(sv, old, buf_view(&unit), buf_view(&socket), e);
        }
    }
    buf_free(&unit);
    buf_free(&socket);
    return ok;
}
