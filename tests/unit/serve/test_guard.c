// Keys, Host names and content types, with the values an attacker would try.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "serve/guard.h"

static void keys_match_only_whole(void **state)
{
    (void)state;
    const struct str keys[] = {STR("sk-alpha"), STR("sk-beta-longer"), STR("")};
    assert_true(guard_key_ok(keys, 3, STR("sk-alpha")));
    assert_true(guard_key_ok(keys, 3, STR("sk-beta-longer")));
    const char *const wrong[] = {"",          "sk-alph",  "sk-alphaa",        "sk-alphask-alpha",
                                 "sk-beta",   "SK-ALPHA", "sk-alpha sk-beta", "sk-beta-longer ",
                                 "sk-alpha\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(guard_key_ok(keys, 3, str_from(wrong[i])));
    assert_false(guard_key_ok(NULL, 0, STR("sk-alpha")));
}

static void bearer_is_taken_apart(void **state)
{
    (void)state;
    assert_true(str_eq(guard_bearer(STR("Bearer abc")), STR("abc")));
    assert_true(str_eq(guard_bearer(STR("bearer   abc ")), STR("abc")));
    assert_int_equal(guard_bearer(STR("Basic abc")).n, 0);
    assert_int_equal(guard_bearer(STR("Bearer")).n, 0);
    assert_int_equal(guard_bearer(STR("")).n, 0);
}

static void hosts_of_this_machine_only(void **state)
{
    (void)state;
    const char *const good[] = {"localhost",   "LocalHost:8080", "127.0.0.1",  "127.0.0.1:80",
                                "127.1.2.3:9", "[::1]",          "[::1]:8080", "agent.localhost:1"};
    const char *const bad[] = {"example.com",
                               "localhost.example.com",
                               "127.0.0.1.example.com:80",
                               "10.0.0.1",
                               "notlocalhost",
                               ".localhost.",
                               "[::2]",
                               "[::1",
                               "127.0.0.1@evil",
                               "0.0.0.0:8080",
                               ""};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(guard_host_ok(str_from(good[i]), STR("")));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(guard_host_ok(str_from(bad[i]), STR("")));
    assert_true(guard_host_ok(STR("brain.lan:8080"), STR("other.lan, brain.lan")));
    assert_false(guard_host_ok(STR("brain.lan.evil"), STR("other.lan, brain.lan")));
    assert_false(guard_host_ok(STR(""), STR(",,")));
}

static void json_types(void **state)
{
    (void)state;
    assert_true(guard_is_json(STR("application/json")));
    assert_true(guard_is_json(STR("Application/JSON; charset=utf-8")));
    assert_false(guard_is_json(STR("text/plain")));
    assert_false(guard_is_json(STR("application/jsonp")));
    assert_false(guard_is_json(STR("text/plain; application/json")));
    assert_false(guard_is_json(STR("")));
}

static bool local(const char *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, address, &in.sin_addr) == 1)
        return guard_address_local((const struct sockaddr *)&in);
    assert_int_equal(inet_pton(AF_INET6, address, &in6.sin6_addr), 1);
    return guard_address_local((const struct sockaddr *)&in6);
}

static void an_address_of_this_machine_is_local(void **state)
{
    (void)state;
    assert_true(local("127.0.0.1") && local("127.9.9.9") && local("::1") &&
                local("::ffff:127.0.0.1"));
    assert_false(local("10.0.0.1") || local("128.0.0.1") || local("::2") || local("::") ||
                 local("::ffff:10.0.0.1") || local("0.0.0.0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_of_this_machine_is_local),
        cmocka_unit_test(keys_match_only_whole),
        cmocka_unit_test(bearer_is_taken_apart),
        cmocka_unit_test(hosts_of_this_machine_only),
        cmocka_unit_test(json_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
