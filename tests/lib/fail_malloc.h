// Makes allocations fail on demand, to walk the paths that a full machine takes. Test programs get
// their own malloc, calloc and realloc by it; under sanitizers, which need theirs, nothing fails.
#pragma once

#include <stdbool.h>

// False where failing is not possible here (sanitizers): the test then has nothing to check.
bool fail_malloc_works(void);
// The next n allocations of this thread succeed, the one after them fails once; n < 0: none fails.
void fail_malloc_after(long n);
// Whether that failure has happened.
bool fail_malloc_done(void);
