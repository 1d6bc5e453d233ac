// Notes are read by later runs, so that what a page or a file talked the model into would last: a
// note is one bounded line with its date, the file is bounded too, and whoever puts it into a
// prompt must say that it is notes.
#include "agent/notes_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/tool_text.h"
#include "base/clock.h"

enum { NOTE_MAX_BYTES = 1000, NOTES_MAX_BYTES = 65536 };

// ---- remember -------------------------------------------------------------------------------

static void make_line(const char *text, struct buf *out)
{
    char day[40];
    time_t now = (time_t)clock_unix();
    struct tm tm;
    struct buf clean = {0};
    gmtime_r(&now, &tm);
    strftime(day, sizeof day, "%Y-%m-%d", &tm);
    tool_text_put(&clean, str_trim(str_from(text)));
    tool_text_defuse(&clean);
    for (size_t i = 0; i < clean.n; i++)
        if (clean.p[i] == '\n') clean.p[i] = ' ';
    buf_printf(out, "- %s: ", day);
    buf_str(out, buf_view(&clean));
    buf_c(out, '\n');
    out->failed |= clean.failed;
    buf_free(&clean);
}

static void make_folder(const char *file)
{
    struct buf dir = {0};
    const char *slash = strrchr(file, '/');
    if (slash == NULL || slash == file) return;
    buf_put(&dir, file, (size_t)(slash - file));
    mkdir(buf_cstr(&dir), 0700); // there already: fine; not possible: the open says so
    buf_free(&dir);
}

// One write, under a lock, so that runs at the same time do not mix their lines.
static void append(const char *file, struct str line, struct tool_result *r)
{
    struct stat st;
    make_folder(file);
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        tool_fail(r, "cannot write the notes %.200s: %s", file, strerror(errno));
        return;
    }
    flock(fd, LOCK_EX);
    if (fstat(fd, &st) == 0 && st.st_size + (off_t)line.n > NOTES_MAX_BYTES)
        tool_fail(r, "the notes are full (%d bytes); somebody has to shorten %.200s",
                  NOTES_MAX_BYTES, file);
    else if (write(fd, line.p, line.n) != (ssize_t)line.n)
        tool_fail(r, "cannot write the notes %.200s: %s", file, strerror(errno));
    else
        buf_z(&r->text, "noted");
    close(fd);
}

static bool run_remember(void *arg, json_t *args, const struct tool_limits *limits,
                         struct tool_result *out, struct err *e)
{
    struct notes_tool *x = arg;
    const char *text = json_string_value(json_object_get(args, "text"));
    struct buf line = {0};
    (void)limits;
    (void)e;
    buf_z(&out->detail, text);
    make_line(text, &line);
    if (x->file == NULL)
        tool_refuse(out, "this run has no notes of its own");
    else if (line.n > NOTE_MAX_BYTES)
        tool_refuse(out, "a note has at most %d bytes", NOTE_MAX_BYTES);
    else
        append(x->file, buf_view(&line), out);
    out->text.failed |= line.failed;
    buf_free(&line);
    return true;
}

struct tool notes_tool_row(struct notes_tool *x)
{
    return (struct tool){
        .name = "remember",
        .description = "Write one line into your own notes, which later runs of you will read.",
        .parameters =
            "{\"type\":\"object\",\"properties\":{\"text\":{\"type\":\"string\","
            "\"minLength\":1,\"description\":\"What to note.\"}},\"required\":[\"text\"]}",
        .arg = x,
        .run = run_remember};
}

// ---- report ---------------------------------------------------------------------------------

static bool run_report(void *arg, json_t *args, const struct tool_limits *limits,
                       struct tool_result *out, struct err *e)
{
    const char *status = json_string_value(json_object_get(args, "status"));
    json_t *data = json_object_get(args, "data");
    (void)arg;
    (void)limits;
    (void)e;
    for (int s = REPORT_OK; s < REPORT_STATUSES; s++)
        if (strcmp(status, report_status_name((enum report_status)s)) == 0)
            out->report = (enum report_status)s;
    buf_z(&out->detail, status);
    buf_z(&out->text, json_string_value(json_object_get(args, "summary")));
    if (data != NULL) {
        char *text = json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY);
        buf_z(&out->data, text);
        out->data.failed |= text == NULL;
        free(text);
    }
    return true;
}

struct tool report_tool_row(void)
{
    return (struct tool){
        .name = "report",
        .description = "Report how the task went and end it.",
        .parameters =
            "{\"type\":\"object\",\"properties\":{\"status\":{\"type\":\"string\",\"enum\":[\"ok\","
            "\"attention\",\"failed\"],\"description\":\"attention: a person should look.\"},"
            "\"summary\":{\"type\":\"string\",\"minLength\":1,\"description\":\"One or two "
            "sentences.\"},\"data\":{\"type\":\"object\",\"description\":\"Values that a program "
            "may read.\"}},\"required\":[\"status\",\"summary\"]}",
        .repeatable = true,
        .run = run_report};
}
