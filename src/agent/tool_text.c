// The list of markers is that of the common open models' templates: ChatML and Qwen, Llama 2 to 4,
// Mistral, Gemma, Phi, DeepSeek (with its full-width bars), Granite, GLM, gpt-oss. Whatever has the
// shape <|...|> is taken whether it is known or not.
#include "agent/tool_text.h"

#include <string.h>

#include "base/utf8.h"

enum { MARKER_MAX_BYTES = 60 };

bool tool_text_is_binary(struct str s)
{
    size_t bad = 0;
    if (s.n == 0) return false;
    if (memchr(s.p, '\0', s.n) != NULL) return true;
    for (size_t i = 0; i < s.n;) {
        size_t len = utf8_valid_len(s.p + i, s.n - i);
        bad += len == 0;
        i += len == 0 ? 1 : len;
    }
    return bad > s.n / 10 + 4;
}

void tool_text_put(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        size_t len = c < 0x80 ? 1 : utf8_valid_len(s.p + i, s.n - i);
        if (c == 0x1b && i + 1 < s.n && s.p[i + 1] == '[') { // an escape sequence of a terminal
            i += 2;
            while (i < s.n && (unsigned char)s.p[i] < 0x40) i++;
            i++;
            continue;
        }
        if (len == 0)
            buf_z(out, "\xef\xbf\xbd");
        else if ((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t')
            buf_put(out, s.p + i, len);
        i += len == 0 ? 1 : len;
    }
}

// Whole words only: half a secret would not be known as one any more.
static struct str cut_words(struct str line, size_t max_bytes)
{
    if (line.n <= max_bytes) return line;
    size_t blank = str_rfind(str_sub(line, 0, max_bytes + 1), STR(" "));
    return str_sub(line, 0, blank == SIZE_MAX ? 0 : blank);
}

// Tracebacks say it before their frames (Node) or behind them (Python), on a line that names an
// error.
struct str tool_text_reason(struct str log, size_t max_bytes)
{
    static const struct str words[] = {{"Error", 5}, {"error", 5}, {"ERROR", 5}};
    struct str line = {"", 0};
    log = str_trim(log);
    for (size_t at = 0; at < log.n; at += line.n + 1) {
        size_t end = str_find(log, STR("\n"), at);
        line = str_sub(log, at, (end == SIZE_MAX ? log.n : end) - at);
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            if (str_find(line, words[i], 0) != SIZE_MAX) return cut_words(line, max_bytes);
    }
    return cut_words(line, max_bytes); // the last one
}

void tool_text_trim_end(struct buf *b)
{
    while (b->n > 0 && strchr(" \t\n", b->p[b->n - 1]) != NULL) b->n--;
}

// ---- markers --------------------------------------------------------------------------------

// Names between "<" and ">", with or without "/"; and markers in brackets.
static const char *const tag_names[] = {"tool_call",
                                        "tool_response",
                                        "tool_calls",
                                        "tool_result",
                                        "tools",
                                        "think",
                                        "function_call",
                                        "function_calls",
                                        "start_of_turn",
                                        "end_of_turn",
                                        "bos",
                                        "eos",
                                        "s",
                                        "start_of_image",
                                        "unused0",
                                        "pad",
                                        "unk",
                                        "sop",
                                        "eop",
                                        "arg_key",
                                        "arg_value",
                                        "function_response"};
static const char *const bracket_names[] = {
    "INST",           "/INST",        "AVAILABLE_TOOLS", "/AVAILABLE_TOOLS",
    "TOOL_CALLS",     "TOOL_RESULTS", "/TOOL_RESULTS",   "SYSTEM_PROMPT",
    "/SYSTEM_PROMPT", "ARGS",         "CALL_ID",         "TOOL_CONTENT",
    "gMASK",          "THINK",        "/THINK"};

static bool is_one_of(struct str name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(name, str_from(list[i]))) return true;
    return false;
}

// "<|...|>", also with the full-width bar, and without white space: whatever is within.
static bool is_bar_marker(struct str inner)
{
    static const struct str bars[] = {{"|", 1}, {"\xef\xbd\x9c", 3}};
    for (size_t i = 0; i < sizeof bars / sizeof bars[0]; i++)
        if (inner.n > bars[i].n && (str_starts(inner, bars[i]) || str_ends(inner, bars[i])))
            return true;
    return false;
}

static bool is_tag(struct str inner)
{
    if (inner.n > 0 && inner.p[0] == '/') inner = str_sub(inner, 1, inner.n);
    if (is_bar_marker(inner)) return true;
    if (str_starts(inner, STR("function=")) || str_starts(inner, STR("parameter="))) return true;
    return is_one_of(inner, tag_names, sizeof tag_names / sizeof tag_names[0]);
}

// Does a marker begin at i? "<<SYS>>" is one by its second "<".
static bool is_marker(struct str s, size_t i)
{
    char close = s.p[i] == '<' ? '>' : ']';
    size_t end = i + 1;
    while (end < s.n && end - i <= MARKER_MAX_BYTES && s.p[end] != close && s.p[end] != '\n' &&
           s.p[end] != s.p[i])
        end++;
    if (end == s.n || s.p[end] != close) return false;
    struct str inner = str_sub(s, i + 1, end - i - 1);
    if (close == '>')
        return is_tag(inner) || str_eq(inner, STR("SYS")) || str_eq(inner, STR("/SYS"));
    return is_one_of(inner, bracket_names, sizeof bracket_names / sizeof bracket_names[0]);
}

void tool_text_defuse(struct buf *b)
{
    struct str s = buf_view(b);
    struct buf out = {0};
    size_t done = 0;
    for (size_t i = 0; i < s.n; i++) {
        if ((s.p[i] != '<' && s.p[i] != '[') || !is_marker(s, i)) continue;
        buf_str(&out, str_sub(s, done, i + 1 - done));
        buf_c(&out, ' ');
        done = i + 1;
    }
    if (done == 0) return;
    buf_str(&out, str_sub(s, done, s.n - done));
    bool failed = b->failed || out.failed;
    buf_free(b);
    *b = out;
    b->failed = failed;
}

// ---- length ---------------------------------------------------------------------------------

void tool_text_cut(struct buf *b, size_t limit)
{
    if (b->n <= limit) return;
    struct str s = buf_view(b);
    struct buf out = {0};
    struct str head = str_sub(s, 0, limit - limit / 4);
    head.n -= utf8_partial_tail(head);
    size_t from = s.n - limit / 4;
    while (from < s.n && ((unsigned char)s.p[from] & 0xc0) == 0x80) from++;
    buf_str(&out, head);
    tool_text_trim_end(&out);
    buf_printf(&out, "\n[... %zu of %zu bytes left out ...]\n", from - head.n, s.n);
    buf_str(&out, str_sub(s, from, s.n - from));
    bool failed = b->failed || out.failed;
    buf_free(b);
    *b = out;
    b->failed = failed;
}
