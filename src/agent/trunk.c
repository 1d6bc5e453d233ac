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
    if (ws.n_parts == 0 && ws.n_skills == 0) {
        workspace_close(&ws);
        return err_set(e, ERR_INPUT,
                       "%s is no workspace: it has no AGENTS.md or other Markdown file that runs "
                       "would share",
                       dir);
    }
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

struct str trunk_name(const char *path)
{
    enum { NAME_BYTES = 60 };
    const struct str s = str_from(path);
    size_t from = s.n > NAME_BYTES ? s.n - NAME_BYTES : 0;
    while (from > 0 && from < s.n && (s.p[from] & 0xc0) == 0x80) from++; // whole characters
    return str_sub(s, from, s.n);
}
