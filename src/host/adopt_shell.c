// One pass cuts the text into simple commands at line ends, ";" and "&&"; a second one makes words of each.
#include "host/adopt_shell.h"

#include <string.h>

static const char name_letters[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";

// ---- commands ---------------------------------------------------------------------------------------

// The end of the simple command at s.p[from]; *next is where the following one starts.
static size_t command_end(struct str s, size_t from, size_t *next)
{
    char quote = '\0';
    for (size_t i = from; i < s.n; i++) {
        const char c = s.p[i];
        *next = i + 1;
        if (c == '\\' && quote != '\'' && i + 1 < s.n)
            i++;
        else if (quote != '\0')
            quote = c == quote ? '\0' : quote;
        else if (c == '\'' || c == '"')
            quote = c;
        else if (c == '#' && (i == from || strchr(" \t", s.p[i - 1]) != NULL)) {
            const size_t line = str_find(s, STR("\n"), i);
            *next = line == SIZE_MAX ? s.n : line + 1;
            return i;
        } else if (c == '\n' || c == ';') {
            return i;
        } else if (c == '&' && i + 1 < s.n && s.p[i + 1] == '&') {
            *next = i + 2;
            return i;
        }
    }
    *next = s.n;
    return s.n;
}

// ---- words ------------------------------------------------------------------------------------------

// A variable at s.p[i], a '$': its value is appended. 0: nothing that is understood.
static size_t put_variable(struct unit_env *env, struct str s, size_t i, struct buf *out)
{
    char name[UNIT_NAME_BYTES];
    const bool braces = i + 1 < s.n && s.p[i + 1] == '{';
    const size_t from = i + (braces ? 2 : 1);
    size_t n = 0;
    if (!braces && from < s.n && s.p[from] == '@') return 2; // no arguments
    while (from + n < s.n && s.p[from + n] != '\0' && strchr(name_letters, s.p[from + n]) != NULL &&
           n + 1 < sizeof name)
        n++;
    if (n == 0) return 0;
    memcpy(name, s.p + from, n);
    name[n] = '\0';
    const char *value = unit_env_get(env, name);
    size_t end = from + n;
    if (braces) { // ${NAME} or ${NAME:-otherwise}
        const size_t close = str_find(s, STR("}"), end);
        const bool otherwise = str_starts(str_sub(s, end, s.n), STR(":-"));
        if (close == SIZE_MAX || (close != end && !otherwise)) return 0;
        if (otherwise && (value == NULL || *value == '\0'))
            buf_str(out, str_sub(s, end + 2, close - end - 2));
        end = close + 1;
    }
    if (value != NULL) buf_z(out, value);
    return end - i;
}

struct word {
    struct buf text;
    bool there, failed; // failed: it needs a real shell
};

static void end_word(struct word *w, struct cmdline *out)
{
    if (w->there) cmdline_put(out, buf_view(&w->text));
    if (w->text.failed) out->failed = true;
    buf_clear(&w->text);
    w->there = false;
}

// Inside quotes from s.p[i] on, the first character behind the quote; returns the closing one's place.
static size_t put_quoted(struct unit_env *env, struct str s, size_t i, char quote, struct word *w)
{
    for (; i < s.n && s.p[i] != quote; i++) {
        const bool special = quote == '"';
        if (special && s.p[i] == '\\' && i + 1 < s.n && strchr("\"\\$`", s.p[i + 1]) != NULL) {
            buf_c(&w->text, s.p[++i]);
        } else if (special && s.p[i] == '`') {
            w->failed = true;
        } else if (special && s.p[i] == '$') {
            const size_t used = put_variable(env, s, i, &w->text);
            if (used == 0) w->failed = true;
            i += used > 0 ? used - 1 : 0;
        } else {
            buf_c(&w->text, s.p[i]);
        }
    }
    if (i >= s.n) w->failed = true;
    return i;
}

// A variable outside quotes: its value is cut at white space.
static size_t put_bare(struct unit_env *env, struct str s, size_t i, struct word *w,
                       struct cmdline *out)
{
    struct buf value = {0};
    const size_t used = put_variable(env, s, i, &value);
    if (used == 0) w->failed = true;
    for (size_t k = 0; k < value.n; k++) {
        if (strchr(" \t\n", value.p[k]) != NULL) {
            end_word(w, out);
        } else {
            buf_c(&w->text, value.p[k]);
            w->there = true;
        }
    }
    buf_free(&value);
    return used > 0 ? used : 1;
}

// False when the command needs a real shell.
static bool split(struct unit_env *env, struct str s, struct cmdline *out)
{
    struct word w = {0};
    for (size_t i = 0; i < s.n && !w.failed; i++) {
        const char c = s.p[i];
        if (c == ' ' || c == '\t' || c == '\n') {
            end_word(&w, out);
        } else if (str_starts(str_sub(s, i, s.n), STR("\"$@\""))) {
            i += 3; // no arguments, which is no word
        } else if (c == '\'' || c == '"') {
            w.there = true;
            i = put_quoted(env, s, i + 1, c, &w);
        } else if (c == '\\' && i + 1 < s.n) {
            if (s.p[++i] != '\n') buf_c(&w.text, s.p[i]);
            if (s.p[i] != '\n') w.there = true;
        } else if (c == '$') {
            i += put_bare(env, s, i, &w, out) - 1;
        } else if (strchr("`|<(){}*?", c) != NULL) {
            w.failed = true;
        } else {
            w.there = true;
            buf_c(&w.text, c);
        }
    }
    end_word(&w, out);
    buf_free(&w.text);
    return !w.failed;
}

// ---- one command ------------------------------------------------------------------------------------

static bool is_assignment(const char *word)
{
    const size_t n = strspn(word, name_letters);
    return n > 0 && word[n] == '=';
}

static void note_lost(struct shell_text *t, struct str command)
{
    if (t->n_lost < SHELL_MAX_LOST) t->lost[t->n_lost++] = arena_str(t->words.arena, command);
}

// Where output goes and "&" belong to the shell, not to the program.
static void drop_redirections(struct shell_text *t, struct cmdline *c)
{
    for (size_t i = 0; i < c->n;) {
        const char *word = c->v[i], *sign = word + strspn(word, "0123456789&");
        const bool redirects = *sign == '>' || strcmp(word, "&") == 0;
        if (!redirects) {
            i++;
            continue;
        }
        const bool alone = *sign == '>' && sign[strspn(sign, ">&")] == '\0' && i + 1 < c->n;
        struct buf both = {0};
        buf_printf(&both, "%s%s%s", word, alone ? " " : "", alone ? c->v[i + 1] : "");
        note_lost(t, buf_view(&both));
        buf_free(&both);
        cmdline_drop(c, i, alone ? 2 : 1);
    }
}

// `set -eu`, `set -o pipefail`: how the shell behaves. `set -- WORDS` are arguments.
static bool only_sets_options(const struct cmdline *c)
{
    bool arguments = false;
    for (size_t i = 1; i < c->n; i++) arguments = arguments || strcmp(c->v[i], "--") == 0;
    return strcmp(c->v[0], "set") == 0 && !arguments;
}

static bool take(struct shell_text *t, struct str command, bool (*is_wanted)(const char *word),
                 bool *found, struct err *e)
{
    struct cmdline c = {.arena = t->words.arena};
    const bool simple = split(t->env, command, &c);
    bool wanted = false;
    while (c.n > 0 && (strcmp(c.v[0], "exec") == 0 || strcmp(c.v[0], "export") == 0))
        cmdline_drop(&c, 0, 1);
    while (simple && c.n > 0 && is_assignment(c.v[0])) {
        unit_env_assign(t->env, str_from(c.v[0]));
        cmdline_drop(&c, 0, 1);
    }
    for (size_t i = 0; i < c.n; i++) wanted = wanted || is_wanted(c.v[i]);
    if (wanted && !simple)
        return err_set(e, ERR_UNSUPPORTED,
                       "this command needs a shell: %.*s; write llama-server's own command line "
                       "into ExecStart",
                       (int)(command.n < 200 ? command.n : 200), command.p);
    if (wanted) {
        drop_redirections(t, &c);
        t->words = c;
        *found = true;
    } else if (simple && c.n == 2 && strcmp(c.v[0], "cd") == 0) {
        t->folder = c.v[1];
    } else if (c.n > 0 && !only_sets_options(&c)) {
        note_lost(t, command);
    }
    return true;
}

bool shell_read(struct shell_text *t, struct str text, bool (*is_wanted)(const char *word),
                struct err *e)
{
    bool found = false, ok = true;
    for (size_t at = 0, next = 0; at < text.n && ok; at = next) {
        const size_t end = command_end(text, at, &next);
        ok = take(t, str_trim(str_sub(text, at, end - at)), is_wanted, &found, e);
    }
    if (ok && !found)
        ok = err_set(e, ERR_FORMAT, "no command of the shell's text runs llama-server");
    return ok && (!(t->words.failed || t->env->failed) ||
                  err_set(e, ERR_MEMORY, "no memory for the command line"));
}
