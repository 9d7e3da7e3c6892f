# The same commands as .ci/run, by name.

# What must hold before a change is taken.
ci:
    .ci/run

# Lanes: rust, fuzz, conformance, clients, chaos, valkey, deploy, helm, observe.
test *lanes:
    ./test {{lanes}}

lint:
    cargo fmt --all --check
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

fmt:
    cargo fmt --all

# A server with the memory backend on localhost:8123.
serve:
    cargo run --locked

# Redis, server and load balancer in containers.
up:
    docker compose up --build
