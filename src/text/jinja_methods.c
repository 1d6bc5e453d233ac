// Methods of strings, dicts, lists and loops: Python's, those that change nothing (transformers
// renders in an immutable sandbox, where append, update and their kin are refused).
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

static bool given(struct value v)
{
    return v.kind != VALUE_UNDEFINED && v.kind != VALUE_NULL;
}

// An optional integer argument.
static bool get_int(struct run *r, struct value v, const char *what, int64_t *out)
{
    return !given(v) || ops_integer(r, v, what, out);
}

static bool text_value(struct run *r, struct str s, struct value *out)
{
    if (s.p == NULL && s.n == 0) return run_no_memory(r);
    *out = value_str(s);
    return run_charge(r, s.n);
}

// ---- case and filters of the same name ------------------------------------------------------

static bool text_upper(struct run *r, const struct jinja_call *c, struct value *out)
{
    return text_value(r, text_to_case(r->arena, c->self.s, CASE_UPPER), out);
}

static bool text_lower(struct run *r, const struct jinja_call *c, struct value *out)
{
    return text_value(r, text_to_case(r->arena, c->self.s, CASE_LOWER), out);
}

static bool text_title(struct run *r, const struct jinja_call *c, struct value *out)
{
    return text_value(r, text_to_case(r->arena, c->self.s, CASE_TITLE), out);
}

static bool text_capitalize(struct run *r, const struct jinja_call *c, struct value *out)
{
    return text_value(r, text_to_case(r->arena, c->self.s, CASE_CAPITALIZE), out);
}

static bool text_isupper(struct run *r, const struct jinja_call *c, struct value *out)
{
    *out = value_bool(text_has_case(c->self.s, true));
    return run_charge(r, c->self.s.n);
}

static bool text_islower(struct run *r, const struct jinja_call *c, struct value *out)
{
    *out = value_bool(text_has_case(c->self.s, false));
    return run_charge(r, c->self.s.n);
}

// The filter's first two arguments are the method's.
static bool text_replace(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct jinja_args args = {.p = NULL, .n = 3};
    struct value p[3] = {c->args[0], c->args[1], c->args[2]};
    args.p = p;
    return run_builtin(r, jinja_filter_find(STR("replace")), c->self, &args, out);
}

static bool text_format(struct run *r, const struct jinja_call *c, struct value *out)
{
    return format_braces(r, c->self.s, c, out);
}

// ---- stripping ------------------------------------------------------------------------------

static bool strip(struct run *r, const struct jinja_call *c, bool start, bool end,
                  struct value *out)
{
    struct str s = c->self.s, set;
    if (given(c->args[0])) {
        if (!ops_string(r, c->args[0], "strip's characters", &set)) return false;
        if (start) s = text_strip_set_start(s, set);
        if (end) s = text_strip_set_end(s, set);
    } else {
        if (start) s = text_strip_start(s);
        if (end) s = text_strip_end(s);
    }
    *out = value_str(s);
    return run_charge(r, c->self.s.n - s.n);
}

static bool text_strip(struct run *r, const struct jinja_call *c, struct value *out)
{
    return strip(r, c, true, true, out);
}

static bool text_lstrip(struct run *r, const struct jinja_call *c, struct value *out)
{
    return strip(r, c, true, false, out);
}

static bool text_rstrip(struct run *r, const struct jinja_call *c, struct value *out)
{
    return strip(r, c, false, true, out);
}

// ---- prefixes and suffixes ------------------------------------------------------------------

// One string or a list of them: does any match?
static bool any_end(struct run *r, const struct jinja_call *c,
                    size_t (*match)(struct str s, struct str part), struct value *out)
{
    const struct value *p = &c->args[0];
    size_t n = 1;
    bool found = false;
    if (p->kind == VALUE_LIST) {
        n = p->list->n;
        p = p->list->items;
    }
    for (size_t i = 0; i < n && !found; i++) {
        struct str part;
        if (!ops_string(r, p[i], "the prefix or suffix", &part)) return false;
        found = match(c->self.s, part) != SIZE_MAX;
    }
    *out = value_bool(found);
    return run_charge(r, 0);
}

static bool text_startswith(struct run *r, const struct jinja_call *c, struct value *out)
{
    return any_end(r, c, text_prefix, out);
}

static bool text_endswith(struct run *r, const struct jinja_call *c, struct value *out)
{
    return any_end(r, c, text_suffix, out);
}

static bool text_removeprefix(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str part;
    if (!ops_string(r, c->args[0], "the prefix", &part)) return false;
    size_t n = text_prefix(c->self.s, part);
    *out = n == SIZE_MAX ? c->self : value_str(str_sub(c->self.s, n, c->self.s.n));
    return true;
}

static bool text_removesuffix(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str part;
    if (!ops_string(r, c->args[0], "the suffix", &part)) return false;
    size_t n = text_suffix(c->self.s, part);
    *out = n == SIZE_MAX ? c->self : value_str(str_sub(c->self.s, 0, c->self.s.n - n));
    return true;
}

// ---- finding --------------------------------------------------------------------------------

// Character index of the byte offset at, or -1.
static struct value char_index(struct str s, size_t at)
{
    return value_int(at == SIZE_MAX ? -1 : (int64_t)text_n_chars(str_sub(s, 0, at)));
}

static bool text_find_method(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str part;
    int64_t from = 0;
    size_t n;
    if (!ops_string(r, c->args[0], "the text to find", &part) ||
        !get_int(r, c->args[1], "find's start", &from))
        return false;
    if (from < 0) from += (int64_t)text_n_chars(c->self.s);
    size_t at = text_find(c->self.s, part, text_offset(c->self.s, from < 0 ? 0 : (size_t)from), &n);
    *out = char_index(c->self.s, at);
    return run_charge(r, c->self.s.n);
}

static bool text_rfind_method(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str part;
    size_t n;
    if (!ops_string(r, c->args[0], "the text to find", &part)) return false;
    *out = char_index(c->self.s, text_rfind(c->self.s, part, &n));
    return run_charge(r, c->self.s.n + c->self.s.n / 4 * (part.n < 64 ? part.n : 64));
}

static bool text_index(struct run *r, const struct jinja_call *c, struct value *out)
{
    if (!text_find_method(r, c, out)) return false;
    return out->i >= 0 || run_fail(r, "substring not found");
}

static bool text_count(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str part;
    int64_t count = 0;
    if (!ops_string(r, c->args[0], "the text to count", &part)) return false;
    if (part.n == 0) count = (int64_t)text_n_chars(c->self.s) + 1;
    for (size_t i = 0, n; part.n > 0; i += n, count++) {
        i = text_find(c->self.s, part, i, &n);
        if (i == SIZE_MAX) break;
    }
    *out = value_int(count);
    return run_charge(r, c->self.s.n);
}

// ---- splitting and joining ------------------------------------------------------------------

static bool put_piece(struct run *r, struct value list, struct str s, size_t from, size_t to)
{
    return ops_append(r, list, value_str(str_sub(s, from, to - from)));
}

// Without a separator: at runs of white space, none at the ends.
static bool split_space(struct run *r, struct str s, int64_t limit, struct value list)
{
    for (;;) {
        s = text_strip_start(s);
        if (s.n == 0) return true;
        size_t end = 0;
        while (end < s.n && text_space_len(s, end) == 0) end += text_char_len(s, end);
        if (limit == 0) return ops_append(r, list, value_str(s));
        limit -= limit > 0;
        if (!put_piece(r, list, s, 0, end)) return false;
        s = str_sub(s, end, s.n);
    }
}

static bool split_args(struct run *r, const struct jinja_call *c, struct str *separator,
                       int64_t *limit)
{
    *limit = -1;
    *separator = STR("");
    if (!get_int(r, c->args[1], "split's limit", limit)) return false;
    if (!given(c->args[0])) return true;
    if (!ops_string(r, c->args[0], "split's separator", separator)) return false;
    return separator->n > 0 || run_fail(r, "empty separator");
}

static bool text_split(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s = c->self.s, separator;
    int64_t limit;
    if (!split_args(r, c, &separator, &limit) || !ops_new_list(r, out)) return false;
    if (!run_charge(r, s.n)) return false;
    if (separator.n == 0) return split_space(r, s, limit, *out);
    size_t i = 0;
    for (; limit != 0; limit -= limit > 0) {
        size_t n, hit = text_find(s, separator, i, &n);
        if (hit == SIZE_MAX) break;
        if (!put_piece(r, *out, s, i, hit)) return false;
        i = hit + n;
    }
    return put_piece(r, *out, s, i, s.n);
}

static bool text_rsplit(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s = c->self.s, separator;
    struct value reversed;
    int64_t limit;
    if (!split_args(r, c, &separator, &limit)) return false;
    if (limit < 0) return text_split(r, c, out);
    if (!ops_new_list(r, &reversed) || !ops_new_list(r, out) || !run_charge(r, s.n)) return false;
    for (; limit > 0; limit--) {
        size_t n, hit;
        if (separator.n == 0) { // white space: the last word
            s = text_strip_end(s);
            hit = s.n;
            while (hit > 0 && !(s.p[hit - 1] == ' ' || (s.p[hit - 1] >= 9 && s.p[hit - 1] <= 13)))
                hit--;
            n = hit > 0;
            hit = hit > 0 ? hit - 1 : SIZE_MAX;
        } else {
            hit = text_rfind(s, separator, &n);
        }
        if (hit == SIZE_MAX) break;
        if (!put_piece(r, reversed, s, hit + n, s.n)) return false;
        s.n = hit;
    }
    if (separator.n == 0) s = text_strip_end(text_strip_start(s));
    if ((separator.n > 0 || s.n > 0) && !ops_append(r, *out, value_str(s))) return false;
    for (size_t i = reversed.list->n; i-- > 0;)
        if (!ops_append(r, *out, reversed.list->items[i])) return false;
    return true;
}

static bool partition(struct run *r, const struct jinja_call *c, bool last, struct value *out)
{
    struct str s = c->self.s, separator;
    size_t n, hit;
    if (!ops_string(r, c->args[0], "the separator", &separator) || !ops_new_list(r, out))
        return false;
    if (separator.n == 0) return run_fail(r, "empty separator");
    hit = last ? text_rfind(s, separator, &n) : text_find(s, separator, 0, &n);
    size_t from = hit, to = hit + n;
    if (hit == SIZE_MAX) from = to = last ? 0 : s.n;
    return run_charge(r, s.n) && put_piece(r, *out, s, 0, from) &&
           put_piece(r, *out, s, from, to) && put_piece(r, *out, s, to, s.n);
}

static bool text_partition(struct run *r, const struct jinja_call *c, struct value *out)
{
    return partition(r, c, false, out);
}

static bool text_rpartition(struct run *r, const struct jinja_call *c, struct value *out)
{
    return partition(r, c, true, out);
}

static bool text_splitlines(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str s = c->self.s;
    bool keep = value_is_true(c->args[0]);
    if (!ops_new_list(r, out)) return false;
    for (size_t i = 0; i < s.n;) {
        size_t end = i;
        while (end < s.n && s.p[end] != '\n' && s.p[end] != '\r') end++;
        size_t next = end + (end < s.n);
        if (next < s.n && s.p[end] == '\r' && s.p[next] == '\n') next++;
        if (!put_piece(r, *out, s, i, keep ? next : end)) return false;
        i = next;
    }
    return run_charge(r, s.n);
}

static bool text_join(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value_list items;
    struct buf b = {0};
    bool ok = ops_items(r, c->args[0], &items);
    for (size_t i = 0; ok && i < items.n; i++) {
        struct str s = STR("");
        ok = ops_string(r, items.items[i], "what join() joins", &s) &&
             run_charge(r, s.n + c->self.s.n);
        if (i > 0) buf_str(&b, c->self.s);
        buf_str(&b, s);
    }
    if (ok) return ops_take(r, &b, out);
    buf_free(&b);
    return false;
}

// ---- questions about all characters, padding ------------------------------------------------

static bool all_chars(struct run *r, struct str s, bool digits, bool letters, struct value *out)
{
    bool all = s.n > 0;
    for (size_t i = 0; i < s.n && all; i++) {
        char ch = s.p[i];
        bool is_digit = ch >= '0' && ch <= '9';
        bool is_letter = (ch | 32) >= 'a' && (ch | 32) <= 'z';
        all = (digits && is_digit) || (letters && (is_letter || (unsigned char)ch >= 0x80));
    }
    *out = value_bool(all);
    return run_charge(r, s.n);
}

static bool text_isdigit(struct run *r, const struct jinja_call *c, struct value *out)
{
    return all_chars(r, c->self.s, true, false, out);
}

static bool text_isalpha(struct run *r, const struct jinja_call *c, struct value *out)
{
    return all_chars(r, c->self.s, false, true, out);
}

static bool text_isalnum(struct run *r, const struct jinja_call *c, struct value *out)
{
    return all_chars(r, c->self.s, true, true, out);
}

static bool text_isspace(struct run *r, const struct jinja_call *c, struct value *out)
{
    *out = value_bool(c->self.s.n > 0 && text_strip_start(c->self.s).n == 0);
    return run_charge(r, c->self.s.n);
}

static bool pad(struct run *r, const struct jinja_call *c, bool left, struct value *out)
{
    int64_t width;
    struct str fill = STR(" ");
    struct buf b = {0};
    if (!ops_integer(r, c->args[0], "the width", &width)) return false;
    if (given(c->args[1]) && !ops_string(r, c->args[1], "the filling", &fill)) return false;
    if (width > 1 << 20) return run_fail(r, "a width of %lld is too large", (long long)width);
    int64_t n = width - (int64_t)text_n_chars(c->self.s);
    if (!left) buf_str(&b, c->self.s);
    for (int64_t i = 0; i < n; i++) buf_str(&b, fill);
    if (left) buf_str(&b, c->self.s);
    return ops_take(r, &b, out);
}

static bool text_ljust(struct run *r, const struct jinja_call *c, struct value *out)
{
    return pad(r, c, false, out);
}

static bool text_rjust(struct run *r, const struct jinja_call *c, struct value *out)
{
    return pad(r, c, true, out);
}

// ---- dicts, lists, loops --------------------------------------------------------------------

static bool dict_items(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct jinja_args none = {0};
    return run_builtin(r, jinja_filter_find(STR("items")), c->self, &none, out);
}

static bool dict_keys(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct jinja_args none = {0};
    return run_builtin(r, jinja_filter_find(STR("list")), c->self, &none, out);
}

static bool dict_values(struct run *r, const struct jinja_call *c, struct value *out)
{
    if (!ops_new_list(r, out)) return false;
    for (size_t i = 0; i < c->self.dict->n; i++)
        if (!ops_append(r, *out, c->self.dict->pairs[i].v)) return false;
    return true;
}

static bool dict_get(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct str key;
    if (!ops_str(r, c->args[0], &key)) return false;
    *out = value_find(c->self, key);
    if (out->kind == VALUE_UNDEFINED) *out = c->args[1];
    if (out->kind == VALUE_UNDEFINED) *out = (struct value){.kind = VALUE_NULL};
    return true;
}

static bool list_count(struct run *r, const struct jinja_call *c, struct value *out)
{
    int64_t n = 0;
    for (size_t i = 0; i < c->self.list->n; i++)
        n += ops_equal(r, c->self.list->items[i], c->args[0]);
    *out = value_int(n);
    return run_charge(r, c->self.list->n * 8);
}

static bool list_index(struct run *r, const struct jinja_call *c, struct value *out)
{
    for (size_t i = 0; i < c->self.list->n; i++) {
        if (!ops_equal(r, c->self.list->items[i], c->args[0])) continue;
        *out = value_int((int64_t)i);
        return run_charge(r, i * 8);
    }
    return run_fail(r, "the value is not in the list");
}

static struct loop *loop_of(const struct jinja_call *c)
{
    return ((const struct callable *)c->self.callable)->loop;
}

static bool loop_cycle(struct run *r, const struct jinja_call *c, struct value *out)
{
    if (c->n_rest == 0) return run_fail(r, "cycle() needs at least one item");
    *out = c->rest[loop_of(c)->i % c->n_rest];
    return true;
}

static bool loop_changed(struct run *r, const struct jinja_call *c, struct value *out)
{
    struct value now;
    struct loop *l = loop_of(c);
    if (!ops_new_list(r, &now)) return false;
    for (size_t i = 0; i < c->n_rest; i++)
        if (!ops_append(r, now, c->rest[i])) return false;
    *out = value_bool(l->changed.kind == VALUE_UNDEFINED || !ops_equal(r, now, l->changed));
    l->changed = now;
    return true;
}

// ---- the tables -----------------------------------------------------------------------------

static const struct jinja_builtin text_methods[] = {
    {"capitalize", "", text_capitalize},
    {"casefold", "", text_lower},
    {"count", "sub", text_count},
    {"endswith", "suffix", text_endswith},
    {"find", "sub start", text_find_method},
    {"format", "**", text_format},
    {"index", "sub start", text_index},
    {"isalnum", "", text_isalnum},
    {"isalpha", "", text_isalpha},
    {"isdecimal", "", text_isdigit},
    {"isdigit", "", text_isdigit},
    {"islower", "", text_islower},
    {"isnumeric", "", text_isdigit},
    {"isspace", "", text_isspace},
    {"isupper", "", text_isupper},
    {"join", "iterable", text_join},
    {"ljust", "width fillchar", text_ljust},
    {"lower", "", text_lower},
    {"lstrip", "chars", text_lstrip},
    {"partition", "sep", text_partition},
    {"removeprefix", "prefix", text_removeprefix},
    {"removesuffix", "suffix", text_removesuffix},
    {"replace", "old new count", text_replace},
    {"rfind", "sub", text_rfind_method},
    {"rjust", "width fillchar", text_rjust},
    {"rpartition", "sep", text_rpartition},
    {"rsplit", "sep maxsplit", text_rsplit},
    {"rstrip", "chars", text_rstrip},
    {"split", "sep maxsplit", text_split},
    {"splitlines", "keepends", text_splitlines},
    {"startswith", "prefix", text_startswith},
    {"strip", "chars", text_strip},
    {"title", "", text_title},
    {"upper", "", text_upper},
};

static const struct jinja_builtin dict_methods[] = {
    {"get", "key default", dict_get},
    {"items", "", dict_items},
    {"keys", "", dict_keys},
    {"values", "", dict_values},
};

static const struct jinja_builtin list_methods[] = {
    {"count", "value", list_count},
    {"index", "value", list_index},
};

static const struct jinja_builtin loop_methods[] = {
    {"changed", "*", loop_changed},
    {"cycle", "*", loop_cycle},
};

#define FIND(table) jinja_table_find(table, sizeof table / sizeof *table, name)

const struct jinja_builtin *jinja_method_find(struct value self, struct str name)
{
    switch (self.kind) {
    case VALUE_STRING: return FIND(text_methods);
    case VALUE_DICT: return FIND(dict_methods);
    case VALUE_LIST: return FIND(list_methods);
    case VALUE_CALLABLE: {
        const struct callable *c = self.callable;
        return c->kind == CALLABLE_LOOP ? FIND(loop_methods) : NULL;
    }
    default: return NULL;
    }
}
