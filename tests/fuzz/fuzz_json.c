// value_parse on arbitrary bytes: no crash, no runaway memory; what parses prints and parses again
// to the same text.
#include <stdint.h>
#include <stdlib.h>

#include "text/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct arena a = {.limit_bytes = 64u << 20};
    struct buf once = {0}, twice = {0};
    struct value v, again;
    if (value_parse(&v, &a, (struct str){(const char *)data, n}, NULL)) {
        value_dump(&once, v, -1);
        // Python prints what overflows as Infinity, which is not JSON any more.
        bool infinite = str_find(buf_view(&once), STR("Infinity"), 0) != SIZE_MAX;
        if (!infinite && !value_parse(&again, &a, buf_view(&once), NULL)) abort();
        if (!infinite) {
            value_dump(&twice, again, -1);
            if (!str_eq(buf_view(&once), buf_view(&twice))) abort();
        }
    }
    buf_free(&once);
    buf_free(&twice);
    arena_free(&a);
    return 0;
}
