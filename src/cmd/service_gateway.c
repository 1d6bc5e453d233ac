// service gateway openclaw: the provider block for this server, and a request of the gateway's shape.
// Keys and values are those of OpenClaw 2026.9.6 (docs gateway/config-tools/custom-providers.md).
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "agent/http_client.h"
#include "base/clock.h"
#include "cmd/service.h"

enum { WAIT_S = 10, ANSWER_S = 300, MAX_ANSWER_TOKENS = 8192, PROMPT_MARGIN = 4096 };

// As measured on the wire: streamed with usage, content as text, as null beside a tool call and as a list of
// parts, the internal context as the last user message, tools sorted by name with schemas as deep as the gateway's.
static const char request[] =
    "{\"model\":\"%s\",\"messages\":["
    "{\"role\":\"system\",\"content\":\"<!-- openclaw:attempt:STABLE -->\\nYou are a personal "
    "assistant.\\n\\n## Tooling\\nread: read a file\"},"
    "{\"role\":\"user\",\"content\":\"[Sun 2026-11-22 21:41 UTC] Say hello.\"},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"call13\",\"type\":"
    "\"function\",\"function\":{\"name\":\"read\",\"arguments\":\"{\\\"path\\\":"
    "\\\"AGENTS.md\\\"}\"}}]},"
    "{\"role\":\"tool\",\"content\":\"nothing there\",\"tool_call_id\":\"call13\"},"
    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"<<<BEGIN_OPENCLAW_INTERNAL_"
    "CONTEXT>>>"
    "\\nno active sessions\\n<<<END_OPENCLAW_INTERNAL_CONTEXT>>>\"}]}],"
    "\"stream\":true,\"stream_options\":{\"include_usage\":true},"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"exec\",\"description\":\"Run a "
    "command\",\"parameters\":{\"type\":\"object\",\"properties\":{\"command\":{\"type\":"
    "\"string\","
    "\"maxLength\":65536},\"env\":{\"type\":\"object\",\"patternProperties\":{\"^.*$\":{\"type\":"
    "\"string\"}}},\"timeout\":{\"anyOf\":[{\"type\":\"number\"},{\"type\":\"null\"}]}},"
    "\"required\":"
    "[\"command\"],\"additionalProperties\":true}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"read\",\"description\":\"Read a file\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\"}},"
    "\"required\":[\"path\"]}}}],\"tool_choice\":\"auto\",\"max_completion_tokens\":16}";

struct served {
    char model[256];
    long long context;
};

// The model's name and context from /v1/models.
static bool ask_models(const char *url, const char *key, struct served *out, struct err *e)
{
    struct http_client *http = NULL;
    struct http_answer answer = {0};
    const struct http_call c = {.path = "/v1/models",
                                .deadline_ns = clock_ns() + WAIT_S * 1000000000ull};
    if (!http_client_open(&http, url, key, e)) return false;
    bool ok = http_client_call(http, &c, &answer) && answer.status == 200;
    http_client_close(http);
    json_t *root = ok ? json_loadb(answer.body.p, answer.body.n, 0, NULL) : NULL;
    const json_t *model = json_array_get(json_object_get(root, "data"), 0);
    const char *id = json_string_value(json_object_get(model, "id"));
    out->context = json_integer_value(json_object_get(model, "max_model_len"));
    if (id == NULL || strlen(id) >= sizeof out->model || out->context <= 0)
        ok = err_set(e, ERR_NO_SERVER, "%s does not list its model (%ld); is the service up?", url,
                     answer.status);
    else
        snprintf(out->model, sizeof out->model, "%s", id);
    json_decref(root);
    http_answer_free(&answer);
    return ok;
}

static void put_block(const struct served *s, const char *url, const char *key, struct buf *out)
{
    const long long answer =
        s->context / 4 < MAX_ANSWER_TOKENS ? s->context / 4 : MAX_ANSWER_TOKENS;
    const long long usable =
        s->context > 2 * PROMPT_MARGIN ? s->context - PROMPT_MARGIN : s->context;
    struct buf id = {0}, path = {0}, reference = {0};
    buf_json(&id, str_from(s->model));
    buf_printf(&path, "local/%s", s->model);
    buf_json(&reference, buf_view(&path));
    buf_printf(out,
               "// ~/.openclaw/openclaw.json (JSON5): merge this in\n"
               "{\n"
               "  models: { mode: \"merge\", providers: { local: {\n"
               "    baseUrl: \"%s/v1\",\n"
               "    apiKey: \"%s\",%s\n"
               "    api: \"openai-completions\",\n"
               "    timeoutSeconds: 900, // the default of 300 ends long first prompts\n"
               "    models: [{ id: %s, name: %s, reasoning: false, input: [\"text\"],\n"
               "      cost: { input: 0, output: 0, cacheRead: 0, cacheWrite: 0 },\n"
               "      contextWindow: %lld, contextTokens: %lld, maxTokens: %lld,\n"
               "      compat: { toolSchemaProfile: \"llamacpp\" } }],\n"
               "  } } },\n"
               "  agents: { defaults: { model: { primary: %s } } },\n"
               "}\n",
               url, key == NULL ? "sk-local" : "YOUR KEY",
               key == NULL ? " // any text; isolated sessions need one"
                           : " // a line of the file given with --api-key-file",
               buf_cstr(&id), buf_cstr(&id), s->context, usable, answer, buf_cstr(&reference));
    buf_free(&id);
    buf_free(&path);
    buf_free(&reference);
}

// What the gateway needs of a stream: a reason for the end, usage, and [DONE] as the last word.
struct stream_seen {
    bool finish, usage, done;
};

static void read_chunk(struct stream_seen *seen, struct str data)
{
    json_t *chunk = json_loadb(data.p, data.n, 0, NULL);
    const json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
    const json_t *usage = json_object_get(chunk, "usage");
    if (json_is_string(json_object_get(choice, "finish_reason"))) seen->finish = true;
    if (json_integer_value(json_object_get(usage, "completion_tokens")) > 0) seen->usage = true;
    if (str_eq(data, STR("[DONE]"))) seen->done = true;
    json_decref(chunk);
}

static bool read_stream(struct str rest, struct err *e)
{
    static const char front[] = "data: ";
    struct stream_seen seen = {false, false, false};
    while (rest.n > 0) {
        const size_t end = str_find(rest, STR("\n"), 0);
        const struct str line = str_trim(str_sub(rest, 0, end));
        rest = end == SIZE_MAX ? STR("") : str_sub(rest, end + 1, rest.n);
        if (str_starts(line, str_from(front)))
            read_chunk(&seen, str_sub(line, sizeof front - 1, line.n));
    }
    return (seen.finish && seen.usage && seen.done) || err_set(e, ERR_IO, "the stream has no %s",
                                                               !seen.finish  ? "finish_reason"
                                                               : !seen.usage ? "usage"
                                                                             : "[DONE]");
}

static bool ask_like_the_gateway(const char *url, const char *key, struct str body, struct err *e)
{
    struct http_client *http = NULL;
    struct http_answer answer = {0};
    const struct http_call c = {.path = "/v1/chat/completions",
                                .body = body,
                                .cancel = &service_cancelled,
                                .deadline_ns = clock_ns() + ANSWER_S * 1000000000ull};
    if (!http_client_open(&http, url, key, e)) return false;
    bool ok = http_client_call(http, &c, &answer);
    http_client_close(http);
    if (!ok)
        err_set(e, ERR_NO_SERVER, "%s does not answer: %s", url, answer.why);
    else if (answer.status != 200)
        ok = err_set(e, ERR_IO, "%s answers with %ld: %.200s", url, answer.status,
                     buf_cstr(&answer.body));
    ok = ok && read_stream(buf_view(&answer.body), e);
    http_answer_free(&answer);
    return ok;
}

// The service's own address, or the one that was given.
static bool find_server(struct service *sv, const char **url, const char **key, struct err *e)
{
    struct cmdline flags = {.arena = &sv->arena};
    struct str image;
    if (sv->s.server == NULL)
        return service_load(sv, &flags, &image, e) && service_url(sv, &flags, url, key, e);
    *url = sv->s.server;
    if (sv->s.key_file != NULL) cmdline_set(&flags, "api-key-file", sv->s.key_file);
    const char *ignored;
    return service_url(sv, &flags, &ignored, key, e);
}

bool service_gateway(struct service *sv, const char *which, struct err *e)
{
    struct served served = {0};
    const char *url, *key;
    if (strcmp(which, "openclaw") != 0)
        return err_set(e, ERR_INPUT, "the gateway \"%.40s\" is not known; there is openclaw",
                       which);
    if (!find_server(sv, &url, &key, e) || !ask_models(url, key, &served, e)) return false;
    struct buf block = {0}, body = {0}, name = {0};
    put_block(&served, url, key, &block);
    buf_json(&name, str_from(served.model));
    struct str quoted = buf_view(&name);
    const char *hole = strstr(request, "\"%s\"");
    buf_put(&body, request, (size_t)(hole - request));
    buf_str(&body, quoted);
    buf_z(&body, hole + 4);
    fputs(buf_cstr(&block), stdout);
    bool ok = ask_like_the_gateway(url, key, buf_view(&body), e) ||
              err_prefix(e, "a request shaped like the gateway's fails: ");
    if (ok) printf("// checked: a request shaped like the gateway's was answered\n");
    buf_free(&block);
    buf_free(&body);
    buf_free(&name);
    return ok;
}
