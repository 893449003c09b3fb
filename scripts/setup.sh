#!/usr/bin/env bash
# Sets up everything the build needs; does nothing when all is in place.
#
#   scripts/setup.sh          Debian packages and libtorch (a private virtual environment in .venv)
#   scripts/setup.sh --test   also the Python originals and the chat templates that the parity tests compare with
#   scripts/setup.sh --study  also what draws the study's tables and figures
#
# TORCH_DIR=/path/to/torch uses a libtorch that is there already (the folder that holds include/ and lib/).
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(g++ cmake ninja-build ccache pkg-config python3 python3-venv nlohmann-json3-dev libcli11-dev libfmt-dev
          libpcre2-dev libutf8proc-dev zstd libzstd-dev libssl-dev libxxhash-dev libnlopt-dev libjemalloc-dev libgtest-dev libgmock-dev)

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
case "${1:-}" in
  --test|--study)
    ensure_python quiver-torch torch==2.13.0
    mapfile -t requirements < <(grep -vE '^\s*(#|$)' "scripts/requirements-${1#--}.txt")
    ensure_python "quiver-${1#--}" "${requirements[@]}"
    ;;
esac

# Real chat templates and what jinja2 makes of them, for quiver/text/jinja_golden_test.cpp. They come with the source archive of a package
# that bundles llama.cpp's collection; pip prepares its metadata after the download, which builds nothing of it.
ensure_chat_templates() {
  local package=llama-cpp-python==0.3.36 folder=.venv/chat-templates wanted
  wanted="$package $(cksum < scripts/golden/make_chat_templates.py)"
  [ -f "$folder/stamp" ] && [ "$(cat "$folder/stamp")" = "$wanted" ] && return
  if [ ! -f "$folder/fetched" ] || [ "$(cat "$folder/fetched")" != "$package" ]; then
    echo "setup: fetching the chat templates in $package" >&2
    rm -rf "$folder"
    mkdir -p "$folder/download" "$folder/templates"
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --retries 5 --no-deps --no-binary :all: \
        --dest "$folder/download" "$package" >&2
    tar -xzf "$folder"/download/*.tar.gz -C "$folder/templates" --strip-components=5 --wildcards \
        '*/vendor/llama.cpp/models/templates/*.jinja'
    rm -rf "$folder/download"
    printf '%s' "$package" > "$folder/fetched"
  fi
  .venv/bin/python scripts/golden/make_chat_templates.py --real "$folder/templates" "$folder/cases.json"
  printf '%s' "$wanted" > "$folder/stamp"
}
if [ "${1:-}" = --test ]; then ensure_chat_templates; fi
