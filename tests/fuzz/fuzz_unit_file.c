// A unit that somebody wrote, adopted: any text is read, refused or taken, and nothing else.
#include <stddef.h>
#include <stdint.h>

#include "host/adopt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {.limit_bytes = 64u << 20};
    struct unit_file u;
    struct adopt adopt;
    struct err e = {0};
    const struct str text = {(const char *)data, size};
    const struct adopt_place place = {"llama@x.service", false, "/home/u", "/run/user/1"};
    if (unit_parse(&u, text, &a, &e)) adopt_read(&adopt, &u, &place, &a, &e);
    arena_free(&a);
    return 0;
}
