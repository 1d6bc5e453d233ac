// Every write is a new file moved over the old one. Numbers of kept units only grow.
#include "host/service_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { MAX_RECORDS = 16 << 20, MAX_UNIT = 1 << 20 };

static void put_dir(struct buf *out, const char *xdg, const char *home, const char *below)
{
    if (xdg != NULL && xdg[0] == '/')
        buf_printf(out, "%s", xdg);
    else
        buf_printf(out, "%s/%s", home, below);
}

bool service_files_open(struct service_files *out, bool system, const char *name, const char *home,
                        const char *config_home, const char *state_home, struct err *e)
{
    struct service_files f = {0};
    struct buf dir = {0};
    if (*name == '\0' || name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                           "0123456789_-")] != '\0')
        return err_set(e, ERR_INPUT, "a service's name has letters, digits, - and _: \"%.60s\"",
                       name);
    if (system) {
        buf_z(&dir, "/etc/systemd/system");
        buf_printf(&f.state_dir, "/var/lib/submind/services/%s", name);
    } else {
        put_dir(&dir, config_home, home, ".config");
        buf_z(&dir, "/systemd/user");
        put_dir(&f.state_dir, state_home, home, ".local/state");
        buf_printf(&f.state_dir, "/submind/services/%s", name);
    }
    buf_printf(&f.unit, "%s/%s.service", buf_cstr(&dir), name);
    buf_printf(&f.socket, "%s/%s.socket", buf_cstr(&dir), name);
    buf_printf(&f.service_name, "%s.service", name);
    buf_printf(&f.socket_name, "%s.socket", name);
    const bool failed = f.unit.failed || f.socket.failed || f.state_dir.failed || dir.failed;
    buf_free(&dir);
    if (failed) service_files_close(&f);
    if (failed) return err_set(e, ERR_MEMORY, "no memory for paths");
    *out = f;
    return true;
}

void service_files_close(struct service_files *f)
{
    buf_free(&f->unit);
    buf_free(&f->socket);
    buf_free(&f->state_dir);
    buf_free(&f->service_name);
    buf_free(&f->socket_name);
}

// ---- what was before ----------------------------------------------------------------------------

void service_kept_path(struct service_files *f, uint32_t number, struct buf *out)
{
    buf_printf(out, "%s/%u.service", buf_cstr(&f->state_dir), number);
}

// Calls for every kept number.
static size_t each_kept(struct service_files *f, uint32_t *newest, uint32_t remove_through)
{
    size_t n = 0;
    DIR *dir = opendir(buf_cstr(&f->state_dir));
    if (dir == NULL) return 0;
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        char *end;
        unsigned long v = strtoul(d->d_name, &end, 10);
        if (end == d->d_name || strcmp(end, ".service") != 0 || v > UINT32_MAX) continue;
        if (newest != NULL && v > *newest) *newest = (uint32_t)v;
        if (v <= remove_through && unlinkat(dirfd(dir), d->d_name, 0) == 0) n++;
    }
    closedir(dir);
    return n;
}

uint32_t service_kept_newest(struct service_files *f)
{
    uint32_t newest = 0;
    each_kept(f, &newest, 0);
    return newest;
}

bool service_keep(struct service_files *f, uint32_t *number, struct err *e)
{
    struct buf text = {0}, path = {0};
    struct err local = {0};
    *number = 0;
    if (!file_read(&text, buf_cstr(&f->unit), MAX_UNIT, &local)) {
        buf_free(&text);
        return local.code == ERR_NOT_FOUND || err_set(e, local.code, "%s", local.msg);
    }
    const uint32_t next = service_kept_newest(f) + 1;
    service_kept_path(f, next, &path);
    const bool ok = file_replace(buf_cstr(&path), buf_view(&text), 0644, e);
    if (ok) *number = next;
    buf_free(&text);
    buf_free(&path);
    return ok;
}

size_t service_clean(struct service_files *f, uint32_t through)
{
    return each_kept(f, NULL, through);
}

// ---- records ------------------------------------------------------------------------------------

bool service_record(struct service_files *f, struct str json, struct err *e)
{
    struct buf path = {0}, line = {0};
    buf_printf(&path, "%s/records.jsonl", buf_cstr(&f->state_dir));
    buf_str(&line, json);
    buf_c(&line, '\n');
    bool ok = file_make_parents(buf_cstr(&path), e);
    int fd = ok ? open(buf_cstr(&path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (ok && (fd < 0 || !file_write_all(fd, buf_view(&line))))
        ok = err_errno(e, ERR_IO, "cannot write %s", buf_cstr(&path));
    if (fd >= 0) close(fd);
    buf_free(&path);
    buf_free(&line);
    return ok;
}

bool service_records(struct service_files *f, struct buf *out, struct err *e)
{
    struct buf path = {0};
    struct err local = {0};
    buf_printf(&path, "%s/records.jsonl", buf_cstr(&f->state_dir));
    bool ok = file_read(out, buf_cstr(&path), MAX_RECORDS, &local) || local.code == ERR_NOT_FOUND;
    buf_free(&path);
    return ok || err_set(e, local.code, "%s", local.msg);
}
