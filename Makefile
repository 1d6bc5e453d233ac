# The short way in. Each target installs what it needs (scripts/deps) and works on a fresh machine.
BUILD ?= build
JOBS ?= $(shell nproc)
MAKEFLAGS += --no-print-directory
CONFIGURE = cmake -S . -DCMAKE_C_COMPILER_LAUNCHER=$(shell command -v ccache)

.PHONY: all demo test check soak bench format clean

all:
	scripts/deps build
	$(CONFIGURE) -B $(BUILD) -DSUBMIND_TESTS=OFF
	cmake --build $(BUILD) -j $(JOBS) --target submind

demo: all
	examples/demo.sh $(BUILD)/submind

test:
	scripts/deps test
	$(CONFIGURE) -B $(BUILD) -DSUBMIND_TESTS=ON -DSUBMIND_WERROR=ON
	cmake --build $(BUILD) -j $(JOBS)
	ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

# The same tests under ASan+UBSan (clang, with libFuzzer) and TSan, and warning-free under clang.
check: test
	scripts/deps check
	$(CONFIGURE) -B $(BUILD)-asan -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug \
	    -DSUBMIND_SANITIZE=address,undefined -DSUBMIND_WERROR=ON
	cmake --build $(BUILD)-asan -j $(JOBS)
	ctest --test-dir $(BUILD)-asan --output-on-failure -j $(JOBS)
	$(CONFIGURE) -B $(BUILD)-tsan -DCMAKE_BUILD_TYPE=Debug -DSUBMIND_SANITIZE=thread
	cmake --build $(BUILD)-tsan -j $(JOBS)
	ctest --test-dir $(BUILD)-tsan --output-on-failure -j $(JOBS)

soak: all
	scripts/deps test
	bash tests/e2e/node.sh tests/e2e/soak.mjs --minutes 10
	bash tests/e2e/node.sh tests/e2e/soak_runs.mjs --runs 1000
	bash tests/e2e/node.sh tests/e2e/kills.mjs --kills 1000

bench: all
	bench/run.sh $(BUILD)/submind

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan
