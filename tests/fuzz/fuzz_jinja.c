// The template interpreter on arbitrary input: JSON variables, a NUL byte, then the template. No
// crash, no hang, no runaway memory; the output is untouched when rendering fails.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *nul = n > 0 ? memchr(data, 0, n) : NULL;
    size_t n_vars = nul == NULL ? 0 : (size_t)(nul - data), at = nul == NULL ? 0 : n_vars + 1;
    struct arena a = {.limit_bytes = 16u << 20};
    struct value vars = {0};
    struct buf out = {0};
    struct jinja *j = NULL;
    if (n_vars > 0) value_parse(&vars, &a, (struct str){(const char *)data, n_vars}, NULL);
    if (jinja_open(&j, (struct str){(const char *)data + at, n - at}, NULL)) {
        buf_c(&out, 'x');
        if (!jinja_render(j, vars, &a, &out, NULL) && out.n != 1) abort();
        if (out.p[0] != 'x') abort();
    }
    jinja_close(j);
    buf_free(&out);
    arena_free(&a);
    return 0;
}
