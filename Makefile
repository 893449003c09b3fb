# Everything a person needs. BUILD is the build folder; TORCH_DIR=... uses a libtorch that is there already;
# BASE=... runs the demo on another base model (a Hugging Face folder or a .gguf file).
BUILD ?= build
JOBS ?= $(shell nproc)
PYTHON := $(if $(wildcard .venv/bin/python),.venv/bin/python,python3)
CMAKE_FLAGS ?=
SANITIZED := -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g1"

.PHONY: all setup setup-test setup-study configure build base demo tiny-base demo-seeds unit test lint lint-all bench bench-serve bench-eval check-llama-cpp check-page curve study study-small study-all study-folds study-rows fuzz asan \
  asan-kernels kernel-fuzz tsan format layering tokenizer-long soak check-lm-eval clean

all: build

setup:
	@scripts/setup.sh

setup-test:
	@scripts/setup.sh --test

setup-study:
	@scripts/setup.sh --study

configure: setup
	@cmake -S . -B $(BUILD) -G Ninja $(if $(TORCH_DIR),-DTORCH_DIR=$(TORCH_DIR)) $(CMAKE_FLAGS) > .configure.log 2>&1 \
	  || { cat .configure.log; exit 1; }

## The program, build/quiver
build: configure
	@ninja -C $(BUILD) -j $(JOBS) quiver

base: build
	@$(BUILD)/quiver fetch --python $(PYTHON) > /dev/null

## The main job on real data: a library of adapters, a table of what helps, runs/demo/report.html
demo: build $(if $(BASE),,base)
	@scripts/demo.sh $(BUILD)/quiver "$(BASE)"

## A small model of FAMILY (scripts/tiny_base.py lists them), trained for some minutes: runs/tiny/FAMILY, for `make demo BASE=runs/tiny/FAMILY`
tiny-base: setup-test build base
	@mkdir -p runs/tiny
	@$(PYTHON) scripts/tiny_base.py --family $(FAMILY) --output runs/tiny/$(FAMILY)-untrained --quiver $(BUILD)/quiver
	@$(BUILD)/quiver train --base runs/tiny/$(FAMILY)-untrained --full runs/tiny/$(FAMILY) --data data/train --tasks all \
	  --max-examples $${EXAMPLES:-24} --epochs 2 --batch-size 16 --lr 1e-3 --force
	@rm -r runs/tiny/$(FAMILY)-untrained

## The demo by three seeds, other adapters and other rows with each, into docs/study/demo.md; an hour or less
demo-seeds: setup-study build $(if $(BASE),,base)
	@for seed in 1 2 3; do SEED=$$seed OUT=runs/demo-$$seed scripts/demo.sh $(BUILD)/quiver "$(BASE)" || exit 1; done
	@$(PYTHON) study/seeds.py --title "The demo, by several seeds" --command "make demo-seeds" runs/demo-1/results.json runs/demo-2/results.json \
	  runs/demo-3/results.json > docs/study/demo.md

## The tests beside the sources; about a minute after the build. Programs run two at a time, each with half of the cores
unit: setup-test configure
	@ninja -C $(BUILD) -j $(JOBS)
	@$(BUILD)/quiver fetch --python $(PYTHON) > /dev/null
	@rm -rf $(BUILD)/test-results
	@cd $(BUILD) && OMP_NUM_THREADS=$(shell expr \( $(JOBS) + 1 \) / 2) ctest -L unit -j 2 --output-on-failure
	@scripts/skipped_tests.py $(BUILD)/test-results

## All tests; minutes
test: setup-test configure
	@ninja -C $(BUILD) -j $(JOBS)
	@$(BUILD)/quiver fetch --python $(PYTHON) > /dev/null
	@rm -rf $(BUILD)/test-results
	@cd $(BUILD) && ctest --output-on-failure
	@scripts/skipped_tests.py $(BUILD)/test-results

## A million texts by every real vocabulary, and as many lists of ids; an hour
tokenizer-long: setup-test build
	@$(PYTHON) scripts/check_tokenizer.py --program $(BUILD)/quiver --random 1000000 --vocabularies

## Formatting, layers, clang-tidy; minutes, changed sources alone the next time
lint: setup-test
	@scripts/lint.sh $(JOBS)

## Also clang-tidy over the tests, every source parsed alone, which shows includes that are missing, and the fuzz targets
lint-all: setup-test
	@scripts/lint.sh --all $(JOBS)

## Side by side with PEFT and transformers; minutes
bench: setup-test build base
	@$(PYTHON) bench/run.py --quiver $(BUILD)/quiver

## `quiver serve` beside llama-server, which is compiled once, and PEFT's Arrow; an hour, or ARGS="--only decode --rounds 1"
bench-serve: setup-test build base
	@scripts/llama_server.sh
	@$(PYTHON) bench/serve.py --quiver $(BUILD)/quiver --llama-server .venv-llama/llama-server $(ARGS)

## `quiver eval` beside lm-evaluation-harness; an hour, or ARGS="--rows 20 --only agreement"
bench-eval: setup-test build base
	@$(PYTHON) bench/eval.py $(ARGS)

## Models and adapters that `quiver export` writes, computed by llama.cpp, which is compiled once
check-llama-cpp: setup-test build base
	@[ -x .venv-llama/bin/python ] || $(PYTHON) -m venv .venv-llama
	@.venv-llama/bin/python -c "import llama_cpp" 2> /dev/null || .venv-llama/bin/python -m pip install --quiet llama-cpp-python==0.3.36
	@.venv-llama/bin/python scripts/check_llama_cpp.py --quiver $(BUILD)/quiver --python $(PYTHON)

## 100,000 requests to the server (REQUESTS) while clients go and adapters change: nothing may be left behind; minutes
soak: build
	@$(PYTHON) tests/serve/soak.py --requests $${REQUESTS:-100000}

## lm-eval through the server, on the real base model and more rows than `make test` takes; a quarter of an hour
check-lm-eval: setup-test build base
	@LM_EVAL_LONG=1 $(PYTHON) tests/serve/lm_eval_test.py -v

## The page of the server in headless Chromium (Debian's chromium); minutes
check-page: setup-test build base
	@[ -x .venv-page/bin/python ] || $(PYTHON) -m venv .venv-page
	@.venv-page/bin/python -c "import playwright" 2> /dev/null || .venv-page/bin/python -m pip install --quiet playwright==1.65.2
	@for part in playground traces library access; do .venv-page/bin/python tests/page/$${part}_test.py || exit 1; done

## 200 steps of Quiver and of PEFT from one adapter over the same batches; minutes
curve: setup-test build base
	@$(PYTHON) bench/loss_curve.py --quiver $(BUILD)/quiver

## The paper's tables and figures at small size, into docs/study; hours, resumable; half the rows without bfloat16 (docs/study/README.md)
study: setup-study build base
	@$(PYTHON) study/study.py --quiver $(BUILD)/quiver --base "$(BASE)" --size auto

study-small: setup-study build base
	@$(PYTHON) study/study.py --quiver $(BUILD)/quiver --base "$(BASE)" --size small --jobs 2 --threads $(shell expr \( $(JOBS) + 1 \) / 2)

## All 96 tasks, one seed: for a machine with a GPU
study-all: setup-study build base
	@$(PYTHON) study/study.py --quiver $(BUILD)/quiver --base "$(BASE)" --size all --jobs 5 --threads 3 --together 8

## Every training task left out once, with its whole category, into docs/study/unseen.md; hours, resumable
study-folds: setup-study build base
	@$(PYTHON) study/folds.py --quiver $(BUILD)/quiver

## One adapter of all tasks by rows of each, on the held-out tasks, into docs/study/rows.md; the better part of an hour, resumable
study-rows: setup-study build base
	@study/rows.sh $(BUILD)/quiver
	@$(PYTHON) study/seeds.py --title "The curve by rows" --command "make study-rows" --about "One adapter of all 96 training tasks; rows-N: N rows of each, 3 epochs." runs/rows-1/results.json > docs/study/rows.md

## Every parser under libFuzzer with ASan and UBSan, a minute each (needs clang and libclang-rt-14-dev)
fuzz: setup
	@scripts/fuzz.sh

## The torch-free tests and the kernels under ASan and UBSan
asan: setup asan-kernels
	@cmake -S . -B build-asan -G Ninja $(SANITIZED) -DQUIVER_SANITIZE=address,undefined > /dev/null
	@ninja -C build-asan quiver_base_test quiver_io_test quiver_http_test quiver_forest_test quiver_sandbox_test quiver_schedule_test quiver_regex_test quiver_text_test quiver_data_test quiver_api_test quiver_serve_test quiver_results_test quiver_report_test
	@for t in base io http forest sandbox schedule regex text data api serve results report; do build-asan/quiver_$${t}_test --gtest_brief=1 || exit 1; done

## All kernels of every instruction set that this CPU has, under ASan and UBSan: a fixed run, or SECONDS_EACH seconds for each test
asan-kernels: setup
	@cmake -S . -B build-asan -G Ninja $(SANITIZED) -DQUIVER_SANITIZE=address,undefined > /dev/null
	@ninja -C build-asan quiver_kernels_test
	@build-asan/quiver_kernels_test --gtest_brief=1

## All kernels against their definitions on random shapes, SECONDS_EACH (60) seconds for each test, optimised as in the program
kernel-fuzz: configure
	@ninja -C $(BUILD) -j $(JOBS) quiver_kernels_test
	@SECONDS_EACH=$${SECONDS_EACH:-60} $(BUILD)/quiver_kernels_test --gtest_brief=1

## What headers call thread-safe, by several threads under ThreadSanitizer
tsan: setup
	@cmake -S . -B build-tsan -G Ninja $(SANITIZED) -DQUIVER_SANITIZE=thread > /dev/null
	@ninja -C build-tsan quiver_threads_test quiver_http_threads_test quiver_serve_threads_test quiver_torch_threads_test
	@for t in threads http_threads serve_threads torch_threads; do OMP_NUM_THREADS=1 TSAN_OPTIONS="halt_on_error=1 suppressions=tests/threads/tsan.supp" \
	  build-tsan/quiver_$${t}_test --gtest_brief=1 || exit 1; done

format: setup-test
	@.venv/bin/clang-format -i $$(git ls-files '*.h' '*.cpp')

layering:
	@python3 scripts/check_layering.py

clean:
	rm -rf $(BUILD) build-lint
