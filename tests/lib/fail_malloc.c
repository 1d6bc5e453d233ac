// The C library's allocator behind a countdown. glibc lets a program define malloc itself and keeps
// its own under the __libc names.
#include "lib/fail_malloc.h"

#include <errno.h>
#include <stddef.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer) && defined(__GLIBC__)
#define CAN_FAIL 1
#else
#define CAN_FAIL 0
#endif

static _Thread_local long countdown = -1;
static _Thread_local bool done;

bool fail_malloc_works(void)
{
    return CAN_FAIL != 0;
}
bool fail_malloc_done(void)
{
    return done;
}

void fail_malloc_after(long n)
{
    countdown = n;
    done = false;
}

#if CAN_FAIL
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t n);

static bool fails(void)
{
    if (countdown < 0 || countdown-- > 0) return false;
    done = true;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n)
{
    return fails() ? NULL : __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    return fails() ? NULL : __libc_realloc(p, n);
}
#endif
