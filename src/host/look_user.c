// This user's part: groups, the port, the gateway's configuration. A recorded host holds the user's number in
// submind/uid.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/look.h"

enum { PATH_BYTES = 320, MAX_GROUPS = 128, SMALL_FILE = 256 << 10 };

// Field i (from 0) of a line whose fields end at colons.
static struct str colon_field(struct str line, int i)
{
    size_t from = 0;
    for (; i > 0; i--) {
        size_t at = str_find(line, STR(":"), from);
        if (at == SIZE_MAX) return STR("");
        from = at + 1;
    }
    size_t end = str_find(line, STR(":"), from);
    return str_sub(line, from, (end == SIZE_MAX ? line.n : end) - from);
}

static bool next_line(struct str text, size_t *at, struct str *line)
{
    if (*at >= text.n) return false;
    size_t end = str_find(text, STR("\n"), *at);
    *line = str_sub(text, *at, (end == SIZE_MAX ? text.n : end) - *at);
    *at = end == SIZE_MAX ? text.n : end + 1;
    return true;
}

static uint64_t number(struct str s)
{
    char text[24];
    root_clean(s, text, sizeof text);
    return strtoull(text, NULL, 10);
}

static void look_passwd(struct host *h, const struct root *r, uint64_t *gid)
{
    struct buf b = {0};
    struct str line;
    root_read(r, "etc/passwd", &b, SMALL_FILE);
    for (size_t at = 0; next_line(buf_view(&b), &at, &line);) {
        struct str uid = colon_field(line, 2);
        if (uid.n == 0 || number(uid) != h->uid) continue;
        root_clean(colon_field(line, 0), h->user, sizeof h->user);
        root_clean(colon_field(line, 5), h->home, sizeof h->home);
        *gid = number(colon_field(line, 3));
        break;
    }
    buf_free(&b);
}

// Is a name one of those between commas?
static bool is_member(struct str members, struct str name)
{
    for (size_t at = 0; at < members.n;) {
        size_t end = str_find(members, STR(","), at);
        if (end == SIZE_MAX) end = members.n;
        if (str_eq(str_sub(members, at, end - at), name)) return true;
        at = end + 1;
    }
    return false;
}

// Membership as the files say and, on this machine, as this login has it: usermod counts from the next.
static void look_groups(struct host *h, const struct root *r, const char *path, uint64_t gid)
{
    gid_t mine[MAX_GROUPS];
    const int n = r->live ? getgroups(MAX_GROUPS, mine) : 0;
    struct buf b = {0};
    struct str line;
    root_read(r, path, &b, SMALL_FILE);
    for (size_t at = 0; next_line(buf_view(&b), &at, &line);) {
        struct str name = colon_field(line, 0);
        const bool video = str_eq(name, STR("video")), render = str_eq(name, STR("render"));
        if (!video && !render) continue;
        const uint64_t number_here = number(colon_field(line, 2));
        const bool listed =
            h->user[0] != '\0' && is_member(str_trim(colon_field(line, 3)), str_from(h->user));
        bool active = !r->live && (listed || number_here == gid);
        for (int i = 0; i < n; i++) active = active || mine[i] == number_here;
        h->in_video = h->in_video || (video && active);
        h->in_render = h->in_render || (render && active);
        h->listed_in_groups = h->listed_in_groups || (render && listed);
    }
    buf_free(&b);
}

static void look_user(struct host *h, const struct root *r)
{
    uint64_t uid = 0, gid = UINT64_MAX;
    if (r->live)
        uid = getuid();
    else if (!root_number(r, "submind/uid", &uid))
        return;
    h->uid = (uint32_t)uid;
    h->uid_seen = true;
    look_passwd(h, r, &gid);
    look_groups(h, r, "etc/group", gid);
    look_groups(h, r, "usr/lib/group", gid); // Fedora Atomic keeps the system's groups there
}

static void look_gateway(struct host *h, const struct root *r)
{
    struct buf b = {0};
    char path[PATH_BYTES];
    const char *home = h->home[0] == '/' ? h->home + 1 : "";
    snprintf(path, sizeof path, "%s/.openclaw/openclaw.json", home);
    if (home[0] != '\0' && root_read(r, path, &b, 1 << 20))
        gateway_read(&h->gateway, buf_view(&b), h->port);
    buf_free(&b);
}

void host_look_user(struct host *h, const struct root *r, const struct look_wish *wish)
{
    look_user(h, r);
    listener_find(&h->listener, r, h->port);
    host_look_disk(h, r, wish);
    look_gateway(h, r);
}
