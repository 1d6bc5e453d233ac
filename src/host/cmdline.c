// The list is doubled in the arena: what is outgrown is freed with the rest.
#include "host/cmdline.h"

#include <string.h>

void cmdline_put(struct cmdline *w, struct str word)
{
    if (w->n + 1 >= w->cap) {
        size_t cap = w->cap == 0 ? 32 : 2 * w->cap;
        const char **v = arena_array(w->arena, cap, sizeof *v);
        if (v == NULL) w->failed = true;
        if (w->failed) return;
        if (w->n > 0) memcpy(v, w->v, w->n * sizeof *v);
        w->v = v;
        w->cap = cap;
    }
    struct str copy = arena_str(w->arena, word);
    if (copy.p == NULL) w->failed = true;
    if (w->failed) return;
    w->v[w->n++] = copy.p;
    w->v[w->n] = NULL;
}

void cmdline_z(struct cmdline *w, const char *word)
{
    cmdline_put(w, str_from(word));
}

void cmdline_drop(struct cmdline *w, size_t i, size_t n)
{
    if (i >= w->n) return;
    if (n > w->n - i) n = w->n - i;
    memmove(w->v + i, w->v + i + n, (w->n - i - n) * sizeof *w->v);
    w->n -= n;
    w->v[w->n] = NULL;
}

// 0: another word; 1: "--name=V"; 2: "--name" with its value behind it.
static size_t is_flag(const char *word, const char *name)
{
    size_t n = strlen(name);
    if (strncmp(word, "--", 2) != 0 || strncmp(word + 2, name, n) != 0) return 0;
    return word[2 + n] == '=' ? 1 : word[2 + n] == '\0' ? 2 : 0;
}

const char *cmdline_flag(const struct cmdline *w, const char *name)
{
    const char *value = NULL;
    for (size_t i = 0; i < w->n; i++) {
        size_t kind = is_flag(w->v[i], name);
        if (kind == 1) value = w->v[i] + strlen(name) + 3;
        if (kind == 2 && i + 1 < w->n) value = w->v[i + 1];
    }
    return value;
}

bool cmdline_has(const struct cmdline *w, const char *word)
{
    for (size_t i = 0; i < w->n; i++)
        if (strcmp(w->v[i], word) == 0) return true;
    return false;
}

void cmdline_set(struct cmdline *w, const char *name, const char *value)
{
    struct buf flag = {0};
    for (size_t i = 0; i < w->n;) {
        size_t kind = is_flag(w->v[i], name);
        if (kind > 0)
            cmdline_drop(w, i, kind);
        else
            i++;
    }
    if (value != NULL) {
        buf_printf(&flag, "--%s", name);
        cmdline_put(w, buf_view(&flag));
        cmdline_z(w, value);
    }
    if (flag.failed) w->failed = true;
    buf_free(&flag);
}
