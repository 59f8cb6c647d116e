# The commands that people type. Meson and Ninja do the work; `make help` lists everything.

BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
PYTHON ?= $(shell scripts/find-python.sh 2>/dev/null || echo python3)

.PHONY: all build demo test test-gpu fuzz install bench valgrind coverage lint format clean help

all: build

build: ## build gpumgrd, gpumgr and gpumgr-simsvc into build/
	@scripts/build.sh $(BUILD)

demo: ## install what the build needs, build, and watch a simulated GPU go through its phases
	@BUILD=$(BUILD) scripts/demo.sh

test: ## install what the tests need, build, and run every test there is
	@BUILD=$(BUILD) scripts/test.sh

test-gpu: ## the tests that need a real NVIDIA GPU; they fail where there is none
	@BUILD=$(BUILD) scripts/test-gpu.sh

fuzz: ## run each fuzz target for FUZZ_SECONDS (300), side by side
	@scripts/install-deps.sh fuzz
	@scripts/fuzz.sh

install: ## install into $(DESTDIR)$(PREFIX); both may be given on the command line
	@BUILD=$(BUILD) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) scripts/install.sh

bench: ## run the benchmarks
	@scripts/build.sh $(BUILD)
	@if [ -f bench/meson.build ]; then meson test -C $(BUILD) --benchmark --verbose; else echo "there are no benchmarks yet"; fi

valgrind: ## the unit tests under valgrind's memcheck (minutes)
	@BUILD=$(BUILD) scripts/valgrind.sh

coverage: ## line coverage of src/ by the tests, in build-coverage/
	@scripts/coverage.sh

lint: ## formatting (clang-format) and static checks (clang-tidy, mypy, ruff where it is)
	@scripts/lint.sh

format: ## put every source file into the project's format
	@git ls-files 'src/*.[ch]' 'tests/*.[ch]' 'include/*.h' 'bench/*.[ch]' | xargs clang-format -i

clean: ## remove everything that was built
	@rm -rf $(BUILD) build-asan build-clang build-coverage build-fuzz build-install build-lint

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
