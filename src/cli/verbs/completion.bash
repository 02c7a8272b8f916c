# SPDX-License-Identifier: GPL-2.0-or-later
# Completion for bash: tylo completion bash > /usr/share/bash-completion/completions/jool
# (with links of the names jool_siit, jool_mapt and tylo to it), or: source <(tylo completion bash)

_tylo_jool() {
	local current=${COMP_WORDS[COMP_CWORD]} words
	words=$("${COMP_WORDS[0]}" autocomplete $((COMP_CWORD - 1)) "${COMP_WORDS[@]:1}" 2>/dev/null)
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o default -F _tylo_jool jool jool_siit jool_mapt

_tylo() {
	local current=${COMP_WORDS[COMP_CWORD]} words=
	if [ "$COMP_CWORD" -eq 1 ]; then
		words="@VERBS@"
	else
		case ${COMP_WORDS[1]} in
		jool | jool_siit | jool_mapt)
			words=$("${COMP_WORDS[0]}" "${COMP_WORDS[1]}" autocomplete $((COMP_CWORD - 2)) "${COMP_WORDS[@]:2}" 2>/dev/null)
			;;
		all)
			words=$("${COMP_WORDS[0]}" jool autocomplete $((COMP_CWORD - 2)) "${COMP_WORDS[@]:2}" 2>/dev/null)
			words+=" $("${COMP_WORDS[0]}" jool_mapt autocomplete $((COMP_CWORD - 2)) "${COMP_WORDS[@]:2}" 2>/dev/null)"
			words+=" $("${COMP_WORDS[0]}" jool_siit autocomplete $((COMP_CWORD - 2)) "${COMP_WORDS[@]:2}" 2>/dev/null)"
			;;
@PARTS@		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current" | sort -u)
}
complete -o default -F _tylo tylo
