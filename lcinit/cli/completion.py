"""`lcinit completion bash`: completion for lcinit and its other names, generated from one table.

A test compares the table with every command's --help, so that neither can change alone.
"""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser
from lcinit.cli.main import CALLED, COMMANDS
from lcinit.control.initctl import RUNLEVELS
from lcinit.record import Record

_DESCRIPTION = """\
Print the completion for a shell: commands, options, and what their values are (files, directories, runlevels,
signals, services). It also completes for the names that lcinit has through links."""

_EPILOG = """\
examples:
  source <(lcinit completion bash)
  lcinit completion bash > /etc/bash_completion.d/lcinit

exit status: 0, or 64 for a shell that is not known.
"""


class Completion(Record):
    """What may follow a command.

    `options`: option → kind of its value, "" for none. `arguments`: the kinds of the arguments, the last of which
    repeats if `repeats`. Kinds: file, directory, command, signal, runlevel, service, map, word (anything, so nothing
    is offered), or the words themselves after a colon (`runlevel:WORD` offers both). From argument number `foreign` on,
    counted from 0, options are another program's.
    """

    options: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    repeats: bool = False
    foreign: int | None = None


COMMON = ("--help", "--version")
_INITCTL = Completion(options=(("--fifo", "file"), ("-t", "word"), ("-e", "word")), arguments=("runlevel",))
_RUN = Completion(
    options=(("-c", ""), ("-n", ""), ("-u", "word"), ("-g", "word"), ("-i", "word"), ("-o", "word")),
    arguments=("directory", "command", "file"),
    repeats=True,
    foreign=1,
)

_SOCKET = ("--socket", "file")
_JSON = ("--json", "")
_STOP = Completion(options=(_SOCKET, ("--now", "")))
_SERVICES = Completion(options=(_SOCKET, _JSON), arguments=("service",), repeats=True)
_WORK = _SERVICES.replace(options=(_SOCKET, _JSON, ("--no-block", "")))
_SETTING = _SERVICES.replace(options=(_SOCKET, _JSON, ("--now", ""), ("--no-block", "")))

TABLE = {
    "init": Completion(
        options=(("--config", "file"), ("--override-exec", ""), ("--no-pid1", "")),
        arguments=("runlevel", "word"),
        repeats=True,
        foreign=1,
    ),
    "plan": Completion(
        options=(("--config", "file"), ("--json", ""), ("--override-exec", "")), arguments=("word",), repeats=True
    ),
    "check": Completion(options=(_JSON, ("--service", "")), arguments=("file",), repeats=True),
    "schema": Completion(options=(_JSON, ("--service", ""))),
    "doctor": Completion(options=(("--json", ""), ("--config", "file"))),
    "overlay": Completion(
        options=(("--path", "directory"), ("--cache", "directory")), arguments=("directory",), repeats=True
    ),
    "mount-idmapped": Completion(
        options=(("--map-mount", "map"), ("--map-caller", "map"), ("--recursive", "")),
        arguments=("file", "file", "command", "file"),
        repeats=True,
        foreign=3,
    ),
    "tolerant": Completion(arguments=("file", "file"), repeats=True, foreign=1),
    "run": _RUN.replace(arguments=("file", "command", "file")),
    "contain": _RUN,
    "pseudo": Completion(
        options=(("-u", "word"), ("-g", "word")), arguments=("command", "file"), repeats=True, foreign=1
    ),
    "initctl": _INITCTL.replace(arguments=("runlevel:serve",)),
    "initctl serve": Completion(
        options=(
            ("--pid", "word"),
            ("--fifo", "file"),
            ("--poweroff", "signal"),
            ("--halt", "signal"),
            ("--reboot", "signal"),
        )
    ),
    "telinit": _INITCTL,
    "attach": Completion(
        options=(("-u", "word"), ("--socket", "file")), arguments=("command", "file"), repeats=True, foreign=1
    ),
    "console": Completion(options=(("--socket", "file"),)),
    "inject": Completion(options=(("-u", "word"),), arguments=("word", "command", "file"), repeats=True, foreign=1),
    "status": _SERVICES.replace(options=(_SOCKET, _JSON, ("--names", ""))),
    "start": _WORK,
    "stop": _WORK,
    "restart": _SETTING,
    "reload": _WORK,
    "enable": _SETTING,
    "disable": _SETTING,
    "reset-failed": _SERVICES.replace(options=(_SOCKET,)),
    "wait": _SERVICES.replace(options=(_SOCKET, _JSON, ("--for", ":ready stopped"), ("--timeout", "word"))),
    "daemon-reload": Completion(options=(_SOCKET, _JSON, ("--dry-run", ""))),
    "runlevel": Completion(options=(_SOCKET, _JSON)),
    "events": _SERVICES.replace(options=(_SOCKET, _JSON, ("--follow", ""), ("--after", "word"))),
    "logs": _SERVICES.replace(options=(_SOCKET, _JSON, ("--follow", ""), ("-n", "word"), ("--since", "word"))),
    "poweroff": _STOP,
    "halt": _STOP,
    "reboot": _STOP,
    "shutdown": Completion(options=(_SOCKET, ("-h", ""), ("-P", ""), ("-H", ""), ("-r", "")), arguments=(":now +0",)),
    "kill": Completion(
        options=(_SOCKET, _JSON, ("-s", "signal"), ("--whom", ":main init all")), arguments=("service",)
    ),
    "freeze": Completion(options=(_SOCKET,)),
    "thaw": Completion(options=(_SOCKET,)),
    "log-level": Completion(options=(_SOCKET, _JSON), arguments=(":debug info warning error",)),
    "reexec": Completion(options=(_SOCKET,)),
    "links": Completion(options=(("--program", "file"),), arguments=("directory",)),
    "image": Completion(options=(("--suite", "word"), ("--mirror", "word")), arguments=("directory",)),
    "demo": Completion(options=(("--shell", ""), ("--steps", ""), ("--show-config", ""))),
    "completion": Completion(arguments=(":bash",)),
}

_FUNCTIONS = """\
_lcinit_offer() {  # KIND: fill COMPREPLY with what begins like $cur
    case $1 in
        file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        directory) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        command) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
        signal) mapfile -t COMPREPLY < <(compgen -A signal -- "$cur" | grep '^SIG') ;;
        service) mapfile -t COMPREPLY < <(compgen -W "$(_lcinit_services)" -- "$cur") ;;
        runlevel) mapfile -t COMPREPLY < <(compgen -W '%(runlevels)s' -- "$cur") ;;
        runlevel:*) mapfile -t COMPREPLY < <(compgen -W "%(runlevels)s ${1#runlevel:}" -- "$cur") ;;
        map) compopt -o nospace 2>/dev/null; mapfile -t COMPREPLY < <(compgen -W 'u: g: b: /proc/' -- "$cur") ;;
        :*) mapfile -t COMPREPLY < <(compgen -W "${1#:}" -- "$cur") ;;
    esac
}

_lcinit_services() {  # print their names; what is none would be expanded
    lcinit status --names 2>/dev/null | grep -xE '[A-Za-z0-9_.@-]+'
}

_lcinit_value() {  # COMMAND OPTION: print the kind of the option's value; fails for one that takes none
    case $1/$2 in
%(values)s
        *) return 1 ;;
    esac
}

_lcinit() {
    local command index=1 argument=0 i word kind options='' repeats='' foreign=99
    local -a arguments=()
    local cur=${COMP_WORDS[COMP_CWORD]} prev='' before=$COMP_CWORD
    COMPREPLY=()
    # bash splits --option=value at the equals sign
    if [[ $cur == = ]]; then cur=''; before=$((before + 1)); fi
    if ((before >= 2)) && [[ ${COMP_WORDS[before - 1]} == = ]]; then prev=${COMP_WORDS[before - 2]}
    elif ((before >= 1)); then prev=${COMP_WORDS[before - 1]}; fi
    command=${COMP_WORDS[0]##*/}
    if [[ $command == lcinit ]]; then
        if ((COMP_CWORD == 1)); then
            mapfile -t COMPREPLY < <(compgen -W '%(commands)s %(common)s' -- "$cur")
            return
        fi
        command=${COMP_WORDS[1]} index=2
    fi
    if [[ $command == initctl && ${COMP_WORDS[index]} == serve ]] && ((COMP_CWORD > index)); then
        command='initctl serve' index=$((index + 1))
    fi
    case $command in
%(cases)s
        *) return ;;
    esac
    local ended=''
    for ((i = index; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == = ]]; then continue; fi
        if [[ -z $ended && $word == -- ]]; then ended=1
        elif [[ -z $ended && $word == -* ]] && ((argument < foreign)); then
            if _lcinit_value "$command" "$word" >/dev/null; then
                if [[ ${COMP_WORDS[i + 1]} == = ]]; then i=$((i + 2)); else i=$((i + 1)); fi
            fi
        else argument=$((argument + 1)); fi
    done
    if [[ -z $ended ]] && ((argument < foreign)); then
        if kind=$(_lcinit_value "$command" "$prev"); then _lcinit_offer "$kind"; return; fi
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$options %(common)s" -- "$cur")
            return
        fi
    fi
    if ((argument < ${#arguments[@]})); then _lcinit_offer "${arguments[argument]}"
    elif [[ -n $repeats ]]; then _lcinit_offer "${arguments[-1]}"; fi
}

complete -F _lcinit %(names)s
"""


def bash() -> str:
    """The completion script."""
    values, cases = [], []
    for name, completion in TABLE.items():
        for option, kind in completion.options:
            if kind:
                values.append(f"        '{name}/{option}') echo {kind} ;;")
        words = [f"options='{' '.join(option for option, _ in completion.options)}'"]
        if completion.arguments:
            kinds = " ".join(f"'{kind}'" for kind in completion.arguments)
            words.append(f"arguments=({kinds})")
        if completion.repeats:
            words.append("repeats=1")
        if completion.foreign is not None:
            words.append(f"foreign={completion.foreign}")
        cases.append(f"        '{name}') {' '.join(words)} ;;")
    return "# bash completion of lcinit; made by `lcinit completion bash`\n\n" + _FUNCTIONS % {
        "runlevels": " ".join(RUNLEVELS),
        "values": "\n".join(values),
        "cases": "\n".join(cases),
        "commands": " ".join(COMMANDS),
        "common": " ".join(COMMON),
        "names": " ".join(("lcinit", *CALLED)),
    }


def run(args: list[str], program: str = "lcinit completion") -> int:
    """Print it; 0. Raises UsageError."""
    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "bash")
    parser.add_argument("shell", metavar="SHELL", choices=("bash",), help="the shell: bash")
    parser.parse_args(args)
    print(bash(), end="")
    return 0
