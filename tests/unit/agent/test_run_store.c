// Records: what is written is read back, a killed process leaves a true record, many write at once.
#include <pthread.h>
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
#include <jansson.h>

#include "agent/run_history.h"
#include "agent/run_record.h"
#include "base/clock.h"

static char dir[64];

// SQLite's syncs come here: the program's own symbols stand before the C library's. How much of the
// log is on the disk is how long it was at its last sync.
static off_t synced_bytes;
int fdatasync(int fd)
{
    char link[40], name[300] = "";
    struct stat st;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, name, sizeof name - 1);
    bool is_log = n > 4 && strcmp(name + n - 4, "-wal") == 0;
    if (is_log && fstat(fd, &st) == 0) synced_bytes = st.st_size;
    return 0;
}
int fsync(int fd)
{
    return fdatasync(fd);
}

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/submind-rs-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static struct run_start start_of(const char *id, const char *name)
{
    return (struct run_start){.id = id,
                              .name = name,
                              .workspace = "/w",
                              .definition_hash = "h",
                              .cause = "hand",
                              .task = STR("look"),
                              .inputs = STR("{\"a\":\"b\"}"),
                              .attempt = 1};
}

static struct run_store open_store(void)
{
    struct run_store s = {0};
    struct err e = {0};
    if (!run_store_open(&s, dir, &e)) fail_msg("%s", e.msg);
    return s;
}

static json_t *whole(struct run_store *s, const char *id)
{
    struct buf text = {0};
    struct err e = {0};
    if (!run_history_json(s, id, true, &text, &e)) fail_msg("%s", e.msg);
    json_error_t where;
    json_t *v = json_loadb(text.p, text.n, JSON_ALLOW_NUL, &where);
    if (v == NULL) fail_msg("%s in %s", where.text, text.p);
    buf_free(&text);
    return v;
}

static const char *text_at(json_t *v, const char *key)
{
    const char *z = json_string_value(json_object_get(v, key));
    return z != NULL ? z : "";
}

static void write_whole_run(struct run_store *s, const char *id)
{
    struct err e = {0};
    struct run_start start = start_of(id, "look");
    struct run_turn turns[2] = {{.prompt_tokens = 100,
                                 .cached_tokens = 60,
                                 .prefilled_tokens = 40,
                                 .completion_tokens = 10,
                                 .ttft_ms = 5,
                                 .gen_tps = 100},
                                {.prompt_tokens = 120,
                                 .cached_tokens = 100,
                                 .prefilled_tokens = 20,
                                 .completion_tokens = 30,
                                 .ttft_ms = 6,
                                 .gen_tps = 50}};
    struct run_call call = {.failed = true, .has_exit_code = true, .exit_code = 3, .ms = 12};
    buf_z(&call.detail, "systemctl is-active x");
    buf_put(&call.output, "in\0active \xff", 11);
    struct run_end end = {
        .outcome = "done", .stage = STR("answer"), .report = STR("It is \"off\"."), .total_ms = 44};
    bool ok =
        run_store_start(s, &start, &e) && run_store_bootstrap(s, id, STR("You help."), &e) &&
        run_store_stage(s, id, 0, STR("queue"), &e) &&
        run_store_stage(s, id, 1, STR("prefill 1 of 2 tokens"), &e) &&
        run_store_stage(s, id, 1, STR("prefill 2 of 2 tokens"), &e) &&
        run_store_turn(s, id, 0, &turns[0], &e) &&
        run_store_transcript(s, id, 0, STR(",{\"role\":\"user\",\"content\":\"look\"}"), &e) &&
        run_store_call_begin(s, id, 0, STR("exec"), STR("{}"), &e) &&
        run_store_call_end(s, id, 0, &call, &e) && run_store_turn(s, id, 1, &turns[1], &e) &&
        run_store_transcript(s, id, 1, STR(",{\"role\":\"assistant\"}"), &e) &&
        run_store_end(s, id, &end, &e);
    if (!ok) fail_msg("%s", e.msg);
    buf_free(&call.detail);
    buf_free(&call.output);
}

static void a_run_is_read_back_whole(void **state)
{
    (void)state;
    struct run_store s = open_store();
    write_whole_run(&s, "20241124-010203-0000aaaa");
    json_t *v = whole(&s, "20241124-010203-0000aaaa");
    assert_string_equal(text_at(v, "outcome"), "done");
    assert_string_equal(text_at(v, "report"), "It is \"off\".");
    assert_string_equal(text_at(v, "bootstrap"), "You help.");
    assert_string_equal(text_at(json_object_get(v, "inputs"), "a"), "b");
    assert_int_equal(json_integer_value(json_object_get(v, "prompt_tokens")), 100);
    assert_int_equal(json_integer_value(json_object_get(v, "prefilled_tokens")), 60);
    assert_int_equal(json_integer_value(json_object_get(v, "completion_tokens")), 40);
    // 10 tokens at 100/s and 30 at 50/s: 40 in 0.7 s
    double tps = json_real_value(json_object_get(v, "gen_tps"));
    assert_true(tps > 57.14 && tps < 57.15);
    json_t *stages = json_object_get(v, "stages");
    assert_int_equal(json_array_size(stages), 2);
    assert_string_equal(text_at(json_array_get(stages, 1), "stage"), "prefill 2 of 2 tokens");
    json_t *call = json_array_get(json_object_get(v, "tool_calls"), 0);
    assert_string_equal(text_at(call, "outcome"), "failed");
    assert_int_equal(json_integer_value(json_object_get(call, "exit_code")), 3);
    assert_int_equal(json_array_size(json_object_get(v, "messages")), 2);
    json_decref(v);
    run_store_close(&s);
}

static void a_run_is_found_by_either_end_of_its_id(void **state)
{
    (void)state;
    struct run_store s = open_store();
    struct buf id = {0};
    struct err e = {0};
    write_whole_run(&s, "20241124-010203-0000aaaa");
    write_whole_run(&s, "20241124-010204-0000bbbb");
    assert_true(run_history_find(&s, "0000bbbb", &id, &e));
    assert_string_equal(buf_cstr(&id), "20241124-010204-0000bbbb");
    assert_true(run_history_find(&s, "20241124-010203", &id, &e));
    assert_string_equal(buf_cstr(&id), "20241124-010203-0000aaaa");
    assert_true(run_history_find(&s, "last", &id, &e));
    assert_string_equal(buf_cstr(&id), "20241124-010204-0000bbbb");
    assert_false(run_history_find(&s, "20241124", &id, &e));
    assert_non_null(strstr(e.msg, "several"));
    e = (struct err){0};
    assert_false(run_history_find(&s, "%", &id, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    buf_free(&id);
    run_store_close(&s);
}

static bool count_row(void *arg, const struct run_row *r)
{
    (void)r;
    ++*(size_t *)arg;
    return true;
}

static size_t count(struct run_store *s, struct run_filter f)
{
    size_t n = 0;
    struct err e = {0};
    assert_true(run_history_list(s, &f, count_row, &n, &e));
    return n;
}

// A process is killed while it writes as fast as it can; whatever it left is true and readable.
static void a_killed_run_is_marked_interrupted_where_it_was(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 12; round++) {
        char id[40];
        snprintf(id, sizeof id, "run-%u", round);
        int told[2];
        assert_int_equal(pipe(told), 0);
        pid_t pid = fork();
        if (pid == 0) {
            struct run_store s = {0};
            struct err e = {0};
            struct run_start start = start_of(id, "look");
            char c = 0;
            if (!run_store_open(&s, dir, &e) || !run_store_start(&s, &start, &e)) _exit(1);
            if (write(told[1], &c, 1) != 1) _exit(1);
            for (uint32_t n = 0;; n++) {
                run_store_stage(&s, id, n, STR("prefill 7 of 9 tokens"), &e);
                run_store_call_begin(&s, id, n, STR("exec"), STR("{}"), &e);
            }
        }
        char c;
        assert_int_equal(read(told[0], &c, 1), 1);
        clock_sleep_ms(round);
        struct run_store before = open_store(); // it still runs: nothing is marked
        assert_int_equal(count(&before, (struct run_filter){.running = true}), 1);
        run_store_close(&before);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        close(told[0]);
        close(told[1]);
        struct run_store s = open_store();
        assert_int_equal(count(&s, (struct run_filter){.running = true}), 0);
        json_t *v = whole(&s, id);
        assert_string_equal(text_at(v, "outcome"), "interrupted");
        size_t n_stages = json_array_size(json_object_get(v, "stages"));
        assert_non_null(strstr(text_at(v, "reason"),
                               n_stages > 0 ? "(in prefill 7 of 9 tokens)" : "(in start)"));
        json_decref(v);
        run_store_close(&s);
    }
}

static void many_processes_write_at_once(void **state)
{
    (void)state;
    enum { PROCESSES = 8, RUNS = 10 };
    pid_t pids[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) {
        pids[p] = fork();
        if (pids[p] != 0) continue;
        struct run_store s = {0};
        struct err e = {0};
        if (!run_store_open(&s, dir, &e)) _exit(1);
        for (int i = 0; i < RUNS; i++) {
            char id[40];
            snprintf(id, sizeof id, "p%d-%d", p, i);
            write_whole_run(&s, id);
            if (!run_store_prune(&s, "look", 1000, 1, &e)) _exit(2);
        }
        run_store_close(&s);
        _exit(0);
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status = -1;
        assert_int_equal(waitpid(pids[p], &status, 0), pids[p]);
        assert_int_equal(status, 0);
    }
    struct run_store s = open_store();
    assert_int_equal(count(&s, (struct run_filter){.name = "look"}), PROCESSES * RUNS);
    run_store_close(&s);
}

struct writer {
    pthread_t thread;
    pthread_barrier_t *start;
    const char *dir;
    int number;
    struct err e;
    bool ok;
};

static void *write_in_thread(void *arg)
{
    struct writer *w = arg;
    w->ok = true;
    for (int i = 0; w->ok && i < 4; i++) {
        char id[40];
        struct run_store s = {0};
        snprintf(id, sizeof id, "t%d-%d", w->number, i);
        struct run_start start = start_of(id, "look");
        struct run_end end = {.outcome = "done"};
        if (i == 0) pthread_barrier_wait(w->start);
        w->ok = run_store_open(&s, w->dir, &w->e) && run_store_start(&s, &start, &w->e) &&
                run_store_bootstrap(&s, id, STR("You help."), &w->e) &&
                run_store_end(&s, id, &end, &w->e);
        run_store_close(&s);
    }
    return NULL;
}

// Starts them together; false with the first problem in *e.
static bool write_in_threads(const char *where, int base, struct err *e)
{
    enum { THREADS = 6 };
    struct writer writers[THREADS] = {0};
    pthread_barrier_t start;
    bool ok = pthread_barrier_init(&start, NULL, THREADS) == 0;
    for (int i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){.start = &start, .dir = where, .number = base + i};
        ok = pthread_create(&writers[i].thread, NULL, write_in_thread, &writers[i]) == 0 && ok;
    }
    for (int i = 0; i < THREADS; i++) pthread_join(writers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) {
        if (!writers[i].ok) *e = writers[i].e;
        ok = ok && writers[i].ok;
    }
    pthread_barrier_destroy(&start);
    return ok;
}

// Threads of two processes that each open and close the file, from its making on. A lock belongs to
// the process: when one thread opened and closed the file by itself, the locks of the others were
// gone, and the other process wrote at the same time ("disk I/O error").
static void threads_of_two_processes_write(void **state)
{
    (void)state;
    enum { ROUNDS = 15 };
    for (int round = 0; round < ROUNDS; round++) {
        char fresh[80];
        int status = -1;
        struct err e = {0};
        snprintf(fresh, sizeof fresh, "%s/%d", dir, round);
        pid_t pid = fork();
        if (pid == 0) _exit(write_in_threads(fresh, 100, &e) ? 0 : 1);
        bool ok = write_in_threads(fresh, 0, &e);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!ok) fail_msg("round %d: %s", round, e.msg);
        assert_int_equal(status, 0);
        struct run_store s = {0};
        assert_true(run_store_open(&s, fresh, &e));
        assert_int_equal(count(&s, (struct run_filter){.name = "look"}), 2 * 6 * 4);
        run_store_close(&s);
    }
}

static void old_runs_go_and_running_ones_stay(void **state)
{
    (void)state;
    struct run_store s = open_store();
    struct err e = {0};
    char id[40];
    struct run_start other = start_of("other", "other"), running = start_of("running", "look");
    struct run_end end = {.outcome = RUN_SKIPPED};
    assert_true(run_store_start(&s, &running, &e)); // the oldest
    assert_true(run_store_start(&s, &other, &e) && run_store_end(&s, "other", &end, &e));
    for (int i = 0; i < 6; i++) {
        snprintf(id, sizeof id, "r%d", i);
        write_whole_run(&s, id);
    }
    assert_true(run_store_prune(&s, "look", 3, 0, &e));
    assert_int_equal(count(&s, (struct run_filter){.name = "other"}), 1);
    assert_int_equal(count(&s, (struct run_filter){.name = "look"}), 4);
    assert_int_equal(count(&s, (struct run_filter){.id = "running"}), 1);
    assert_int_equal(count(&s, (struct run_filter){.id = "r5"}), 1);
    assert_int_equal(count(&s, (struct run_filter){.id = "r2"}), 0);
    assert_int_equal(count(&s, (struct run_filter){.limit = 2}), 2);
    json_t *v = whole(&s, "r5"); // the bootstrap that is still in use is kept
    assert_string_equal(text_at(v, "bootstrap"), "You help.");
    json_decref(v);
    run_store_close(&s);
}

static unsigned full_scan_steps;
static int count_steps(unsigned kind, void *arg, void *statement, void *time)
{
    (void)kind;
    (void)arg;
    (void)time;
    full_scan_steps += (unsigned)sqlite3_stmt_status(statement, SQLITE_STMTSTATUS_FULLSCAN_STEP, 1);
    return 0;
}

static bool any_row(void *arg, const struct run_row *r)
{
    (void)arg;
    (void)r;
    return true;
}

// What every run does must not cost more the more runs are kept.
static void many_records_slow_nothing_down(void **state)
{
    (void)state;
    struct run_store s = open_store();
    struct err e = {0};
    write_whole_run(&s, "first");
    assert_true(database_script(
        &s.db,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<2000) "
        "INSERT INTO runs(id,name,workspace,started_ms,outcome,bootstrap) SELECT 'x'||i, "
        "'chore'||(i%20), '/w', 1000+i, 'done', (SELECT hash FROM bootstraps) FROM n;"
        "INSERT INTO turns SELECT id,0,1,1,1,1,1,1,1 FROM runs WHERE id LIKE 'x%'",
        &e));
    sqlite3_trace_v2(s.db.db, SQLITE_TRACE_PROFILE, count_steps, NULL);
    full_scan_steps = 0;
    write_whole_run(&s, "second");
    assert_true(run_store_prune(&s, "look", 1, 0, &e));
    assert_true(run_store_sweep(&s, &e));
    struct run_filter asks[] = {{.limit = 20}, {.id = "x7"}, {.name = "look"}, {.running = true}};
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++)
        assert_true(run_history_list(&s, &asks[i], any_row, NULL, &e));
    assert_in_range(full_scan_steps, 0, 100);
    assert_int_equal(count(&s, (struct run_filter){.name = "look"}), 1);
    assert_int_equal(count(&s, (struct run_filter){.name = "chore3"}), 100);
    run_store_close(&s);
}

static void a_file_of_the_first_version_is_taken_over(void **state)
{
    (void)state;
    struct run_store s = open_store();
    struct err e = {0};
    write_whole_run(&s, "old");
    assert_true(database_script(&s.db, "DROP INDEX runs_by_bootstrap; PRAGMA user_version=1", &e));
    run_store_close(&s);
    assert_true(run_store_open(&s, dir, &e));
    assert_int_equal(count(&s, (struct run_filter){.id = "old"}), 1);
    assert_true(database_script(&s.db, "DROP INDEX runs_by_bootstrap", &e)); // it was made
    run_store_close(&s);
}

static void a_file_that_is_no_database_is_told(void **state)
{
    (void)state;
    char path[128];
    struct run_store s = {0};
    struct err e = {0};
    struct stat st;
    s = open_store();
    assert_int_equal(stat(s.db.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(database_script(&s.db, "PRAGMA user_version=99", &e));
    run_store_close(&s);
    assert_false(run_store_open(&s, dir, &e));
    assert_non_null(strstr(e.msg, "newer submind"));
    snprintf(path, sizeof path, "%s/runs.db-wal", dir); // it stays, and holds good pages
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/runs.db", dir);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 400; i++) fputs("this is no database", f);
    fclose(f);
    e = (struct err){0};
    assert_false(run_store_open(&s, dir, &e));
    assert_non_null(strstr(e.msg, "move it away, with the files -wal"));
}

// ---- the record of a run that goes on -------------------------------------------------------

static void hide(const void *arg, struct buf *text)
{
    const char *secret = arg;
    for (char *p; (p = strstr(buf_cstr(text), secret)) != NULL;) memset(p, '*', strlen(secret));
}

static void count_status(void *arg, const struct chat_status *s)
{
    (void)s;
    ++*(size_t *)arg;
}

static void secrets_never_reach_the_file(void **state)
{
    (void)state;
    struct run_store s = open_store();
    struct run_record r;
    size_t shown = 0;
    struct run_redact redact = {hide, "hunter2"};
    struct run_view view = {.arg = &shown, .on_status = count_status};
    struct run_start start = start_of("r", "look");
    start.task = STR("say hunter2");
    run_record_init(&r, &s, "r", view);
    run_record_start(&r, &start); // the secrets are not known yet
    run_record_describe(&r, redact, &start, STR("key hunter2"));
    struct run_view v = run_record_view(&r);
    struct chat_status status = {.stage = CHAT_PREFILL,
                                 .progress = {.known = true, .total = 9, .processed = 3}};
    v.on_status(v.arg, &status);
    v.on_status(v.arg, &status);
    v.on_call(v.arg, STR("exec"), STR("{\"command\":\"echo hunter2\"}"));
    struct run_call call = {.ms = 1};
    struct run_result result = {.outcome = RUN_FAILED};
    struct err *why = &result.error;
    buf_z(&call.output, "hunter2");
    v.on_result(v.arg, &call);
    v.on_transcript(v.arg, STR(",{\"content\":\"hunter2\"}"));
    buf_z(&result.report, "it is hunter2");
    err_set(why, ERR_INTERNAL, "hunter2 was wrong");
    run_record_end(&r, &result, 1);
    assert_int_equal(shown, 2); // what shows the run gets it all
    json_t *json = whole(&s, "r");
    char *text = json_dumps(json, 0);
    assert_null(strstr(text, "hunter2"));
    assert_non_null(strstr(text, "it is *******"));
    assert_string_equal(text_at(json, "task"), "say *******");
    assert_int_equal(json_array_size(json_object_get(json, "stages")), 4);
    free(text);
    json_decref(json);
    buf_free(&call.output);
    run_result_free(&result);
    run_store_close(&s);
}

// What a power cut leaves: the file as it is (nothing was written back), the log up to its last
// sync.
static json_t *after_a_power_cut(const char *before, const char *id)
{
    char command[700], there[80];
    snprintf(there, sizeof there, "%s/cut", dir);
    snprintf(command, sizeof command,
             "rm -rf %s && mkdir -m 700 %s && cp %s/runs.db %s && head -c %lld %s/runs.db-wal > "
             "%s/runs.db-wal",
             there, there, before, there, (long long)synced_bytes, before, there);
    assert_int_equal(system(command), 0);
    struct run_store s = {0};
    struct err e = {0};
    if (!run_store_open(&s, there, &e)) fail_msg("%s", e.msg);
    json_t *json = whole(&s, id);
    run_store_close(&s);
    return json;
}

static void a_power_cut_forgets_neither_what_was_begun_nor_what_was_told(void **state)
{
    (void)state;
    char before[80];
    struct run_store s = {0};
    struct run_record r;
    struct run_start start = start_of("cut", "look");
    struct run_result result = {.outcome = RUN_DONE};
    struct err e = {0};
    snprintf(before, sizeof before, "%s/before", dir); // its log is new, so that its length tells
    if (!run_store_open(&s, before, &e)) fail_msg("%s", e.msg);
    synced_bytes = 0;
    run_record_init(&r, &s, "cut", (struct run_view){0});
    run_record_start(&r, &start);
    run_record_describe(&r, (struct run_redact){0}, &start, STR("x"));
    struct run_view v = run_record_view(&r);
    v.on_call(v.arg, STR("exec"), STR("{\"command\":\"renew\"}"));
    off_t at_call = synced_bytes;
    json_t *json = after_a_power_cut(before, "cut");
    assert_string_equal(text_at(json, "outcome"), RUN_RUNNING);
    json_t *call = json_array_get(json_object_get(json, "tool_calls"), 0);
    assert_string_equal(text_at(call, "outcome"), RUN_RUNNING);
    json_decref(json);
    v.on_result(v.arg, &(struct run_call){0});
    v.on_transcript(v.arg, STR("{}"));
    assert_int_equal(synced_bytes, at_call); // these may lag behind
    run_record_end(&r, &result, 0);
    json = after_a_power_cut(before, "cut");
    assert_string_equal(text_at(json, "outcome"), "done");
    json_decref(json);
    run_store_close(&s);
}

static void without_a_store_everything_is_still_shown(void **state)
{
    (void)state;
    struct run_record r;
    size_t shown = 0;
    struct run_view view = {.arg = &shown, .on_status = count_status};
    struct run_start start = start_of("r", "look");
    struct chat_status status = {.stage = CHAT_QUEUE};
    run_record_init(&r, NULL, "r", view);
    run_record_start(&r, &start);
    run_record_describe(&r, (struct run_redact){0}, &start, STR("x"));
    struct run_view v = run_record_view(&r);
    v.on_status(v.arg, &status);
    v.on_call(v.arg, STR("exec"), STR("{}"));
    v.on_result(v.arg, &(struct run_call){0});
    v.on_transcript(v.arg, STR("x"));
    assert_int_equal(shown, 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(a_run_is_read_back_whole),
        TEST(a_run_is_found_by_either_end_of_its_id),
        TEST(a_killed_run_is_marked_interrupted_where_it_was),
        TEST(many_processes_write_at_once),
        TEST(threads_of_two_processes_write),
        TEST(old_runs_go_and_running_ones_stay),
        TEST(many_records_slow_nothing_down),
        TEST(a_file_of_the_first_version_is_taken_over),
        TEST(a_file_that_is_no_database_is_told),
        TEST(secrets_never_reach_the_file),
        TEST(without_a_store_everything_is_still_shown),
        TEST(a_power_cut_forgets_neither_what_was_begun_nor_what_was_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
