// A schema and a value in one JSON list: checking ends, and says something exactly when it refuses.
#include <stdint.h>
#include <stdlib.h>

#include "agent/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct buf why = {0};
    if (n > 4000) return 0;
    json_t *v = json_loadb((const char *)data, n, JSON_ALLOW_NUL, NULL);
    if (json_array_size(v) == 2) {
        bool fits = schema_check(json_array_get(v, 0), json_array_get(v, 1), &why);
        if (fits && why.n > 0) abort();
        if (!fits && why.n == 0) abort();
    }
    json_decref(v);
    buf_free(&why);
    return 0;
}
