// submind cache: asks a running server about its prefix cache, or changes it. All work is the
// server's; here are the words for people. Subcommands stand in a table.
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/http_client.h"
#include "agent/trunk.h"
#include "base/file.h"
#include "base/log.h"
#include "cmd/actions.h"
#include "cmd/cache_display.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/places.h"

enum { MAX_KEY_BYTES = 16384, MAX_REQUEST_BYTES = 64 << 20, MAX_ANSWER_BYTES = 64 << 20 };

struct cache_command {
    struct settings s;
    const char *argument;
    struct buf body, key, answer;
};

struct subcommand {
    const char *name, *path;                              // name: of actions.def
    bool (*body)(struct cache_command *c, struct err *e); // NULL: a GET
    void (*show)(struct buf *out, const json_t *answer);
};

// ---- bodies -------------------------------------------------------------------------------------

static bool dump(struct cache_command *c, json_t *o, struct err *e)
{
    char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);
    if (text != NULL) buf_z(&c->body, text);
    free(text);
    json_decref(o);
    return (text != NULL && !c->body.failed) || err_set(e, ERR_MEMORY, "no memory for the request");
}

static bool id_body(struct cache_command *c, struct err *e)
{
    if (c->s.all && strcmp(c->s.args[0], "drop") != 0)
        return err_set(e, ERR_INPUT, "--all is for drop; %s takes a trunk's id", c->s.args[0]);
    if (c->argument == NULL && !c->s.all)
        return err_set(e, ERR_INPUT, "a trunk's id is needed; submind cache ls shows them");
    if (c->argument != NULL && c->s.all)
        return err_set(e, ERR_INPUT, "either a trunk's id or --all, not both");
    json_t *o =
        c->argument != NULL ? json_pack("{s:s}", "id", c->argument) : json_pack("{s:b}", "all", 1);
    if (o != NULL && c->s.public) json_object_set_new(o, "public", json_true());
    if (o != NULL && c->s.name != NULL) json_object_set_new(o, "name", json_string(c->s.name));
    return dump(c, o, e);
}

static bool empty_body(struct cache_command *c, struct err *e)
{
    (void)e;
    buf_z(&c->body, "{}");
    return true;
}

static json_t *read_request(const char *path, struct err *e)
{
    const char *shown = strcmp(path, "-") == 0 ? "standard input" : path;
    struct buf text = {0};
    json_error_t why;
    json_t *o = NULL;
    if (file_read(&text, path, MAX_REQUEST_BYTES, e)) {
        o = json_loadb(buf_cstr(&text), text.n, 0, &why);
        if (o == NULL)
            err_set(e, ERR_INPUT, "%.200s is not JSON: %s (line %d)", shown, why.text, why.line);
        else if (!json_is_object(o))
            err_set(e, ERR_INPUT,
                    "%.200s holds no request: it must be a JSON object, {\"messages\": [...]} or "
                    "{\"prompt\": ...}",
                    shown);
        if (!json_is_object(o)) {
            json_decref(o);
            o = NULL;
        }
    }
    buf_free(&text);
    return o;
}

// What every run of a workspace begins with.
static json_t *workspace_request(const struct cache_command *c, struct err *e)
{
    struct buf text = {0}, lists = {0};
    json_t *o = NULL;
    if (trunk_request(c->argument, (const char *const *)environ, place_lists_dir(&c->s, &lists),
                      &text, e)) {
        o = json_loadb(text.p, text.n, 0, NULL);
        if (o == NULL) err_set(e, ERR_MEMORY, "no memory for the bootstrap");
    }
    buf_free(&lists);
    buf_free(&text);
    return o;
}

static json_t *request_of(struct cache_command *c, struct err *e)
{
    struct stat st;
    if (c->argument == NULL) {
        err_set(e, ERR_INPUT, "a file with a request's JSON is needed (- reads standard input)");
        return NULL;
    }
    const bool is_path = strcmp(c->argument, "-") != 0, there = stat(c->argument, &st) == 0;
    if (is_path && !there && errno == ENOENT) {
        err_set(e, ERR_NOT_FOUND,
                "there is no %.200s; name a file with a request's JSON, a workspace's folder, or - "
                "for standard input",
                c->argument);
        return NULL;
    }
    if (is_path && there && S_ISDIR(st.st_mode)) return workspace_request(c, e);
    return read_request(c->argument, e);
}

static bool explain_body(struct cache_command *c, struct err *e)
{
    json_t *o = request_of(c, e);
    return o != NULL && dump(c, o, e);
}

static bool warm_body(struct cache_command *c, struct err *e)
{
    json_t *o = request_of(c, e);
    if (o == NULL) return false;
    json_object_del(o, "stream");
    if (c->s.pin || c->s.public) json_object_set_new(o, "pin", json_true());
    if (c->s.public) json_object_set_new(o, "public", json_true());
    if (c->s.name != NULL || c->s.pin) {
        const char *name = c->s.name != NULL ? c->s.name : trunk_name(c->argument).p;
        json_object_set_new(o, "name", json_string(name));
    }
    return dump(c, o, e);
}

static const struct subcommand subcommands[] = {
    {"ls", "/submind/cache", NULL, cache_show_list},
    {"explain", "/submind/cache/explain", explain_body, cache_show_explain},
    {"warm", "/submind/cache/warm", warm_body, cache_show_warm},
    {"pin", "/submind/cache/pin", id_body, cache_show_fields},
    {"unpin", "/submind/cache/unpin", id_body, cache_show_fields},
    {"drop", "/submind/cache/drop", id_body, cache_show_fields},
    {"verify", "/submind/cache/verify", empty_body, cache_show_fields},
    {"stats", "/submind/cache/stats", NULL, cache_show_stats},
};

enum { N_SUBCOMMANDS = sizeof subcommands / sizeof subcommands[0] };

// ---- the call -----------------------------------------------------------------------------------

static bool on_data(void *arg, struct str piece)
{
    struct cache_command *c = arg;
    if (c->answer.n + piece.n > MAX_ANSWER_BYTES) c->answer.failed = true;
    buf_str(&c->answer, piece);
    return !c->answer.failed;
}

// The server's own words where it has some.
static bool refused(const struct cache_command *c, const struct http_answer *a, struct err *e)
{
    static const struct {
        long status;
        enum err_code code;
    } codes[] = {{403, ERR_DENIED}, {404, ERR_NOT_FOUND}, {429, ERR_FULL}, {503, ERR_LOADING}};
    json_t *o = json_loadb(a->body.p, a->body.n, 0, NULL);
    const char *words = json_string_value(json_object_get(json_object_get(o, "error"), "message"));
    enum err_code code = a->status < 500 ? ERR_INPUT : ERR_IO;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (codes[i].status == a->status) code = codes[i].code;
    if (a->status == 401)
        err_set(e, ERR_AUTH, "the server %s; name the right key's file with --key-file",
                c->key.n > 0 ? "does not take this key" : "wants a key");
    else if (words != NULL)
        err_set(e, code, "%.400s", words);
    else
        err_set(e, ERR_IO, "the server answered with status %ld; is it a submind server?",
                a->status);
    json_decref(o);
    return false;
}

static bool call(struct cache_command *c, const struct subcommand *sub, struct err *e)
{
    const char *url = c->s.server != NULL ? c->s.server : "http://127.0.0.1:8080";
    struct http_client *client;
    struct http_answer a;
    char path[64];
    snprintf(path, sizeof path, "%s%s", sub->path, c->s.show_text ? "?show_text=1" : "");
    if (!http_client_open(&client, url, c->key.n > 0 ? buf_cstr(&c->key) : NULL, e)) return false;
    const struct http_call hc = {
        .path = path, .body = buf_view(&c->body), .on_data = on_data, .arg = c};
    bool ok = http_client_call(client, &hc, &a);
    if (!ok)
        err_set(e, ERR_NO_SERVER,
                "no server answers at %s: %s; start one (submind serve), or name "
                "it with --server",
                url, a.why);
    else if (a.status != 200)
        ok = refused(c, &a, e);
    else if (c->answer.failed)
        ok = err_set(e, ERR_MEMORY, "no memory for the answer");
    http_answer_free(&a);
    http_client_close(client);
    return ok;
}

static bool print(struct cache_command *c, const struct subcommand *sub, struct err *e)
{
    struct buf out = {0};
    json_t *answer = json_loadb(buf_cstr(&c->answer), c->answer.n, 0, NULL);
    bool ok = answer != NULL || err_set(e, ERR_IO, "the server's answer is no JSON");
    if (ok && c->s.json) {
        buf_str(&out, buf_view(&c->answer));
        buf_c(&out, '\n');
    } else if (ok) {
        sub->show(&out, answer);
    }
    if (ok && out.failed) ok = err_set(e, ERR_MEMORY, "no memory for the answer");
    if (ok && (fwrite(out.p, 1, out.n, stdout) != out.n || fflush(stdout) != 0))
        ok = err_errno(e, ERR_IO, "cannot write the answer");
    json_decref(answer);
    buf_free(&out);
    return ok;
}

static bool read_key(struct cache_command *c, struct err *e)
{
    if (c->s.key_file == NULL) return true;
    if (!file_read(&c->key, c->s.key_file, MAX_KEY_BYTES, e)) return err_prefix(e, "--key-file: ");
    const struct str key = str_trim(buf_view(&c->key));
    memmove(c->key.p, key.p, key.n);
    c->key.n = key.n;
    return true;
}

static const struct subcommand *choose(struct cache_command *c, struct err *e)
{
    const char *name = c->s.n_args > 0 ? c->s.args[0] : "";
    for (size_t i = 0; i < N_SUBCOMMANDS; i++) {
        const struct subcommand *sub = &subcommands[i];
        if (strcmp(sub->name, name) != 0) continue;
        const int most = *actions_find("cache", name)->argument != '\0' ? 2 : 1;
        c->argument = c->s.n_args > 1 ? c->s.args[1] : NULL;
        if (c->s.n_args <= most) return sub;
        err_set(e, ERR_INPUT, "%s takes %s; \"%.80s\" is too much", name,
                most == 2 ? "one argument" : "no argument", c->s.args[most]);
        return NULL;
    }
    err_set(e, ERR_INPUT,
            name[0] == '\0'
                ? "say what: ls, explain, warm, pin, unpin, drop, verify or stats"
                : "there is no \"%.40s\"; there are ls, explain, warm, pin, unpin, drop, "
                  "verify and stats",
            name);
    return NULL;
}

static int help(void)
{
    printf("usage: submind cache COMMAND [ARGUMENT] [flags]\n\n"
           "Looks into the prefix cache of a running server.\n\n");
    actions_help("cache");
    options_help(C_CACHE, "cache");
    return 0;
}

int cmd_cache(int argc, char **argv)
{
    struct err e = {0};
    struct cache_command c = {0};
    if (!options_parse(&c.s, C_CACHE, argc, argv, &e)) return cmd_fail("cache", &e);
    if (c.s.help) return help();
    log_set_level(c.s.verbose ? LOG_DEBUG : LOG_WARN);
    const struct subcommand *sub = choose(&c, &e);
    const bool ok = sub != NULL && read_key(&c, &e) && (sub->body == NULL || sub->body(&c, &e)) &&
                    call(&c, sub, &e) && print(&c, sub, &e);
    buf_free(&c.body);
    buf_free(&c.key);
    buf_free(&c.answer);
    return ok ? 0 : cmd_fail("cache", &e);
}
