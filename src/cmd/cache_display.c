// Tables are plain text that a terminal, a mail and a grep can take. Texts of prompts are shown with
// their control characters escaped, so that a prompt cannot play with the terminal.
#include "cmd/cache_display.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 64, INDENT_SHOWN = 8 };

static const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s == NULL ? "" : s;
}

static double number_of(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

static bool is_true(const json_t *o, const char *name)
{
    return json_is_true(json_object_get(o, name));
}

static void put_shown(struct buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text, next = (unsigned char)text[1];
        if (c == '\n')
            buf_z(out, "\\n");
        else if (c == 0xc2 && next >= 0x80 && next < 0xa0) // U+0080 to U+009F: CSI and its like
            buf_printf(out, "\\x%02x", (unsigned char)*++text);
        else if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\x%02x", c);
        else
            buf_c(out, *text);
    }
}

// A server's number, which may be anything.
static void put_count(struct buf *out, double n)
{
    buf_count(out, n > 0 && n < 1e18 ? (uint64_t)n : 0);
}

static void put_count_wide(struct buf *out, double n, int width)
{
    struct buf text = {0};
    put_count(&text, n);
    buf_printf(out, "%*s", width, buf_cstr(&text));
    buf_free(&text);
}

static void put_age(struct buf *out, double s)
{
    char text[32];
    if (s < 120)
        snprintf(text, sizeof text, "%.0f s", s);
    else if (s < 7200)
        snprintf(text, sizeof text, "%.0f min", s / 60);
    else
        snprintf(text, sizeof text, "%.1f h", s / 3600);
    buf_printf(out, " %8s", text);
}

// ---- ls -----------------------------------------------------------------------------------------

static size_t depth_of(const json_t *trunks, const json_t *trunk)
{
    size_t depth = 0;
    const json_t *parent = json_object_get(trunk, "parent");
    while (json_is_integer(parent) && depth < DEPTH_MAX) {
        depth++;
        trunk = json_array_get(trunks, (size_t)json_integer_value(parent));
        parent = json_object_get(trunk, "parent");
    }
    return depth;
}

static void put_marks(struct buf *out, const json_t *t)
{
    if (is_true(t, "public"))
        buf_z(out, " public");
    else if (is_true(t, "pinned"))
        buf_z(out, " pinned");
    if (is_true(t, "in_use")) buf_z(out, " in-use");
    if (json_is_string(json_object_get(t, "salt"))) buf_z(out, " salted");
    if (text_of(t, "name")[0] != '\0') {
        buf_c(out, ' ');
        put_shown(out, text_of(t, "name"));
    }
    if (text_of(t, "text")[0] == '\0') return;
    buf_z(out, "  \"");
    put_shown(out, text_of(t, "text"));
    buf_c(out, '"');
}

void cache_show_list(struct buf *out, const json_t *answer)
{
    const json_t *trunks = json_object_get(answer, "trunks");
    double tokens = 0, bytes = 0;
    if (json_array_size(trunks) == 0) {
        buf_z(out, "nothing is cached\n");
        return;
    }
    buf_z(out,
          "id                       tokens    before     below       MB  tier    hits     idle\n");
    for (size_t i = 0; i < json_array_size(trunks); i++) {
        const json_t *t = json_array_get(trunks, i);
        const size_t depth = depth_of(trunks, t),
                     shown = depth < INDENT_SHOWN ? depth : INDENT_SHOWN;
        buf_printf(out, "%.*s%s%-*s", (int)shown, "        ", text_of(t, "id"),
                   INDENT_SHOWN - (int)shown, "");
        put_count_wide(out, number_of(t, "tokens"), 7);
        put_count_wide(out, number_of(t, "tokens_before"), 10);
        put_count_wide(out, number_of(t, "tokens_below"), 10);
        buf_printf(out, " %8.1f  %-6s %5.0f", number_of(t, "bytes") / 1e6, text_of(t, "tier"),
                   number_of(t, "hits"));
        if (json_is_number(json_object_get(t, "idle_s")))
            put_age(out, number_of(t, "idle_s"));
        else
            buf_printf(out, " %8s", "-");
        put_marks(out, t);
        buf_c(out, '\n');
        tokens += number_of(t, "tokens");
        bytes += number_of(t, "bytes");
    }
    put_count(out, (double)json_array_size(trunks));
    buf_z(out, json_array_size(trunks) == 1 ? " trunk, " : " trunks, ");
    put_count(out, tokens);
    buf_printf(out, " tokens, %.1f MB\n", bytes / 1e6);
}

// ---- explain ------------------------------------------------------------------------------------

static void put_tokens_seconds(struct buf *out, const json_t *o, const char *tokens,
                               const char *seconds)
{
    put_count(out, number_of(o, tokens));
    buf_z(out, number_of(o, tokens) == 1 ? " token" : " tokens");
    if (json_is_number(json_object_get(o, seconds)))
        buf_printf(out, " = %.2f s", number_of(o, seconds));
}

static void put_side(struct buf *out, const char *label, const json_t *text, const char *side)
{
    if (!json_is_string(json_object_get(text, side))) return;
    buf_printf(out, "%-11s", label);
    put_shown(out, text_of(text, "before"));
    buf_z(out, " >>");
    put_shown(out, text_of(text, side));
    buf_c(out, '\n');
}

static void put_tier(struct buf *out, const json_t *answer, const char *field, const char *name)
{
    const double n = number_of(answer, field);
    if (n == 0) return;
    buf_z(out, ", ");
    put_count(out, n);
    buf_printf(out, " of them from %s", name);
}

static void put_quoted(struct buf *out, const char *text)
{
    if (text[0] == '\0') {
        buf_z(out, "nothing");
        return;
    }
    buf_c(out, '"');
    put_shown(out, text);
    buf_c(out, '"');
}

static void put_what(struct buf *out, const char *label, const json_t *culprit)
{
    buf_printf(out, "%-11s", label);
    put_shown(out, text_of(culprit, "kind"));
    buf_z(out, ": ");
    put_quoted(out, text_of(culprit, "ours"));
    buf_z(out, " here, ");
    put_quoted(out, text_of(culprit, "theirs"));
    buf_z(out, " in the cache\n");
}

void cache_show_explain(struct buf *out, const json_t *answer)
{
    const json_t *text = json_object_get(answer, "text");
    const json_t *culprit = json_object_get(answer, "culprit");
    const double n = number_of(answer, "prompt_tokens"), hit = number_of(answer, "hit_tokens");
    buf_z(out, "prompt     ");
    put_count(out, n);
    buf_z(out, " tokens, ");
    put_count(out, hit);
    buf_printf(out, " cached (%.0f %%)", n > 0 ? 100 * hit / n : 0);
    put_tier(out, answer, "ram_tokens", "host memory");
    put_tier(out, answer, "disk_tokens", "disk");
    buf_z(out, "; to compute: ");
    put_tokens_seconds(out, answer, "recompute_tokens", "recompute_seconds");
    if (number_of(answer, "prefill_tokens_per_second") > 0)
        buf_printf(out, " at %.0f tokens/s", number_of(answer, "prefill_tokens_per_second"));
    buf_printf(out, "\nstate      %s\n", text_of(answer, "reason"));
    if (strcmp(text_of(answer, "reason"), "whole") != 0) {
        buf_z(out, "at         token ");
        put_count(out, number_of(answer, "diverged_at"));
        buf_z(out, ", ");
        put_shown(out, text_of(json_object_get(answer, "place"), "words"));
        buf_c(out, '\n');
        put_side(out, "here", text, "ours");
        put_side(out, "cached", text, "theirs");
    }
    if (culprit != NULL) {
        put_what(out, "what", culprit);
        size_t i;
        json_t *more;
        json_array_foreach(json_object_get(answer, "more"), i, more) put_what(out, "and", more);
    }
    buf_z(out, "do         ");
    put_shown(out, text_of(answer, "advice"));
    buf_c(out, '\n');
}

// ---- the rest -----------------------------------------------------------------------------------

void cache_show_warm(struct buf *out, const json_t *answer)
{
    put_count(out, number_of(answer, "tokens"));
    buf_z(out, " tokens, ");
    put_count(out, number_of(answer, "cached_tokens"));
    buf_z(out, " were cached, ");
    put_count(out, number_of(answer, "computed_tokens"));
    buf_printf(out, " computed in %.1f s\n", number_of(answer, "ms") / 1000);
    if (!json_is_string(json_object_get(answer, "id"))) return;
    put_count(out, number_of(answer, "pinned_tokens"));
    buf_printf(out, " tokens pinned%s as %s\n",
               is_true(answer, "public") ? ", for every salt," : "", text_of(answer, "id"));
}

static void put_fields(struct buf *out, const json_t *o, const char *prefix, int depth)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, name, v)
    {
        char path[96];
        snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] == '\0' ? "" : ".", name);
        if (json_is_object(v) && depth < 4) {
            put_fields(out, v, path, depth + 1);
            continue;
        }
        buf_printf(out, "%-32s ", path);
        if (json_is_integer(v))
            put_count(out, (double)json_integer_value(v));
        else if (json_is_real(v))
            buf_printf(out, "%.1f", json_real_value(v));
        else if (json_is_string(v))
            put_shown(out, json_string_value(v));
        else
            buf_z(out, json_is_true(v) ? "yes" : json_is_false(v) ? "no" : "-");
        buf_c(out, '\n');
    }
}

void cache_show_fields(struct buf *out, const json_t *answer)
{
    put_fields(out, answer, "", 0);
}

void cache_show_stats(struct buf *out, const json_t *answer)
{
    const json_t *hits = json_object_get(answer, "hit_tokens");
    const double all = number_of(answer, "prompt_tokens");
    double n = 0;
    const char *tier;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)hits, tier, v) n += json_number_value(v);
    if (all > 0) buf_printf(out, "%-32s %.1f %%\n", "hit rate", 100 * n / all);
    cache_show_fields(out, answer);
}
