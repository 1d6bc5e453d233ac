// Matching is by argument, after the words are split, and nothing is expanded afterwards: what
// matched is exactly what runs. The glob is linear in its stack-free backtracking (one saved
// position per kind of star), so that no pattern can hang it.
#include "agent/allow.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// ---- words ----------------------------------------------------------------------------------

void words_free(struct words *w)
{
    for (size_t i = 0; i < w->n; i++) free(w->p[i]);
    free(w->p);
    *w = (struct words){0};
}

bool words_put(struct words *w, struct str word, struct err *e)
{
    if (w->n == WORDS_MAX)
        return err_set(e, ERR_INPUT, "the command has more than %d words", WORDS_MAX);
    if (word.n > 0 && memchr(word.p, '\0', word.n) != NULL)
        return err_set(e, ERR_INPUT, "the command holds a NUL byte");
    char **p = realloc(w->p, (w->n + 2) * sizeof *p);
    if (p == NULL) return err_set(e, ERR_MEMORY, "no memory for a command");
    w->p = p;
    p[w->n] = strndup(word.n > 0 ? word.p : "", word.n);
    if (p[w->n] == NULL) return err_set(e, ERR_MEMORY, "no memory for a command");
    p[++w->n] = NULL;
    return true;
}

static bool no_shell(char c, struct err *e)
{
    if (c == '\n')
        return err_set(e, ERR_DENIED,
                       "there is no shell here: one command per call, without line breaks");
    return err_set(e, ERR_DENIED,
                   "there is no shell here: \"%c\" cannot be used; run one plain command per call, "
                   "and put '...' around an argument that holds this character",
                   c);
}

// What a shell would act on outside quotes, and inside double quotes.
static bool is_operator(char c)
{
    return strchr("|&;<>()`$\n", c) != NULL && c != '\0';
}
static bool is_operator_quoted(char c)
{
    return c == '`' || c == '$';
}
static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

struct splitter {
    struct str line;
    size_t i;
    struct buf word;
    bool in_word;
};

// A quoted part; i stands behind the opening quote.
static bool split_quoted(struct splitter *s, char quote, struct err *e)
{
    for (; s->i < s->line.n; s->i++) {
        char c = s->line.p[s->i];
        if (c == quote) {
            s->i++;
            return true;
        }
        if (quote == '"' && is_operator_quoted(c)) return no_shell(c, e);
        if (quote == '"' && c == '\\' && s->i + 1 < s->line.n &&
            strchr("\"\\$`", s->line.p[s->i + 1]) != NULL)
            c = s->line.p[++s->i];
        buf_c(&s->word, c);
    }
    return err_set(e, ERR_INPUT, "the quote %c is not closed", quote);
}

static bool split_char(struct splitter *s, struct words *out, struct err *e)
{
    char c = s->line.p[s->i++];
    if (is_blank(c)) {
        bool ok = !s->in_word || words_put(out, buf_view(&s->word), e);
        s->in_word = false;
        buf_clear(&s->word);
        return ok;
    }
    s->in_word = true;
    if (is_operator(c)) return no_shell(c, e);
    if (c == '\'' || c == '"') return split_quoted(s, c, e);
    if (c == '\\') {
        if (s->i == s->line.n) return err_set(e, ERR_INPUT, "nothing stands behind the last \\");
        c = s->line.p[s->i++];
    }
    buf_c(&s->word, c);
    return true;
}

bool words_split(struct words *out, struct str line, struct err *e)
{
    struct splitter s = {.line = str_trim(line)};
    struct words w = {0};
    bool ok = true;
    while (ok && s.i < s.line.n) ok = split_char(&s, &w, e);
    if (ok && s.in_word) ok = words_put(&w, buf_view(&s.word), e);
    if (ok && s.word.failed) ok = err_set(e, ERR_MEMORY, "no memory for a command");
    if (ok && w.n == 0) ok = err_set(e, ERR_INPUT, "the command is empty");
    buf_free(&s.word);
    if (ok)
        *out = w;
    else
        words_free(&w);
    return ok;
}

// Needs no quotes: not empty, no control characters, nothing that a shell would act on.
static bool is_plain(const char *p)
{
    if (*p == '\0') return false;
    for (; *p != '\0'; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("\"'\\|&;<>()`$", *p) != NULL)
            return false;
    return true;
}

void words_print(const struct words *w, struct buf *out)
{
    for (size_t i = 0; i < w->n; i++) {
        const char *p = w->p[i];
        if (i > 0) buf_c(out, ' ');
        if (is_plain(p)) {
            buf_z(out, p);
            continue;
        }
        buf_c(out, '\'');
        for (; *p != '\0'; p++) {
            if (*p == '\'')
                buf_z(out, "'\\''");
            else
                buf_c(out, *p);
        }
        buf_c(out, '\'');
    }
}

// ---- patterns -------------------------------------------------------------------------------

static bool is_glob(const char *pattern)
{
    return strpbrk(pattern, "*?") != NULL;
}

static bool has_dot_dot(const char *text)
{
    for (const char *p = text; p != NULL; p = strchr(p, '/')) {
        if (*p == '/') p++;
        if (p[0] == '.' && p[1] == '.' && (p[2] == '\0' || p[2] == '/')) return true;
    }
    return false;
}

// Tries pattern's literal at p against *t.
static bool literal(const char **p, const char *t)
{
    const char *q = *p;
    if (*q == '\\' && q[1] != '\0') q++;
    if (*q != *t || *t == '\0') return false;
    *p = q + 1;
    return true;
}

bool allow_glob(const char *p, const char *t)
{
    // Where to go on when a match fails: behind the last star, one character later. A "*" that hits
    // a "/" gives up in favour of the last "**".
    const char *star_p = NULL, *star_t = NULL, *deep_p = NULL, *deep_t = NULL;
    for (;;) {
        if (p[0] == '*') {
            bool deep = p[1] == '*';
            while (*p == '*') p++;
            if (deep) {
                deep_p = p;
                deep_t = t;
                star_p = NULL;
            } else {
                star_p = p;
                star_t = t;
            }
            continue;
        }
        if (*p == '\0' && *t == '\0') return true;
        if (*t != '\0' && *p == '?' && *t != '/') {
            p++;
            t++;
            continue;
        }
        if (*p != '\0' && *p != '?' && literal(&p, t)) {
            t++;
            continue;
        }
        if (star_p != NULL && *star_t != '\0' && *star_t != '/') {
            p = star_p;
            t = ++star_t;
        } else if (deep_p != NULL && *deep_t != '\0') {
            star_p = NULL;
            p = deep_p;
            t = ++deep_t;
        } else {
            return false;
        }
    }
}

static bool argument_matches(const char *pattern, const char *text)
{
    if (strcmp(pattern, "*") == 0 || strcmp(pattern, "**") == 0) return text[0] != '-';
    if (is_glob(pattern) && has_dot_dot(text)) return false;
    if (is_glob(pattern) && text[0] == '-' && pattern[0] != '-') return false;
    return allow_glob(pattern, text);
}

bool allow_rule_matches(const struct allow_rule *r, const struct words *command)
{
    const struct words *w = &r->patterns;
    if (w->n == 0) return false;
    bool open_end = w->n > 1 && strcmp(w->p[w->n - 1], "**") == 0;
    size_t n_fixed = open_end ? w->n - 1 : w->n;
    if (command->n < n_fixed || (!open_end && command->n != n_fixed)) return false;
    for (size_t i = 0; i < command->n; i++)
        if (!argument_matches(i < n_fixed ? w->p[i] : "**", command->p[i])) return false;
    return true;
}

size_t allow_find(const struct allow_list *l, const struct words *command)
{
    for (size_t i = 0; i < l->n; i++)
        if (allow_rule_matches(&l->rules[i], command)) return i;
    return SIZE_MAX;
}

// What a shell acts on, and what begins a word or an option.
static bool is_special(const char *start, const char *p)
{
    if (*p == '-') return p > start && (p[-1] == ' ' || p[-1] == '\t');
    return strchr("|&;<>()`$\n\r\t \\\"'*?[]{}~#!=", *p) != NULL;
}

static size_t count_special(const char *text)
{
    size_t n = 0;
    for (const char *p = text; *p != '\0'; p++) n += is_special(text, p);
    return n;
}

// The same of a pattern's own characters: stars stand for nothing of it.
static size_t count_own(const char *pattern)
{
    size_t n = 0;
    for (const char *p = pattern; *p != '\0'; p++) {
        if (*p == '*' || *p == '?') continue;
        if (*p == '\\' && p[1] != '\0') p++;
        n += is_special(pattern, p);
    }
    return n;
}

size_t allow_find_shell(const struct allow_list *l, struct str line)
{
    struct buf text = {0};
    buf_str(&text, str_trim(line));
    const char *z = buf_cstr(&text);
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < l->n && found == SIZE_MAX && strlen(z) == text.n; i++) {
        const char *pattern = l->rules[i].shell;
        if (pattern == NULL || !allow_glob(pattern, z)) continue;
        if (strpbrk(pattern, "*?") != NULL && has_dot_dot(z)) continue;
        if (count_special(z) == count_own(pattern)) found = i;
    }
    buf_free(&text);
    return found;
}

void allow_rule_print(const struct allow_rule *r, struct buf *out)
{
    if (r->shell != NULL)
        buf_z(out, r->shell);
    else
        words_print(&r->patterns, out);
}

static bool is_for(const struct allow_rule *r, const char *program)
{
    return r->patterns.n > 0 && allow_glob(r->patterns.p[0], program);
}

bool allow_refuse(const struct allow_list *l, const struct words *command, struct err *e)
{
    struct buf text = {0}, rules = {0};
    words_print(command, &text);
    size_t n_same = 0;
    for (size_t i = 0; i < l->n; i++) n_same += is_for(&l->rules[i], command->p[0]);
    for (size_t i = 0; i < l->n && rules.n < 240; i++) {
        if (n_same > 0 && !is_for(&l->rules[i], command->p[0])) continue;
        if (rules.n > 0) buf_z(&rules, "; ");
        allow_rule_print(&l->rules[i], &rules);
    }
    if (l->n == 0) buf_z(&rules, "nothing");
    err_set(e, ERR_DENIED, "not allowed: %.120s (allowed %s%.280s)", buf_cstr(&text),
            n_same > 0 ? "with this program: " : "commands: ", buf_cstr(&rules));
    buf_free(&text);
    buf_free(&rules);
    return false;
}

void allow_free(struct allow_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        words_free(&l->rules[i].patterns);
        words_free(&l->rules[i].secrets);
        words_free(&l->rules[i].write);
        free(l->rules[i].shell);
    }
    free(l->rules);
    *l = (struct allow_list){0};
}
