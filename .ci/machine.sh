# What the checks need beside Rust and Python, installed once per machine, outside the clone. Sourced by .ci/run and by
# the workflows; deleting $CACHE is safe.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/fusion-ci

fail() { printf '%s: %s\n' "$0" "$*" >&2; exit 1; }

# once_per_machine NAME KEY COMMAND [ARGUMENT]...
# Sets DIRECTORY to the directory of NAME and KEY. Unless it is filled, runs COMMAND [ARGUMENT]... DIRECTORY to fill it.
# KEY names everything on which the content depends.
once_per_machine() {
    local name=$1 key=$2 directory
    shift 2
    directory=$CACHE/$name/$(printf %s "$key" | tr -c 'A-Za-z0-9.=_-' _)
    mkdir -p "$CACHE/$name"
    # A second run on this machine waits for the first one. macOS has no flock(1).
    exec 9>"$CACHE/$name/lock"
    "$(find_python)" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    if [ ! -e "$directory/.complete" ]; then
        echo "installing $name $key into $directory, once for this machine"
        rm -rf "$directory"
        mkdir "$directory"
        "$@" "$directory" 9>&-
        touch "$directory/.complete"
    fi
    exec 9>&-
    DIRECTORY=$directory
}

find_python() {
    local python
    for python in python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    fail 'no Python 3.11 or newer with its venv module (on Debian: apt-get install python3-venv)'
}

# Each of these puts a tool on PATH, in a version with which the checks are known to pass.
use_cargo_deny() { use_crate cargo-deny 0.20.2; }
use_typos() { use_crate typos-cli 1.52.0; }

use_crate() {
    once_per_machine "$1" "$2" install_crate "$1" "$2"
    PATH=$DIRECTORY/bin:$PATH
}

# Unoptimized and without debug information: checking takes seconds either way, and compiling half the time.
install_crate() {
    CARGO_PROFILE_DEV_DEBUG=false cargo install --quiet --locked --debug --root "$3" --version "=$2" "$1"
}

# The real mlx_lm.server.
use_mlx_lm() {
    local python package='mlx-lm>=0.32.2,<0.33'
    [ "$(uname)" = Darwin ] || package=${package/mlx-lm/mlx-lm[cpu]}
    python=$(find_python)
    once_per_machine mlx-lm "$package $("$python" --version)" install_packages "$python" "$package"
    PATH=$DIRECTORY/bin:$PATH
}

install_packages() {
    "$1" -m venv "$3"
    # The packages of one argument are separated by spaces.
    # shellcheck disable=SC2086
    "$3/bin/pip" --disable-pip-version-check install --quiet $2
}

# The official Python clients of both APIs, as $CLIENTS_PYTHON: their own environment must not hide another `python`.
use_clients() {
    local python packages='openai==3.57.0 anthropic==2.14.0'
    python=$(find_python)
    once_per_machine clients "$packages $("$python" --version)" install_packages "$python" "$packages"
    export CLIENTS_PYTHON=$DIRECTORY/bin/python
}

# Node packages, each in its own directory: the coding agents, and the driver of a browser.
use_codex() { use_node_package @openai/codex 0.171.0; }
use_claude() { use_node_package @anthropic-ai/claude-code 2.1.332; }
use_opencode() { use_node_package opencode-ai 1.18.33; }
use_playwright() {
    use_node_package playwright-core 1.65.1
    export PLAYWRIGHT_CORE=$DIRECTORY/node_modules/playwright-core
}

use_node_package() {
    once_per_machine "$(basename "$1")" "$2" install_node_package "$1@$2"
    PATH=$DIRECTORY/node_modules/.bin:$PATH
}

install_node_package() {
    npm install --silent --no-fund --no-audit --prefix "$2" "$1"
}

# use_debian PROGRAM=PACKAGE...
# Installs the package of each program that is not there, on Debian and its descendants. The package's own services are
# not started.
use_debian() {
    local pair missing=() sudo=()
    for pair in "$@"; do
        PATH=$PATH:/usr/sbin command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || sudo=(sudo)
    echo "installing ${missing[*]} with apt-get"
    "${sudo[@]}" apt-get update -q >/dev/null
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null
}

# The real Ollama, for the CPU. Its key has the script, too: a change of the script builds it again.
use_ollama() {
    local version=0.17.4
    once_per_machine ollama "$version $(cksum <.ci/build-ollama)" .ci/build-ollama "$version"
    PATH=$DIRECTORY/bin:$PATH
}

# The real llama-server.
use_llama_server() {
    local version=11434.0.0
    once_per_machine llama-server "$version $(cksum <.ci/build-llama-server)" .ci/build-llama-server "$version"
    PATH=$DIRECTORY/bin:$PATH
}

# A linker for macOS: zig, which brings the stubs of the system's libraries, and its wrapper for cargo.
use_zigbuild() {
    local python packages='ziglang==0.17.1 cargo-zigbuild==0.24.1'
    python=$(find_python)
    once_per_machine zigbuild "$packages $("$python" --version)" install_packages "$python" "$packages"
    PATH=$DIRECTORY/bin:$PATH
}
