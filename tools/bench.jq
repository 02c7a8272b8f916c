# SPDX-License-Identifier: GPL-2.0-or-later
#
# What tools/bench makes of its measurements.

def stat:
	sort | {
		median: (length as $n | (.[($n - 1) / 2 | floor] + .[$n / 2 | floor]) / 2),
		min: .[0],
		max: .[-1]
	};

def by(name): group_by(name) | map({key: .[0] | name, value: .}) | from_entries;

# An array of {"case", "variant", "values"} becomes an object: case, variant, name of a value.
def summary:
	by(.case)
	| map_values(by(.variant) | map_values(
		map(.values | to_entries[]) | by(.key) | map_values(map(.value) | stat)));

def short:
	if . >= 100 then round elif . >= 1 then . * 10 | round / 10 else . * 1000 | round / 1000 end
	| tostring;

# Rows of cells, the first of them the heading, become aligned Markdown.
def table:
	(transpose | map(map(length) | max)) as $widths
	| def line: [., $widths] | transpose | map(.[0] + " " * (.[1] - (.[0] | length)))
		| "| " + join(" | ") + " |";
	(.[0] | line), ($widths | map("-" * .) | line), (.[1:][] | line);

def rows:
	["tcp-up-1", "TCP up, 1 stream", "Mbit/s"],
	["tcp-down-1", "TCP down, 1 stream", "Mbit/s"],
	["tcp-up-8", "TCP up, 8 streams", "Mbit/s"],
	["tcp-down-8", "TCP down, 8 streams", "Mbit/s"]
	| [.[0], "rate", .[1] + ", " + .[2]],
	  [.[0], "retransmissions", "– retransmissions"],
	  [.[0], "overruns", "– packets lost in full queues of the translator"],
	  [.[0], "machine", "– processor seconds a gigabyte, everything"],
	  [.[0], "own", "– of them the translator's process"];

def rows_of_packets:
	["udp-64", "rate", "UDP up, 64 octets, packets/s"],
	["udp-64", "sent", "– sent a second"],
	["udp-64", "overruns", "– lost in full queues of the translator"],
	["udp-mixed", "rate", "UDP up, 64 octets, 40 flows in turns, packets/s"],
	["udp-mixed", "sent", "– sent a second"],
	["udp-mixed", "overruns", "– lost in full queues of the translator"],
	["connections", "rate", "new TCP connections/s"],
	["connections", "failed", "– attempts that failed"],
	["latency", "p50", "round trip at half load, µs: median"],
	["latency", "p90", "– 90 of 100 are shorter"],
	["latency", "p99", "– 99 of 100 are shorter"],
	["latency", "max", "– longest"],
	["latency", "unanswered", "– unanswered questions, of 1000"],
	["latency", "load", "– load that arrived, packets/s"],
	["memory", "fresh", "memory when fresh, MB"],
	["memory", "full", "– with all sessions, MB"],
	["memory", "sessions", "– that many"];

def cell($name):
	.[$name] // null
	| if . == null then ""
	  elif ($name == "rate" or $name == "p99") and .min != .max
	  then "\(.median | short) (\(.min | short)–\(.max | short))"
	  else .median | short end;

def measured:
	. as {$variants, $cases}
	| [["", $variants[]]]
	+ [rows, rows_of_packets
		| . as [$case, $name, $title]
		| [$title, ($variants[] | . as $variant | $cases[$case][$variant] // {} | cell($name))]
		| select(.[1:] | any(. != ""))];

def compared:
	["tcp-up-1", "rate", "TCP up, 1 stream", "tylo", {route4: "≥ 0.5", tayga: "≥ 6", jool: "", "tylo-nogso": ""}],
	["tcp-down-1", "rate", "TCP down, 1 stream", "tylo", {route4: "≥ 0.5", tayga: "≥ 6", jool: "", "tylo-nogso": ""}],
	["tcp-up-8", "rate", "TCP up, 8 streams", "tylo", {route4: "", tayga: "", jool: "", "tylo-one": "", "tylo-nogso": ""}],
	["tcp-down-8", "rate", "TCP down, 8 streams", "tylo", {route4: "", tayga: "", jool: "", "tylo-one": "", "tylo-nogso": ""}],
	["udp-64", "rate", "UDP, 64 octets", "tylo", {route4: "", tayga: "≥ 1", jool: "", "tylo-one": "", "tylo-nogso": ""}],
	["udp-mixed", "rate", "UDP, 40 flows in turns", "tylo", {route4: "", tayga: "", jool: "", "tylo-one": "", "tylo-nogso": ""}],
	["connections", "rate", "new TCP connections", "tylo", {route4: "", tayga: "", jool: ""}],
	["latency", "p99", "round trip, 99 of 100", "tylo", {route4: "≤ 3", tayga: "", jool: ""}],
	["tcp-up-1", "rate", "TCP up, 1 stream", "tylo-many", {tylo: "≥ 0.9"}],
	["tcp-down-1", "rate", "TCP down, 1 stream", "tylo-many", {tylo: "≥ 0.9"}],
	["udp-64", "rate", "UDP, 64 octets", "tylo-many", {tylo: "≥ 0.9"}];

def ratios:
	.cases as $cases
	| [["ratio of medians", "measured", "wanted"]]
	+ [compared
		| . as [$case, $name, $title, $one, $others]
		| $others | to_entries[]
		| ($cases[$case][$one][$name].median) as $a
		| ($cases[$case][.key][$name].median) as $b
		| select($a and $b and $b > 0)
		| ["\($title): \($one) / \(.key)", ($a / $b * 100 | round / 100 | tostring), .value]]
	+ [("tcp-up-8", "tcp-down-8") as $case
		| ($cases[$case].tylo.overruns.max // empty)
		| ["\($case): packets that tylo lost in full queues, most", tostring, "0"]];

def tables:
	"\(.when), \(.machine.processor), \(.machine.processors) processors, Linux \(.machine.kernel); \(.versions); "
	+ "\(.repeats) × \(.seconds) s, medians (least–most); load average before: \(.machine.load)"
	+ (if .half_load then "; half load: \(.half_load) packets/s" else "" end) + ".",
	"",
	(measured | table),
	"",
	(ratios | table),
	(.notes[] | "", .);
