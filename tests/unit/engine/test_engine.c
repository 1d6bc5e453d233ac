// engine/engine.h as its users see it, on the shipped model. Expected values: models/submind-demo.md.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "engine/engine.h"
#include "lib/outcome.h"

static char model_path[1024];

static struct engine *open_demo(struct engine_settings s)
{
    struct engine *en = NULL;
    struct err e = {0};
    s.model_path = model_path;
    if (s.n_ctx == 0) s.n_ctx = 2048;
    if (!engine_open(&en, &s, &e)) fail_msg("%s", e.msg);
    return en;
}

static void refuse(struct engine_settings s, enum err_code code, const char *text)
{
    struct engine *en = NULL;
    struct err e = {0};
    if (s.model_path == NULL) s.model_path = model_path;
    assert_false(engine_open(&en, &s, &e));
    assert_null(en);
    if (e.code != code || strstr(e.msg, text) == NULL) fail_msg("%d: %s", e.code, e.msg);
}

static void tells_what_it_loaded(void **state)
{
    (void)state;
    struct engine *en = open_demo((struct engine_settings){.n_parallel = 3});
    const struct engine_info *info = engine_info(en);
    assert_true(str_eq(info->model_name, STR("submind-demo")));
    assert_true(str_eq(info->arch, STR("qwen3")));
    assert_true(str_eq(info->file_type, STR("Q8_0")));
    assert_int_equal(info->n_vocab, 4096);
    assert_int_equal(info->n_layers, 6);
    assert_int_equal(info->n_embd, 256);
    assert_int_equal(info->n_ctx_train, 40960);
    assert_int_equal(info->n_ctx, 2048);
    assert_int_equal(info->n_parallel, 3);
    assert_int_equal(info->n_params, 8131328);
    assert_int_equal(info->model_bytes, 8788128);
    assert_true(info->rope_factor == 1);
    assert_true((uint64_t)info->n_pages * info->page_tokens >= 2048);
    assert_non_null(engine_chat(en));
    assert_int_equal(tokenizer_n_vocab(engine_tokenizer(en)), 4096);
    engine_close(en);
}

static void refuses_what_cannot_be(void **state)
{
    (void)state;
    refuse((struct engine_settings){.model_path = "/nowhere.gguf"}, ERR_NOT_FOUND, "/nowhere.gguf");
    refuse((struct engine_settings){.n_parallel = 1000}, ERR_INPUT, "--parallel is 1000");
    refuse((struct engine_settings){.n_ctx = 3}, ERR_INPUT, "--ctx is 3");
    refuse((struct engine_settings){.n_ctx = 2048, .kv_bytes = 1 << 20}, ERR_MEMORY,
           "--kv-memory of 1 MiB");
    refuse((struct engine_settings){.kv_type = "q3"}, ERR_INPUT, "\"q3\"");
    refuse((struct engine_settings){.device = "cpu", .kv_type = "f16"}, ERR_UNSUPPORTED,
           "leave --kv-type out, or say q8_0");
    refuse((struct engine_settings){.device = "ref", .kv_type = "q8_0"}, ERR_UNSUPPORTED,
           "leave --kv-type out, or say f32 or f16");
    refuse((struct engine_settings){.device = "abacus"}, ERR_NOT_FOUND, "abacus");
    refuse((struct engine_settings){.chat_template = STR("{% if %}")}, ERR_FORMAT, "template");
}

static void a_vocabulary_alone_runs_nothing(void **state)
{
    (void)state;
    struct engine *en = open_demo((struct engine_settings){.vocab_only = true});
    const int32_t id = 1;
    const struct job job = greedy_job(&id, 1, 1);
    struct stream *s;
    struct err e = {0};
    assert_int_equal(tokenizer_n_vocab(engine_tokenizer(en)), 4096);
    assert_false(engine_submit(en, &job, &s, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    engine_close(en);
}

static bool near(float a, float b)
{
    return a > b - 1e-6f && a < b + 1e-6f;
}

// Qwen3's makers: 0.6 / 0.95 / 20 with thinking, 0.7 / 0.8 / 20 without. The file has no values of its own.
static void sampling_comes_from_request_then_flags_then_the_model(void **state)
{
    (void)state;
    struct engine *en = open_demo((struct engine_settings){.vocab_only = true});
    struct sampling s = {0};
    engine_sampling(en, true, &s);
    assert_true(near(s.temperature, 0.6f) && near(s.top_p, 0.95f) && s.top_k == 20);
    assert_true(s.repeat_penalty == 1 && s.min_p == 0 && s.has_seed);
    const uint64_t seed = s.seed;
    s = (struct sampling){.has_top_p = true, .top_p = 0.5f};
    engine_sampling(en, false, &s);
    assert_true(near(s.temperature, 0.7f) && near(s.top_p, 0.5f) && s.top_k == 20);
    assert_true(s.seed != seed);
    const struct sampling flags = {.has_temperature = true,
                                   .temperature = 0,
                                   .has_top_p = true,
                                   .top_p = 0.9f,
                                   .has_seed = true,
                                   .seed = 7};
    engine_set_sampling(en, &flags);
    s = (struct sampling){.has_top_p = true, .top_p = 0.5f};
    engine_sampling(en, false, &s);
    assert_true(s.temperature == 0 && near(s.top_p, 0.5f) && s.top_k == 20 && s.seed == 7);
    engine_close(en);
}

// A greedy job's first token is the best logit that engine_logits gives, cold and cached.
static void logits_and_jobs_agree(void **state)
{
    (void)state;
    struct engine *en = open_demo((struct engine_settings){.n_ctx = 1024});
    static float cold[4096], cached[4096];
    struct ids ids = {0};
    struct err e = {0};
    const struct str text = STR("<|im_start|>user\nIs the service nginx up?<|im_end|>\n"
                                "<|im_start|>assistant\n");
    for (int i = 0; i < 6; i++)
        assert_true(tokenizer_encode(engine_tokenizer(en), text, TOKENIZE_CONTROL, &ids, &e));
    assert_true(engine_logits(en, ids.p, ids.n, cold, &e));
    assert_true(engine_logits(en, ids.p, ids.n, cached, &e));
    assert_memory_equal(cold, cached, sizeof cold);
    int32_t best = 0;
    for (int32_t i = 1; i < 4096; i++)
        if (cold[i] > cold[best]) best = i;
    const struct job job = greedy_job(ids.p, ids.n, 1);
    struct stream *s;
    assert_true(engine_submit(en, &job, &s, &e));
    struct outcome o = outcome_wait(s);
    assert_int_equal(o.ids[0], best);
    assert_true(o.status.n_cached > 0);
    outcome_free(&o);
    struct engine_stats st;
    engine_stats(en, &st);
    assert_int_equal(st.requests_done, 3);
    assert_int_equal(st.prompt_tokens, 3 * ids.n);
    assert_int_equal(st.prefill_tokens + st.cached_tokens, st.prompt_tokens);
    assert_int_equal(st.ttft.n, 3);
    ids_free(&ids);
    engine_close(en);
}

static void a_stream_may_outlive_the_engine(void **state)
{
    (void)state;
    struct engine *en = open_demo((struct engine_settings){0});
    const int32_t ids[3] = {1, 2, 3};
    struct job job = greedy_job(ids, 3, 2000);
    job.ignore_eos = true;
    struct stream *s;
    struct err e = {0};
    assert_true(engine_submit(en, &job, &s, &e));
    wait_stage(s, STAGE_GENERATE);
    engine_stop(en);
    assert_false(engine_submit(en, &job, &s, &e));
    assert_int_equal(e.code, ERR_SHUTDOWN);
    engine_close(en);
    struct outcome o = outcome_wait(s);
    assert_int_equal(o.error.code, ERR_SHUTDOWN);
    assert_true(o.n > 0);
    outcome_free(&o);
}

int main(void)
{
    const char *source = getenv("SUBMIND_SOURCE");
    snprintf(model_path, sizeof model_path, "%s/models/submind-demo-Q8_0.gguf",
             source == NULL ? "." : source);
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_what_it_loaded),
        cmocka_unit_test(refuses_what_cannot_be),
        cmocka_unit_test(a_vocabulary_alone_runs_nothing),
        cmocka_unit_test(sampling_comes_from_request_then_flags_then_the_model),
        cmocka_unit_test(logits_and_jobs_agree),
        cmocka_unit_test(a_stream_may_outlive_the_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
