// What keeps it right: values are always bound, never put into the text of a statement.
#include "agent/database.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"

enum { BUSY_MS = 5000, SETUP_PAUSE_MS = 5 }; // how long another process may write

static bool failed(const struct database *d, struct err *e)
{
    int code = d->db != NULL ? sqlite3_errcode(d->db) : SQLITE_NOMEM;
    const char *help = code == SQLITE_CORRUPT || code == SQLITE_NOTADB
                           ? "; move it away, with the files -wal and -shm beside it, to start anew"
                           : "";
    return err_set(e, code == SQLITE_NOMEM ? ERR_MEMORY : ERR_IO, "%.200s: %.200s%s", d->path,
                   d->db != NULL ? sqlite3_errmsg(d->db) : "no memory", help);
}

bool database_script(struct database *d, const char *sql, struct err *e)
{
    return sqlite3_exec(d->db, sql, NULL, NULL, NULL) == SQLITE_OK || failed(d, e);
}

// The last one to close would write the log back into the file, sync both and remove the log, for
// the next one to make it anew: five syncs a run. The log stays instead, and is written back when
// it has 250 pages, about ten runs: who opens the file first reads all of the log.
static void keep_log(struct database *d)
{
    int keep = 1;
    sqlite3_file_control(d->db, "main", SQLITE_FCNTL_PERSIST_WAL, &keep);
    sqlite3_db_config(d->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
}

static int read_number(void *arg, int n, char **texts, char **names)
{
    (void)names;
    if (n > 0 && texts[0] != NULL) *(int *)arg = atoi(texts[0]);
    return 0;
}

// To set what is set already would write the first page.
static int set_vacuum(struct database *d)
{
    enum { INCREMENTAL = 2 };
    int now = 0, code = sqlite3_exec(d->db, "PRAGMA auto_vacuum", read_number, &now, NULL);
    if (code != SQLITE_OK || now == INCREMENTAL) return code;
    return sqlite3_exec(d->db, "PRAGMA auto_vacuum=INCREMENTAL", NULL, NULL, NULL);
}

// SQLite does not wait where it could deadlock: two connections that make the same file WAL at
// once.
static bool set_up(struct database *d, struct err *e)
{
    static const char sql[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                              "PRAGMA foreign_keys=ON; PRAGMA wal_autocheckpoint=250;";
    uint64_t start_ns = clock_ns();
    int code;
    for (;;) {
        code = set_vacuum(d);
        if (code == SQLITE_OK) code = sqlite3_exec(d->db, sql, NULL, NULL, NULL);
        if (code != SQLITE_BUSY || clock_ms_since(start_ns) >= BUSY_MS) break;
        clock_sleep_ms(SETUP_PAUSE_MS);
    }
    if (code == SQLITE_OK) keep_log(d);
    return code == SQLITE_OK || failed(d, e);
}

// NORMAL: a killed process loses nothing, and the file stays whole whatever happens; a power cut
// may lose what came behind the last database_sync (up to half a minute). FULL would wait for the
// disk at each of a run's dozen writes, holding the lock that other runs write under.
bool database_open(struct database *out, const char *path, struct err *e)
{
    struct database d = {.path = strdup(path)};
    if (d.path == NULL) return err_set(e, ERR_MEMORY, "no memory for a path");
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW;
    bool ok = sqlite3_open_v2(path, &d.db, flags, NULL) == SQLITE_OK || failed(&d, e);
    // The records are this user's. chmod, because to open and close the file here would drop the
    // locks of this process's other connections (fcntl's locks belong to the process).
    if (ok && chmod(path, 0600) != 0) ok = err_errno(e, ERR_IO, "cannot protect %.200s", path);
    if (ok) sqlite3_busy_timeout(d.db, BUSY_MS);
    ok = ok && set_up(&d, e);
    if (ok)
        *out = d;
    else
        database_close(&d);
    return ok;
}

void database_close(struct database *d)
{
    sqlite3_close(d->db);
    free(d->path);
    *d = (struct database){0};
}

bool database_sync(struct database *d, struct err *e)
{
    sqlite3_file *log = NULL; // where commits go
    sqlite3_file_control(d->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (log == NULL || log->pMethods == NULL) return true;
    if (log->pMethods->xSync(log, SQLITE_SYNC_NORMAL | SQLITE_SYNC_DATAONLY) == SQLITE_OK)
        return true;
    return err_errno(e, ERR_IO, "%.200s: cannot be written to the disk", d->path);
}

static int bind_all(sqlite3_stmt *s, const char *types, va_list values)
{
    int code = SQLITE_OK;
    for (int i = 0; types[i] != '\0' && code == SQLITE_OK; i++) {
        struct str text;
        const char *z;
        switch (types[i]) {
        case 's':
            z = va_arg(values, const char *);
            code = sqlite3_bind_text(s, i + 1, z, -1, SQLITE_STATIC);
            break;
        case 'x':
            text = va_arg(values, struct str);
            code = sqlite3_bind_text64(s, i + 1, text.p != NULL ? text.p : "", text.n,
                                       SQLITE_STATIC, SQLITE_UTF8);
            break;
        case 'i': code = sqlite3_bind_int64(s, i + 1, va_arg(values, int64_t)); break;
        default: code = sqlite3_bind_double(s, i + 1, va_arg(values, double)); break;
        }
    }
    return code;
}

static bool each(struct database *d, struct err *e, const struct database_query *q, va_list values)
{
    sqlite3_stmt *s = NULL;
    int code = sqlite3_prepare_v2(d->db, q->sql, -1, &s, NULL);
    if (code == SQLITE_OK) code = bind_all(s, q->types, values);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(s);
        if (code == SQLITE_ROW && q->row != NULL && !q->row(q->arg, s)) code = SQLITE_DONE;
    }
    bool ok = code == SQLITE_DONE || failed(d, e);
    sqlite3_finalize(s);
    return ok;
}

bool database_each(struct database *d, struct err *e, const struct database_query *q, ...)
{
    va_list values;
    va_start(values, q);
    bool ok = each(d, e, q, values);
    va_end(values);
    return ok;
}

bool database_do(struct database *d, struct err *e, const char *sql, const char *types, ...)
{
    struct database_query q = {.sql = sql, .types = types};
    va_list values;
    va_start(values, types);
    bool ok = each(d, e, &q, values);
    va_end(values);
    return ok;
}

struct str database_text(sqlite3_stmt *row, int column)
{
    const unsigned char *p = sqlite3_column_text(row, column);
    int n = sqlite3_column_bytes(row, column);
    return (struct str){p != NULL ? (const char *)p : "", p != NULL ? (size_t)n : 0};
}
