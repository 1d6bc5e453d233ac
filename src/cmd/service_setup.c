// Opening a service's files and putting a unit in force. The order that keeps the port: the socket unit is
// only ever started, never restarted, while the server behind it goes and comes.
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/process.h"
#include "base/rundir.h"
#include "cmd/model_path.h"
#include "cmd/service.h"

enum { MAX_WORDS = 256, LOG_LINES = 15 };

atomic_int service_cancelled;

bool service_open(struct service *sv, struct err *e)
{
    uint64_t identity;
    const struct passwd *pw = getpwuid(geteuid());
    const char *home = options_env("HOME");
    if (sv->s.system && sv->s.user)
        return err_set(e, ERR_INPUT, "--system and --user exclude each other");
    sv->system = sv->s.system || (geteuid() == 0 && !sv->s.user);
    sv->name = sv->s.name != NULL ? sv->s.name : "submind";
    sv->home = home != NULL ? home : pw != NULL ? pw->pw_dir : "/";
    sv->runtime = options_env("XDG_RUNTIME_DIR");
    sv->manager = (struct systemd){
        .system = sv->system,
        .path = options_env("PATH"),
        .environment = (const char *const *)environ,
    };
    return rundir_self(&sv->binary, &identity, e) &&
           service_files_open(&sv->files, sv->system, sv->name, sv->home,
                              options_env("XDG_CONFIG_HOME"), options_env("XDG_STATE_HOME"), e);
}

void service_close(struct service *sv)
{
    service_files_close(&sv->files);
    buf_free(&sv->binary);
    arena_free(&sv->arena);
}

bool service_load(struct service *sv, struct cmdline *flags, struct str *image, struct err *e)
{
    struct buf text = {0};
    struct unit_file u;
    bool ok = file_read(&text, buf_cstr(&sv->files.unit), UNIT_MAX_BYTES, e);
    if (!ok && e->code == ERR_NOT_FOUND) {
        *e = (struct err){0};
        err_set(e, ERR_NOT_FOUND,
                "no service \"%s\" is installed (%s); use submind service install", sv->name,
                buf_cstr(&sv->files.unit));
    }
    ok = ok && unit_parse(&u, buf_view(&text), &sv->arena, e) &&
         service_unit_flags(&u, sv->home, flags, image, e);
    const struct str user = ok ? unit_value(&u, "Service", "User") : STR("");
    if (user.n > 0) sv->run_as = arena_str(&sv->arena, user).p;
    buf_free(&text);
    return ok;
}

// Paths in a unit must be whole: the service starts in another folder.
static bool make_absolute(struct cmdline *flags, const char *name, struct err *e)
{
    const char *given = cmdline_flag(flags, name);
    if (given == NULL) return true;
    if (strcmp(name, "cache-dir") == 0 && strcmp(given, "off") == 0) return true;
    if (strcmp(name, "model") == 0 && !model_path(given, &given, e)) return false;
    char *path = realpath(given, NULL);
    if (path == NULL) return err_errno(e, ERR_NOT_FOUND, "--%s %.300s", name, given);
    cmdline_set(flags, name, path);
    free(path);
    return true;
}

bool service_given_flags(struct service *sv, struct cmdline *flags, struct err *e)
{
    static const char *const files[] = {"model", "api-key-file", "chat-template-file", "cache-dir",
                                        "workspace"};
    const char *argv[MAX_WORDS];
    size_t n = 0;
    if (!options_serve_words(&sv->s, &sv->arena, argv, &n, MAX_WORDS))
        return err_set(e, ERR_MEMORY, "no memory for the flags");
    for (size_t i = 0; i < n; i++) cmdline_z(flags, argv[i]);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (!make_absolute(flags, files[i], e)) return false;
    return !flags->failed || err_set(e, ERR_MEMORY, "no memory for the flags");
}

// Who a system service runs as: whoever owns the model, so that it can be read; nobody's own for root's.
static const char *owner_of_model(struct service *sv, const struct cmdline *flags)
{
    struct stat st;
    const char *model = cmdline_flag(flags, "model");
    if (model == NULL || stat(model, &st) != 0 || st.st_uid == 0) return NULL;
    const struct passwd *pw = getpwuid(st.st_uid);
    return pw == NULL ? NULL : arena_str(&sv->arena, str_from(pw->pw_name)).p;
}

// systemd refuses a unit with a group that does not exist.
static const char *gpu_groups(void)
{
    const bool video = getgrnam("video") != NULL, render = getgrnam("render") != NULL;
    return video && render ? "video render" : video ? "video" : render ? "render" : NULL;
}

// Where podman is, for units of containers; NULL when it is not found: then the start tells.
static const char *find_podman(struct service *sv)
{
    struct buf path = {0};
    struct err ignored = {0};
    const bool found = process_find(&path, "podman", sv->manager.path, &ignored);
    const char *text = found ? arena_str(&sv->arena, buf_view(&path)).p : NULL;
    buf_free(&path);
    return text;
}

static struct service_spec spec_of(struct service *sv, const struct cmdline *flags,
                                   const char *image)
{
    return (struct service_spec){.name = sv->name,
                                 .system = sv->system,
                                 .name_spaces = !sv->system && systemd_name_spaces(),
                                 .user =
                                     sv->run_as != NULL ? sv->run_as : owner_of_model(sv, flags),
                                 .groups = gpu_groups(),
                                 .binary = buf_cstr(&sv->binary),
                                 .podman = image != NULL ? find_podman(sv) : NULL,
                                 .image = image,
                                 .flags = flags};
}

bool service_bridge_text(struct service *sv, const struct cmdline *flags, const char *image,
                         const char *name, struct buf *unit, struct err *e)
{
    struct service_spec spec = spec_of(sv, flags, image);
    spec.socket = spec.name;
    spec.name = name;
    return service_unit_text(&spec, unit, e);
}

bool service_texts(struct service *sv, const struct cmdline *flags, const char *image,
                   struct buf *unit, struct buf *socket, struct err *e)
{
    const struct service_spec spec = spec_of(sv, flags, image);
    return service_unit_text(&spec, unit, e) && service_socket_text(&spec, socket, e);
}

void service_log_tail(struct service *sv, struct buf *out)
{
    buf_c(out, '\n');
    systemd_journal(&sv->manager, buf_cstr(&sv->files.service_name), LOG_LINES, out);
}

bool service_apply(struct service *sv, struct str unit, const struct cmdline *flags, struct err *e)
{
    const char *service = buf_cstr(&sv->files.service_name), *url, *key;
    return service_url(sv, flags, &url, &key, e) &&
           file_replace(buf_cstr(&sv->files.unit), unit, 0644, e) &&
           systemd_do(&sv->manager, "daemon-reload", NULL, e) &&
           systemd_do(&sv->manager, "start", buf_cstr(&sv->files.socket_name), e) &&
           systemd_do(&sv->manager, "restart", service, e) &&
           service_probe(url, key, SERVICE_START_WAIT_S, e);
}

// ---- written, removed, put back -------------------------------------------------------------------

bool service_write_units(struct service *sv, struct str unit, struct str socket, struct err *e)
{
    return file_replace(buf_cstr(&sv->files.socket), socket, 0644, e) &&
           file_replace(buf_cstr(&sv->files.unit), unit, 0644, e) &&
           systemd_do(&sv->manager, "daemon-reload", NULL, e) &&
           systemd_do(&sv->manager, "enable", buf_cstr(&sv->files.socket_name), e) &&
           systemd_do(&sv->manager, "enable", buf_cstr(&sv->files.service_name), e);
}

void service_remove_units(struct service *sv)
{
    struct err ignored = {0};
    systemd_do(&sv->manager, "disable", buf_cstr(&sv->files.service_name), &ignored);
    systemd_do(&sv->manager, "disable", buf_cstr(&sv->files.socket_name), &ignored);
    systemd_do(&sv->manager, "stop", buf_cstr(&sv->files.socket_name), &ignored);
    systemd_do(&sv->manager, "stop", buf_cstr(&sv->files.service_name), &ignored);
    unlink(buf_cstr(&sv->files.unit));
    unlink(buf_cstr(&sv->files.socket));
    systemd_do(&sv->manager, "daemon-reload", NULL, &ignored);
}

void service_before_read(struct service *sv, struct service_before *b)
{
    struct err ignored = {0};
    struct buf state = {0};
    b->existed = file_read(&b->unit, buf_cstr(&sv->files.unit), UNIT_MAX_BYTES, &ignored) &&
                 file_read(&b->socket, buf_cstr(&sv->files.socket), UNIT_MAX_BYTES, &ignored);
    systemd_property(&sv->manager, buf_cstr(&sv->files.socket_name), "ActiveState", &state,
                     &ignored);
    b->ran = strcmp(buf_cstr(&state), "active") == 0;
    buf_free(&state);
}

void service_put_back(struct service *sv, struct service_before *b)
{
    struct err ignored = {0};
    if (!b->existed || !b->ran) service_remove_units(sv);
    if (b->existed && !b->ran) { // written beside another unit, and not more
        file_replace(buf_cstr(&sv->files.socket), buf_view(&b->socket), 0644, &ignored);
        file_replace(buf_cstr(&sv->files.unit), buf_view(&b->unit), 0644, &ignored);
        systemd_do(&sv->manager, "daemon-reload", NULL, &ignored);
    }
    if (!b->existed || !b->ran) return;
    service_write_units(sv, buf_view(&b->unit), buf_view(&b->socket), &ignored);
    systemd_do(&sv->manager, "restart", buf_cstr(&sv->files.socket_name), &ignored);
    systemd_do(&sv->manager, "restart", buf_cstr(&sv->files.service_name), &ignored);
}

void service_before_free(struct service_before *b)
{
    buf_free(&b->unit);
    buf_free(&b->socket);
    *b = (struct service_before){0};
}
