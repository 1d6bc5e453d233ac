// Any bytes as a segment of a store: opening, listing and reading must not crash, read outside or give
// out a record that does not verify, and a record put behind them must come back.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/store.h"
#include "base/store_files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct store_shape shape = {.family = {1, 2}, .n_ids = 4, .data_bytes = 40};
static char dir[64], family[128], segment[160];
static _Alignas(16) unsigned char record[256];

static void clean_up(void)
{
    char path[200];
    unlink(segment);
    snprintf(path, sizeof path, "%s/seg-00000002", family);
    unlink(path);
    snprintf(path, sizeof path, "%s/lock", family);
    unlink(path);
    rmdir(family);
    rmdir(dir);
}

static void make_folder(void)
{
    struct buf path = {0};
    strcpy(dir,
           access("/dev/shm", W_OK) == 0 ? "/dev/shm/submind-fz-XXXXXX" : "/tmp/submind-fz-XXXXXX");
    if (mkdtemp(dir) == NULL) abort();
    store_family_path(&path, dir, shape.family);
    snprintf(family, sizeof family, "%s", buf_cstr(&path));
    snprintf(segment, sizeof segment, "%s/seg-00000001", family);
    buf_free(&path);
    if (!store_make_dir(family, &(struct err){0})) abort();
    atexit(clean_up);
}

static void write_segment(const uint8_t *data, size_t n)
{
    const int fd = open(segment, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || (n > 0 && write(fd, data, n) != (ssize_t)n)) abort();
    close(fd);
}

// Everything that is listed either verifies or is gone afterwards.
static void read_all(struct store *st)
{
    struct store_entry list[8];
    size_t next = 0, count;
    while ((count = store_list(st, &next, list, NULL, 8)) > 0)
        for (size_t i = 0; i < count; i++) {
            const enum store_result r = store_get(st, list[i].key, list[i].parent, NULL, record);
            const struct store_header *h = (const struct store_header *)(const void *)record;
            if (r == STORE_OK && !store_header_valid(h, &shape)) abort();
            if (r != STORE_OK && store_has(st, list[i].key)) abort();
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct store *st = NULL;
    struct err e = {0};
    const struct store_settings s = {.dir = dir, .cap_bytes = 1 << 24, .shape = shape};
    log_set_level(LOG_ERROR);
    if (dir[0] == '\0') make_folder();
    write_segment(data, n);
    if (!store_open(&st, &s, NULL, &e)) abort();
    read_all(st);
    struct store_header *h = (struct store_header *)(void *)record;
    memset(record, 0, sizeof record);
    h->key = (struct hash128){0x1234, 0x5678};
    if (!store_put(st, record, 1, &e)) abort();
    if (store_get(st, h->key, h->parent, NULL, record) != STORE_OK) abort();
    store_close(st);
    char second[200];
    snprintf(second, sizeof second, "%s/seg-00000002", family);
    unlink(second);
    return 0;
}
