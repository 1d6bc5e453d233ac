// A fingerprint changes with everything that a page's numbers depend on, and weights are known again
// only as long as their files are the same.
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/fingerprint.h"
#include "lib/gguf_make.h"

static const struct make_shape shape = {"qwen3", 2, 64, 4, 2, 32, 96, 50, 512, true, 1};
static char dir[64], model[128];

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/submind-fp-XXXXXX");
    if (mkdtemp(dir) == NULL) return 1;
    snprintf(model, sizeof model, "%s/m.gguf", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void write_bytes(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static void write_model(void)
{
    struct gguf_make m = {0};
    struct buf file = {0};
    make_model(&m, &shape);
    make_file(&m, &file);
    write_bytes(model, file.p, file.n);
    buf_free(&file);
    make_free(&m);
}

static struct gguf *open_model(void)
{
    struct gguf *g = NULL;
    struct err e = {0};
    if (!gguf_open(&g, model, &e)) fail_msg("%s", e.msg);
    return g;
}

static bool same(struct hash128 a, struct hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

static struct hash128 weights_now(void)
{
    struct gguf *g = open_model();
    struct hash128 h = {0};
    atomic_bool stop = false;
    assert_true(fingerprint_weights(g, &stop, &h));
    gguf_close(g);
    return h;
}

static void flip_last_bit(void)
{
    FILE *f = fopen(model, "r+b");
    assert_non_null(f);
    fseek(f, -1, SEEK_END);
    const int c = fgetc(f);
    fseek(f, -1, SEEK_END);
    fputc(c ^ 1, f);
    fclose(f);
}

static void one_bit_of_the_weights_changes_it(void **state)
{
    (void)state;
    write_model();
    const struct hash128 first = weights_now();
    assert_true(same(first, weights_now()));
    flip_last_bit();
    assert_false(same(first, weights_now()));
    flip_last_bit();
    assert_true(same(first, weights_now()));
}

static void reading_can_be_stopped(void **state)
{
    (void)state;
    write_model();
    struct gguf *g = open_model();
    struct hash128 h;
    atomic_bool stop = true;
    assert_false(fingerprint_weights(g, &stop, &h));
    gguf_close(g);
}

static bool recall(struct hash128 *out)
{
    struct gguf *g = open_model();
    const bool known = fingerprint_recall(dir, g, out);
    gguf_close(g);
    return known;
}

static void remember(struct hash128 h)
{
    struct gguf *g = open_model();
    fingerprint_remember(dir, g, h);
    gguf_close(g);
}

static void weights_are_remembered_until_the_file_changes(void **state)
{
    (void)state;
    struct stat st;
    char path[128];
    struct hash128 h = {0};
    write_model();
    assert_false(recall(&h));
    remember((struct hash128){11, 12});
    assert_true(recall(&h));
    assert_true(h.lo == 11 && h.hi == 12);
    snprintf(path, sizeof path, "%s/weights", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    // the same bytes and size again, but another date
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, model, times, 0), 0);
    assert_false(recall(&h));
    remember((struct hash128){13, 14});
    assert_true(recall(&h));
    assert_true(h.lo == 13 && h.hi == 14);
    // a copy that took its place
    char command[600];
    snprintf(command, sizeof command, "cp -p %s %s.new && mv %s.new %s", model, model, model,
             model);
    assert_int_equal(system(command), 0);
    assert_false(recall(&h));
}

// Whatever became of the file: nothing wrong is recalled, and remembering works again.
static void a_damaged_memory_is_no_memory(void **state)
{
    (void)state;
    char path[128];
    struct hash128 h = {0};
    write_model();
    snprintf(path, sizeof path, "%s/weights", dir);
    remember((struct hash128){21, 22});
    for (long at = 0; at < 83; at++) {
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        fseek(f, at, SEEK_SET);
        const int c = fgetc(f);
        fseek(f, at, SEEK_SET);
        fputc(c ^ 1, f);
        fclose(f);
        assert_true(!recall(&h) || at == 82); // the newline says nothing
        remember((struct hash128){21, (uint64_t)at});
        assert_true(recall(&h));
        assert_true(h.lo == 21 && h.hi == (uint64_t)at);
        unlink(path);
        remember((struct hash128){21, 22});
    }
    write_bytes(path, "nonsense", 8);
    assert_false(recall(&h));
    remember((struct hash128){31, 32});
    assert_true(recall(&h) && h.lo == 31);
}

static struct hash128 all_of(const struct fingerprint_about *a)
{
    struct hash128 h = {0};
    struct err e = {0};
    assert_true(fingerprint_of((struct hash128){1, 2}, a, &h, &e));
    return h;
}

static void everything_that_counts_changes_it(void **state)
{
    (void)state;
    write_model();
    struct gguf *g = open_model();
    struct err e = {0};
    struct model_config config;
    if (!arch_read(&config, g, false, &e)) fail_msg("%s", e.msg);
    struct backend_info device = {.name = "cpu", .device = "one, 2 threads", .numerics = 3};
    const struct fingerprint_about base = {
        .config = &config,
        .n_ctx = 512,
        .shape = {.n_pages = 10, .page_tokens = 32, .n_layers = 2, .n_kv_heads = 2, .head_dim = 32},
        .page_bytes = 1000,
        .device = &device};
    const struct hash128 h = all_of(&base);
    struct fingerprint_about a = base;
    a.shape.n_pages = 11; // how many there are says nothing about one
    assert_true(same(h, all_of(&a)));
    struct backend_info other = device;
    strcpy(other.device, "another, 64 threads"); // nor do a host's threads
    a.device = &other;
    assert_true(same(h, all_of(&a)));
    strcpy(other.name, "cuda");
    const struct hash128 gpu = all_of(&a);
    assert_false(same(h, gpu));
    strcpy(other.device, "another GPU");
    assert_false(same(gpu, all_of(&a)));
    other = device;
    other.numerics = 4;
    assert_false(same(h, all_of(&a)));
    other = device;
    other.prefill_fp8 = true; // exact pages and those of 8-bit products never mix
    assert_false(same(h, all_of(&a)));
    const struct page_code exact = {.encoding = PAGES_EXACT}, q8 = {.encoding = PAGES_Q8_0};
    a = base;
    a.code = &exact;
    assert_true(same(h, all_of(&a)));
    a.code = &q8; // exact pages and those in 8 bits never mix
    assert_false(same(h, all_of(&a)));
#define CHANGED(field, value)              \
    do {                                   \
        a = base;                          \
        a.field = value;                   \
        assert_false(same(h, all_of(&a))); \
    } while (0)
    CHANGED(shape.type, KV_Q8_0);
    CHANGED(shape.page_tokens, 64);
    CHANGED(shape.n_layers, 3);
    CHANGED(shape.n_kv_heads, 1);
    CHANGED(shape.head_dim, 16);
    CHANGED(page_bytes, 1001);
    CHANGED(n_ctx, 4096); // beyond what it was trained for: the rope is stretched
    a = base;
    struct model_config changed = config;
    changed.rope_base *= 2;
    a.config = &changed;
    assert_false(same(h, all_of(&a)));
    struct hash128 w;
    assert_true(fingerprint_of((struct hash128){1, 3}, &base, &w, &e));
    assert_false(same(h, w));
    gguf_close(g);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)
    const struct CMUnitTest tests[] = {
        TEST(one_bit_of_the_weights_changes_it),
        TEST(reading_can_be_stopped),
        TEST(weights_are_remembered_until_the_file_changes),
        TEST(a_damaged_memory_is_no_memory),
        TEST(everything_that_counts_changes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
