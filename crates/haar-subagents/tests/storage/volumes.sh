#!/bin/sh
# A `zfs` whose volumes are sparse files on loop devices, for tests on hosts whose ZFS makes none. What is no volume is
# the real program's. It refuses what the real one refuses as far as the tests need that, and a rollback copies.
real=REAL
store=STORE
devices=/dev/zvol

fail() {
    echo "$*" >&2
    exit 1
}

# The folder of a volume, or of the one that a snapshot is of.
folder() {
    printf '%s/%s' "$store" "$(printf %s "${1%%@*}" | tr / %)"
}

# The folder of a volume or a snapshot itself.
place() {
    case $1 in
        *@*) printf '%s/snapshots/%s' "$(folder "$1")" "${1#*@}" ;;
        *) folder "$1" ;;
    esac
}

value() { # property, volume or snapshot
    at=$(place "$2")
    if [ -f "$at/properties/$1" ]; then
        cat "$at/properties/$1"
        return
    fi
    case $1 in
        name) printf %s "$2" ;;
        type) case $2 in *@*) printf snapshot ;; *) printf volume ;; esac ;;
        volsize) stat -c %s "$at/data" ;;
        referenced) echo $(($(stat -c %b "$at/data") * 512)) ;;
        *) printf - ;;
    esac
}

keep() { # folder, lines of property=value
    mkdir -p "$1"
    printf %s "$2" | while IFS= read -r option; do
        printf %s "${option#*=}" >"$1/${option%%=*}"
    done
    date +%s%N | tee "$1/guid" >"$1/createtxg"
    date +%s >"$1/creation"
}

attach() { # volume, more words
    [ -f "$store/no-devices" ] && return
    volume=$1
    shift
    mkdir -p "$devices/${volume%/*}"
    device=$(losetup --find --show "$@" "$(folder "$volume")/data") || exit 1
    ln -sfn "$device" "$devices/$volume"
}

snapshots_of() { # volume, oldest first
    ls -tr "$(folder "$1")/snapshots" 2>/dev/null
}

check_no_clones() { # snapshot, what is destroyed
    for origin in "$store"/*/properties/origin; do
        [ -f "$origin" ] && [ "$(cat "$origin")" = "$1" ] &&
            fail "cannot destroy '$2': it has dependent clones"
    done
}

for word; do
    source=$target
    target=$word
done
[ -f "$store/refused" ] && case "$*" in
    *"$(cat "$store/refused")"*) fail "cannot $1 '$target': out of space" ;;
esac
case "$1" in
    create) case "$*" in *" -V "*) ;; *) exec "$real" "$@" ;; esac ;;
    list) case "$*" in *" -t volume "*) ;; *) exec "$real" "$@" ;; esac ;;
    clone) [ -d "$(folder "$source")" ] || exec "$real" "$@" ;;
    *) [ -d "$(folder "$target")" ] || exec "$real" "$@" ;;
esac

act=$1
shift
options= size= columns= deep= sparse=
while getopts HprsV:o:t:d: flag; do
    case $flag in
        V) size=$OPTARG ;;
        o) columns=$OPTARG options="$options$OPTARG
" ;;
        r) deep=1 ;;
        s) sparse=1 ;;
        *) ;;
    esac
done
shift $((OPTIND - 1))
own=$(folder "$target")
case $act in
    create | clone | snapshot) [ -e "$(place "$target")" ] && fail "cannot $act '$target': dataset already exists" ;;
    *) [ "$act" = list ] || [ -e "$(place "$target")" ] || fail "cannot open '$target': dataset does not exist" ;;
esac
case $act in
    create)
        [ -n "$sparse" ] || options="refreservation=auto
$options"
        keep "$own/properties" "$options"
        truncate -s "$size" "$own/data"
        case $(value refreservation "$target") in
            auto) ;;
            *) [ "$(value refreservation "$target")" -le "$size" ] || fail "refreservation is greater than volume size" ;;
        esac
        attach "$target"
        ;;
    clone)
        from=$(place "$source")
        [ -e "$from" ] || fail "cannot open '$source': dataset does not exist"
        keep "$own/properties" "${options}origin=$source
"
        cp --sparse=always "$from/data" "$own/data"
        case "$options" in *readonly=on*) attach "$target" --read-only ;; *) attach "$target" ;; esac
        ;;
    set)
        for option; do
            [ "$option" = "$target" ] && break
            printf %s "${option#*=}" >"$own/properties/${option%%=*}"
            case $option in
                volsize=*)
                    rm "$own/properties/volsize"
                    truncate -s "${option#*=}" "$own/data"
                    losetup -c "$(readlink "$devices/$target")"
                    ;;
            esac
        done
        ;;
    get)
        lines=$target
        [ -z "$deep" ] || for snapshot in $(snapshots_of "$target"); do lines="$lines $target@$snapshot"; done
        for line in $lines; do
            for property in $(echo "$1" | tr , ' '); do
                case $columns in
                    value) echo "$(value "$property" "$line")" ;;
                    name,value) printf '%s\t%s\n' "$line" "$(value "$property" "$line")" ;;
                    *) printf '%s\t%s\t%s\n' "$line" "$property" "$(value "$property" "$line")" ;;
                esac
            done
        done
        ;;
    list)
        for volume in "$own"%*; do
            [ -d "$volume" ] || continue
            name=$target/${volume#"$own"%}
            printf '%s\t%s\n' "$name" "$(value "${columns#name,}" "$name")"
        done
        ;;
    snapshot)
        at=$(place "$target")
        keep "$at/properties" "$options"
        cp --sparse=always "$own/data" "$at/data"
        ;;
    rollback)
        [ "$(snapshots_of "$target" | tail -n 1)" = "${target#*@}" ] || fail "more recent snapshots exist"
        cp --sparse=always "$(place "$target")/data" "$own/data"
        device=$(readlink "$devices/${target%%@*}")
        losetup -c "$device"
        blockdev --flushbufs "$device"
        ;;
    destroy)
        case $target in
            *@*) check_no_clones "$target" "$target" ;;
            *)
                for snapshot in $(snapshots_of "$target"); do
                    [ -n "$deep" ] || fail "cannot destroy '$target': volume has children"
                    check_no_clones "$target@$snapshot" "$target"
                done
                if [ -L "$devices/$target" ]; then
                    losetup -d "$(readlink "$devices/$target")"
                    rm "$devices/$target"
                fi
                ;;
        esac
        rm -r "$(place "$target")"
        ;;
    *) fail "unrecognized command '$act'" ;;
esac
