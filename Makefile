# The commands that people type. Meson and Ninja do the work; `make help` lists everything.

BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
PYTHON ?= $(shell scripts/find-python.sh 2>/dev/null || echo python3)

.PHONY: all build demo test install bench coverage lint format clean help

all: build

build: ## build gpumgrd, gpumgr and gpumgr-simsvc into build/
	@scripts/build.sh $(BUILD)

demo: ## install what the build needs, build, and watch a simulated GPU go through its phases
	@BUILD=$(BUILD) scripts/demo.sh

test: ## install what the tests need, build, and run every test there is
	@BUILD=$(BUILD) scripts/test.sh

install: ## install into $(DESTDIR)$(PREFIX); both may be given on the command line
	@scripts/build.sh $(BUILD) -Dprefix=$(PREFIX)
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild --quiet
	@echo "installed into $(DESTDIR)$(PREFIX): gpumgrd, gpumgr and gpumgr-simsvc (in bin)"

bench: ## run the benchmarks
	@scripts/build.sh $(BUILD)
	@if [ -f bench/meson.build ]; then meson test -C $(BUILD) --benchmark --verbose; else echo "there are no benchmarks yet"; fi

coverage: ## line coverage of src/ by the tests, in build-coverage/
	@scripts/coverage.sh

lint: ## formatting (clang-format) and static checks (clang-tidy)
	@scripts/lint.sh

format: ## put every source file into the project's format
	@git ls-files 'src/*.[ch]' 'tests/*.[ch]' 'include/*.h' 'bench/*.[ch]' | xargs clang-format -i

clean: ## remove everything that was built
	@rm -rf $(BUILD) build-asan build-clang build-coverage build-install build-lint

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
