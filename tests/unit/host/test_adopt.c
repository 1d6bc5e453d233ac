// host/adopt: llama-server units as people write them. What each must become follows from systemd's, podman's
// and the shell's own documentation.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/adopt.h"

static struct arena arena;
static char folder[64];

static bool read_unit(const char *text, struct adopt *a, struct err *e)
{
    static const struct adopt_place place = {"llama@qwen3.service", false, "/home/ada", "/run/u"};
    struct unit_file u;
    assert_true(unit_parse(&u, str_from(text), &arena, e));
    return adopt_read(a, &u, &place, &arena, e);
}

static void adopted(const char *text, struct adopt *a)
{
    struct err e = {0};
    if (!read_unit(text, a, &e)) fail_msg("%s", e.msg);
}

static void has(const struct adopt *a, const char *flag, const char *value)
{
    const char *found = cmdline_flag(&a->plan.words, flag);
    if (found == NULL) fail_msg("no --%s", flag);
    assert_string_equal(found, value);
}

static bool lost(const struct adopt *a, const char *text)
{
    for (size_t i = 0; i < a->n_lost; i++)
        if (str_find(a->lost[i], str_from(text), 0) != SIZE_MAX) return true;
    return false;
}

static const char *write_file(const char *name, const char *text)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static void a_direct_unit(void **state)
{
    (void)state;
    struct adopt a;
    char text[2048];
    snprintf(text, sizeof text,
             "[Unit]\nAfter=network-online.target\nRequiresMountsFor=/mnt/m\n[Service]\n"
             "User=ada\nWorkingDirectory=/srv/llama\nEnvironmentFile=%s\n"
             "EnvironmentFile=-/nowhere/at/all\n"
             "Environment=\"EXTRA=--temp 0.6 --top-p 0.95\" HSA_ENABLE_SDMA=0\n"
             "ExecStartPre=/usr/bin/sleep 2\n"
             "ExecStart=/opt/llama.cpp/build/bin/llama-server \\\n  --model models/q.gguf \\\n"
             "  # the context\n  --ctx-size ${CTX} --port $PORT \\\n  $EXTRA -fa 1 \\\n"
             "  --api-key 'sk-a b' --alias \"Qwen3 32B\"\nNice=5\nLimitMEMLOCK=infinity\n",
             write_file("env", "# sizes\nCTX=65536\nPORT=\"8081\"\nLLAMA_ARG_N_PARALLEL=\\\n4\n"));
    adopted(text, &a);
    has(&a, "model", "/srv/llama/models/q.gguf");
    has(&a, "ctx", "65536");
    has(&a, "port", "8081");
    has(&a, "temperature", "0.6");
    has(&a, "top-p", "0.95");
    has(&a, "parallel", "4");
    has(&a, "alias", "Qwen3 32B");
    assert_true(str_eq(a.plan.api_key, STR("sk-a b\n")));
    assert_string_equal(a.user, "ada");
    assert_int_equal(a.via, VIA_NOTHING);
    static const char *const gone[] = {"HSA_ENABLE_SDMA=0", "Nice=5", "ExecStartPre",
                                       "RequiresMountsFor"};
    for (size_t i = 0; i < 4; i++) assert_true(lost(&a, gone[i]));
    static const char *const here[] = {"EXTRA", "CTX", "network-online", "LimitMEMLOCK"};
    for (size_t i = 0; i < 4; i++) assert_false(lost(&a, here[i]));
}

static void a_container(void **state)
{
    (void)state;
    struct adopt a;
    char text[2048];
    snprintf(text, sizeof text,
             "[Service]\nEnvironment=LLAMA_ARG_CTX_SIZE=1\n"
             "ExecStartPre=-/usr/bin/podman rm -f llama\n"
             "ExecStart=/usr/bin/podman run --rm --name llama --env LLAMA_ARG_CTX_SIZE=65536 "
             "-e LLAMA_ARG_MODEL=/models/deep/q.gguf --env-file %s "
             "--mount type=bind,src=/srv/models,dst=/models,ro -v /fast:/models/deep "
             "--publish=9090:8080/tcp ghcr.io/ggml-org/llama.cpp:server-rocm\n",
             write_file("pod", "LLAMA_ARG_HOST=0.0.0.0\n"));
    adopted(text, &a);
    has(&a, "model", "/fast/q.gguf"); // the innermost mount
    has(&a, "ctx", "65536");          // the container's own variable, not the unit's
    has(&a, "port", "9090");
    has(&a, "host", "0.0.0.0"); // podman published it for everybody
    assert_true(cmdline_has(&a.plan.words, "--allow-public-without-key"));
    assert_string_equal(a.container, "ghcr.io/ggml-org/llama.cpp:server-rocm");
    assert_false(lost(&a, "podman rm"));
    adopted("[Service]\nExecStart=podman run -p 127.0.0.1:9091:8080 --network x img:1 llama-server "
            "--host 0.0.0.0 -m /inside/q.gguf\n",
            &a);
    has(&a, "host", "127.0.0.1");
    has(&a, "port", "9091");
    assert_false(cmdline_has(&a.plan.words, "--allow-public-without-key"));
    assert_string_equal(a.container, "img:1");
    assert_true(lost(&a, "/inside/q.gguf")); // no volume has it
    adopted(
        "[Service]\nExecStart=podman run -v /srv/m:/m:ro -p 127.0.0.1:9092:8080/tcp --entrypoint "
        "/app/llama-server docker.io/kyuz0/boxes:rocm-7.14 -m /m/q.gguf\n",
        &a);
    has(&a, "model", "/srv/m/q.gguf");
    has(&a, "port", "9092");
    assert_string_equal(a.container, "docker.io/kyuz0/boxes:rocm-7.14");
    adopted("[Service]\nExecStart=podman run -v /srv/m:/m --entrypoint=llama-server "
            "docker.io/kyuz0/boxes:rocm-7.14 -m /m/q.gguf\n",
            &a);
    has(&a, "model", "/srv/m/q.gguf");
}

static void boxes(void **state)
{
    (void)state;
    struct adopt a;
    adopted("[Service]\nExecStart=/usr/bin/toolbox run -c llama-rocm-7.2 -- llama-server "
            "-m /run/host/srv/q.gguf -c 65536\n",
            &a);
    assert_int_equal(a.via, VIA_TOOLBOX);
    assert_string_equal(a.container, "llama-rocm-7.2");
    has(&a, "model", "/srv/q.gguf");
    adopted("[Service]\nExecStart=/usr/bin/distrobox enter llama -- llama-server -m /q.gguf\n", &a);
    assert_int_equal(a.via, VIA_DISTROBOX);
    assert_string_equal(a.container, "llama");
    adopted("[Service]\nExecStart=/usr/bin/env LLAMA_ARG_PORT=8082 nice -n 5 llama-server -m "
            "/models/%i.gguf\n",
            &a);
    has(&a, "port", "8082");
    has(&a, "model", "/models/qwen3.gguf");
    assert_true(lost(&a, "nice -n 5"));
}

static void shells(void **state)
{
    (void)state;
    struct adopt a;
    char text[1024];
    adopted("[Service]\nExecStart=/bin/bash -lc 'cd /opt && exec toolbox run -c l llama-server -m "
            "\"$HOME/a model.gguf\" -c 65536 --port 8080'\n",
            &a);
    has(&a, "model", "/home/ada/a model.gguf");
    has(&a, "port", "8080");
    assert_int_equal(a.via, VIA_TOOLBOX);
    const char *script = write_file(
        "run.sh",
        "#!/usr/bin/env bash\nset -euo pipefail\n# ours\nMODEL=\"${MODELS:-/srv}/q.gguf\"\n"
        "export ROCBLAS_USE_HIPBLASLT=1\ncd /opt/llama.cpp\nulimit -l unlimited\n"
        "exec numactl --interleave=all ./bin/llama-server \\\n  -m \"$MODEL\" -c "
        "${CTX:-65536} \\\n  --api-key-file keys.txt >> /var/log/llama.log 2>&1\n");
    snprintf(text, sizeof text, "[Service]\nEnvironment=MODELS=/big\nExecStart=%s\n", script);
    adopted(text, &a);
    has(&a, "model", "/big/q.gguf");
    has(&a, "ctx", "65536");
    has(&a, "api-key-file", "/opt/llama.cpp/keys.txt");
    static const char *const gone[] = {"ulimit", "numactl", ">> /var/log/llama.log",
                                       "ROCBLAS_USE_HIPBLASLT"};
    for (size_t i = 0; i < 4; i++) assert_true(lost(&a, gone[i]));
}

static void what_cannot_be_adopted_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *unit, *why;
    } bad[] = {
        {"[Service]\nExecStart=/usr/bin/nginx\n", "does not run llama-server"},
        {"[Service]\nExecStart=/usr/bin/llama-server --port 8080\n", "names no model"},
        {"[Service]\nExecStart=/usr/bin/llama-server -m /q.gguf --no-such\n", "--no-such"},
        {"[Service]\nEnvironmentFile=/nowhere\nExecStart=/bin/llama-server -m /q\n", "/nowhere"},
        {"[Service]\nExecStart=/bin/sh -c 'llama-server -m $(ls /m | head -1)'\n", "needs a shell"},
        {"[Service]\nExecStart=/bin/sh -c 'sleep 1; true'\n", "no command"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct adopt a;
        struct err e = {0};
        assert_false(read_unit(bad[i].unit, &a, &e));
        if (strstr(e.msg, bad[i].why) == NULL) fail_msg("%s: %s", bad[i].why, e.msg);
    }
}

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/submind-adopt-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int tidy(void **state)
{
    (void)state;
    static const char *const names[] = {"env", "pod", "run.sh"};
    char path[128];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
    arena_free(&arena);
    return 0;
}

static void of_several_ports_its_own(void **state)
{
    (void)state;
    struct adopt a;
    adopted("[Service]\nExecStart=podman run --rm -p 9100:9100 -p 127.0.0.1:8085:8080 -p 9200:9200 "
            "--memory 64g --cpus=8 -v /m:/m ghcr.io/ggml-org/llama.cpp:server -m /m/a.gguf\n",
            &a);
    has(&a, "port", "8085");
    has(&a, "host", "127.0.0.1");
    assert_true(lost(&a, "a limit of the container: 64g"));
    assert_true(lost(&a, "a limit of the container: 8"));
    adopted("[Service]\nExecStart=podman run -p 9100:9100 -p 8086:9999 -v /m:/m "
            "ghcr.io/ggml-org/llama.cpp:server -m /m/a.gguf --port 9999\n",
            &a);
    has(&a, "port", "8086");
}

// bash(1): set -- gives the arguments of "$@".
static void arguments_of_set_are_not_dropped(void **state)
{
    (void)state;
    struct adopt a;
    adopted("[Service]\nExecStart=sh -c 'set -eu; set -- -ngl 99; exec llama-server -m /m/a.gguf "
            "\"$$@\"'\n",
            &a);
    assert_true(lost(&a, "set -- -ngl 99"));
    assert_false(lost(&a, "set -eu"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_several_ports_its_own),
        cmocka_unit_test(arguments_of_set_are_not_dropped),
        cmocka_unit_test(a_direct_unit),
        cmocka_unit_test(a_container),
        cmocka_unit_test(boxes),
        cmocka_unit_test(shells),
        cmocka_unit_test(what_cannot_be_adopted_is_said),
    };
    return cmocka_run_group_tests(tests, set_up, tidy);
}
