// What keeps it right: nothing is trusted that another user could have put there (lstat, owner,
// mode), and a lock is the kernel's (flock), so that it cannot outlive its owner.
#include "base/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"

bool rundir_make(const char *path, struct err *e)
{
    struct stat st;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return err_errno(e, ERR_IO, "cannot make the folder %.200s", path);
    if (lstat(path, &st) != 0) return err_errno(e, ERR_IO, "cannot look at %.200s", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return err_set(e, ERR_DENIED, "%.200s is no folder that this user owns; name another",
                       path);
    if ((st.st_mode & 077) != 0)
        return err_set(e, ERR_DENIED,
                       "%.200s can be entered by others (mode %03o); chmod it to 700", path,
                       (unsigned)st.st_mode & 0777);
    return true;
}

bool rundir_make_all(const char *path, struct err *e)
{
    struct buf part = {0};
    bool ok = true;
    for (const char *p = path; ok && *p != '\0'; p++) {
        if (*p == '/' && p > path && mkdir(buf_cstr(&part), 0700) != 0 && errno != EEXIST)
            ok = err_errno(e, ERR_IO, "cannot make the folder %.200s", buf_cstr(&part));
        buf_c(&part, *p);
    }
    if (ok && part.failed) ok = err_set(e, ERR_MEMORY, "no memory for a path");
    buf_free(&part);
    return ok && rundir_make(path, e);
}

void rundir_default(const char *runtime_dir, struct buf *out)
{
    struct buf run_user = {0};
    struct stat st;
    unsigned uid = (unsigned)geteuid();
    buf_printf(&run_user, "/run/user/%u", uid);
    if (runtime_dir != NULL && runtime_dir[0] == '/' && stat(runtime_dir, &st) == 0)
        buf_printf(out, "%s/submind", runtime_dir);
    else if (stat(buf_cstr(&run_user), &st) == 0 && st.st_uid == geteuid())
        buf_printf(out, "%s/submind", buf_cstr(&run_user));
    else
        buf_printf(out, "/tmp/submind-%u", uid);
    buf_free(&run_user);
}

enum lock_state rundir_lock(const char *path, int *fd, struct err *e)
{
    int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f < 0) {
        err_errno(e, ERR_IO, "cannot open the lock %.200s", path);
        return LOCK_FAILED;
    }
    if (flock(f, LOCK_EX | LOCK_NB) == 0) {
        *fd = f;
        return LOCK_TAKEN;
    }
    bool busy = errno == EWOULDBLOCK || errno == EINTR;
    if (!busy) err_errno(e, ERR_IO, "cannot lock %.200s", path);
    close(f);
    return busy ? LOCK_BUSY : LOCK_FAILED;
}

void rundir_unlock(int fd)
{
    if (fd >= 0) close(fd);
}

bool rundir_self(struct buf *path, uint64_t *identity, struct err *e)
{
    char name[4096];
    struct stat st;
    ssize_t n = readlink("/proc/self/exe", name, sizeof name - 1);
    if (n <= 0) return err_errno(e, ERR_IO, "cannot find the program's own file");
    if (stat("/proc/self/exe", &st) != 0)
        return err_errno(e, ERR_IO, "cannot look at the program's own file");
    buf_put(path, name, (size_t)n);
    const uint64_t about[] = {(uint64_t)st.st_ino, (uint64_t)st.st_size,
                              (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
    *identity = hash64(about, sizeof about, 0);
    return !path->failed || err_set(e, ERR_MEMORY, "no memory for a path");
}
