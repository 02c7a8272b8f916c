#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Jool's tutorial of MAP-T, command by command as printed, but for the ports of customer edge 774: the
# tutorial names those of PSID 14, and its PSID is 20.
. "$(dirname "$(readlink -f "$0")")/mapt.sh"
. "$HERE/transcript.sh"

mapt_network_up napt
for node in br ce1 ce2; do
	must "the daemon of $node gets ready" mapt_start $node
done
echo "The fine page." >"$WORK/files/index.html"
http_server server 80

transcript <<'END'
ce1> jool_mapt instance add "CE 11b" --netfilter --dmr 64:ff9b::/96
ce1> jool_mapt -i "CE 11b" global update end-user-ipv6-prefix 2001:db8:ce:11b::/64
ce1> jool_mapt -i "CE 11b" global update bmr 2001:db8:ce::/51 192.0.2.0/24 13 0
napt1> iptables-nft -t nat -A POSTROUTING -s 192.168.0.0/24 -o out -p tcp -j SNAT --to-source 192.0.2.8:55296-57343
napt1> iptables-nft -t nat -A POSTROUTING -s 192.168.0.0/24 -o out -p udp -j SNAT --to-source 192.0.2.8:55296-57343
ce2> jool_mapt instance add "CE 774" --netfilter --dmr 64:ff9b::/96
ce2> jool_mapt -i "CE 774" global update end-user-ipv6-prefix 2001:db8:ce:774::/64
ce2> jool_mapt -i "CE 774" global update bmr 2001:db8:ce::/51 192.0.2.0/24 13 0
napt2> iptables-nft -t nat -A POSTROUTING -s 192.168.0.0/24 -o out -p tcp -j SNAT --to-source 192.0.2.59:40960-43007
napt2> iptables-nft -t nat -A POSTROUTING -s 192.168.0.0/24 -o out -p udp -j SNAT --to-source 192.0.2.59:40960-43007
br> jool_mapt instance add "BR" --netfilter --dmr 64:ff9b::/96
br> jool_mapt -i "BR" fmrt add 2001:db8:ce::/51 192.0.2.0/24 13 0
client1,client2> curl -sS --fail -m 20 http://203.0.113.56/index.html | grep -qx 'The fine page.'
ce1> jool_mapt instance remove "CE 11b"
ce2> jool_mapt instance remove "CE 774"
br> jool_mapt instance remove "BR"
client1,client2> ! curl -sS -m 2 http://203.0.113.56/index.html
END
mapt_down

echo "--- customer edges that translate ports themselves"
mapt_network_up own
for node in br ce1 ce2; do
	must "the daemon of $node gets ready" mapt_start $node
done
http_server server 80
transcript <<'END'
ce1> jool_mapt instance add "CE 11b" --netfilter --dmr 64:ff9b::/96
ce1> jool_mapt -i "CE 11b" global update end-user-ipv6-prefix 2001:db8:ce:11b::/64
ce1> jool_mapt -i "CE 11b" global update bmr 2001:db8:ce::/51 192.0.2.0/24 13 0
ce1> jool_mapt -i "CE 11b" global update mapt-napt true
ce2> jool_mapt instance add "CE 774" --netfilter --dmr 64:ff9b::/96
ce2> jool_mapt -i "CE 774" global update end-user-ipv6-prefix 2001:db8:ce:774::/64
ce2> jool_mapt -i "CE 774" global update bmr 2001:db8:ce::/51 192.0.2.0/24 13 0
ce2> jool_mapt -i "CE 774" global update mapt-napt true
br> jool_mapt instance add "BR" --netfilter --dmr 64:ff9b::/96
br> jool_mapt -i "BR" fmrt add 2001:db8:ce::/51 192.0.2.0/24 13 0
client1,client2> curl -sS --fail -m 20 http://203.0.113.56/index.html | grep -qx 'The fine page.'
client1,client2> ping -n -c 3 -i 0.2 -W 2 203.0.113.56
END

echo "--- only what rules that are made for them divert"
export REPO
transcript <<'END'
br> jool_mapt instance remove "BR"
br> jool_mapt instance add relay --iptables --dmr 64:ff9b::/96
br> jool_mapt -i relay fmrt add 2001:db8:ce::/51 192.0.2.0/24 13 0
client1> ! curl -sS -m 2 http://203.0.113.56/index.html
br> "$REPO"/tools/nft-rules install mapt --instance relay
br> "$REPO"/tools/nft-rules status
ce1> jool_mapt instance remove "CE 11b"
ce1> jool_mapt instance add edge --iptables --dmr 64:ff9b::/96
ce1> jool_mapt -i edge global update end-user-ipv6-prefix 2001:db8:ce:11b::/64
ce1> jool_mapt -i edge global update bmr 2001:db8:ce::/51 192.0.2.0/24 13 0
ce1> jool_mapt -i edge global update mapt-napt true
client1> ! curl -sS -m 2 http://203.0.113.56/index.html
ce1> ! "$REPO"/tools/nft-rules install mapt --instance edge
ce1> "$REPO"/tools/nft-rules install mapt --instance edge --interface lan
client1,client2> curl -sS --fail -m 20 http://203.0.113.56/index.html | grep -qx 'The fine page.'
client1,client2> ping -n -c 3 -i 0.2 -W 2 203.0.113.56
client1> ping -n -c 2 -i 0.2 -W 2 192.168.0.1
ce1> "$REPO"/tools/nft-rules remove
br> "$REPO"/tools/nft-rules remove
client1> ! curl -sS -m 2 http://203.0.113.56/index.html
END
