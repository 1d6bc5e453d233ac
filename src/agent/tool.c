// The table of tools as the model sees it.
#include "agent/tool.h"

#include "base/str.h"

void tool_result_free(struct tool_result *r)
{
    buf_free(&r->text);
    buf_free(&r->detail);
    *r = (struct tool_result){0};
}

const struct tool *tools_find(const struct tools *t, struct str name)
{
    for (size_t i = 0; i < t->n; i++)
        if (str_eq(str_from(t->list[i].name), name)) return &t->list[i];
    return NULL;
}

void tools_json(const struct tools *t, struct buf *out)
{
    buf_c(out, '[');
    for (size_t i = 0; i < t->n; i++) {
        buf_z(out, i > 0 ? ",{\"type\":\"function\",\"function\":{\"name\":"
                         : "{\"type\":\"function\",\"function\":{\"name\":");
        buf_json(out, str_from(t->list[i].name));
        buf_z(out, ",\"description\":");
        buf_json(out, str_from(t->list[i].description));
        buf_printf(out, ",\"parameters\":%s}}", t->list[i].parameters);
    }
    buf_c(out, ']');
}
