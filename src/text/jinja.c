// Opening and rendering a template. The tree and all it points to live in one arena that nothing
// writes to after jinja_open, so that threads may share it; a render's state is its own.
#include "text/jinja.h"

#include <stdlib.h>

#include "text/jinja_lexer.h"
#include "text/jinja_parser.h"
#include "text/jinja_run.h"

enum { MAX_SOURCE_BYTES = 4 << 20, MAX_TREE_BYTES = 512 << 20 };

struct jinja {
    struct arena arena;
    const struct node *body;
};

// "\r\n" and "\r" become "\n", as Jinja does it.
static struct str normal_newlines(struct arena *a, struct str source)
{
    char *p = arena_alloc(a, source.n + 1);
    if (p == NULL) return (struct str){0};
    size_t n = 0;
    for (size_t i = 0; i < source.n; i++) {
        p[n++] = source.p[i] == '\r' ? '\n' : source.p[i];
        if (source.p[i] == '\r' && i + 1 < source.n && source.p[i + 1] == '\n') i++;
    }
    return (struct str){p, n};
}

bool jinja_open(struct jinja **out, struct str source, struct err *e)
{
    if (source.n > MAX_SOURCE_BYTES)
        return err_set(e, ERR_FORMAT, "the chat template has %zu bytes, more than %d", source.n,
                       MAX_SOURCE_BYTES);
    struct jinja *j = calloc(1, sizeof *j);
    struct lex_tokens tokens;
    struct node *body = NULL;
    if (j == NULL) return err_set(e, ERR_MEMORY, "out of memory for a chat template");
    j->arena.limit_bytes = MAX_TREE_BYTES;
    struct str copy = normal_newlines(&j->arena, source);
    bool ok = copy.p != NULL || err_set(e, ERR_MEMORY, "out of memory for a chat template");
    ok = ok && jinja_lex(&tokens, copy, &j->arena, e) && jinja_parse(&body, tokens, &j->arena, e);
    if (!ok) {
        jinja_close(j);
        return false;
    }
    j->body = body;
    *out = j;
    return true;
}

void jinja_close(struct jinja *j)
{
    if (j == NULL) return;
    arena_free(&j->arena);
    free(j);
}

bool jinja_render(const struct jinja *j, struct value vars, struct arena *scratch, struct buf *out,
                  struct err *e)
{
    struct scope top = {0};
    size_t n = out->n;
    struct run r = {.arena = scratch, .out = out, .err = e, .scope = &top, .vars = vars};
    if (run_statements(&r, j->body)) return true;
    out->n = n;
    return false;
}
