// What keeps it right: two processes with the same number on the same boot differ in start time,
// and the kernel draws a new boot id each time.
#include "base/process_id.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { STAT_BYTES = 4096, START_FIELD = 22 };

// The fields are counted from the last ")", because a program's name may hold anything.
static struct str start_of(struct str stat)
{
    size_t at = str_rfind(stat, STR(")"));
    struct str none = {"", 0};
    if (at == SIZE_MAX) return none;
    for (int field = 2; field < START_FIELD; field++) {
        at = str_find(stat, STR(" "), at);
        if (at == SIZE_MAX) return none;
        at++;
    }
    size_t end = str_find(stat, STR(" "), at);
    return end == SIZE_MAX ? none : str_sub(stat, at, end - at);
}

bool process_id_of(long pid, struct buf *out)
{
    struct buf path = {0}, stat = {0}, boot = {0};
    struct err ignored = {0};
    buf_printf(&path, "/proc/%ld/stat", pid);
    bool ok = file_read(&stat, buf_cstr(&path), STAT_BYTES, &ignored);
    struct str start = start_of(buf_view(&stat));
    ok = ok && start.n > 0;
    file_read(&boot, "/proc/sys/kernel/random/boot_id", STAT_BYTES, &ignored);
    if (ok) {
        buf_printf(out, "%ld:", pid);
        buf_str(out, start);
        buf_c(out, ':');
        buf_str(out, str_trim(buf_view(&boot)));
    }
    buf_free(&path);
    buf_free(&stat);
    buf_free(&boot);
    return ok && !out->failed;
}

bool process_id_lives(struct str id)
{
    char number[24] = "";
    struct buf now = {0};
    if (id.n == 0 || str_find(id, STR(":"), 0) >= sizeof number) return false;
    memcpy(number, id.p, str_find(id, STR(":"), 0));
    long pid = strtol(number, NULL, 10);
    bool lives = pid > 0 && process_id_of(pid, &now) && str_eq(buf_view(&now), id);
    buf_free(&now);
    return lives;
}
