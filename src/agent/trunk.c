// Must stay what turns.c sends: the same fields that the template sees, in any order. The e2e test warms
// a workspace and expects a run to find it.
#include "agent/trunk.h"

#include "agent/tool_set.h"
#include "agent/workspace.h"

static void put_request(const struct workspace *ws, const struct tool_set *tools, struct buf *out)
{
    buf_z(out, "{\"messages\":[{\"role\":\"system\",\"content\":");
    struct buf text = {0};
    buf_str(&text, buf_view(&ws->bootstrap));
    redact_text(tool_set_redactor(tools), &text);
    buf_json(out, buf_view(&text));
    out->failed |= text.failed;
    buf_free(&text);
    buf_z(out, "},{\"role\":\"user\",\"content\":\".\"}]");
    if (tool_set_count(tools) > 0) {
        buf_z(out, ",\"tools\":");
        tool_set_json(tools, out);
    }
    if (ws->config.thinking >= 0)
        buf_printf(out, ",\"chat_template_kwargs\":{\"enable_thinking\":%s}",
                   ws->config.thinking ? "true" : "false");
    buf_c(out, '}');
}

bool trunk_request(const char *dir, const char *const *environment, const char *lists_dir,
                   struct buf *out, struct err *e)
{
    struct workspace ws = {0};
    struct tool_set *tools = NULL;
    if (!workspace_open(&ws, dir, e)) return false;
    const struct tool_set_spec spec = {.config = &ws.config,
                                       .environment = environment,
                                       .run_id = "trunk",
                                       .lists_dir = lists_dir};
    bool ok = tool_set_open(&tools, &spec, e);
    if (ok) put_request(&ws, tools, out);
    if (ok && out->failed) ok = err_set(e, ERR_MEMORY, "no memory for the bootstrap");
    tool_set_close(tools);
    workspace_close(&ws);
    return ok;
}
