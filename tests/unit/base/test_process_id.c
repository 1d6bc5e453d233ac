// Names of processes: alive, gone, and a number that another process took over.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/process_id.h"

static void a_process_lives_until_it_ends(void **state)
{
    (void)state;
    int hold[2];
    assert_int_equal(pipe(hold), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char c;
        prctl(PR_SET_NAME, "a ) b (c"); // field 2 may hold anything
        close(hold[1]);
        if (read(hold[0], &c, 1) < 0) _exit(1);
        _exit(0);
    }
    struct buf id = {0}, self = {0};
    assert_true(process_id_of(pid, &id));
    assert_true(process_id_lives(buf_view(&id)));
    assert_true(process_id_of(getpid(), &self));
    assert_false(str_eq(buf_view(&id), buf_view(&self)));
    close(hold[0]);
    close(hold[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(process_id_lives(buf_view(&id)));
    buf_free(&id);
    buf_free(&self);
}

// The start time is the kernel's own, in ticks: "PID:START:BOOT" is checked against `stat`.
static void the_name_is_that_of_proc(void **state)
{
    (void)state;
    struct buf id = {0};
    char line[1024] = "", want[128];
    unsigned long long start = 0;
    assert_true(process_id_of(getpid(), &id));
    FILE *f = fopen("/proc/self/stat", "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    assert_int_equal(sscanf(strrchr(line, ')') + 1,
                            " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                            "%*d %*d %llu",
                            &start),
                     1);
    snprintf(want, sizeof want, "%d:%llu:", (int)getpid(), start);
    assert_true(str_starts(buf_view(&id), str_from(want)));
    buf_free(&id);
}

static void another_start_time_or_boot_is_another_process(void **state)
{
    (void)state;
    struct buf id = {0}, other = {0};
    assert_true(process_id_of(getpid(), &id));
    buf_printf(&other, "%d:1:", (int)getpid());
    assert_false(process_id_lives(buf_view(&other)));
    assert_true(process_id_lives(buf_view(&id)));
    id.p[id.n - 1] ^= 1; // of the boot's id
    assert_false(process_id_lives(buf_view(&id)));
    static const char *const broken[] = {"",
                                         ":",
                                         "x",
                                         "-1:2:3",
                                         "0:0:",
                                         "99999999999999999999:1:",
                                         "123456789012345678901234567890:1:2"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
        assert_false(process_id_lives(str_from(broken[i])));
    buf_free(&id);
    buf_free(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_lives_until_it_ends),
        cmocka_unit_test(the_name_is_that_of_proc),
        cmocka_unit_test(another_start_time_or_boot_is_another_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
