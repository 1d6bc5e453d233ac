// Planted secrets in every form that they travel in. The encodings come from coreutils and xxd, not
// from the code under test.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/redact.h"

static const char secret[] = "hunter2/\"Zw\xc3\xb3j+key==";

static void open_redactor(struct redactor *r)
{
    struct err e = {0};
    *r = (struct redactor){0};
    if (!redactor_add(r, "MAIL", str_from(secret), &e)) fail_msg("%s", e.msg);
}

static void assert_redacted(const struct redactor *r, const char *text, const char *expected)
{
    struct buf b = {0};
    buf_z(&b, text);
    redact_text(r, &b);
    assert_string_equal(buf_cstr(&b), expected);
    buf_free(&b);
}

// What a shell command prints for text on its standard input.
static void output_of(const char *command, const char *text, struct buf *out)
{
    char line[8192];
    FILE *f = fopen("redact-input", "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    snprintf(line, sizeof line, "cat redact-input | %s", command);
    f = popen(line, "r");
    for (size_t n; (n = fread(line, 1, sizeof line, f)) > 0;) buf_put(out, line, n);
    assert_int_equal(pclose(f), 0);
    remove("redact-input");
}

static void plain_text_is_found_wherever_it_stands(void **state)
{
    (void)state;
    struct redactor r;
    char text[200];
    open_redactor(&r);
    assert_redacted(&r, secret, "[secret MAIL]");
    snprintf(text, sizeof text, "a%sb%s", secret, secret);
    assert_redacted(&r, text, "a[secret MAIL]b[secret MAIL]");
    assert_redacted(&r, "hunter2 is half of it", "hunter2 is half of it");
    assert_redacted(&r, "{\"k\":\"hunter2/\\\"Zw\xc3\xb3j+key==\"}", "{\"k\":\"[secret MAIL]\"}");
    assert_redacted(&r, "?k=hunter2%2F%22Zw%C3%B3j%2Bkey%3D%3D&x", "?k=[secret MAIL]&x");
    assert_redacted(&r, "?k=hunter2%2f%22Zw%c3%b3j%2bkey%3d%3d&x", "?k=[secret MAIL]&x");
    redactor_free(&r);
}

// Whatever stands before and behind, whatever the line's length: no six characters of the secret's
// own base64 are left.
static void base64_is_found_at_every_alignment(void **state)
{
    (void)state;
    static const char *const commands[] = {"base64", "base64 -w 0", "base64 -w 20",
                                           "base64 -w 0 | tr +/ -_"};
    struct redactor r;
    struct buf own = {0};
    open_redactor(&r);
    for (size_t c = 0; c < 4; c++)
        for (size_t before = 0; before < 7; before++)
            for (size_t behind = 0; behind < 4; behind++) {
                char text[300];
                struct buf out = {0};
                snprintf(text, sizeof text, "%.*s%s%.*s", (int)before, "user: x", secret,
                         (int)behind, "\n.;");
                output_of(commands[c], text, &out);
                struct buf clear = {0};
                buf_str(&clear, buf_view(&out));
                redact_text(&r, &out);
                if (strstr(buf_cstr(&out), "[secret MAIL]") == NULL)
                    fail_msg("%s", buf_cstr(&clear));
                // What is left decodes to nothing of the secret but bits at its edges.
                assert_true(out.n < clear.n - strlen(secret) * 4 / 3 + 13 + 6);
                buf_free(&out);
                buf_free(&clear);
            }
    buf_free(&own);
    redactor_free(&r);
}

// As programs print it that fold lines, dump bytes or write HTML.
static void folded_and_dumped_text_is_found(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "fold -b -w 7",
        "od -An -v -tx1",
        "od -An -v -tx1 | tr a-f A-F | sed 's/^ //; s/ /:/g'",
        "od -An -v -tx1 | tr -d ' \\n' | fold -w 9",
        "sed 's/&/\\&amp;/g; s/\"/\\&quot;/g'",
    };
    struct redactor r;
    open_redactor(&r);
    for (size_t c = 0; c < sizeof commands / sizeof commands[0]; c++) {
        struct buf out = {0};
        output_of(commands[c], secret, &out);
        redact_text(&r, &out);
        struct str left = str_trim(buf_view(&out));
        if (!str_eq(left, STR("[secret MAIL]")))
            fail_msg("%s: %.*s", commands[c], (int)left.n, left.p);
        buf_free(&out);
    }
    assert_redacted(&r, "h\nu\nn\nt of something else", "h\nu\nn\nt of something else");
    redactor_free(&r);
}

static void hex_is_found(void **state)
{
    (void)state;
    struct redactor r;
    struct buf out = {0};
    open_redactor(&r);
    output_of("od -An -v -tx1 | tr -d ' \\n'", secret, &out);
    redact_text(&r, &out);
    assert_string_equal(buf_cstr(&out), "[secret MAIL]");
    buf_clear(&out);
    output_of("od -An -v -tx1 | tr -d ' \\n' | tr a-f A-F", secret, &out);
    redact_text(&r, &out);
    assert_string_equal(buf_cstr(&out), "[secret MAIL]");
    buf_free(&out);
    redactor_free(&r);
}

// Byte by byte, as URLs, JSON, C and HTML can spell any text.
static void spelled_bytes_are_found(void **state)
{
    (void)state;
    static const char *const forms[] = {"%%%02X",   "%%%02x",   "\\u%04x", "\\x%02x",
                                        "0x%02x, ", "&#x%02X;", "&#%u;",   "%02x:"};
    struct redactor r;
    open_redactor(&r);
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
        struct buf out = {0};
        buf_z(&out, "begin ");
        for (size_t i = 0; i < sizeof secret - 1; i++) {
            char one[20];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(one, sizeof one, forms[f], (unsigned)(unsigned char)secret[i]);
#pragma GCC diagnostic pop
            buf_z(&out, one);
        }
        redact_text(&r, &out);
        if (strstr(buf_cstr(&out), "[secret MAIL]") == NULL || out.n > 30)
            fail_msg("%s: %s", forms[f], buf_cstr(&out));
        buf_free(&out);
    }
    redactor_free(&r);
}

// Output that was cut in the middle of a secret: what is left of it goes too.
static void halves_at_a_cut_go(void **state)
{
    (void)state;
    struct redactor r;
    open_redactor(&r);
    for (size_t n = 4; n < sizeof secret - 1; n++) {
        struct buf head = {0}, tail = {0};
        buf_z(&head, "key: ");
        buf_put(&head, secret, n);
        redact_cut(&r, &head, false, true);
        assert_string_equal(buf_cstr(&head), "key: [secret MAIL]");
        buf_z(&tail, secret + sizeof secret - 1 - n);
        buf_z(&tail, " end");
        redact_cut(&r, &tail, true, false);
        assert_string_equal(buf_cstr(&tail), "[secret MAIL] end");
        buf_free(&head);
        buf_free(&tail);
    }
    redactor_free(&r);
}

static void lines_of_a_key_file_are_secrets_too(void **state)
{
    (void)state;
    struct redactor r = {0};
    struct err e = {0};
    assert_true(redactor_add(&r, "PEM", STR("-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n"), &e));
    assert_redacted(&r, "  MIIEvQIBADANBg", "  [secret PEM]");
    assert_redacted(&r, "short", "short");
    redactor_free(&r);
}

static void what_is_too_short_is_refused(void **state)
{
    (void)state;
    struct redactor r = {0};
    struct err e = {0};
    assert_false(redactor_add(&r, "PIN", STR("1234"), &e));
    assert_non_null(strstr(e.msg, "the secret PIN has 4 bytes; at least 6"));
    redactor_free(&r);
    char line[] = "1234 stays";
    redact_line(&r, line, sizeof line);
    assert_string_equal(line, "1234 stays");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_text_is_found_wherever_it_stands),
        cmocka_unit_test(base64_is_found_at_every_alignment),
        cmocka_unit_test(hex_is_found),
        cmocka_unit_test(spelled_bytes_are_found),
        cmocka_unit_test(folded_and_dumped_text_is_found),
        cmocka_unit_test(halves_at_a_cut_go),
        cmocka_unit_test(lines_of_a_key_file_are_secrets_too),
        cmocka_unit_test(what_is_too_short_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
