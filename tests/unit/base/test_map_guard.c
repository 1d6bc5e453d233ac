// A child maps a file, cuts it and reads behind the end.
#include "base/map_guard.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

enum { BYTES = 1 << 20 };

// Status of a child that reads byte `at` of a file cut to `left` bytes; its standard error into out.
static int read_cut(size_t left, size_t at, bool guarded, char *out, size_t n)
{
    char path[] = "/tmp/submind-map-XXXXXX";
    int fd = mkstemp(path), pipe_fds[2], status;
    assert_true(fd >= 0 && ftruncate(fd, BYTES) == 0 && pipe(pipe_fds) == 0);
    const pid_t child = fork();
    if (child == 0) {
        struct file_map m;
        dup2(pipe_fds[1], STDERR_FILENO);
        if (!file_map(&m, path, NULL)) _exit(9);
        if (!guarded) map_guard_remove(m.p);
        map_guard_install();
        if (ftruncate(fd, (off_t)left) != 0) _exit(9);
        _exit(*(volatile const unsigned char *)(m.p + at) == 0 ? 0 : 9);
    }
    close(pipe_fds[1]);
    size_t have = 0;
    for (ssize_t got; (got = read(pipe_fds[0], out + have, n - 1 - have)) > 0;) have += (size_t)got;
    out[have] = '\0';
    waitpid(child, &status, 0);
    close(pipe_fds[0]);
    close(fd);
    unlink(path);
    return status;
}

static void names_the_file_and_the_place(void **state)
{
    char said[2048];
    (void)state;
    int status = read_cut(4096, 8192 + 5, true, said, sizeof said);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(said, "/tmp/submind-map-"));
    assert_non_null(strstr(said, "at byte 8197 of 1048576"));
}

static void leaves_others_alone(void **state)
{
    char said[2048];
    (void)state;
    int status = read_cut(BYTES, 8192, true, said, sizeof said); // nothing was cut
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0 && said[0] == '\0');
    status = read_cut(4096, 8192, false, said, sizeof said); // not ours
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_the_file_and_the_place),
        cmocka_unit_test(leaves_others_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
