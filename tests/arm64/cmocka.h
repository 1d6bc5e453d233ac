// As much of cmocka as tests/ops uses, for the cross-compiled run of tests/checks/arm64.sh: there is no
// cmocka for a foreign machine. A failed check ends the program.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

#define cmocka_unit_test(f) \
    {                       \
#f, f               \
    }
#define fail_msg(...)                          \
    do {                                       \
        printf("%s:%d: ", __FILE__, __LINE__); \
        printf(__VA_ARGS__);                   \
        printf("\n");                          \
        exit(1);                               \
    } while (0)
#define assert_true(x)                          \
    do {                                        \
        if (!(x)) fail_msg("not true: %s", #x); \
    } while (0)
#define assert_false(x)              assert_true(!(x))
#define assert_non_null(x)           assert_true((x) != NULL)
#define assert_int_equal(a, b)       assert_true((long long)(a) == (long long)(b))
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)

// SUBMIND_TESTS_ONLY=text runs those whose name holds it.
static inline int cmocka_run(const struct CMUnitTest *tests, size_t n)
{
    const char *only = getenv("SUBMIND_TESTS_ONLY");
    for (size_t i = 0; i < n; i++) {
        if (only != NULL && strstr(tests[i].name, only) == NULL) continue;
        tests[i].run(NULL);
        printf("ok %s\n", tests[i].name);
    }
    return 0;
}
#define cmocka_run_group_tests(tests, setup, teardown) \
    cmocka_run(tests, sizeof(tests) / sizeof *(tests))
