// What an MCP server or an mcp.json could hold: messages, results and configurations from anywhere
// are read or refused, never a crash; what we write is a message that we read again.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/mcp_config.h"
#include "agent/mcp_frame.h"
#include "agent/tool_text.h"
#include "base/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_reply(const json_t *id, const char *method)
{
    struct buf reply = {0}, refusal = {0};
    mcp_frame_reply(&reply, id);
    mcp_frame_refuse(&refusal, id, method);
    json_t *a = json_loadb(reply.p, reply.n, 0, NULL);
    json_t *b = json_loadb(refusal.p, refusal.n, 0, NULL);
    if (a == NULL || mcp_frame_read(a).kind != MCP_RESPONSE) abort();
    if (b == NULL || mcp_frame_read(b).error == NULL) abort();
    json_decref(a);
    json_decref(b);
    buf_free(&reply);
    buf_free(&refusal);
}

static void check_message(json_t *v)
{
    struct mcp_frame f = mcp_frame_read(v);
    struct buf text = {0};
    if (f.kind == MCP_REQUEST) check_reply(f.id, f.method);
    if (f.error != NULL) mcp_frame_error(f.error, &text);
    buf_clear(&text);
    mcp_content_print(f.result != NULL ? f.result : v, &text);
    struct buf clean = {0};
    tool_text_put(&clean, buf_view(&text));
    tool_text_defuse(&clean);
    if (!utf8_valid(buf_view(&clean))) abort();
    if (str_find(buf_view(&clean), STR("<|im_start|>"), 0) != SIZE_MAX) abort();
    tool_text_cut(&clean, 100);
    if (clean.n > 200 || !utf8_valid(buf_view(&clean))) abort();
    buf_free(&clean);
    buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mcp_specs specs;
    struct err e = {0};
    struct str text = {(const char *)data, n};
    if (n > 20000) return 0;
    json_t *v = json_loadb(text.p != NULL ? text.p : "", n, 0, NULL);
    if (v != NULL) check_message(v);
    json_decref(v);
    if (mcp_config_parse(&specs, text, "/w", "f", &e)) {
        for (size_t i = 0; i < specs.n; i++)
            if ((specs.list[i].command == NULL) == (specs.list[i].url == NULL)) abort();
        mcp_specs_free(&specs);
    } else if (strncmp(e.msg, "f:", 2) != 0 && e.code != ERR_MEMORY && e.code != ERR_INPUT) {
        abort();
    }
    return 0;
}
