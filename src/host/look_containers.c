// What toolboxes and podman's containers of this user get of the GPU, from outside: `podman inspect`, found by
// PATH and given little time. A recorded host holds its answer in submind/podman-inspect.json. toolbox and
// distrobox make podman's containers, so that one question is enough; root's are not seen.
#include <jansson.h>
#include <string.h>

#include "base/process.h"
#include "host/look.h"

enum { ANSWER_MS = 700, ANSWER_BYTES = 1 << 20, MAX_IDS = 64 };

static bool names_gpu(const char *text)
{
    static const char *const words[] = {"llama", "rocm", "vulkan", "cuda",   "submind",
                                        "vllm",  "hip",  "strix",  "ollama", "lemonade"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasestr(text, words[i]) != NULL) return true;
    return false;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

// A word of the command that made the container: the value of an option, or glued to it with "=".
static void take_word(struct host_box *b, const char *word)
{
    const char *eq = strchr(word, '=');
    const char *value = strncmp(word, "--", 2) == 0 && eq != NULL ? eq + 1 : word;
    if (strncmp(value, "/dev/dri", 8) == 0) b->dri = true;
    if (strncmp(value, "/dev/kfd", 8) == 0) b->kfd = true;
    if (strncmp(value, "nvidia.com/gpu", 14) == 0 || strncmp(value, "/dev/nvidia", 11) == 0 ||
        strcmp(word, "--gpus") == 0 || strncmp(word, "--gpus=", 7) == 0)
        b->nvidia = true;
    if (strcmp(value, "keep-groups") == 0) b->keep_groups = true;
    if (strcmp(value, "video") == 0) b->video = true;
    if (strcmp(value, "render") == 0) b->render = true;
}

static void take_words(struct host_box *b, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *word = json_string_value(json_array_get(list, i));
        if (word != NULL) take_word(b, word);
    }
}

static void take_box(struct host *h, const json_t *one)
{
    struct host_box b = {0};
    const json_t *config = json_object_get(one, "Config"),
                 *host = json_object_get(one, "HostConfig");
    const json_t *labels = json_object_get(config, "Labels"), *list;
    if (!names_gpu(text_of(one, "Name")) && !names_gpu(text_of(one, "ImageName"))) return;
    root_clean(str_from(text_of(one, "Name")), b.name, sizeof b.name);
    root_clean(str_from(text_of(one, "ImageName")), b.image, sizeof b.image);
    b.rocm = strcasestr(b.name, "rocm") != NULL || strcasestr(b.image, "rocm") != NULL;
    b.toolbox = *text_of(labels, "com.github.containers.toolbox") != '\0';
    take_words(&b, json_object_get(config, "CreateCommand"));
    take_words(&b, json_object_get(host, "GroupAdd"));
    list = json_object_get(host, "Devices");
    for (size_t i = 0; i < json_array_size(list); i++)
        take_word(&b, text_of(json_array_get(list, i), "PathInContainer"));
    list = json_object_get(one, "Mounts"); // toolbox shows the whole of /dev
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(text_of(json_array_get(list, i), "Destination"), "/dev") == 0)
            b.dri = b.kfd = b.nvidia = true;
    if (h->n_boxes < HOST_N_BOXES) h->box[h->n_boxes++] = b;
}

static bool podman(const struct look_wish *wish, const char *const *argv, struct buf *out)
{
    const struct process_spec spec = {.argv = argv,
                                      .env = wish->environment,
                                      .path = wish->path,
                                      .timeout_ms = ANSWER_MS,
                                      .keep_bytes = ANSWER_BYTES};
    struct process_result r = {0};
    struct err e = {0};
    if (!process_run(&spec, &r, &e)) return e.code == ERR_NOT_FOUND; // no podman, no containers
    const bool ok = r.end == PROCESS_EXITED && r.code == 0;
    if (ok) buf_str(out, buf_view(&r.head));
    process_result_free(&r);
    return ok;
}

// Numbers of containers, one a line, become words in place.
static size_t split_ids(struct buf *ids, const char **words, size_t max)
{
    size_t n = 0;
    buf_c(ids, '\0');
    for (char *p = ids->failed ? NULL : ids->p; p != NULL && n < max;) {
        const size_t digits = strspn(p, "0123456789abcdef");
        if (digits == 0) break;
        words[n++] = p;
        p += digits;
        if (*p != '\n') break;
        *p++ = '\0';
    }
    return n;
}

// All containers by number, then what is known of them.
static bool ask(const struct look_wish *wish, struct buf *out)
{
    static const char *const list[] = {"podman", "ps", "--all", "--quiet", NULL};
    const char *inspect[MAX_IDS + 4] = {"podman", "container", "inspect"};
    struct buf ids = {0};
    bool ok = podman(wish, list, &ids);
    if (ok && split_ids(&ids, inspect + 3, MAX_IDS) > 0) ok = podman(wish, inspect, out);
    buf_free(&ids);
    return ok;
}

void host_look_containers(struct host *h, const struct root *r, const struct look_wish *wish)
{
    struct buf text = {0};
    json_error_t ignored;
    if (!r->live)
        root_read(r, "submind/podman-inspect.json", &text, ANSWER_BYTES);
    else if (wish->path != NULL)
        h->podman_silent = !ask(wish, &text);
    json_t *all = text.n == 0 ? NULL : json_loadb(text.p, text.n, 0, &ignored);
    for (size_t i = 0; i < json_array_size(all); i++) take_box(h, json_array_get(all, i));
    json_decref(all);
    buf_free(&text);
}
