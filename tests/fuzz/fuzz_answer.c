// The answer parser on arbitrary text: no crash; arguments are always JSON; text fed whole and text
// fed in pieces give the same. The first byte chooses the options and how the text is cut.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/answer.h"
#include "text/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct log {
    struct buf text, arguments;
    int last;
};

static void on_part(void *arg, enum answer_part part, int call, struct str text)
{
    struct log *l = arg;
    (void)call;
    if (l->last != (int)part || part == ANSWER_CALL_BEGIN || part == ANSWER_CALL_END)
        buf_printf(&l->text, "\n%d:", (int)part);
    l->last = (int)part;
    buf_str(&l->text, text);
    if (part == ANSWER_CALL_BEGIN) buf_clear(&l->arguments);
    if (part == ANSWER_CALL_ARGS) buf_str(&l->arguments, text);
    if (part != ANSWER_CALL_END) return;
    struct arena a = {0};
    struct value v;
    struct err e = {0};
    bool ok = value_parse(&v, &a, buf_view(&l->arguments), &e);
    // A stream of whole characters is promised; the fuzzer breaks that promise.
    if (!ok && strstr(e.msg, "UTF-8") == NULL) abort();
    arena_free(&a);
}

static void run(const struct answer_options *o, struct str text, size_t step, struct log *l)
{
    struct answer *a = answer_open(o, on_part, l);
    if (a == NULL) return;
    l->last = -1;
    for (size_t at = 0; at < text.n; at += step) answer_feed(a, str_sub(text, at, step));
    answer_finish(a, false);
    answer_close(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0) return 0;
    struct answer_options o = {.tools = data[0] & 1 ? TOOLS_HERMES : TOOLS_NONE,
                               .split_thinking = data[0] & 2,
                               .starts_in_thinking = data[0] & 4};
    struct str text = {(const char *)data + 1, n - 1};
    struct log whole = {0}, pieces = {0};
    run(&o, text, n, &whole);
    run(&o, text, 1 + (data[0] >> 3), &pieces);
    if (!str_eq(buf_view(&whole.text), buf_view(&pieces.text))) abort();
    buf_free(&whole.text);
    buf_free(&whole.arguments);
    buf_free(&pieces.text);
    buf_free(&pieces.arguments);
    return 0;
}
