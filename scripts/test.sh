#!/usr/bin/env bash
# Sets up what the tests need and runs every check: lint, types, import contracts, tests, example notebooks.
# All of them run, whichever fails; the exit code is 0 only when none did.
#
#   VENV      the virtual environment to use, made when missing (default: .venv)
#   PYTHON    the interpreter to make it with (default: python3)
#   CHROMIUM  the browser (default: /usr/bin/chromium)
#
# Arguments go to pytest in place of the whole suite: scripts/test.sh tests/unit -k retries
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${VENV:-.venv}"
bin="$venv/bin"
[ -x "$bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[test]'
bash scripts/install-chromium.sh

failed=()
check() {
  local name="$1"
  shift
  echo "== $name"
  "$@" || failed+=("$name")
}

suite=("$@")
# Notebooks run against the environment under test; a file's tests stay on one worker, as a notebook's cells must.
[ "${#suite[@]}" -gt 0 ] || suite=(--numprocesses 2 --dist loadfile --nbval-lax --nbval-current-env tests example_notebooks)

check "ruff" "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check .
check "mypy" "$bin/mypy"
check "import contracts" "$bin/lint-imports" --no-logo
check "pytest" "$bin/python" -m pytest "${suite[@]}"

if [ "${#failed[@]}" -gt 0 ]; then
  printf 'Failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
