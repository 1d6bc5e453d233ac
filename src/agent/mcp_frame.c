// Whatever a server sends is read through jansson's typed getters: a member of the wrong type is as
// good as missing.
#include "agent/mcp_frame.h"

#include <stdlib.h>
#include <string.h>

enum { METHOD_NOT_FOUND = -32601 };

struct mcp_frame mcp_frame_read(const json_t *message)
{
    struct mcp_frame f = {.kind = MCP_NONSENSE};
    const json_t *id = json_object_get(message, "id");
    if (!json_is_string(id) && !json_is_integer(id)) id = NULL;
    f.method = json_string_value(json_object_get(message, "method"));
    f.params = json_object_get(message, "params");
    f.result = json_object_get(message, "result");
    f.error = json_object_get(message, "error");
    f.id = id;
    if (f.method != NULL)
        f.kind = id != NULL ? MCP_REQUEST : MCP_NOTICE;
    else if (id != NULL && (f.result != NULL || json_is_object(f.error)))
        f.kind = MCP_RESPONSE;
    return f;
}

static void put_value(struct buf *out, const json_t *v)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    if (text == NULL) out->failed = true;
    buf_z(out, text);
    free(text);
}

static void put_call(struct buf *out, const char *method, const json_t *params)
{
    buf_z(out, "\"method\":");
    buf_json(out, str_from(method));
    if (params != NULL) {
        buf_z(out, ",\"params\":");
        put_value(out, params);
    }
    buf_c(out, '}');
}

void mcp_frame_request(struct buf *out, int64_t id, const char *method, const json_t *params)
{
    buf_printf(out, "{\"jsonrpc\":\"2.0\",\"id\":%lld,", (long long)id);
    put_call(out, method, params);
}

void mcp_frame_notice(struct buf *out, const char *method, const json_t *params)
{
    buf_z(out, "{\"jsonrpc\":\"2.0\",");
    put_call(out, method, params);
}

void mcp_frame_reply(struct buf *out, const json_t *id)
{
    buf_z(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    put_value(out, id);
    buf_z(out, ",\"result\":{}}");
}

void mcp_frame_refuse(struct buf *out, const json_t *id, const char *method)
{
    buf_z(out, "{\"jsonrpc\":\"2.0\",\"id\":");
    put_value(out, id);
    buf_printf(out, ",\"error\":{\"code\":%d,\"message\":", METHOD_NOT_FOUND);
    struct buf text = {0};
    buf_printf(&text, "this client has no %.100s", method);
    buf_json(out, buf_view(&text));
    buf_free(&text);
    buf_z(out, "}}");
}

void mcp_frame_error(const json_t *error, struct buf *out)
{
    const char *text = json_string_value(json_object_get(error, "message"));
    buf_printf(out, "%.500s (%lld)", text != NULL ? text : "no message",
               (long long)json_integer_value(json_object_get(error, "code")));
}

// ---- content --------------------------------------------------------------------------------

static const char *text_at(const json_t *v, const char *name)
{
    const char *text = json_string_value(json_object_get(v, name));
    return text != NULL ? text : "";
}

// base64: four characters for three bytes.
static size_t bytes_of(const char *base64)
{
    size_t n = strlen(base64);
    return n / 4 * 3 - (n > 0 && base64[n - 1] == '=') - (n > 1 && base64[n - 2] == '=');
}

static void put_text(const json_t *item, struct buf *out)
{
    const json_t *text = json_object_get(item, "text");
    buf_str(out, (struct str){json_string_value(text), json_string_length(text)});
}

static void put_media(const json_t *item, struct buf *out)
{
    buf_printf(out, "[%.20s: %.60s, %zu bytes, not shown]", text_at(item, "type"),
               text_at(item, "mimeType"), bytes_of(text_at(item, "data")));
}

static void put_resource(const json_t *item, struct buf *out)
{
    const json_t *r = json_object_get(item, "resource");
    buf_printf(out, "[resource %.500s]\n", text_at(r, "uri"));
    if (json_is_string(json_object_get(r, "text")))
        put_text(r, out);
    else
        buf_printf(out, "[%.60s, %zu bytes, not shown]", text_at(r, "mimeType"),
                   bytes_of(text_at(r, "blob")));
}

static void put_link(const json_t *item, struct buf *out)
{
    buf_printf(out, "[link %.500s: %.200s]", text_at(item, "uri"), text_at(item, "name"));
}

static const struct {
    const char *type;
    void (*put)(const json_t *item, struct buf *out);
} kinds[] = {
    {"text", put_text},         {"image", put_media},        {"audio", put_media},
    {"resource", put_resource}, {"resource_link", put_link},
};

bool mcp_content_print(const json_t *result, struct buf *out)
{
    size_t i, n = 0;
    json_t *item;
    const json_t *structured = json_object_get(result, "structuredContent");
    json_array_foreach(json_object_get(result, "content"), i, item)
    {
        const char *type = text_at(item, "type");
        if (n++ > 0) buf_c(out, '\n');
        size_t k = 0, n_kinds = sizeof kinds / sizeof kinds[0];
        while (k < n_kinds && strcmp(kinds[k].type, type) != 0) k++;
        if (k < n_kinds)
            kinds[k].put(item, out);
        else
            buf_printf(out, "[content of the unknown kind \"%.40s\"]", type);
    }
    if (n == 0 && structured != NULL) put_value(out, structured);
    return json_is_true(json_object_get(result, "isError"));
}
