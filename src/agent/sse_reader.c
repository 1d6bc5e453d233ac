// Line by line: "data:" lines of one event are joined by line feeds, an empty line gives it out,
// comments and other fields are skipped. CR, LF and CRLF end a line, also when a piece ends between
// CR and LF.
#include "agent/sse_reader.h"

#include <string.h>

enum { LIMIT_BYTES = 16 << 20 };

static bool end_of_line(struct sse_reader *r, sse_sink *sink, void *arg)
{
    struct str line = buf_view(&r->line);
    bool go_on = true;
    if (line.n == 0) {
        if (r->has_data) go_on = sink(arg, buf_view(&r->data));
        r->has_data = false;
        buf_clear(&r->data);
    } else if (str_starts(line, STR("data:")) || str_eq(line, STR("data"))) {
        struct str value = str_sub(line, 5, line.n);
        if (value.n > 0 && value.p[0] == ' ') value = str_sub(value, 1, value.n);
        if (r->has_data) buf_c(&r->data, '\n');
        buf_str(&r->data, value);
        r->has_data = true;
    }
    buf_clear(&r->line);
    return go_on;
}

bool sse_feed(struct sse_reader *r, struct str piece, sse_sink *sink, void *arg)
{
    size_t limit = r->limit_bytes != 0 ? r->limit_bytes : LIMIT_BYTES, i = 0;
    while (i < piece.n) {
        char c = piece.p[i];
        if (c == '\n' && r->after_cr) { // the second half of CRLF
            r->after_cr = false;
            i++;
            continue;
        }
        r->after_cr = false;
        size_t start = i;
        while (i < piece.n && piece.p[i] != '\n' && piece.p[i] != '\r') i++;
        buf_put(&r->line, piece.p + start, i - start);
        if (r->line.n + r->data.n > limit || r->line.failed || r->data.failed) {
            r->too_long = true;
            return false;
        }
        if (i == piece.n) break;
        r->after_cr = piece.p[i++] == '\r';
        if (!end_of_line(r, sink, arg)) return false;
    }
    return true;
}

void sse_free(struct sse_reader *r)
{
    buf_free(&r->line);
    buf_free(&r->data);
    *r = (struct sse_reader){0};
}
