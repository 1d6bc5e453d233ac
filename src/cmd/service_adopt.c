// service adopt UNIT: a llama-server unit becomes ours. The old unit is never changed; with --now both are
// measured, and if ours is better the old one is stopped and ours takes its port. If ours does not answer, or
// after `service rollback`, the old one serves again.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "cmd/model_path.h"
#include "cmd/service.h"
#include "host/adopt.h"

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
    bool ok = systemd_cat(&sv->manager, name, &text, e) &&
              unit_parse(&u, buf_view(&text), &sv->arena, e) &&
              adopt_read(a, &u, &place, &sv->arena, e);
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

static bool remember(struct service *sv, const char *old, struct err *e)
{
    struct buf path = {0};
    put_adopted_path(sv, &path);
    const bool ok = file_replace(buf_cstr(&path), str_from(old), 0644, e);
    buf_free(&path);
    return ok;
}

const char *service_adopted(struct service *sv)
{
    struct buf path = {0}, text = {0};
    struct err ignored = {0};
    const char *old = NULL;
    put_adopted_path(sv, &path);
    if (file_read(&text, buf_cstr(&path), UNIT_MAX_BYTES, &ignored) && text.n > 0)
        old = arena_str(&sv->arena, str_trim(buf_view(&text))).p;
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

static bool take_over(struct service *sv, const char *old, const struct cmdline *flags,
                      struct str unit, struct str socket, struct err *e)
{
    struct err ignored = {0};
    struct buf tail = {0};
    const char *ours = buf_cstr(&sv->files.service_name);
    // An old server with running answers may take as long as its own TimeoutStopSec= allows.
    fprintf(stderr, "stopping %s\n", old);
    bool ok = file_replace(buf_cstr(&sv->files.socket), socket, 0644, e) &&
              file_replace(buf_cstr(&sv->files.unit), unit, 0644, e) &&
              systemd_do(&sv->manager, "daemon-reload", NULL, e) &&
              systemd_do(&sv->manager, "stop", old, e) && service_apply(sv, unit, flags, e) &&
              systemd_do(&sv->manager, "disable", old, e) &&
              systemd_do(&sv->manager, "enable", buf_cstr(&sv->files.socket_name), e) &&
              systemd_do(&sv->manager, "enable", ours, e);
    if (ok) {
        printf("%s answers in the place of %s, which is stopped and disabled, and still there\n",
               ours, old);
        return true;
    }
    service_log_tail(sv, &tail);
    fprintf(stderr, "%s\n", buf_cstr(&tail));
    buf_free(&tail);
    stop_ours(sv);
    systemd_do(&sv->manager, "enable", old, &ignored);
    systemd_do(&sv->manager, "start", old, &ignored);
    return err_prefix(e, "%s was started again: ", old);
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
        ok = take_over(sv, old, flags, unit, socket, e);
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
