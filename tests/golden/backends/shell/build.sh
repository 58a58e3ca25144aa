#!/bin/sh
# torch 1.0.1 from its published wheel, on debian-11 with Python 2.7.
# Written by envforge; sh build.sh --help says what it does.

# shellcheck disable=SC2329,SC2016
set -eu

platform=debian-11
suite=bullseye
components='main contrib non-free'
bootstrap='mmdebstrap --variant=minbase --include=ca-certificates --components=main,contrib,non-free bullseye FOLDER'
stages='wheels runtime'
plan=7a72d63fde59
steps=5
unhashed=''
base_environment() {
    export LANG=C.UTF-8
    export LC_ALL=C.UTF-8
}

context=$(cd "$(dirname "$0")" && pwd)
state=${ENVFORGE_STATE:-/var/lib/envforge}
cache=${ENVFORGE_CACHE:-/var/cache/envforge}
place='the command that made this folder, without --dry-run: it puts the inputs in place'

usage() {
    cat <<USAGE
usage: sh build.sh [--until $(echo "$stages" | sed 's/ /|/g')]

Builds, in the root it is run in, what the image of plan $plan would hold. As root, on
$platform ($suite). Interrupted, the same command goes on where it was.

MAX_JOBS         compilers at once; each may take gigabytes [default: every core]
ENVFORGE_CACHE   where what was compiled is kept [default: /var/cache/envforge]
ENVFORGE_STATE   where finished steps are noted [default: /var/lib/envforge]
USAGE
}

say() {
    printf '%s\n' "$*"
}

fail() { # EXIT WHAT HINT
    printf 'error: %s\n  try: %s\n' "$2" "$3" >&2
    exit "$1"
}

# A build must not depend on what its caller has exported (CFLAGS, USE_CUDA, PYTHONPATH, ...).
clean_environment() {
    for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
        case $name in
        TERM | MAX_JOBS | ENVFORGE_CACHE | ENVFORGE_STATE | SSL_CERT_FILE) ;;
        http_proxy | https_proxy | ftp_proxy | all_proxy | no_proxy) ;;
        HTTP_PROXY | HTTPS_PROXY | FTP_PROXY | ALL_PROXY | NO_PROXY) ;;
        *) unset "$name" 2>/dev/null || true ;;
        esac
    done
    export HOME=/root DEBIAN_FRONTEND=noninteractive
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    base_environment
}

check_host() {
    # shellcheck source=/dev/null  # every root has its own
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-${VERSION:-none}}")
    case " $codename " in
    *[\ \(]"$suite"[\ \)]*) ;; # Debian 9 has no VERSION_CODENAME, but VERSION="9 (stretch)"
    *) fail 8 "this root is $codename, the plan is for $platform ($suite)" \
        "$bootstrap, copy this folder into it, and chroot" ;;
    esac
    [ "$(id -u)" = 0 ] || fail 8 "packages are installed, so this runs as root" "sudo sh build.sh"
}

check_inputs() {
    cd "$context"
    if [ -s inputs.sha256 ]; then
        say "checking $(wc -l <inputs.sha256) files by their sha256"
        sha256sum --check --quiet --strict inputs.sha256 >&2 ||
            fail 5 "what is built from is not whole" "$place"
    fi
    for path in $unhashed; do
        [ -e "$path" ] || fail 5 "$path is missing" "$place"
    done
}

# What a layer does in an image, a note does here: a step whose note says done is not run again.
# step NUMBER HASH TITLE FUNCTION [PATH...]; the paths are what the step may be the first to make.
step() {
    number=$1 note=$state/$1-$2 title=$3 function=$4 again=
    shift 4
    refuse_other_plan
    if [ -e "$note.done" ]; then
        say "step $number/$steps: done before: $title"
        return
    fi
    say "step $number/$steps: $title"
    if [ -e "$note.begun" ]; then
        undo
        again=yes
    else
        for path; do
            [ -e "$path" ] || printf '%s\n' "$path"
        done >"$note.new"
        mv "$note.new" "$note.begun"
    fi
    code=0
    # As an image's builder runs it: every step says itself what must not fail.
    (
        set +eu
        [ -z "$again" ] || export PIP_UPGRADE=1 # pip leaves alone what is there, even half of it
        "$function"
    ) </dev/null || code=$?
    withdraw
    [ "$code" = 0 ] || step_failed
    mv "$note.begun" "$note.done"
}

step_failed() {
    fail 7 "step $number/$steps failed with exit $code: $title" \
        "the same command, once the reason above is gone: it goes on with this step$(unknown_components)"
}

unknown_components() {
    # Not what the last update found: a step removes that behind itself.
    known=$(apt-get indextargets --no-release-info --format '$(COMPONENT)')
    for component in $components; do
        printf '%s\n' "$known" | grep -qx "$component" ||
            printf '; apt has no %s among its sources here' "$component"
    done
}

refuse_other_plan() {
    for other in "$state/$number"-*; do
        case $other in
        "$note".* | "$state/$number-*") ;;
        *) fail 8 "step $number was done in this root for another plan" \
            "a fresh root ($bootstrap); or remove $state, and build over what is there" ;;
        esac
    done
}

# What an interrupted step was the first to make is half of what it should be.
undo() {
    while read -r path; do
        [ ! -e "$path" ] || say "  removing $path, which the interrupted step began"
        rm -rf -- "$path"
    done <"$note.begun"
    mend_packages
}

# Interrupted, dpkg leaves packages half unpacked, or unpacked before those that they depend on.
mend_packages() {
    if dpkg --configure -a && [ -z "$(dpkg --audit)" ]; then
        return
    fi
    say "  mending the packages that the interrupted step left half installed"
    { apt-get update && apt-get install -y --no-install-recommends --fix-broken; } ||
        fail 7 "the interrupted step left packages that apt cannot mend" \
            "apt-get install --fix-broken, by hand; or a fresh root ($bootstrap)"
}

# provide SOURCE TARGET: what an image's builder mounts for the time of a step is a link here.
provide() {
    [ -e "$1" ] || fail 5 "$1 is missing" "$place"
    if [ -e "$2" ] || [ -L "$2" ]; then
        fail 8 "$2 is in the way: a step needs that name" "move it away"
    fi
    mkdir -p "$(dirname "$2")"
    printf '%s\n' "$2" >>"$state/provided"
    ln -s "$1" "$2"
}

keep() { # ID TARGET: a cache that outlives the step
    mkdir -p "$cache/$1"
    provide "$cache/$1" "$2"
}

withdraw() {
    [ -e "$state/provided" ] || return 0
    while read -r path; do
        [ ! -L "$path" ] || rm -- "$path"
    done <"$state/provided"
    rm -- "$state/provided"
}

enter() {
    mkdir -p "$1"
    cd "$1"
}

main() {
    until=${stages##* }
    while [ $# -gt 0 ]; do
        case $1 in
        --until) until=${2:-none} && shift $(($# > 1)) ;;
        --until=*) until=${1#*=} ;;
        -h | --help) usage && exit ;;
        *) usage >&2 && exit 2 ;;
        esac
        shift
    done
    case " $stages " in
    *" $until "*) ;;
    *) usage >&2 && exit 2 ;;
    esac
    clean_environment
    check_host
    check_inputs
    mkdir -p "$state" "$cache"
    exec 9>"$state/lock"
    flock --nonblock 9 || { say "another build is at work in this root: waiting for it" && flock 9; }
    trap withdraw EXIT
    trap 'say "interrupted: the same command goes on from here" >&2; exit 130' INT TERM
    withdraw
    for stage in $stages; do
        say "stage $stage"
        ("stage_$stage")
        if [ "$stage" = "$until" ]; then
            break
        fi
    done
    say "finished: $until; its variables: . $context/environment-$until.sh"
}

step_1() {
    apt-get update \
     && apt-get install -y --no-install-recommends python3-pip \
     && rm -rf /var/lib/apt/lists/*
}

# pip only unpacks here, so the pip of one Python can install for another; hashes are checked again.
step_2() {
    provide "$context"/inputs/wheels /wheels
    provide "$context"/requirements.txt /requirements.txt
    python3 -m pip install --no-cache-dir --no-compile --no-deps --no-index --find-links /wheels \
          --require-hashes --only-binary :all: --target /site \
          --implementation cp --python-version 2.7 --abi cp27mu \
          --platform manylinux1_x86_64 \
          -r /requirements.txt
}

stage_wheels() {
    enter /
    step 1 3d99012b8307 'wheels: apt-get update && apt-get install -y --no-install-recommends ...' step_1 /var/lib/apt/lists
    step 2 e0d1c719b90c 'wheels: python3 -m pip install --no-cache-dir --no-compile --no-deps ...' step_2 /site
}

step_3() {
    apt-get update \
     && apt-get install -y --no-install-recommends python2.7 \
     && rm -rf /var/lib/apt/lists/*
}

step_4() {
    mkdir -p /usr/local/lib/python2.7/dist-packages/ &&
        cp --archive /site/. /usr/local/lib/python2.7/dist-packages/
}

step_5() {
    id -u envforge >/dev/null 2>&1 || useradd --create-home --shell /bin/bash envforge
}

stage_runtime() {
    enter /
    step 3 083aea1d6ebd 'runtime: apt-get update && apt-get install -y --no-install-recommends ...' step_3 /var/lib/apt/lists
    step 4 9c569eaafe67 'runtime: copy /site/' step_4
    export ENVFORGE_PYTHON=/usr/bin/python2.7
    step 5 9064b3e05d7c 'runtime: the user envforge' step_5
    enter /home/envforge
    say 'start: /usr/bin/python2.7'
}

main "$@"
