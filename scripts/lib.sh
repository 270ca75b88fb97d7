# shellcheck shell=sh
# Shared by the scripts beside it: sourced, never run. POSIX sh.
#
# It finds tools, and installs those that are missing where that can be done without asking: as root, or with sudo, on a
# machine with apt-get. Elsewhere it says what is missing and how to get it. It never leaves a new service running.

# What apt may wait for another apt (unattended upgrades of a machine that has just started), in seconds.
APT_LOCK_WAIT=180
# The services of the packages we install; we need their programs only.
UNWANTED_SERVICES="docker-registry postgresql pgbouncer prometheus prometheus-node-exporter"
# Where Debian asks whether a service may be started, and how we know a file of ours that a killed run left behind.
SERVICE_POLICY=/usr/sbin/policy-rc.d
SERVICE_POLICY_MARK="# made for the time of one package installation by Freightliner's scripts/lib.sh"

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# True when the program $1 can be run. Daemons live in sbin, which a user's PATH may not name.
have() { command -v "$1" >/dev/null 2>&1; }

# Extends PATH for programs that are installed but not named by it: sbin, cargo of a shell older than rustup, and PostgreSQL's
# server, of which Debian keeps each version in a folder of its own.
extend_path() {
    for folder in /usr/local/sbin /usr/sbin /sbin "${CARGO_HOME:-$HOME/.cargo}/bin" /usr/lib/postgresql/*/bin; do
        [ -d "$folder" ] || continue
        case ":$PATH:" in
        *":$folder:"*) ;;
        *) PATH="$PATH:$folder" ;;
        esac
    done
    export PATH
}

# Runs "$@" as root. Only after may_install said yes.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -- "$@"
    fi
}

# True when packages can be installed: apt-get, and root or a sudo that works without a password or has a terminal to ask.
may_install() {
    have apt-get || return 1
    [ "$(id -u)" -eq 0 ] && return 0
    have sudo || return 1
    sudo -n true 2>/dev/null || [ -t 0 ]
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o "DPkg::Lock::Timeout=$APT_LOCK_WAIT" "$@"
}

# Installs the Debian packages "$@". In a subshell, so that its trap removes the service policy on every way out.
install_packages() (
    # shellcheck disable=SC2317  # called by the trap
    lift_policy() {
        if grep -qsF "$SERVICE_POLICY_MARK" "$SERVICE_POLICY"; then
            as_root rm -f "$SERVICE_POLICY"
        fi
    }
    trap lift_policy EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM

    if [ ! -e "$SERVICE_POLICY" ]; then
        printf '#!/bin/sh\n%s\nexit 101\n' "$SERVICE_POLICY_MARK" | as_root tee "$SERVICE_POLICY" >/dev/null
        as_root chmod 755 "$SERVICE_POLICY"
    fi

    # The lists of a fresh machine are empty or old: then the first try fails and the lists are fetched.
    if ! apt_get install --no-install-recommends "$@" >/dev/null 2>&1; then
        say "fetching the package lists (apt-get update)"
        apt_get update >/dev/null || die "apt-get update failed: are the package servers reachable?"
        apt_get install --no-install-recommends "$@" >/dev/null || die "apt-get install $* failed"
    fi

    for service in $UNWANTED_SERVICES; do
        case " $* " in
        *" $service "*) switch_off "$service" ;;
        esac
    done
)

# Keeps a service that has just been installed from starting, now (where a policy of the machine let it) and at boot.
switch_off() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now "$1" >/dev/null 2>&1 || say "note: could not switch the new service $1 off"
    else
        as_root deb-systemd-helper disable "$1.service" >/dev/null 2>&1 || true
        as_root update-rc.d "$1" disable >/dev/null 2>&1 || true
    fi
}

# need_tools PROGRAM:PACKAGE...  All programs can be run when it returns; otherwise it exits with what to do.
need_tools() {
    missing_programs=
    missing_packages=
    for pair; do
        if ! have "${pair%%:*}"; then
            missing_programs="$missing_programs ${pair%%:*}"
            missing_packages="$missing_packages ${pair#*:}"
        fi
    done
    [ -n "$missing_programs" ] || return 0

    if ! may_install; then
        {
            printf 'error: these programs are missing:%s\n' "$missing_programs"
            if have apt-get; then
                printf 'run this as root, then start again:\n    apt-get update && apt-get install -y --no-install-recommends%s\n' \
                    "$missing_packages"
            else
                printf 'install them (Debian names the packages:%s), then start again\n' "$missing_packages"
            fi
        } >&2
        exit 1
    fi

    say "installing:$missing_packages"
    # shellcheck disable=SC2086  # a list of names
    install_packages $missing_packages || exit 1
    extend_path
    for pair; do
        have "${pair%%:*}" || die "the package ${pair#*:} is installed, but there is no program ${pair%%:*}"
    done
}

# Cargo, and a C compiler for the crates that build C (SQLite, the cryptography of TLS).
need_rust() {
    have cargo || die "cargo is missing: install Rust with rustup (https://rustup.rs), then start again"
    need_tools cc:build-essential
}

# need_rust_component PROGRAM COMPONENT  Parts of the toolchain that a minimal rustup profile leaves out.
need_rust_component() {
    cargo "$1" --version >/dev/null 2>&1 && return 0
    have rustup || die "cargo $1 is missing, and there is no rustup to add it with"
    say "adding the rustup component $2"
    rustup component add "$2" || die "rustup could not add $2"
}

# need_cargo_tool NAME VERSION  A program for developers, built from its released source when none is there.
need_cargo_tool() {
    have "$1" && return 0
    say "building $1 $2 (cargo install; once, takes a few minutes)"
    cargo install --locked --quiet "$1@$2" || die "could not install $1 $2"
}
