#!/bin/sh
# Installs what is missing and builds: npm packages, HAProxy, and for tests NGINX, ZooKeeper with a Java runtime, Redis,
# MariaDB, PostgreSQL, RabbitMQ, Podman with runc, openssl and systemd-analyze. Debian and Ubuntu; elsewhere it says what
# to install. Does nothing when nothing is missing.
set -eu

cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
did=''
masked=''

say() { printf 'setup: %s\n' "$1"; }

note() { did="${did:+$did, }$1"; }

# Runs a step quietly; shows what it said when it fails.
quietly() {
  "$@" >"$log" 2>&1 || {
    cat "$log" >&2
    say "failed: $*" >&2
    exit 1
  }
}

need_node() {
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    say 'Node.js 20.19 or later and npm are needed: https://nodejs.org' >&2
    exit 1
  fi
  if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'; then
    say "Node.js 20.19 or later is needed, this is $(node --version)" >&2
    exit 1
  fi
}

missing_packages() {
  missing=''
  PATH="$PATH:${TANDEM_SYSTEM_PATH:-/usr/sbin:/sbin}"
  command -v haproxy >/dev/null || missing="$missing haproxy"
  command -v java >/dev/null || missing="$missing default-jre-headless"
  command -v openssl >/dev/null || missing="$missing openssl"
  command -v nginx >/dev/null || missing="$missing nginx-light"
  [ -e /usr/share/java/zookeeper.jar ] || missing="$missing zookeeper"
  command -v redis-server >/dev/null || missing="$missing redis-server"
  command -v mariadbd >/dev/null || missing="$missing mariadb-server"
  has_postgres || missing="$missing postgresql"
  command -v rabbitmq-server >/dev/null || missing="$missing rabbitmq-server"
  command -v podman >/dev/null || missing="$missing podman"
  command -v runc >/dev/null || missing="$missing runc"
  command -v systemd-analyze >/dev/null || missing="$missing systemd"
  # Listens like systemd in tests.
  command -v perl >/dev/null || missing="$missing perl-base"
  echo "$missing"
}

# It is not in the path, and its directory is there with its clients, too.
has_postgres() {
  for program in /usr/lib/postgresql/*/bin/postgres; do
    [ ! -e "$program" ] || return 0
  done
  return 1
}

install_packages() {
  packages=$1
  if ! command -v apt-get >/dev/null; then
    say "there is no apt-get here. Install:$packages" >&2
    say 'HAProxy must be 2.6 or later; the tests look for ZooKeeper 3.8 in /usr/share/java/zookeeper.jar' >&2
    exit 1
  fi
  as_root=''
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      say "root or sudo is needed to install:$packages" >&2
      exit 1
    fi
    as_root='sudo'
  fi
  quietly $as_root apt-get update
  # shellcheck disable=SC2086 # a list of words
  keep_off $packages
  # RUNLEVEL keeps new services off where there is no systemd (runlevel(8)).
  # shellcheck disable=SC2086 # a list of words
  quietly $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 PREVLEVEL=N \
    apt-get install -y --no-install-recommends $packages
  release
  note "installed$packages"
}

# Debian starts and enables what it installs. The tests run servers of their own: the ports of this machine are not ours
# to take. A mask in /run is gone after a boot at the latest, whatever becomes of this script.
keep_off() {
  [ -d /run/systemd/system ] || return 0
  for package in "$@"; do
    case $package in
      nginx-light) units='nginx.service' ;;
      redis-server) units='redis-server.service' ;;
      mariadb-server) units='mariadb.service' ;;
      # It starts all clusters, of which the package makes one.
      postgresql) units='postgresql.service' ;;
      podman) units='podman.socket podman.service podman-restart.service podman-auto-update.timer' ;;
      rabbitmq-server) units='rabbitmq-server.service epmd.service epmd.socket' ;;
      *) units='' ;;
    esac
    for unit in $units; do
      # What is here already belongs to somebody.
      systemctl cat "$unit" >/dev/null 2>&1 || masked="$masked $unit"
    done
  done
  # shellcheck disable=SC2086 # a list of words
  [ -z "$masked" ] || quietly $as_root systemctl mask --runtime $masked
}

release() {
  [ -n "$masked" ] || return 0
  # shellcheck disable=SC2086 # a list of words
  quietly $as_root systemctl unmask --runtime $masked
  # shellcheck disable=SC2086 # a list of words
  quietly $as_root systemctl disable $masked
}

# A stamp in node_modules tells whether it belongs to this lockfile.
install_node_modules() {
  wanted=$(cksum <package-lock.json)
  stamp=node_modules/.tandem-lockfile
  if [ ! -e "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
    quietly npm ci
    printf '%s' "$wanted" >"$stamp"
    note 'ran npm ci'
  fi
}

build() {
  stamp=node_modules/.tandem-build
  if [ ! -e "$stamp" ] || [ ! -e packages/cli/dist/main.js ] ||
    [ -n "$(find packages test deploy tsconfig.json tsconfig.base.json package.json -newer "$stamp" -type f \
      \( -name '*.ts' -o -name '*.mjs' -o -name '*.hbs' -o -name '*.json' \) \
      -not -path '*/dist/*' -not -path '*/node_modules/*' -print -quit)" ]; then
    quietly npm run --silent build
    touch "$stamp"
    note 'built'
  fi
}

need_node
packages=$(missing_packages)
[ -z "$packages" ] || install_packages "$packages"
install_node_modules
build
say "${did:-nothing to do}"
