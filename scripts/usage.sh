# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by the scripts in this folder before they set anything up: `usage "$@"` prints the header of the calling script
# for -h and --help, and refuses options that the header does not name.

usage() {
    local header options argument
    header=$(sed -n '5,/^[^#]/s/^# \{0,1\}//p' "$0")
    options=$({ grep -oE -- '--[a-z][a-z-]*' <<<"$header" || true; echo --help; } | sort -u)
    for argument in "$@"; do
        case $argument in
            -h | --help) echo "$header"; exit ;;
            -*) grep -qxF -- "${argument%%=*}" <<<"$options" || refuse "$argument" $options ;;
        esac
    done
}

# refuse ARGUMENT OPTION...
refuse() {
    echo "scripts/${0##*/}: unknown argument $1; valid: ${*:2}" >&2
    exit 2
}
