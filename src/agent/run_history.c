// Reads only. Columns stand in one place (row_sql), in the order in which get_row takes them.
#include "agent/run_history.h"

#include <stdio.h>
#include <string.h>

// ---- rows -----------------------------------------------------------------------------------

static const char row_sql[] =
    "SELECT r.id, r.name, r.workspace, r.definition_hash, r.cause, r.task, r.inputs, r.outcome,"
    " coalesce(r.stage, (SELECT text FROM stages WHERE run=r.id ORDER BY n DESC LIMIT 1)),"
    " r.reason, r.report, r.status, r.data, r.notified, r.first_id, r.started_ms, r.ended_ms,"
    " r.attempt, r.exit_code, (SELECT count(*) FROM calls WHERE run=r.id),"
    " nullif((SELECT count(*) FROM turns WHERE run=r.id),0), f.prompt_tokens, f.cached_tokens,"
    " (SELECT sum(prefilled_tokens) FROM turns WHERE run=r.id),"
    " (SELECT sum(completion_tokens) FROM turns WHERE run=r.id), f.ttft_ms,"
    " (SELECT sum(completion_tokens)/nullif(sum(CASE WHEN gen_tps>0 THEN completion_tokens/gen_tps"
    "  ELSE 0 END),0) FROM turns WHERE run=r.id), r.total_ms"
    " FROM runs r LEFT JOIN turns f ON f.run=r.id AND f.n=0 WHERE 1";

static int64_t whole(sqlite3_stmt *s, int column, int64_t absent)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? absent : sqlite3_column_int64(s, column);
}

static double real(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? -1 : sqlite3_column_double(s, column);
}

static struct run_row get_row(sqlite3_stmt *s)
{
    struct run_row r = {0};
    struct str *texts[] = {&r.id,     &r.name,   &r.workspace, &r.definition_hash, &r.cause,
                           &r.task,   &r.inputs, &r.outcome,   &r.stage,           &r.reason,
                           &r.report, &r.status, &r.data,      &r.notified,        &r.first_id};
    struct {
        int64_t *slot, absent;
    } counts[] = {{&r.started_ms, 0},        {&r.ended_ms, 0},       {&r.attempt, 1},
                  {&r.exit_code, -1},        {&r.n_calls, 0},        {&r.n_turns, 0},
                  {&r.prompt_tokens, -1},    {&r.cached_tokens, -1}, {&r.prefilled_tokens, -1},
                  {&r.completion_tokens, -1}};
    double *reals[] = {&r.ttft_ms, &r.gen_tps, &r.total_ms};
    int column = 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        *texts[i] = database_text(s, column++);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        *counts[i].slot = whole(s, column++, counts[i].absent);
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) *reals[i] = real(s, column++);
    return r;
}

struct row_call {
    run_row_function *row;
    void *arg;
};

static bool hand_row(void *arg, sqlite3_stmt *s)
{
    const struct row_call *c = arg;
    struct run_row r = get_row(s);
    return c->row(c->arg, &r);
}

bool run_history_list(struct run_store *s, const struct run_filter *f, run_row_function *row,
                      void *arg, struct err *e)
{
    struct row_call call = {row, arg};
    struct buf sql = {0};
    buf_z(&sql, row_sql);
    if (f->name != NULL)
        buf_z(&sql, " AND r.name=?1"); // only what is asked, to find it by an index
    if (f->workspace != NULL) buf_z(&sql, " AND r.workspace=?2");
    if (f->id != NULL) buf_z(&sql, " AND r.id=?3");
    if (f->running) buf_z(&sql, " AND r.outcome='running'");
    buf_z(&sql, " ORDER BY r.started_ms DESC, r.rowid DESC LIMIT ?4");
    struct database_query q = {buf_cstr(&sql), "sssi", hand_row, &call};
    bool ok = sql.failed ? err_set(e, ERR_MEMORY, "no memory for a query")
                         : database_each(&s->db, e, &q, f->name, f->workspace, f->id,
                                         f->limit > 0 ? f->limit : (int64_t)-1);
    buf_free(&sql);
    return ok;
}

// ---- finding --------------------------------------------------------------------------------

struct finding {
    struct buf *id;
    size_t n;
};

static bool found(void *arg, sqlite3_stmt *s)
{
    struct finding *f = arg;
    if (f->n++ == 0) {
        buf_clear(f->id);
        buf_str(f->id, database_text(s, 0));
    }
    return true;
}

// An id is cut at neither end by wildcards: instr and substr take the text as it is.
bool run_history_find(struct run_store *s, const char *text, struct buf *id, struct err *e)
{
    struct finding f = {.id = id};
    bool last = strcmp(text, "last") == 0;
    struct database_query q = {
        last ? "SELECT id FROM runs ORDER BY started_ms DESC, rowid DESC LIMIT 1"
             : "SELECT id FROM runs WHERE substr(id,1,length(?1))=?1 OR "
               "substr(id,-length(?1))=?1 LIMIT 3",
        last ? "" : "s", found, &f};
    if (*text == '\0') return err_set(e, ERR_INPUT, "the run's id is empty");
    if (!database_each(&s->db, e, &q, text)) return false;
    if (f.n == 1) return true;
    if (f.n > 1)
        return err_set(e, ERR_INPUT, "\"%.60s\" is the beginning or end of several runs' ids",
                       text);
    return err_set(e, ERR_NOT_FOUND, "there is no run \"%.60s\"; submind runs lists them", text);
}

// ---- parts ----------------------------------------------------------------------------------

struct stage_call {
    bool (*row)(void *arg, const struct stage_row *r);
    void *arg;
};

static bool hand_stage(void *arg, sqlite3_stmt *s)
{
    const struct stage_call *c = arg;
    struct stage_row r = {sqlite3_column_int64(s, 0), sqlite3_column_int64(s, 1),
                          database_text(s, 2)};
    return c->row(c->arg, &r);
}

bool run_history_stages(struct run_store *s, const char *id,
                        bool (*row)(void *arg, const struct stage_row *r), void *arg, struct err *e)
{
    struct stage_call call = {row, arg};
    struct database_query q = {"SELECT n, at_ms, text FROM stages WHERE run=?1 ORDER BY n", "s",
                               hand_stage, &call};
    return database_each(&s->db, e, &q, id);
}

struct call_call {
    bool (*row)(void *arg, const struct call_row *r);
    void *arg;
};

static bool hand_call(void *arg, sqlite3_stmt *s)
{
    const struct call_call *c = arg;
    struct call_row r = {.n = sqlite3_column_int64(s, 0),
                         .at_ms = sqlite3_column_int64(s, 1),
                         .name = database_text(s, 2),
                         .arguments = database_text(s, 3),
                         .detail = database_text(s, 4),
                         .output = database_text(s, 5),
                         .outcome = database_text(s, 6),
                         .exit_code = whole(s, 7, -1),
                         .ms = real(s, 8),
                         .log = database_text(s, 9)};
    return c->row(c->arg, &r);
}

bool run_history_calls(struct run_store *s, const char *id,
                       bool (*row)(void *arg, const struct call_row *r), void *arg, struct err *e)
{
    struct call_call call = {row, arg};
    struct database_query q = {"SELECT n, at_ms, name, arguments, detail, output, outcome, "
                               "exit_code, ms, log FROM calls WHERE run=?1 ORDER BY n",
                               "s", hand_call, &call};
    return database_each(&s->db, e, &q, id);
}

static bool put_column(void *arg, sqlite3_stmt *s)
{
    buf_str(arg, database_text(s, 0));
    return true;
}

bool run_history_bootstrap(struct run_store *s, const char *workspace, struct buf *out,
                           struct err *e)
{
    struct database_query q = {"SELECT b.text FROM runs r JOIN bootstraps b ON b.hash=r.bootstrap "
                               "WHERE r.workspace=?1 ORDER BY r.started_ms DESC LIMIT 1",
                               "s", put_column, out};
    return database_each(&s->db, e, &q, workspace);
}

// ---- JSON -----------------------------------------------------------------------------------

static void put_key(struct buf *b, const char *key)
{
    buf_printf(b, "%s\"%s\":", b->n > 0 && b->p[b->n - 1] != '{' ? "," : "", key);
}

static void put_text(struct buf *b, const char *key, struct str text)
{
    put_key(b, key);
    buf_json(b, text);
}

static void put_count(struct buf *b, const char *key, int64_t v, bool known)
{
    put_key(b, key);
    if (known)
        buf_printf(b, "%lld", (long long)v);
    else
        buf_z(b, "null");
}

static void put_real(struct buf *b, const char *key, double v)
{
    put_key(b, key);
    if (v >= 0)
        buf_printf(b, "%.3f", v);
    else
        buf_z(b, "null");
}

static void put_row(const struct run_row *r, struct buf *b)
{
    const struct {
        const char *key;
        struct str text;
    } texts[] = {{"id", r->id},
                 {"name", r->name},
                 {"workspace", r->workspace},
                 {"definition_hash", r->definition_hash},
                 {"cause", r->cause},
                 {"task", r->task},
                 {"outcome", r->outcome},
                 {"stage", r->stage},
                 {"reason", r->reason},
                 {"report", r->report},
                 {"status", r->status},
                 {"notified", r->notified},
                 {"first_id", r->first_id}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        put_text(b, texts[i].key, texts[i].text);
    put_key(b, "inputs"); // ours, so it is JSON
    buf_str(b, r->inputs.n > 0 ? r->inputs : STR("{}"));
    put_key(b, "data"); // checked by the tool that took it
    buf_str(b, r->data.n > 0 ? r->data : STR("null"));
    put_count(b, "attempt", r->attempt, true);
    put_count(b, "started_ms", r->started_ms, true);
    put_count(b, "ended_ms", r->ended_ms, r->ended_ms > 0);
    put_count(b, "exit_code", r->exit_code, r->exit_code >= 0);
    put_count(b, "requests", r->n_turns, true);
    put_count(b, "prompt_tokens", r->prompt_tokens, r->prompt_tokens >= 0);
    put_count(b, "cached_tokens", r->cached_tokens, r->cached_tokens >= 0);
    put_count(b, "prefilled_tokens", r->prefilled_tokens, r->prefilled_tokens >= 0);
    put_count(b, "completion_tokens", r->completion_tokens, r->completion_tokens >= 0);
    put_real(b, "ttft_ms", r->ttft_ms);
    put_real(b, "gen_tps", r->gen_tps);
    put_real(b, "total_ms", r->total_ms);
}

void run_row_json(const struct run_row *r, struct buf *out)
{
    struct buf b = {0};
    buf_c(&b, '{');
    put_row(r, &b);
    put_count(&b, "tool_calls", r->n_calls, true);
    buf_c(&b, '}');
    buf_str(out, buf_view(&b));
    out->failed |= b.failed;
    buf_free(&b);
}

static bool put_stage(void *arg, const struct stage_row *r)
{
    struct buf *b = arg;
    if (b->p[b->n - 1] != '[') buf_c(b, ',');
    buf_c(b, '{');
    put_count(b, "at_ms", r->at_ms, true);
    put_text(b, "stage", r->text);
    buf_c(b, '}');
    return true;
}

static bool put_call(void *arg, const struct call_row *r)
{
    struct buf *b = arg;
    if (b->p[b->n - 1] != '[') buf_c(b, ',');
    buf_c(b, '{');
    put_count(b, "at_ms", r->at_ms, true);
    put_text(b, "name", r->name);
    put_text(b, "arguments", r->arguments);
    put_text(b, "ran", r->detail);
    put_text(b, "outcome", r->outcome);
    put_count(b, "exit_code", r->exit_code, r->exit_code >= 0);
    put_real(b, "ms", r->ms);
    put_text(b, "output", r->output);
    if (r->log.n > 0) put_text(b, "log", r->log);
    buf_c(b, '}');
    return true;
}

static bool put_turn(void *arg, sqlite3_stmt *s)
{
    static const char *const counts[] = {"prompt_tokens", "cached_tokens", "prefilled_tokens",
                                         "completion_tokens"};
    static const char *const reals[] = {"ttft_ms", "gen_tps", "total_ms"};
    struct buf *b = arg;
    int column = 0;
    if (b->p[b->n - 1] != '[') buf_c(b, ',');
    buf_c(b, '{');
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        put_count(b, counts[i], sqlite3_column_int64(s, column++), true);
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++)
        put_real(b, reals[i], real(s, column++));
    buf_c(b, '}');
    return true;
}

static bool put_whole_row(void *arg, const struct run_row *r)
{
    put_row(r, arg);
    return true;
}

// The pieces as they were kept begin with the comma that joined them.
static bool put_messages(struct run_store *s, const char *id, struct buf *b, struct err *e)
{
    struct buf text = {0};
    struct database_query q = {"SELECT text FROM transcript WHERE run=?1 ORDER BY n", "s",
                               put_column, &text};
    bool ok = database_each(&s->db, e, &q, id);
    struct str all = buf_view(&text);
    if (str_starts(all, STR(","))) all = str_sub(all, 1, SIZE_MAX);
    put_key(b, "messages");
    buf_c(b, '[');
    buf_str(b, all);
    buf_c(b, ']');
    buf_free(&text);
    return ok;
}

static bool put_bootstrap(struct run_store *s, const char *id, struct buf *b, struct err *e)
{
    struct buf text = {0};
    struct database_query q = {"SELECT b.text FROM runs r JOIN bootstraps b ON b.hash=r.bootstrap "
                               "WHERE r.id=?1",
                               "s", put_column, &text};
    bool ok = database_each(&s->db, e, &q, id);
    put_text(b, "bootstrap", buf_view(&text));
    buf_free(&text);
    return ok;
}

bool run_history_json(struct run_store *s, const char *id, bool with_bootstrap, struct buf *out,
                      struct err *e)
{
    struct buf b = {0};
    struct run_filter f = {.id = id, .limit = 1};
    struct database_query turns = {"SELECT prompt_tokens, cached_tokens, prefilled_tokens, "
                                   "completion_tokens, ttft_ms, gen_tps, total_ms FROM turns "
                                   "WHERE run=?1 ORDER BY n",
                                   "s", put_turn, &b};
    buf_c(&b, '{');
    bool ok = run_history_list(s, &f, put_whole_row, &b, e);
    put_key(&b, "stages");
    buf_c(&b, '[');
    ok = ok && run_history_stages(s, id, put_stage, &b, e);
    buf_z(&b, "],\"turns\":[");
    ok = ok && database_each(&s->db, e, &turns, id);
    buf_z(&b, "],\"tool_calls\":[");
    ok = ok && run_history_calls(s, id, put_call, &b, e);
    buf_c(&b, ']');
    ok = ok && put_messages(s, id, &b, e) && (!with_bootstrap || put_bootstrap(s, id, &b, e));
    buf_c(&b, '}');
    if (ok && b.failed) ok = err_set(e, ERR_MEMORY, "no memory for the record");
    if (ok) buf_str(out, buf_view(&b));
    buf_free(&b);
    return ok;
}
