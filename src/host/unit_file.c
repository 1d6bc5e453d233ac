// Two passes: lines become entries, a value becomes words. Nothing is guessed: what is not understood is
// an error with its line, since the unit decides what a user's service becomes.
#include "host/unit_file.h"

#include <stdio.h>
#include <string.h>

enum { MAX_ENTRIES = 4096 };

// ---- lines to entries ---------------------------------------------------------------------------

// The next logical line: a backslash at the end joins it with the next one; comments between are skipped.
static bool next_line(struct str *rest, struct buf *line, unsigned *number)
{
    buf_clear(line);
    if (rest->n == 0) return false;
    bool more = true, joined = false;
    while (more && rest->n > 0) {
        size_t end = str_find(*rest, STR("\n"), 0);
        struct str part = str_sub(*rest, 0, end);
        *rest = end == SIZE_MAX ? (struct str){0} : str_sub(*rest, end + 1, rest->n);
        (*number)++;
        struct str bare = str_trim(part);
        if (joined && bare.n > 0 && (bare.p[0] == '#' || bare.p[0] == ';')) continue;
        more = bare.n > 0 && bare.p[bare.n - 1] == '\\';
        if (more) bare.n--;
        if (joined) buf_c(line, ' ');
        buf_str(line, bare);
        joined = true;
    }
    return true;
}

static bool take_line(struct unit_file *u, struct str line, struct str *section, unsigned number,
                      struct arena *a, struct err *e)
{
    if (line.n == 0 || line.p[0] == '#' || line.p[0] == ';') return true;
    if (line.p[0] == '[' && line.p[line.n - 1] == ']') {
        *section = arena_str(a, str_sub(line, 1, line.n - 2));
        return section->p != NULL || err_set(e, ERR_MEMORY, "no memory for the unit");
    }
    size_t eq = str_find(line, STR("="), 0);
    if (eq == SIZE_MAX || eq == 0 || section->n == 0)
        return err_set(e, ERR_FORMAT, "line %u of the unit is no \"Key=value\": %.*s", number,
                       (int)(line.n < 80 ? line.n : 80), line.p);
    if (u->n == MAX_ENTRIES)
        return err_set(e, ERR_FORMAT, "the unit has more than %d lines", MAX_ENTRIES);
    struct unit_entry *t = &u->entries[u->n];
    t->section = *section;
    t->key = arena_str(a, str_trim(str_sub(line, 0, eq)));
    t->value = arena_str(a, str_trim(str_sub(line, eq + 1, line.n)));
    if (t->key.p == NULL || t->value.p == NULL)
        return err_set(e, ERR_MEMORY, "no memory for the unit");
    u->n++;
    return true;
}

bool unit_parse(struct unit_file *out, struct str text, struct arena *a, struct err *e)
{
    struct unit_file u = {.entries = arena_array(a, MAX_ENTRIES, sizeof *u.entries)};
    struct buf line = {0};
    struct str section = {0}, rest = text;
    unsigned number = 0;
    bool ok = u.entries != NULL || err_set(e, ERR_MEMORY, "no memory for the unit");
    if (ok && text.n > UNIT_MAX_BYTES) ok = err_set(e, ERR_TOO_LARGE, "the unit is above 1 MiB");
    while (ok && next_line(&rest, &line, &number))
        ok = take_line(&u, buf_view(&line), &section, number, a, e);
    if (ok && line.failed) ok = err_set(e, ERR_MEMORY, "no memory for the unit");
    buf_free(&line);
    if (ok) *out = u;
    return ok;
}

bool unit_is_key(const struct unit_entry *t, const char *section, const char *key)
{
    return str_eq(t->section, str_from(section)) && str_eq(t->key, str_from(key));
}

struct str unit_value(const struct unit_file *u, const char *section, const char *key)
{
    struct str value = {0};
    for (size_t i = 0; i < u->n; i++)
        if (unit_is_key(&u->entries[i], section, key)) value = u->entries[i].value;
    return value;
}

// ---- names ---------------------------------------------------------------------------------------

static const char *joined(struct arena *a, const char *front, const char *back)
{
    struct buf b = {0};
    buf_printf(&b, "%s%s", front, back);
    const char *text = b.failed ? NULL : arena_str(a, buf_view(&b)).p;
    buf_free(&b);
    return text;
}

// systemd's escaping of names, backwards: "-" is a slash, \x2d the byte.
static const char *unescaped(struct arena *a, struct str s)
{
    struct buf b = {0};
    for (size_t i = 0; i < s.n; i++) {
        unsigned byte;
        char hex[5] = "";
        memcpy(hex, s.p + i, s.n - i < 4 ? s.n - i : 4);
        if (sscanf(hex, "\\x%2x", &byte) == 1) {
            buf_c(&b, (char)byte);
            i += 3;
        } else {
            buf_c(&b, s.p[i] == '-' ? '/' : s.p[i]);
        }
    }
    const char *text = b.failed ? NULL : arena_str(a, buf_view(&b)).p;
    buf_free(&b);
    return text;
}

static void unit_names(struct unit_scope *s, struct str unit, struct arena *a)
{
    const size_t dot = str_rfind(unit, STR(".")), at = str_find(unit, STR("@"), 0);
    const struct str bare = str_sub(unit, 0, dot);
    s->specifiers['n'] = arena_str(a, unit).p;
    s->specifiers['N'] = arena_str(a, bare).p;
    s->specifiers['p'] = arena_str(a, str_sub(bare, 0, at)).p;
    const struct str instance = at == SIZE_MAX ? STR("") : str_sub(bare, at + 1, bare.n);
    s->specifiers['i'] = arena_str(a, instance).p;
    s->specifiers['I'] = unescaped(a, instance);
}

void unit_scope_names(struct unit_scope *s, const char *unit, bool system, const char *home,
                      const char *runtime, struct arena *a)
{
    s->has_specifiers = true;
    s->specifiers['h'] = home;
    s->specifiers['t'] = runtime;
    s->specifiers['T'] = "/tmp";
    s->specifiers['S'] = system ? "/var/lib" : joined(a, home, "/.local/state");
    s->specifiers['C'] = system ? "/var/cache" : joined(a, home, "/.cache");
    s->specifiers['E'] = system ? "/etc" : joined(a, home, "/.config");
    if (unit != NULL) unit_names(s, str_from(unit), a);
}

// ---- a value to words ---------------------------------------------------------------------------

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// An escape behind a backslash at s.p[i]; returns how many bytes it takes, 0 for an unknown one.
static size_t escape(struct str s, size_t i, struct buf *word)
{
    static const char from[] = "abfnrtv\\\"'s", to[] = "\a\b\f\n\r\t\v\\\"' ";
    if (i >= s.n) return 0;
    const char *p = strchr(from, s.p[i]);
    if (p != NULL && *p != '\0') {
        buf_c(word, to[p - from]);
        return 1;
    }
    if (s.p[i] == 'x' && i + 2 < s.n && hex_digit(s.p[i + 1]) >= 0 && hex_digit(s.p[i + 2]) >= 0) {
        buf_c(word, (char)(hex_digit(s.p[i + 1]) * 16 + hex_digit(s.p[i + 2])));
        return 3;
    }
    return 0;
}

bool unit_next_word(struct str s, size_t *at, struct buf *word, bool *quoted, struct err *e)
{
    size_t i = *at;
    char quote = '\0';
    buf_clear(word);
    *quoted = false;
    while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t')) i++;
    if (i >= s.n) return false;
    for (; i < s.n; i++) {
        const char c = s.p[i];
        if (quote == '\0' && (c == ' ' || c == '\t')) break;
        if (quote == '\0' && (c == '"' || c == '\'')) {
            quote = c;
            *quoted = true;
        } else if (quote != '\0' && c == quote) {
            quote = '\0';
        } else if (c == '\\') {
            size_t used = escape(s, i + 1, word);
            if (used == 0)
                return err_set(e, ERR_FORMAT, "an escape of the command line is not known: %.20s",
                               s.p + i);
            i += used;
        } else {
            buf_c(word, c);
        }
    }
    if (quote != '\0') return err_set(e, ERR_FORMAT, "a quote of the command line does not end");
    *at = i;
    return true;
}

// $NAME or ${NAME} at w.p[0]: how many bytes it takes, 0 when it is neither.
static size_t variable_name(struct str w, char name[UNIT_NAME_BYTES])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    const bool braces = w.n > 1 && w.p[1] == '{';
    const size_t from = braces ? 2 : 1;
    size_t n = 0;
    while (from + n < w.n && w.p[from + n] != '\0' && strchr(letters, w.p[from + n]) != NULL &&
           n + 1 < UNIT_NAME_BYTES)
        n++;
    if (n == 0 || (braces && (from + n >= w.n || w.p[from + n] != '}'))) return 0;
    memcpy(name, w.p + from, n);
    name[n] = '\0';
    return from + n + (braces ? 1 : 0);
}

// At a '$' of a word: "$$" is a dollar, ${NAME} its value, anything else stays.
static size_t put_variable(const struct unit_scope *scope, struct str w, struct buf *out)
{
    char name[UNIT_NAME_BYTES];
    const bool two = w.n > 1 && w.p[1] == '$';
    const size_t used = scope->env == NULL || w.n < 2 || w.p[1] != '{' ? 0 : variable_name(w, name);
    if (used > 0)
        buf_str(out, str_from(unit_env_get(scope->env, name)));
    else
        buf_c(out, '$');
    return used > 0 ? used : two && scope->env != NULL ? 2 : 1;
}

static bool put_specifier(const struct unit_scope *scope, char c, struct buf *out, struct err *e)
{
    const char *value = (unsigned char)c < 128 ? scope->specifiers[(unsigned char)c] : NULL;
    if (c == '%') value = "%";
    if (value == NULL)
        return err_set(e, ERR_UNSUPPORTED,
                       "the specifier %%%c of the command line is not supported; write its value "
                       "instead",
                       c);
    buf_z(out, value);
    return true;
}

bool unit_expand(const struct unit_scope *scope, struct str w, struct buf *out, struct err *e)
{
    for (size_t i = 0; i < w.n;) {
        if (w.p[i] == '%' && scope->has_specifiers && i + 1 < w.n) {
            if (!put_specifier(scope, w.p[i + 1], out, e)) return false;
            i += 2;
        } else if (w.p[i] == '$') {
            i += put_variable(scope, str_sub(w, i, w.n), out);
        } else {
            buf_c(out, w.p[i++]);
        }
    }
    return true;
}

// $NAME as a word of its own: the words of its value, none when it is not set.
static bool put_split(const struct unit_scope *scope, struct str w, struct cmdline *out, bool *was,
                      struct err *e)
{
    char name[UNIT_NAME_BYTES];
    struct buf word = {0};
    size_t at = 0;
    bool quoted;
    *was = scope->env != NULL && w.n > 1 && w.p[0] == '$' && w.p[1] != '{' &&
           variable_name(w, name) == w.n;
    if (!*was) return true;
    struct err local = {0};
    const struct str value = str_from(unit_env_get(scope->env, name));
    while (unit_next_word(value, &at, &word, &quoted, &local)) cmdline_put(out, buf_view(&word));
    if (word.failed) out->failed = true;
    buf_free(&word);
    return local.code == ERR_NONE || err_set(e, local.code, "$%s: %s", name, local.msg);
}

bool unit_command(struct str line, const struct unit_scope *scope, struct cmdline *out,
                  struct err *e)
{
    struct buf word = {0}, text = {0};
    size_t at = 0;
    bool quoted, ok = true, split = false;
    line = str_trim(line);
    while (line.n > 0 && strchr("-@:+!", line.p[0]) != NULL) line = str_sub(line, 1, line.n);
    struct err local = {0};
    while (ok && unit_next_word(line, &at, &word, &quoted, &local)) {
        if (!quoted && str_eq(buf_view(&word), STR(";"))) break; // a second command
        ok = put_split(scope, buf_view(&word), out, &split, e);
        if (!ok || split) continue;
        buf_clear(&text);
        ok = unit_expand(scope, buf_view(&word), &text, e);
        if (ok) cmdline_put(out, buf_view(&text));
    }
    if (ok && local.code != ERR_NONE) ok = err_set(e, local.code, "%s", local.msg);
    if (ok && (word.failed || text.failed || out->failed))
        ok = err_set(e, ERR_MEMORY, "no memory for the command line");
    buf_free(&word);
    buf_free(&text);
    return ok;
}

// ---- writing ------------------------------------------------------------------------------------

void unit_quote(struct buf *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=./:,@";
    const bool bare = *word != '\0' && word[strspn(word, plain)] == '\0';
    if (bare) {
        buf_z(out, word);
        return;
    }
    buf_c(out, '"');
    for (const char *p = word; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            buf_printf(out, "\\%c", *p);
        else if (*p == '%' || *p == '$')
            buf_printf(out, "%c%c", *p, *p);
        else if ((unsigned char)*p < 0x20 || *p == 0x7f)
            buf_printf(out, "\\x%02x", (unsigned char)*p);
        else
            buf_c(out, *p);
    }
    buf_c(out, '"');
}
