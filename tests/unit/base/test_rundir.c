// Private folders and locks between processes.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rundir.h"

static char dir[64];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/submind-rd-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void a_folder_is_made_private_and_checked(void **state)
{
    (void)state;
    char path[128], link[128];
    struct err e = {0};
    struct stat st;
    snprintf(path, sizeof path, "%s/a", dir);
    snprintf(link, sizeof link, "%s/link", dir);
    assert_true(rundir_make(path, &e));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_true(rundir_make(path, &e)); // again is fine
    chmod(path, 0755);
    assert_false(rundir_make(path, &e));
    assert_int_equal(e.code, ERR_DENIED);
    assert_non_null(strstr(e.msg, "755"));
    chmod(path, 0700);
    assert_int_equal(symlink(path, link), 0); // somebody else may have put it there
    e = (struct err){0};
    assert_false(rundir_make(link, &e));
    assert_int_equal(e.code, ERR_DENIED);
    e = (struct err){0};
    assert_false(rundir_make("/no/such/parent/x", &e));
    assert_int_equal(e.code, ERR_IO);
}

static void the_default_prefers_the_systems_folder(void **state)
{
    (void)state;
    struct buf b = {0};
    char want[128];
    snprintf(want, sizeof want, "%s/submind", dir);
    rundir_default(dir, &b);
    assert_string_equal(buf_cstr(&b), want);
    buf_clear(&b);
    rundir_default("/no/such/folder", &b); // not there: never used
    assert_null(strstr(buf_cstr(&b), "no/such"));
    assert_true(b.p[0] == '/');
    buf_free(&b);
}

static void a_lock_keeps_others_out_until_its_owner_ends(void **state)
{
    (void)state;
    char path[128];
    struct err e = {0};
    int fd = -1, second = -1, ready[2], status;
    snprintf(path, sizeof path, "%s/lock", dir);
    assert_int_equal(rundir_lock(path, &fd, &e), LOCK_TAKEN);
    assert_int_equal(rundir_lock(path, &second, &e), LOCK_BUSY);
    rundir_unlock(fd);
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) { // another process takes it and dies with it
        char c = rundir_lock(path, &fd, &e) == LOCK_TAKEN ? 'y' : 'n';
        if (write(ready[1], &c, 1) != 1) _exit(1);
        pause();
        _exit(0);
    }
    char c = 0;
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    assert_int_equal(rundir_lock(path, &second, &e), LOCK_BUSY);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    assert_int_equal(rundir_lock(path, &second, &e), LOCK_TAKEN);
    rundir_unlock(second);
    close(ready[0]);
    close(ready[1]);
    e = (struct err){0};
    assert_int_equal(rundir_lock("/no/such/folder/lock", &fd, &e), LOCK_FAILED);
    assert_int_equal(e.code, ERR_IO);
}

static void our_own_file_is_found(void **state)
{
    (void)state;
    struct buf path = {0};
    struct err e = {0};
    struct stat a, b;
    uint64_t identity = 0;
    assert_true(rundir_self(&path, &identity, &e));
    assert_int_equal(stat(buf_cstr(&path), &a), 0);
    assert_int_equal(stat("/proc/self/exe", &b), 0);
    assert_true(a.st_ino == b.st_ino);
    assert_true(identity != 0);
    buf_free(&path);
}

static void folders_above_are_made_too(void **state)
{
    (void)state;
    char path[160];
    struct err e = {0};
    struct stat st;
    snprintf(path, sizeof path, "%s/a/b/c", dir);
    assert_true(rundir_make_all(path, &e));
    assert_true(rundir_make_all(path, &e)); // again
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    snprintf(path, sizeof path, "%s/file", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    snprintf(path, sizeof path, "%s/file/b", dir);
    assert_false(rundir_make_all(path, &e));
    assert_non_null(strstr(e.msg, "/file/b"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_folder_is_made_private_and_checked, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(the_default_prefers_the_systems_folder, make_dir,
                                        remove_dir),
        cmocka_unit_test_setup_teardown(a_lock_keeps_others_out_until_its_owner_ends, make_dir,
                                        remove_dir),
        cmocka_unit_test(our_own_file_is_found),
        cmocka_unit_test_setup_teardown(folders_above_are_made_too, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
