# cbuf: `make demo` shows it at work, `make check` tests it, `make help` lists the rest.
CC       ?= cc
CXX      ?= c++
PYTHON   ?= $(shell for p in python3 /usr/bin/python3; do \
              $$p -c 'import numpy' 2>/dev/null && echo $$p && break; done)
PREFIX   ?= /usr/local
BUILD    ?= build
STD      ?= c11
LANGUAGE ?= c
STRICT   := -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Werror
CFLAGS   ?= -O2
FLAGS     = -Iinclude -Itests -pthread $(STRICT) $(CFLAGS)

HEADERS  := $(wildcard include/*.h)
TESTS    := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/test_*.c))
EXAMPLES := $(addprefix $(BUILD)/,producer consumer demo replay embedded raii telemetry epoll \
              sized_ring pipeline many workers)
VERSION  := $(shell sed -n 's/.*CBUF_VERSION "\(.*\)"/\1/p' include/cbuf.h)

.PHONY: help demo check tests model python readme examples headers embedded-symbols bench \
        bench-quick bench-deps bench-rfc bench-plots install uninstall clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(BUILD)/demo ## ten seconds of this machine's /proc through a ring; needs a C compiler only
	@$(BUILD)/demo $(DEMO)

check: ## install what the tests need if it is missing, then run every test
	@.ci/deps check
	@$(MAKE) --no-print-directory headers tests model embedded-symbols examples readme python

tests: $(TESTS) ## the C tests, with cmocka (CC, STD, LANGUAGE, CFLAGS)
	@for test in $(TESTS); do echo "== $$test"; \
	    timeout 900 $(CBUF_TEST_RUNNER) $$test || { echo "$$test: ended with $$?"; exit 1; }; done

model: ## the exhaustive memory-model check of the shipping header, and of its wrong variants
	@tests/model/run

python: ## the tests of the NumPy reader
	@$(or $(PYTHON),$(error no python3 with numpy: make check installs one)) \
	    -m pytest -q -p no:cacheprovider python/tests

readme: ## compile and run the code that stands in README.md
	@CC="$(CC)" CXX="$(CXX)" PYTHON="$(PYTHON)" tests/readme $(BUILD)/readme

headers: ## each header alone, and all together: every language standard that the compilers know, strict flags
	@CC="$(CC)" CXX="$(CXX)" tests/headers

examples: $(EXAMPLES) ## build the examples

embedded-symbols: $(BUILD)/embedded_ring.o ## what a ring without an operating system calls
	@nm -u $< | grep -vE ' (mem(cpy|move|set|cmp)|str(len|cmp|chr))$$' | \
	    { ! grep .; } && echo "embedded: calls mem* and str* only"

bench: ## cbuf beside its peers and the machine's limits, in under five minutes
	@bench/run

bench-quick: ## the same in half a minute, less exactly
	@bench/run --quick

bench-deps: ## install the peers that Debian has
	@bench/deps

bench-rfc: $(BUILD)/rfc ## the success criteria of the telemetry RFC: rates, one push, memory
	@$(BUILD)/rfc

bench-plots: ## draw the last run
	@$(PYTHON) bench/plots.py

install: ## headers, pkg-config and CMake files to PREFIX, or below DESTDIR
	install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/pkgconfig \
	    $(DESTDIR)$(PREFIX)/share/cmake/cbuf
	install -m 644 $(HEADERS) $(DESTDIR)$(PREFIX)/include
	@printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include' '' 'Name: cbuf' \
	    'Description: typed rows shared between processes' 'Version: $(VERSION)' \
	    'Cflags: -I$${includedir}' > $(DESTDIR)$(PREFIX)/share/pkgconfig/cbuf.pc
	@printf '%s\n' 'get_filename_component(root "$${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)' \
	    'if(NOT TARGET cbuf::cbuf)' '  add_library(cbuf::cbuf INTERFACE IMPORTED)' \
	    '  set_target_properties(cbuf::cbuf PROPERTIES INTERFACE_INCLUDE_DIRECTORIES' \
	    '                        "$${root}/include")' 'endif()' \
	    > $(DESTDIR)$(PREFIX)/share/cmake/cbuf/cbuf-config.cmake
	@printf '%s\n' 'set(PACKAGE_VERSION "$(VERSION)")' \
	    'if(NOT PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)' \
	    '  set(PACKAGE_VERSION_COMPATIBLE TRUE)' 'endif()' \
	    > $(DESTDIR)$(PREFIX)/share/cmake/cbuf/cbuf-config-version.cmake

uninstall: ## take away what install put there
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/,$(HEADERS) share/pkgconfig/cbuf.pc)
	rm -rf $(DESTDIR)$(PREFIX)/share/cmake/cbuf

clean: ## remove what was built
	rm -rf $(BUILD)

$(BUILD)/test_%: tests/test_%.c $(HEADERS) $(wildcard tests/*.h) | $(BUILD)
	$(CC) -x $(LANGUAGE) -std=$(STD) $(FLAGS) $< -x none -o $@ -lcmocka

$(BUILD)/rfc: bench/rfc.c examples/telemetry.h $(HEADERS) | $(BUILD)
	$(CC) -std=$(STD) $(FLAGS) $< -o $@
$(BUILD)/embedded: examples/embedded.c examples/embedded_ring.c $(HEADERS) | $(BUILD)
	$(CC) -std=$(STD) $(FLAGS) $(filter %.c,$^) -o $@
$(BUILD)/embedded_ring.o: examples/embedded_ring.c $(HEADERS) | $(BUILD)
	$(CC) -std=$(STD) $(FLAGS) -c $< -o $@
$(BUILD)/telemetry: examples/telemetry.h
$(BUILD)/raii: examples/raii.cpp examples/raii.hpp $(HEADERS) | $(BUILD)
	$(CXX) -std=c++11 $(FLAGS) -Wold-style-cast $< -o $@
$(BUILD)/%: examples/%.c $(HEADERS) | $(BUILD)
	$(CC) -std=$(STD) $(FLAGS) $< -o $@
$(BUILD):
	@mkdir -p $@
