// Two passes: lines become entries, a value becomes words. Nothing is guessed: what is not understood is
// an error with its line, since the unit decides what a user's service becomes.
#include "host/unit_file.h"

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

static bool is_key(const struct unit_entry *t, const char *section, const char *key)
{
    return str_eq(t->section, str_from(section)) && str_eq(t->key, str_from(key));
}

struct str unit_value(const struct unit_file *u, const char *section, const char *key)
{
    struct str value = {0};
    for (size_t i = 0; i < u->n; i++)
        if (is_key(&u->entries[i], section, key)) value = u->entries[i].value;
    return value;
}

// ---- a value to words ---------------------------------------------------------------------------

struct splitter {
    const struct unit_file *unit;
    const char *home, *runtime;
    struct arena *arena;
};

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

// Quotes and escapes; false at the end of the line, or with e set.
static bool next_word(struct str s, size_t *at, struct buf *word, bool *quoted, struct err *e)
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

const char *unit_environment(const struct unit_file *u, const char *name, struct arena *a)
{
    const size_t n = strlen(name);
    const char *value = NULL;
    struct buf word = {0};
    for (size_t i = 0; i < u->n; i++) {
        if (!is_key(&u->entries[i], "Service", "Environment")) continue;
        size_t at = 0;
        bool quoted;
        struct err ignored = {0};
        while (next_word(u->entries[i].value, &at, &word, &quoted, &ignored)) {
            struct str w = buf_view(&word);
            if (w.n > n && w.p[n] == '=' && memcmp(w.p, name, n) == 0)
                value = arena_str(a, str_sub(w, n + 1, w.n)).p;
        }
    }
    buf_free(&word);
    return value;
}

static size_t put_specifier(const struct splitter *sp, char c, struct buf *out)
{
    switch (c) {
    case '%': buf_c(out, '%'); return 2;
    case 'h': buf_z(out, sp->home); return 2;
    case 't': buf_z(out, sp->runtime); return 2;
    default: return 0;
    }
}

// $NAME and ${NAME}; "$$" is a dollar.
static size_t put_variable(const struct splitter *sp, struct str w, size_t i, struct buf *out)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    char name[128];
    size_t from = i + 1, n = 0;
    if (from < w.n && w.p[from] == '$') {
        buf_c(out, '$');
        return 2;
    }
    bool braces = from < w.n && w.p[from] == '{';
    if (braces) from++;
    while (from + n < w.n && strchr(letters, w.p[from + n]) != NULL && n + 1 < sizeof name) n++;
    if (n == 0) return 0;
    memcpy(name, w.p + from, n);
    name[n] = '\0';
    const char *value = unit_environment(sp->unit, name, sp->arena);
    if (value != NULL) buf_z(out, value);
    return (braces ? 3 : 1) + n;
}

static bool expand(const struct splitter *sp, struct str w, struct buf *out, struct err *e)
{
    buf_clear(out);
    for (size_t i = 0; i < w.n;) {
        size_t used = 1;
        if (w.p[i] == '%' && i + 1 < w.n) {
            used = put_specifier(sp, w.p[i + 1], out);
            if (used == 0)
                return err_set(e, ERR_UNSUPPORTED,
                               "the specifier %%%c of the command line is not supported; write its "
                               "value instead",
                               w.p[i + 1]);
        } else if (w.p[i] == '$') {
            used = put_variable(sp, w, i, out);
            if (used == 0) {
                buf_c(out, '$');
                used = 1;
            }
        } else {
            buf_c(out, w.p[i]);
        }
        i += used;
    }
    return true;
}

bool unit_command(const struct unit_file *u, struct str line, const char *home, const char *runtime,
                  struct cmdline *out, struct err *e)
{
    const struct splitter sp = {u, home, runtime, out->arena};
    struct buf word = {0}, text = {0};
    size_t at = 0;
    bool quoted, ok = true;
    line = str_trim(line);
    while (line.n > 0 && strchr("-@:+!", line.p[0]) != NULL) line = str_sub(line, 1, line.n);
    struct err local = {0};
    while (ok && next_word(line, &at, &word, &quoted, &local)) {
        if (!quoted && str_eq(buf_view(&word), STR(";"))) break; // a second command
        ok = expand(&sp, buf_view(&word), &text, e);
        if (ok && (text.n > 0 || quoted)) cmdline_put(out, buf_view(&text));
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
