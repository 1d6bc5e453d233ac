// What keeps it right: each function is one transaction, and the order of them is the order of what
// happened, so that whatever is in the file when a process dies is true. WAL keeps the file whole.
#include "agent/run_store.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/process_id.h"
#include "base/rundir.h"

enum { VERSION = 2, PRUNE_PAGES = 200 };

static const char schema[] =
    "CREATE TABLE bootstraps(hash TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE runs("
    " id TEXT PRIMARY KEY, name TEXT NOT NULL, workspace TEXT, definition_hash TEXT,"
    " cause TEXT, task TEXT, inputs TEXT, attempt INTEGER, first_id TEXT,"
    " bootstrap TEXT REFERENCES bootstraps(hash), process TEXT,"
    " started_ms INTEGER NOT NULL, ended_ms INTEGER, outcome TEXT NOT NULL, stage TEXT,"
    " reason TEXT, report TEXT, status TEXT, data TEXT, exit_code INTEGER, total_ms REAL,"
    " notified TEXT);"
    "CREATE INDEX runs_by_name ON runs(name, started_ms);"
    "CREATE INDEX runs_by_time ON runs(started_ms);"
    "CREATE INDEX runs_by_outcome ON runs(outcome);"
    "CREATE TABLE stages(run TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,"
    " n INTEGER, at_ms INTEGER, text TEXT, PRIMARY KEY(run, n)) WITHOUT ROWID;"
    "CREATE TABLE turns(run TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,"
    " n INTEGER, prompt_tokens INTEGER, cached_tokens INTEGER, prefilled_tokens INTEGER,"
    " completion_tokens INTEGER, ttft_ms REAL, gen_tps REAL, total_ms REAL,"
    " PRIMARY KEY(run, n)) WITHOUT ROWID;"
    "CREATE TABLE calls(run TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,"
    " n INTEGER, at_ms INTEGER, name TEXT, arguments TEXT, detail TEXT, output TEXT, log TEXT,"
    " outcome TEXT, exit_code INTEGER, strays INTEGER, ms REAL,"
    " PRIMARY KEY(run, n)) WITHOUT ROWID;"
    "CREATE TABLE transcript(run TEXT NOT NULL REFERENCES runs(id) ON DELETE CASCADE,"
    " n INTEGER, text TEXT, PRIMARY KEY(run, n)) WITHOUT ROWID;"
    "CREATE INDEX runs_by_bootstrap ON runs(bootstrap);"
    "PRAGMA user_version=2;";
// From version 1: whether a bootstrap is still in use was a look at every run.
static const char upgrade[] = "CREATE INDEX runs_by_bootstrap ON runs(bootstrap);"
                              "PRAGMA user_version=2;";

// ---- opening --------------------------------------------------------------------------------

static bool read_version(void *arg, sqlite3_stmt *row)
{
    *(int64_t *)arg = sqlite3_column_int64(row, 0);
    return false;
}

// Of two processes that open a new file at once one makes the tables; the other finds them.
static bool make_tables(struct database *d, struct err *e)
{
    int64_t version = 0;
    struct database_query ask = {"PRAGMA user_version", "", read_version, &version};
    bool ok = database_script(d, "BEGIN IMMEDIATE", e) && database_each(d, e, &ask);
    if (ok && version > VERSION)
        ok = err_set(e, ERR_UNSUPPORTED, "%.200s was written by a newer submind (%lld, not %d)",
                     d->path, (long long)version, VERSION);
    if (ok && version == 0) ok = database_script(d, schema, e);
    if (ok && version == 1) ok = database_script(d, upgrade, e);
    struct err ignored = {0};
    return database_script(d, ok ? "COMMIT" : "ROLLBACK", ok ? e : &ignored) && ok;
}

bool run_store_open(struct run_store *out, const char *dir, struct err *e)
{
    struct run_store s = {0};
    struct buf path = {0};
    int64_t version = 0;
    struct database_query ask = {"PRAGMA user_version", "", read_version, &version};
    buf_printf(&path, "%s/runs.db", dir);
    bool ok = rundir_make_all(dir, e) && database_open(&s.db, buf_cstr(&path), e) &&
              database_each(&s.db, e, &ask);
    if (ok && version != VERSION) ok = make_tables(&s.db, e);
    ok = ok && run_store_sweep(&s, e);
    buf_free(&path);
    if (ok)
        *out = s;
    else
        run_store_close(&s);
    return ok;
}

void run_store_close(struct run_store *s)
{
    database_close(&s->db);
}

// ---- runs whose process is gone -------------------------------------------------------------

static bool put_if_gone(void *arg, sqlite3_stmt *row)
{
    struct buf *gone = arg;
    if (process_id_lives(database_text(row, 1))) return true;
    buf_str(gone, database_text(row, 0));
    buf_c(gone, '\0');
    return true;
}

// "While outcome is running": its own process may have ended it in between.
bool run_store_sweep(struct run_store *s, struct err *e)
{
    struct buf gone = {0};
    struct database_query ask = {"SELECT id, process FROM runs WHERE outcome='running'", "",
                                 put_if_gone, &gone};
    bool ok = database_each(&s->db, e, &ask);
    for (size_t at = 0; ok && at < gone.n;) {
        struct str id = str_from(gone.p + at);
        ok = database_do(
            &s->db, e,
            "UPDATE runs SET outcome='interrupted', reason='its process went away (in ' || "
            "coalesce((SELECT text FROM stages WHERE run=id ORDER BY n DESC LIMIT 1),'start') || "
            "')', stage=(SELECT text FROM stages WHERE run=id ORDER BY n DESC LIMIT 1), "
            "ended_ms=coalesce((SELECT max(at_ms) FROM stages WHERE run=id), started_ms) "
            "WHERE id=?1 AND outcome='running'",
            "x", id);
        at += id.n + 1;
    }
    buf_free(&gone);
    return ok;
}

// ---- writing --------------------------------------------------------------------------------

bool run_store_start(struct run_store *s, const struct run_start *r, struct err *e)
{
    struct buf process = {0};
    process_id_of(getpid(), &process);
    bool ok = database_do(
        &s->db, e,
        "INSERT INTO runs(id,name,workspace,definition_hash,cause,task,inputs,attempt,first_id,"
        "process,started_ms,outcome) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,'running')",
        "sssssxxisxi", r->id, r->name, r->workspace, r->definition_hash, r->cause, r->task,
        r->inputs, (int64_t)r->attempt, r->first_id, buf_view(&process), clock_unix_ms());
    buf_free(&process);
    return ok;
}

bool run_store_describe(struct run_store *s, const char *id, struct str task, struct str inputs,
                        struct err *e)
{
    return database_do(&s->db, e, "UPDATE runs SET task=?2, inputs=?3 WHERE id=?1", "sxx", id, task,
                       inputs);
}

bool run_store_bootstrap(struct run_store *s, const char *id, struct str text, struct err *e)
{
    struct hash128 h = hash128(text.p, text.n, 0);
    struct buf hash = {0};
    buf_printf(&hash, "%016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
    // One transaction: between the two another process's pruning would take the text away.
    bool ok = database_script(&s->db, "BEGIN IMMEDIATE", e);
    if (ok) {
        struct err ignored = {0};
        ok = database_do(&s->db, e, "INSERT OR IGNORE INTO bootstraps(hash,text) VALUES(?1,?2)",
                         "xx", buf_view(&hash), text) &&
             database_do(&s->db, e, "UPDATE runs SET bootstrap=?2 WHERE id=?1", "sx", id,
                         buf_view(&hash));
        ok = database_script(&s->db, ok ? "COMMIT" : "ROLLBACK", ok ? e : &ignored) && ok;
    }
    buf_free(&hash);
    return ok;
}

bool run_store_stage(struct run_store *s, const char *id, uint32_t n, struct str text,
                     struct err *e)
{
    return database_do(&s->db, e,
                       "INSERT INTO stages(run,n,at_ms,text) VALUES(?1,?2,?3,?4) "
                       "ON CONFLICT(run,n) DO UPDATE SET text=?4",
                       "siix", id, (int64_t)n, clock_unix_ms(), text);
}

bool run_store_turn(struct run_store *s, const char *id, uint32_t n, const struct run_turn *t,
                    struct err *e)
{
    return database_do(&s->db, e, "INSERT INTO turns VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)",
                       "siiiiiddd", id, (int64_t)n, (int64_t)t->prompt_tokens,
                       (int64_t)t->cached_tokens, (int64_t)t->prefilled_tokens,
                       (int64_t)t->completion_tokens, t->ttft_ms, t->gen_tps, t->total_ms);
}

bool run_store_call_begin(struct run_store *s, const char *id, uint32_t n, struct str name,
                          struct str arguments, struct err *e)
{
    return database_do(&s->db, e,
                       "INSERT INTO calls(run,n,at_ms,name,arguments,outcome) "
                       "VALUES(?1,?2,?3,?4,?5,'running')",
                       "siixx", id, (int64_t)n, clock_unix_ms(), name, arguments);
}

bool run_store_call_end(struct run_store *s, const char *id, uint32_t n, const struct run_call *c,
                        struct err *e)
{
    const char *outcome = c->refused         ? "refused"
                          : c->could_not_run ? "could_not_run"
                          : c->failed        ? "failed"
                                             : "ok";
    return database_do(&s->db, e,
                       "UPDATE calls SET detail=?3, output=?4, outcome=?5, strays=?6, ms=?7, "
                       "exit_code=nullif(?8,-1), log=?9 WHERE run=?1 AND n=?2",
                       "sixxsidix", id, (int64_t)n, buf_view(&c->detail), buf_view(&c->output),
                       outcome, (int64_t)c->n_strays, c->ms,
                       c->has_exit_code ? (int64_t)c->exit_code : (int64_t)-1, buf_view(&c->log));
}

bool run_store_transcript(struct run_store *s, const char *id, uint32_t n, struct str piece,
                          struct err *e)
{
    return database_do(&s->db, e, "INSERT INTO transcript VALUES(?1,?2,?3)", "six", id, (int64_t)n,
                       piece);
}

bool run_store_end(struct run_store *s, const char *id, const struct run_end *r, struct err *e)
{
    return database_do(&s->db, e,
                       "UPDATE runs SET ended_ms=?2, outcome=?3, stage=?4, reason=?5, report=?6, "
                       "status=?7, data=?8, exit_code=?9, total_ms=?10 WHERE id=?1",
                       "sisxxxxxid", id, clock_unix_ms(), r->outcome, r->stage, r->reason,
                       r->report, r->status, r->data, (int64_t)r->exit_code, r->total_ms);
}

bool run_store_sync(struct run_store *s, struct err *e)
{
    return database_sync(&s->db, e);
}

bool run_store_set_notified(struct run_store *s, const char *id, struct str what, struct err *e)
{
    return database_do(&s->db, e, "UPDATE runs SET notified=?2 WHERE id=?1", "sx", id, what);
}

// Each statement finds its rows by an index: this happens at the end of every run, however many are
// kept.
bool run_store_prune(struct run_store *s, const char *name, uint32_t keep, uint32_t days,
                     struct err *e)
{
    int64_t oldest = days > 0 ? clock_unix_ms() - (int64_t)days * 86400000 : INT64_MIN;
    int64_t most = keep > 0 ? (int64_t)keep : INT64_MAX;
    struct buf vacuum = {0};
    int before = sqlite3_total_changes(s->db.db);
    bool ok = database_do(&s->db, e,
                          "DELETE FROM runs WHERE outcome<>'running' AND rowid IN (SELECT rowid "
                          "FROM runs WHERE name=?1 ORDER BY started_ms DESC, rowid DESC LIMIT -1 "
                          "OFFSET ?2)",
                          "si", name, most) &&
              database_do(&s->db, e, "DELETE FROM runs WHERE outcome<>'running' AND started_ms<?1",
                          "i", oldest);
    if (!ok || sqlite3_total_changes(s->db.db) == before) return ok;
    ok = database_do(&s->db, e,
                     "DELETE FROM bootstraps WHERE NOT EXISTS (SELECT 1 FROM runs WHERE "
                     "bootstrap=hash)",
                     "");
    buf_printf(&vacuum, "PRAGMA incremental_vacuum(%d)", PRUNE_PAGES);
    ok = ok && database_script(&s->db, buf_cstr(&vacuum), e);
    buf_free(&vacuum);
    return ok;
}
