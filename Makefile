# The two commands of a day: `make demo` runs the main job and leaves it up, `make test` passes the tests.
# docs/testing.md says what each tier is, and what is real in it.

TIERS ?=

.PHONY: demo demo-down test soak bench images release lint clean

demo:  ## install, build, start a cluster, run a sandbox, put it to sleep, wake it, clone it
	@scripts/demo up

demo-down:  ## end the demo without a trace
	@scripts/demo down

test:  ## what CI runs; every tier: make test TIERS=all; or some: make test TIERS="unit api"
	@scripts/test $(TIERS)

soak:  ## 500 sleeps of one sandbox, verified: 20 minutes in emulation
	@scripts/test soak

bench:  ## a table, and build/bench/results.json
	@if [ -x scripts/bench ]; then exec scripts/bench; else echo "there are no benchmarks yet"; exit 1; fi

images:  ## the container images of controller and agent: deploy/images/README.md
	@DORMOUSE_DEPS=images scripts/install-deps
	@cmake --preset release >/dev/null
	@cmake --build --preset release --target dormouse-controller dormouse-agent dormouse-launch dormouse-guest
	@deploy/images/make-images

release:  ## what users download, from a clean tree, in build/release-artifacts
	@DORMOUSE_DEPS=images scripts/install-deps
	@scripts/release

lint:  ## formatting, clang-tidy on what changed, Python
	@scripts/lint

clean: demo-down  ## all that was built here; the cache of images and tools (~/.cache/dormouse) stays
	@rm -rf build
