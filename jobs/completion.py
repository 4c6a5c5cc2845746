"""Prints what makes bash complete the options of all jobs, behind `python jobs/NAME.py` too.

    python jobs/completion.py > ~/.tinyface-completion.bash
    echo 'source ~/.tinyface-completion.bash' >> ~/.bashrc

The words are those of this version: print it again after an update. Exit codes: 0 done, 2 refused.
"""

from __future__ import annotations

import sys

from command_lines import command_line, job_names
from options import job_app, run_job

app = job_app("completion.py", __doc__ or "")

# Behind `python`, the words from the script on are handed to the job's own function; whatever else python is given is
# completed as bash does it by default.
_PYTHON = """
_tinyface_job() {
  local current="${COMP_WORDS[COMP_CWORD]}"
  if [[ "${COMP_WORDS[COMP_CWORD-1]}" == --config ]]; then
    COMPREPLY=($(compgen -f -- "$current"))
    return
  fi
  local name="${COMP_WORDS[0]##*/}"
  "_tinyface_${name%.py}"
  [[ "$current" == -* && --config == "$current"* ]] && COMPREPLY+=(--config)
  return 0
}

_tinyface_python() {
  local script="${COMP_WORDS[1]##*/}"
  COMPREPLY=()
  if [[ "$COMP_CWORD" -gt 1 && "$script" == *.py ]] && declare -F "_tinyface_${script%.py}" > /dev/null; then
    COMP_WORDS=("${COMP_WORDS[@]:1}")
    COMP_CWORD=$((COMP_CWORD - 1))
    _tinyface_job
  fi
}

complete -o default -F _tinyface_python python python3
"""


@app.default
def completion() -> None:
    """Prints the script."""
    names = job_names()
    own = [
        command_line(name).app.generate_completion(prog_name=f"tinyface_{name}", shell="bash")  # noqa: S604 - a name
        for name in names
    ]
    ours = f"complete -o default -F _tinyface_job {' '.join(f'{name}.py' for name in names)}"
    print("\n".join([*own, _PYTHON.strip(), ours]))


if __name__ == "__main__":
    sys.exit(run_job(app))
