#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# tools/bench measures what it says: every case had traffic, all of which the translators translated.
# How fast is no question here.
here=$(dirname "$(readlink -f "$0")")
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$here/../../tools/bench" --quick --only route4,tayga,tylo,tylo-many --json "$work/json" >"$work/tables"
cat "$work/tables"
jq -e '
	["tcp-up-1", "tcp-down-1", "tcp-up-8", "tcp-down-8", "udp-64", "udp-mixed", "connections", "latency"] as $cases
	| .variants == ["route4", "tayga", "tylo", "tylo-many"]
	and ([.cases[$cases[]] | .route4, .tayga, .tylo] | all(.packets.min > 0))
	and ([.cases["tcp-up-1", "tcp-down-1", "udp-64"]["tylo-many"].packets.min] | all(. > 0))
	and ([.cases[$cases[:-1][]][].rate.min] | all(. > 0))
	and ([.cases.latency[] | .p50.min > 0 and .p50.min <= .p99.min and .unanswered.max < 1000] | all)
	and .cases.memory["tylo-many"].full.min > .cases.memory["tylo-many"].fresh.max' "$work/json"
grep -q '^| TCP up, 1 stream' "$work/tables"
"$here/../../tools/bench" --render "$work/json" | cmp - "$work/tables"
if "$here/../../tools/bench" --only nothing >"$work/output" 2>&1; then exit 1; fi
grep -q "cannot measure 'nothing'" "$work/output"
