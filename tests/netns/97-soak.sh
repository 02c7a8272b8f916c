#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# tools/soak, shortened to some rounds. What judges whether memory grows says so when it does.
#
# SOAK=900 SEED=$RANDOM is the long form.
here=$(dirname "$(readlink -f "$0")")
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

judged() { # WANTED AWK-EXPRESSION of n, from 1 to 60
	awk "BEGIN { for (n = 1; n <= 60; n++) print \"memory\", int($2) }" >"$work/series"
	local status=0
	/usr/bin/python3 "$here/growth.py" "$work/series" >"$work/verdict" || status=$?
	cat "$work/verdict"
	grep -q ": $1\$" "$work/verdict" && [ $status = "$([ "$1" = level ]; echo $?)" ]
}
judged GROWS '20000 + 100 * n'
judged GROWS '58 + n / 2'
judged level '20000 + n * 12345 % 3000'
judged level 'n < 15 ? 14000 + 400 * n : 20000'
judged level '20000 - 100 * n'

"$here/../../tools/soak" --seconds "${SOAK:-25}" --seed "${SEED:-7073}" | tee "$work/output"
grep -q '^--- [1-9][0-9]* rounds in .*, 0 failures$' "$work/output"
