// service adopt UNIT: a llama-server unit becomes ours. The old unit is never changed; with --now it is
// stopped and ours takes its port, and if ours does not answer, the old one is started again.
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "cmd/service.h"
#include "host/adopt.h"

static void list(const struct adopt *a, const char *unit)
{
    static const char *const kinds[] = {"kept", "otherwise", "LOST"};
    static const char *const via[] = {"", "toolbox", "podman"};
    if (a->via != VIA_NOTHING)
        printf("%s runs llama-server through %s%s%s; ours runs on the machine itself. In a\n"
               "container: submind service switch --to container:IMAGE (see packaging/).\n",
               unit, via[a->via], a->container == NULL ? "" : " ",
               a->container == NULL ? "" : a->container);
    for (size_t i = 0; i < a->plan.n_notes; i++)
        printf("  %-10s %-24s %s\n", kinds[a->plan.notes[i].kind], a->plan.notes[i].flag,
               a->plan.notes[i].text);
    for (size_t i = 0; i < a->n_lost; i++)
        printf("  %-10s %-24.*s is not taken over; add it with systemctl edit if you need it\n",
               kinds[2], (int)a->lost[i].n, a->lost[i].p);
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
    bool ok =
        systemd_cat(&sv->manager, name, &text, e) &&
        unit_parse(&u, buf_view(&text), &sv->arena, e) &&
        adopt_read(a, &u, sv->home, sv->runtime == NULL ? "/run" : sv->runtime, &sv->arena, e);
    buf_free(&text);
    return ok || err_prefix(e, "%s: ", name);
}

static bool take_over(struct service *sv, const char *old, const struct cmdline *flags,
                      struct str unit, struct str socket, struct err *e)
{
    struct err ignored = {0};
    struct buf tail = {0};
    const char *ours = buf_cstr(&sv->files.service_name);
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
    systemd_do(&sv->manager, "stop", buf_cstr(&sv->files.socket_name), &ignored);
    systemd_do(&sv->manager, "stop", ours, &ignored);
    systemd_do(&sv->manager, "enable", old, &ignored);
    systemd_do(&sv->manager, "start", old, &ignored);
    return err_prefix(e, "%s was started again: ", old);
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

static bool record(struct service *sv, const char *old, bool ok, struct err *e)
{
    struct buf line = {0};
    struct err ignored = {0};
    buf_printf(&line, "{\"time\":%lld,\"action\":\"adopt\",\"from\":", (long long)clock_unix());
    buf_json(&line, str_from(old));
    buf_printf(&line, ",\"result\":\"%s\"}", ok ? "ok" : "failed, the old unit runs again");
    const bool written = service_record(&sv->files, buf_view(&line), ok ? e : &ignored);
    buf_free(&line);
    return ok && written;
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
    bool ok = service_texts(sv, flags, NULL, &unit, &socket, e);
    if (ok) list(&a, old);
    if (ok && sv->s.dry_run) {
        printf("\n%s\n%s", buf_cstr(&socket), buf_cstr(&unit));
    } else if (ok) {
        ok = service_keep(&sv->files, &kept, e);
        if (ok && sv->s.now) {
            ok = take_over(sv, old, flags, buf_view(&unit), buf_view(&socket), e);
            ok = record(sv, old, ok, e);
        } else if (ok) {
            ok = write_beside(sv, old, buf_view(&unit), buf_view(&socket), e);
        }
    }
    buf_free(&unit);
    buf_free(&socket);
    return ok;
}
