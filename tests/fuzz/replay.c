// Runs a fuzz target without libFuzzer: every file of the corpus folders, then mutations of them with
// a fixed seed. Finds what crashes outright; the clang configuration does the real search.
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX_SEED_BYTES = 1 << 20, MUTATIONS = 300 };

static uint64_t random_state = 88172645463325252u; // xorshift64, any non-zero seed

static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

// Cuts the input short or flips up to eight bits, in place; returns the new length.
static size_t mutate(uint8_t *p, size_t n)
{
    if (n == 0) return 0;
    if (next_random() % 4 == 0) n = next_random() % n;
    for (uint64_t i = next_random() % 8; n > 0 && i-- > 0;)
        p[next_random() % n] ^= (uint8_t)(1u << next_random() % 8);
    return n;
}

static int run_file(const char *path)
{
    static uint8_t original[MAX_SEED_BYTES];
    FILE *f = fopen(path, "rb");
    if (f == NULL) return 0;
    size_t n = fread(original, 1, sizeof original, f);
    fclose(f);
    for (int i = 0; i <= MUTATIONS; i++) {
        uint8_t *copy = malloc(n + 1); // exact size, so that sanitizers see every overread
        if (copy == NULL) return 0;
        memcpy(copy, original, n);
        size_t m = i == 0 ? n : mutate(copy, n);
        uint8_t *exact = malloc(m > 0 ? m : 1);
        if (exact != NULL) {
            memcpy(exact, copy, m);
            LLVMFuzzerTestOneInput(exact, m);
        }
        free(exact);
        free(copy);
    }
    return 1;
}

int main(int argc, char **argv)
{
    int files = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (d == NULL) continue;
        for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
            char path[4096];
            if (entry->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            files += run_file(path);
        }
        closedir(d);
    }
    printf("%d corpus files, %d mutations each\n", files, MUTATIONS);
    if (files == 0) fprintf(stderr, "no corpus: a fuzz target needs seeds\n");
    return files == 0;
}
