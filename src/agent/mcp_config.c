// A table of members drives the reading. Members that we do not know are other clients' business
// and are left alone.
#include "agent/mcp_config.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { MAX_FILE_BYTES = 1 << 20, DEFAULT_TIMEOUT_S = 60 };

struct reading {
    const char *file, *dir, *server;
    struct err *e;
};

static bool wrong(const struct reading *r, const char *member, const char *wanted)
{
    return err_set(r->e, ERR_INPUT, "%.200s: mcpServers.%.60s%s%.40s must be %s", r->file,
                   r->server, *member != '\0' ? "." : "", member, wanted);
}

static bool put(const struct reading *r, struct words *w, struct str s)
{
    return words_put(w, s, r->e);
}

static struct str text_of(const json_t *v)
{
    return (struct str){json_string_value(v), json_string_length(v)};
}

// ---- members --------------------------------------------------------------------------------

typedef bool member_reader(const struct reading *r, const char *member, json_t *v, void *slot);

static bool read_text(const struct reading *r, const char *member, json_t *v, void *slot)
{
    char **text = slot;
    if (!json_is_string(v) || json_string_length(v) == 0) return wrong(r, member, "a text");
    free(*text);
    *text = strdup(json_string_value(v));
    return *text != NULL || err_set(r->e, ERR_MEMORY, "no memory for %.200s", r->file);
}

static void absolute(const struct reading *r, const char *path, struct buf *out)
{
    if (*path != '/') buf_printf(out, "%s/", r->dir);
    buf_z(out, path);
}

static bool read_path(const struct reading *r, const char *member, json_t *v, void *slot)
{
    struct buf path = {0};
    if (!json_is_string(v) || json_string_length(v) == 0) return wrong(r, member, "a path");
    absolute(r, json_string_value(v), &path);
    free(*(char **)slot);
    *(char **)slot = strdup(buf_cstr(&path));
    buf_free(&path);
    return *(char **)slot != NULL || err_set(r->e, ERR_MEMORY, "no memory for %.200s", r->file);
}

static bool read_list(const struct reading *r, const char *member, json_t *v, void *slot)
{
    size_t i;
    json_t *one;
    if (!json_is_array(v)) return wrong(r, member, "a list of texts");
    json_array_foreach(v, i, one)
    {
        if (!json_is_string(one)) return wrong(r, member, "a list of texts");
        if (!put(r, slot, text_of(one))) return false;
    }
    return true;
}

static bool read_paths(const struct reading *r, const char *member, json_t *v, void *slot)
{
    size_t i;
    json_t *one;
    if (!json_is_array(v)) return wrong(r, member, "a list of paths");
    json_array_foreach(v, i, one)
    {
        struct buf path = {0};
        if (!json_is_string(one)) return wrong(r, member, "a list of paths");
        absolute(r, json_string_value(one), &path);
        bool ok = put(r, slot, buf_view(&path));
        buf_free(&path);
        if (!ok) return false;
    }
    return true;
}

static bool read_pairs(const struct reading *r, const char *member, json_t *v, void *slot,
                       const char *between)
{
    const char *name;
    json_t *value;
    if (!json_is_object(v)) return wrong(r, member, "an object of texts");
    json_object_foreach(v, name, value)
    {
        struct buf pair = {0};
        struct str text = text_of(value);
        if (!json_is_string(value) || *name == '\0' || strpbrk(name, "=:\r\n") != NULL ||
            (*between == ':' && text.n > 0 && memchr(text.p, '\n', text.n) != NULL))
            return wrong(r, member, "an object of texts of one line");
        buf_printf(&pair, "%s%s", name, between);
        buf_str(&pair, text);
        bool ok = put(r, slot, buf_view(&pair));
        buf_free(&pair);
        if (!ok) return false;
    }
    return true;
}

static bool read_env(const struct reading *r, const char *member, json_t *v, void *slot)
{
    return read_pairs(r, member, v, slot, "=");
}

static bool read_headers(const struct reading *r, const char *member, json_t *v, void *slot)
{
    return read_pairs(r, member, v, slot, ": ");
}

static bool read_seconds(const struct reading *r, const char *member, json_t *v, void *slot)
{
    json_int_t s = json_integer_value(v);
    if (!json_is_integer(v) || s < 1 || s > 86400)
        return wrong(r, member, "a whole number of seconds from 1 to 86400");
    *(uint32_t *)slot = (uint32_t)s;
    return true;
}

static bool read_type(const struct reading *r, const char *member, json_t *v, void *slot)
{
    static const char *const known[] = {"stdio", "http", "streamable-http", "streamableHttp"};
    const char *text = json_string_value(v);
    (void)slot;
    for (size_t i = 0; text != NULL && i < sizeof known / sizeof known[0]; i++)
        if (strcmp(text, known[i]) == 0) return true;
    if (text != NULL && strcmp(text, "sse") == 0)
        return wrong(r, member,
                     "stdio or http; the older HTTP+SSE transport is not supported, most "
                     "servers that have it speak streamable HTTP too");
    return wrong(r, member, "stdio or http");
}

static bool read_sandbox(const struct reading *r, const char *member, json_t *v, void *slot)
{
    struct mcp_spec *s = slot;
    const char *key;
    json_t *value;
    const char *text = json_string_value(v);
    if (text != NULL && (strcmp(text, "off") == 0 || strcmp(text, "on") == 0)) {
        s->no_sandbox = strcmp(text, "off") == 0;
        return true;
    }
    if (!json_is_object(v)) return wrong(r, member, "\"on\", \"off\" or an object");
    json_object_foreach(v, key, value)
    {
        if (strcmp(key, "network") == 0 && json_is_boolean(value))
            s->network = json_is_true(value);
        else if (strcmp(key, "write") != 0)
            return wrong(r, member, "an object with network (true or false) and write (paths)");
        else if (!read_paths(r, member, value, &s->write))
            return false;
    }
    return true;
}

#define AT(member) offsetof(struct mcp_spec, member)
static const struct {
    const char *name;
    member_reader *read;
    size_t offset;
} members[] = {
    {"type", read_type, 0},          {"command", read_text, AT(command)},
    {"args", read_list, AT(args)},   {"env", read_env, AT(env)},
    {"cwd", read_path, AT(cwd)},     {"url", read_text, AT(url)},
    {"tools", read_list, AT(tools)}, {"headers", read_headers, AT(headers)},
    {"sandbox", read_sandbox, 0},    {"timeout", read_seconds, AT(timeout_s)},
};
#undef AT

// ---- servers --------------------------------------------------------------------------------

static bool is_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    return n > 0 && n <= MCP_NAME_MAX && name[n] == '\0';
}

static bool read_server(const struct reading *r, json_t *v, struct mcp_spec *out)
{
    if (!is_name(r->server)) return wrong(r, "", "named with at most 32 letters, digits, _ and -");
    if (!json_is_object(v)) return wrong(r, "", "an object with a command or a url");
    out->timeout_s = DEFAULT_TIMEOUT_S;
    out->name = strdup(r->server);
    if (out->name == NULL) return err_set(r->e, ERR_MEMORY, "no memory for %.200s", r->file);
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        json_t *member = json_object_get(v, members[i].name);
        if (member != NULL &&
            !members[i].read(r, members[i].name, member, (char *)out + members[i].offset))
            return false;
    }
    if ((out->command != NULL) == (out->url != NULL))
        return wrong(r, "", "an object with either a command or a url");
    return true;
}

static bool read_servers(struct mcp_specs *out, json_t *servers, struct reading *r)
{
    json_t *v;
    const char *name;
    json_object_foreach(servers, name, v)
    {
        r->server = name;
        if (json_is_true(json_object_get(v, "disabled"))) continue;
        if (out->n == MCP_SERVERS_MAX) return wrong(r, "", "one of at most 32 servers");
        struct mcp_spec *list = realloc(out->list, (out->n + 1) * sizeof *list);
        if (list == NULL) return err_set(r->e, ERR_MEMORY, "no memory for %.200s", r->file);
        out->list = list;
        list[out->n] = (struct mcp_spec){0};
        if (!read_server(r, v, &list[out->n++])) return false;
    }
    return true;
}

bool mcp_config_parse(struct mcp_specs *out, struct str json, const char *dir, const char *file,
                      struct err *e)
{
    json_error_t where;
    struct reading r = {.file = file, .dir = dir, .server = "", .e = e};
    struct mcp_specs specs = {0};
    json_t *root = json_loadb(json.p != NULL ? json.p : "", json.n, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL)
        return err_set(e, ERR_INPUT, "%.200s:%d: %.200s", file, where.line, where.text);
    json_t *servers = json_object_get(root, "mcpServers");
    bool ok = json_is_object(servers) ||
              err_set(e, ERR_INPUT, "%.200s: there must be an object \"mcpServers\"", file);
    ok = ok && read_servers(&specs, servers, &r);
    json_decref(root);
    if (ok)
        *out = specs;
    else
        mcp_specs_free(&specs);
    return ok;
}

bool mcp_config_read(struct mcp_specs *out, const char *file, const char *dir, struct err *e)
{
    struct buf text = {0};
    bool ok = file_read_text(&text, file, MAX_FILE_BYTES, NULL, e) &&
              mcp_config_parse(out, buf_view(&text), dir, file, e);
    buf_free(&text);
    return ok;
}

void mcp_specs_free(struct mcp_specs *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct mcp_spec *p = &s->list[i];
        free(p->name);
        free(p->command);
        free(p->cwd);
        free(p->url);
        words_free(&p->args);
        words_free(&p->env);
        words_free(&p->headers);
        words_free(&p->tools);
        words_free(&p->write);
    }
    free(s->list);
    *s = (struct mcp_specs){0};
}
