"""`rain completion`: scripts that let shells complete commands, verbs and options."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import field
from typing import TYPE_CHECKING, Any

from rain.cli import events, values
from rain.cli.parser import Parser
from rain.common.states import TaskState
from rain.common.structs import dataclass
from rain.eventlog.criteria import EVENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE_METAVARS = {"FILE", "PATH"}
DIRECTORY_METAVARS = {"DIR"}
WORDS_OF_TYPE: dict[Any, list[str]] = {
    values.task_state: [state.name for state in TaskState],
    events.event_type: list(EVENT_TYPES),
}
"""What options accept whose type says it, not their choices."""
FILES, DIRECTORIES = "@files", "@directories"
"""Stand for names of files in place of words."""

DESCRIPTION = """\
Print a script that lets a shell complete the command line of rain. To use it, add to the start-up file of the shell:
  bash, ~/.bashrc:                    eval "$(rain completion bash)"
  zsh, ~/.zshrc (after compinit):     eval "$(rain completion zsh)"
  fish, ~/.config/fish/config.fish:   rain completion fish | source
"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "completion",
        help="print a script for the shell that completes commands",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=sorted(SHELLS), help="which shell")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from rain.cli.main import build_parser

    print(SHELLS[options.shell](list(commands_of(build_parser()))), end="", flush=True)
    return 0


@dataclass(slots=True)
class Command:
    """A command as one types it.

    Attributes:
        path: its words, e.g. `rain task list`.
        words: what may follow: verbs, choices.
        helps: of verbs and options, by word.
        options: option strings.
        takes: what the option takes, for options that take something: words, FILES, DIRECTORIES, or nothing known.
    """

    path: str
    words: list[str] = field(default_factory=list)
    helps: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    takes: dict[str, list[str]] = field(default_factory=dict)


def commands_of(parser: argparse.ArgumentParser, path: str = "rain") -> Iterator[Command]:
    """The command and those below it."""
    command = Command(path)
    below: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        if isinstance(action, argparse._SubParsersAction):
            below |= action.choices
            command.helps |= {choice.dest: choice.help or "" for choice in action._choices_actions}
        elif not action.option_strings:
            command.words += map(str, action.choices or ())
        else:
            command.options += action.option_strings
            for option in action.option_strings:
                command.helps[option] = (action.help or "").replace("%%", "%")
                if action.nargs != 0:
                    command.takes[option] = _taken(action)
    if isinstance(parser, Parser):
        below |= parser.verbs
        command.helps |= {word: verb.description or "" for word, verb in parser.verbs.items()}
    command.words += below
    yield command
    for word, verb in below.items():
        yield from commands_of(verb, f"{path} {word}")


def _taken(action: argparse.Action) -> list[str]:
    if action.choices is not None:
        return list(map(str, action.choices))
    if action.metavar in FILE_METAVARS:
        return [FILES]
    if action.metavar in DIRECTORY_METAVARS:
        return [DIRECTORIES]
    return WORDS_OF_TYPE.get(action.type, [])


# --- scripts ---

_BASH = """\
# Completion of rain for bash.
_rain() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" path=rain options= words= takes= word before=rain i
    _rain_command "$path"
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        if [[ $before != -* && " $words " == *" $word "* ]] && _rain_command "$path $word"; then
            path="$path $word"
        fi
        [[ $word == = ]] || before="$word"
    done
    _rain_command "$path"
    [[ $cur == = ]] && cur=
    COMPREPLY=()
    if [[ $before == -* ]] && _rain_takes "$path $before"; then
        case "$takes" in
            {files}) compopt -o default ;;
            {directories}) compopt -o dirnames ;;
            *) COMPREPLY=($(compgen -W "$takes" -- "$cur")) ;;
        esac
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
    else
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    fi
    return 0
}}
_rain_command() {{
    case "$1" in
{commands}
        *) return 1 ;;
    esac
}}
_rain_takes() {{
    case "$1" in
{takes}
        *) return 1 ;;
    esac
}}
complete -F _rain rain
"""

_ZSH = """\
#compdef rain
# Completion of rain for zsh.
_rain() {{
    local cur="${{words[CURRENT]}}" command=rain before=rain word takes i
    local -a options verbs
    _rain_command "$command"
    for ((i = 2; i < CURRENT; i++)); do
        word="${{words[i]}}"
        if [[ $before != -* ]] && (( ${{verbs[(Ie)$word]}} )) && _rain_command "$command $word"; then
            command="$command $word"
        fi
        before="$word"
    done
    _rain_command "$command"
    if [[ $cur == --*=* ]]; then
        before="${{cur%%=*}}"
        compset -P '*='
    fi
    if [[ $before == -* ]] && _rain_takes "$command $before"; then
        case "$takes" in
            {files}) _files ;;
            {directories}) _files -/ ;;
            *) compadd -- ${{=takes}} ;;
        esac
    elif [[ $cur == -* ]]; then
        compadd -- $options
    else
        compadd -- $verbs
    fi
}}
_rain_command() {{
    case "$1" in
{commands}
        *) return 1 ;;
    esac
}}
_rain_takes() {{
    case "$1" in
{takes}
        *) return 1 ;;
    esac
}}
compdef _rain rain
"""


def bash_script(commands: list[Command]) -> str:
    """For `eval` in bash."""
    lines = [
        f"        {shlex.quote(one.path)}) words={shlex.quote(' '.join(one.words))} "
        f"options={shlex.quote(' '.join(one.options))} ;;"
        for one in commands
    ]
    return _BASH.format(commands="\n".join(lines), takes=_takes(commands), files=FILES, directories=DIRECTORIES)


def zsh_script(commands: list[Command]) -> str:
    """For `eval` in zsh, after `compinit`."""
    lines = [
        f"        {shlex.quote(one.path)}) verbs=({' '.join(map(shlex.quote, one.words))}) "
        f"options=({' '.join(map(shlex.quote, one.options))}) ;;"
        for one in commands
    ]
    return _ZSH.format(commands="\n".join(lines), takes=_takes(commands), files=FILES, directories=DIRECTORIES)


def _takes(commands: list[Command]) -> str:
    return "\n".join(
        f"        {shlex.quote(f'{one.path} {option}')}) takes={shlex.quote(' '.join(taken))} ;;"
        for one in commands
        for option, taken in one.takes.items()
    )


def fish_script(commands: list[Command]) -> str:
    """For `source` in fish."""
    paths = " ".join(_fish_quoted(one.path) for one in commands)
    lines = ["# Completion of rain for fish.", _FISH_AT.replace("{paths}", paths), "complete -c rain -f"]
    for one in commands:
        at = f"-n {_fish_quoted(f'__rain_at {one.path}')}"
        for word in one.words:
            lines.append(f"complete -c rain {at} -a {_fish_quoted(word)} {_fish_help(one, word)}".rstrip())
        for option in one.options:
            kind = "-l" if option.startswith("--") else "-s"
            taken = one.takes.get(option)
            arguments = ""
            if taken is not None:
                arguments = {FILES: " -r -F", DIRECTORIES: " -x -a '(__fish_complete_directories)'"}.get(
                    "".join(taken), f" -x -a {_fish_quoted(' '.join(taken))}"
                )
            lines.append(
                f"complete -c rain {at} {kind} {option.lstrip('-')}{arguments} {_fish_help(one, option)}".rstrip()
            )
    return "\n".join(lines) + "\n"


_FISH_AT = """\
function __rain_at --description 'whether the command line names this command of rain, and none below it'
    set -l words (commandline -opc | string match -v -- '-*')
    set -l paths {paths}
    set -l at $words[1]
    for word in $words[2..]
        contains -- "$at $word" $paths; or continue
        set at "$at $word"
    end
    test "$at" = "$argv"
end"""


def _fish_help(command: Command, word: str) -> str:
    text = command.helps.get(word, "").split(";")[0].split(". ")[0]
    return f"-d {_fish_quoted(text)}" if text else ""


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


SHELLS: dict[str, Callable[[list[Command]], str]] = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
