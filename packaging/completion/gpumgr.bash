# bash completion for gpumgr(1). Commands, options, services and phases come from gpumgr itself.
# shellcheck shell=bash

_gpumgr() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local word command='' place=0 i
	local -a where=()
	COMPREPLY=()

	case $previous in
	--socket)
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
		;;
	--mode)
		mapfile -t COMPREPLY < <(compgen -W "exclusive shared gpu" -- "$current")
		return
		;;
	--url | --wait | --timeout | --lines | -n | --since | --vram | --priority | --owner)
		return
		;;
	esac

	# The command, how many words follow it, and which daemon is meant.
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		--socket | --url)
			where+=("$word" "${COMP_WORDS[++i]}")
			;;
		--wait | --timeout | --lines | -n | --since | --vram | --mode | --priority | --owner | --phase)
			((i++))
			;;
		--)
			# What follows is a command line of its own.
			((i + 1 < COMP_CWORD)) || mapfile -t COMPREPLY < <(compgen -c -- "$current")
			((i + 1 < COMP_CWORD)) && mapfile -t COMPREPLY < <(compgen -f -- "$current")
			return
			;;
		-*) ;;
		*)
			if [[ -z $command ]]; then
				command=$word
			else
				((place++))
			fi
			;;
		esac
	done

	local words
	if [[ $current == -* ]]; then
		words=$(gpumgr _complete options ${command:+"$command"} 2>/dev/null)
	elif [[ $previous == --phase ]]; then
		words=$(gpumgr "${where[@]}" _complete phases 2>/dev/null)
	elif [[ -z $command ]]; then
		words=$(gpumgr _complete commands 2>/dev/null)
	elif [[ $command == lease && $previous == release ]]; then
		words=$(gpumgr "${where[@]}" _complete leases 2>/dev/null)
	elif [[ $command == config && $previous == check ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
		return
	elif [[ $command == plan && $place -eq 1 && $previous == phase ]]; then
		words=$(gpumgr "${where[@]}" _complete phases 2>/dev/null)
	elif [[ $command == plan && $place -eq 1 ]]; then
		words=$(gpumgr "${where[@]}" _complete services 2>/dev/null)
	elif [[ $place -eq 0 || $command == run ]]; then
		words=$(gpumgr "${where[@]}" _complete arguments "$command" 2>/dev/null)
	else
		return
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _gpumgr gpumgr
