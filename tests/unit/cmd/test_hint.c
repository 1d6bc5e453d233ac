// cmd/hint: which word was meant. Distances are counted by hand.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cmd/hint.h"

static const char *meant(const char *word)
{
    static const char *const known[] = {"serve", "service",   "run", "runs",
                                        "ctx",   "cache-dir", "ls"};
    struct hint h = hint_of(word);
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) hint_offer(&h, known[i]);
    return h.best == NULL ? "" : h.best;
}

static void the_nearest_word_is_found(void **state)
{
    (void)state;
    assert_string_equal(meant("srve"), "serve");
    assert_string_equal(meant("servic"), "service");
    assert_string_equal(meant("sevre"), "serve"); // two neighbours swapped
    assert_string_equal(meant("rums"), "runs");
    assert_string_equal(meant("cachedri"), "cache-dir"); // one left out, two swapped
    assert_string_equal(meant("ctx-length"), "ctx");
    assert_string_equal(meant("cache"), "cache-dir");
}

static void what_is_far_is_not_guessed(void **state)
{
    (void)state;
    assert_string_equal(meant("nonsense"), "");
    assert_string_equal(meant("x"), "");
    assert_string_equal(meant(""), "");
    assert_string_equal(meant("rxns"), "runs");
    assert_string_equal(meant("rxxs"), "");
    assert_string_equal(meant("l-anything"), "");
    char longer[4096];
    memset(longer, 'a', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    assert_string_equal(meant(longer), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_nearest_word_is_found),
        cmocka_unit_test(what_is_far_is_not_guessed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
