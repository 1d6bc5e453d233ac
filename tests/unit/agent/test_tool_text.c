// What is taken out of text from outside: here the line that says why a program ended.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/tool_text.h"

static void the_line_that_says_why_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *log, *reason;
    } cases[] = {
        {"", ""},
        {"starting\nbroken pipe\n", "broken pipe"},
        {"node:internal/modules:1228\n  throw err;\n  ^\n\nError: Cannot find module '/x/y.js'\n"
         "    at Module._load (node:internal)\n    at node:internal/main:49\n\nNode.js v24.21.0\n",
         "Error: Cannot find module '/x/y.js'"},
        {"Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n"
         "ModuleNotFoundError: No module named 'mcp'\n",
         "ModuleNotFoundError: No module named 'mcp'"},
        {"INFO up\nERROR: no such database\nbye\n", "ERROR: no such database"},
        {"error: the token 0123456789abcdefghij is wrong for this and that reason",
         "error: the token"},
        {"0123456789abcdefghij0123456789abcdefghij", ""}, // nothing that could be cut between words
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str got = tool_text_reason(str_from(cases[i].log), 20 + (i < 5 ? 80 : 0));
        if (!str_eq(got, str_from(cases[i].reason)))
            fail_msg("%zu: \"%.*s\"", i, (int)got.n, got.p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_line_that_says_why_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
