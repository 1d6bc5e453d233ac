// Two passes over text files, no netlink: that works in a recorded machine too, and needs no rights beyond
// looking into one's own processes.
#include "host/listener.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TABLE_BYTES = 4 << 20, MAX_PROCESSES = 8192, MAX_FILES = 4096, PATH_BYTES = 96 };
enum {
    TCP_ESTABLISHED = 0x01,
    TCP_CLOSE_WAIT = 0x08,
    TCP_LISTEN = 0x0a
}; // include/net/tcp_states.h

struct row {
    uint32_t port, state, uid;
    uint64_t socket;
};

// "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0 41234 ...": local and
// remote address, state, queues, timer, retransmissions, user, time-outs, inode.
static bool read_row(struct str line, struct row *out)
{
    char text[256];
    *out = (struct row){0};
    root_clean(line, text, sizeof text);
    return sscanf(text,
                  " %*u: %*[0-9A-Fa-f]:%" SCNx32 " %*[0-9A-Fa-f]:%*x %" SCNx32
                  " %*x:%*x %*x:%*x %*x %" SCNu32 " %*u %" SCNu64,
                  &out->port, &out->state, &out->uid, &out->socket) >= 2;
}

// Calls `take` for each row of both families until it says true.
static bool each_row(const struct root *r, bool (*take)(void *arg, const struct row *row),
                     void *arg)
{
    static const char *const tables[] = {"proc/net/tcp", "proc/net/tcp6"};
    struct row row;
    bool done = false;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && !done; i++) {
        struct buf b = {0};
        root_read(r, tables[i], &b, TABLE_BYTES);
        for (struct str rest = buf_view(&b); rest.n > 0 && !done;) {
            const size_t end = str_find(rest, STR("\n"), 0);
            done = read_row(str_sub(rest, 0, end), &row) && take(arg, &row);
            rest = end == SIZE_MAX ? (struct str){0} : str_sub(rest, end + 1, rest.n);
        }
        buf_free(&b);
    }
    return done;
}

// ---- whose socket ---------------------------------------------------------------------------------

// The number of the socket behind an open file; 0 for other files.
static uint64_t socket_of(const struct root *r, const char *folder, const char *file)
{
    char target[64];
    uint64_t number = 0;
    if (root_link(r, folder, file, target, sizeof target))
        sscanf(target, "socket:[%" SCNu64 "]", &number);
    return number;
}

static bool holds(const struct root *r, const char *pid, uint64_t socket, root_name *files,
                  uint32_t *fd)
{
    char folder[PATH_BYTES];
    snprintf(folder, sizeof folder, "proc/%.20s/fd", pid);
    const size_t n = root_list(r, folder, "", "", files, MAX_FILES);
    for (size_t i = 0; i < n; i++) {
        if (socket_of(r, folder, files[i]) != socket) continue;
        *fd = (uint32_t)strtoul(files[i], NULL, 10);
        return true;
    }
    return false;
}

// The unit is the last part of the control group's path that is a service:
// "0::/user.slice/user-1000.slice/user@1000.service/app.slice/llama.service".
static void look_unit(struct listener *l, const struct root *r)
{
    char path[PATH_BYTES], group[512];
    snprintf(path, sizeof path, "proc/%" PRIu32 "/cgroup", l->pid);
    if (!root_line(r, path, group, sizeof group)) return;
    const char *slash = strrchr(group, '/');
    const struct str last = str_from(slash == NULL ? "" : slash + 1);
    if (!str_ends(last, STR(".service")) || str_starts(last, STR("user@"))) return;
    root_clean(last, l->unit, sizeof l->unit);
    l->user_unit = strstr(group, "/user@") != NULL;
}

// systemd holds the sockets of its units too: whoever works behind one is meant, if there is anybody.
static bool find_holder(struct listener *l, const struct root *r)
{
    root_name *processes = calloc(MAX_PROCESSES, sizeof *processes);
    root_name *files = calloc(MAX_FILES, sizeof *files);
    char path[PATH_BYTES];
    bool found = false, by_systemd = false;
    const size_t n = processes == NULL || files == NULL
                         ? 0
                         : root_list(r, "proc", "", "", processes, MAX_PROCESSES);
    for (size_t i = 0; i < n && (!found || by_systemd); i++) {
        struct listener one = *l;
        if (processes[i][strspn(processes[i], "0123456789")] != '\0' ||
            !holds(r, processes[i], l->socket, files, &one.fd))
            continue;
        one.pid = (uint32_t)strtoul(processes[i], NULL, 10);
        snprintf(path, sizeof path, "proc/%" PRIu32 "/comm", one.pid);
        root_line(r, path, one.program, sizeof one.program);
        by_systemd = strcmp(one.program, "systemd") == 0;
        if (found && by_systemd) continue;
        *l = one;
        found = true;
    }
    free(processes);
    free(files);
    return found;
}

struct search {
    uint32_t port;
    struct row row;
};

static bool is_listener(void *arg, const struct row *row)
{
    struct search *s = arg;
    s->row = *row;
    return row->port == s->port && row->state == TCP_LISTEN;
}

void listener_find(struct listener *out, const struct root *r, uint32_t port)
{
    struct search s = {.port = port};
    *out = (struct listener){0};
    if (!each_row(r, is_listener, &s)) return;
    *out = (struct listener){.there = true, .socket = s.row.socket, .uid = s.row.uid};
    if (out->socket != 0 && find_holder(out, r)) look_unit(out, r);
}

// ---- its connections ------------------------------------------------------------------------------

struct count {
    uint32_t port;
    const uint64_t *sockets; // of the process
    size_t n_sockets, n;
};

static bool count_row(void *arg, const struct row *row)
{
    struct count *c = arg;
    const bool open = row->state == TCP_ESTABLISHED || row->state == TCP_CLOSE_WAIT;
    for (size_t i = 0; i < c->n_sockets && open && row->port == c->port; i++)
        if (c->sockets[i] == row->socket && row->socket != 0) c->n++;
    return false;
}

size_t listener_connections(const struct listener *l, const struct root *r, uint32_t port)
{
    root_name *files = calloc(MAX_FILES, sizeof *files);
    uint64_t *sockets = calloc(MAX_FILES, sizeof *sockets);
    char folder[PATH_BYTES];
    struct count c = {.port = port, .sockets = sockets};
    snprintf(folder, sizeof folder, "proc/%" PRIu32 "/fd", l->pid);
    const size_t n =
        files == NULL || sockets == NULL ? 0 : root_list(r, folder, "", "", files, MAX_FILES);
    for (size_t i = 0; i < n; i++) {
        sockets[c.n_sockets] = socket_of(r, folder, files[i]);
        c.n_sockets += sockets[c.n_sockets] != 0;
    }
    each_row(r, count_row, &c);
    free(files);
    free(sockets);
    return c.n;
}
