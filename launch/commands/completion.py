"""`genloop completion bash|zsh`: a script that completes without starting Python.

Names of commands, options, jobs, presets and config keys are written into it; presets in ./configs are looked up when
it runs. Everything else completes as files.
"""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from genloop import terminal
from launch.arguments import parser
from launch.catalog import import_job, job_files, key_names, presets

_BASH = """_genloop() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} job=${{COMP_WORDS[2]}} words= file=
    COMPREPLY=()
    case "=" in "$word"|"${{COMP_WORDS[COMP_CWORD-1]}}") return ;; esac
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}}" in
{options}
        esac
        case "${{COMP_WORDS[1]}} $COMP_CWORD" in
            run\\ 2|submit\\ 2|plan\\ 2) words="{jobs} $words" ;;
            run\\ *|submit\\ *|plan\\ *)
                for file in "configs/$job"/*.yaml; do
                    [ -f "$file" ] && file="${{file##*/}}" && words="$words ${{file%.yaml}}"
                done
                case "$job" in
{keys}
                esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    case "${{COMPREPLY[*]}}" in *=) compopt -o nospace 2>/dev/null ;; esac
}}
complete -o default -F _genloop genloop
"""
_ZSH = "autoload -Uz compinit bashcompinit\ncompinit\nbashcompinit\n"


def run(options: argparse.Namespace) -> int:
    """Print the script -> exit code."""
    terminal.out((_ZSH if options.shell == "zsh" else "") + script())
    return 0


def script() -> str:
    """For bash, and for zsh behind its bashcompinit."""
    found, commands = parser()
    actions: Any = next(a for a in found._actions if isinstance(a, argparse._SubParsersAction))
    options = {name: _words(actions.choices[name]) for name in commands}
    keys = {job: [*presets(job), *(f"{key}=" for key in key_names(import_job(job).Config))] for job in job_files()}
    return _BASH.format(
        commands=" ".join(commands),
        options=_cases(options, 12),
        jobs=" ".join(keys),
        keys=_cases(keys, 20),
    )


def _words(command: argparse.ArgumentParser) -> list[str]:
    """Its options, and the names of its actions."""
    found = [name for action in command._actions for name in action.option_strings if name.startswith("--")]
    return found + [str(name) for action in command._actions if action.choices for name in action.choices]


def _cases(words: Mapping[str, Iterable[str]], indent: int) -> str:
    return "\n".join(f'{" " * indent}{name}) words="$words {" ".join(found)}" ;;' for name, found in words.items())
