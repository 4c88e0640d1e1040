# Source this file to record what a dispatcher or R&D did. Put here by `reconciler install hooks`.
#
#   reconciler_mary_task        TASK_ID [STATUS] [RESULT_JSON]          last_task task_status result
#   reconciler_mary_work_order  WORK_ORDER OUTCOME [RESULT_JSON]        work_order work_order_outcome work_order_result
#   reconciler_mary_error       MESSAGE [TASK_ID]                       error error_task
#   reconciler_mary_metrics     METRICS_JSON                            metrics
#   reconciler_mary_health      STATUS [DETAIL_JSON]                    health health_detail
#   reconciler_rnd_proposal     PROPOSAL_ID STATUS                      last_proposal proposal_status
#   reconciler_rnd_improvement  PROPOSAL_ID [OUTCOME] [RESULT_JSON]     last_proposal outcome result
#   reconciler_rnd_score        PROPOSAL_ID SCORE [DELTA]               last_proposal score score_delta
#   reconciler_rnd_learning     LEARNING [PROPOSAL_ID]                  learning last_proposal
#   reconciler_drop             AGENT [KEY text|json VALUE]...          any keys of any agent
#
# Behind each call stand the context keys that it sets. JSON that is left out or empty is null; `-` reads it from
# stdin. What is not JSON is kept as text, in KEY_raw.
#
# A call drops one file into .reconciler/spool of the workspace: LUKA_SOT, else the folder above the one this file is
# in. No process is started, nothing is waited for, no option or variable of the caller matters or changes. A call
# always succeeds, so that it cannot end a script: what could not be recorded is said in one line on stderr.

# Read once more as plain zsh, whatever options and aliases are set here; the functions keep to that. The name of this
# file is asked for with all its bytes: where the locale is C, é would be written out.
if [[ -z ${_reconciler_reading-} ]]; then
  _reconciler_reading=1
  'builtin' 'emulate' 'zsh' '-o' 'no_aliases' '-o' 'print_eight_bit' '-c' 'builtin source "${(%):-%x}"'
  'builtin' 'unset' '_reconciler_reading'
  'builtin' 'return' 0
fi

typeset -g _reconciler_file=${${(%):-%x}:a}
typeset -gi _reconciler_last=0

reconciler_mary_task() {
  reconciler_drop mary last_task text "${1:-unknown}" task_status text "${2:-completed}" result json "${3:-null}"
}

reconciler_mary_work_order() {
  reconciler_drop mary work_order text "${1:-unknown}" work_order_outcome text "${2:-unknown}" \
    work_order_result json "${3:-null}"
}

reconciler_mary_error() {
  reconciler_drop mary error text "${1-}" error_task "${${2:+text}:-json}" "${2:-null}"
}

reconciler_mary_metrics() {
  reconciler_drop mary metrics json "${1:-null}"
}

reconciler_mary_health() {
  reconciler_drop mary health text "${1:-unknown}" health_detail json "${2:-null}"
}

reconciler_rnd_proposal() {
  reconciler_drop rnd last_proposal text "${1:-unknown}" proposal_status text "${2:-unknown}"
}

reconciler_rnd_improvement() {
  reconciler_drop rnd last_proposal text "${1:-unknown}" outcome text "${2:-processed}" result json "${3:-null}"
}

reconciler_rnd_score() {
  reconciler_drop rnd last_proposal text "${1:-unknown}" score json "${${2#+}:-null}" score_delta json "${${3#+}:-null}"
}

reconciler_rnd_learning() {
  reconciler_drop rnd learning text "${1-}" ${2:+last_proposal} ${2:+text} ${2:+"$2"}
}

# The parts of zsh that a drop needs: when this is sourced, and again if somebody unloaded one.
_reconciler_load() {
  zmodload -F zsh/files b:zf_mv b:zf_rm b:zf_mkdir b:zf_chmod
  zmodload -F zsh/datetime p:EPOCHREALTIME
  zmodload -F zsh/system b:sysopen b:syswrite b:sysread b:syserror p:sysparams
}
_reconciler_load 2>/dev/null

# Written beside the place, each part ended by a NUL, then renamed: nobody sees half of it. The name is the time in
# microseconds and the process: drops are taken in as the calls were made. (One function: a call copies its arguments.)
reconciler_drop() {
  builtin emulate -LR zsh -o no_multibyte -o local_traps
  trap - ZERR
  local _reconciler_spool=${LUKA_SOT:-${_reconciler_file:h:h}}/.reconciler/spool
  local _reconciler_why _reconciler_name _reconciler_temp
  local -i _reconciler_fd=-1 _reconciler_n
  {
    zmodload -e zsh/files zsh/datetime zsh/system || _reconciler_load
    for (( _reconciler_n = 3; _reconciler_n < $#; _reconciler_n += 3 )); do
      [[ $argv[_reconciler_n] == json ]] || continue
      if [[ $argv[_reconciler_n+1] == - ]]; then
        argv[_reconciler_n+1]=
        while sysread -s 65536 _reconciler_name; do
          argv[_reconciler_n+1]+=$_reconciler_name
        done
      fi
      [[ -n $argv[_reconciler_n+1] ]] || argv[_reconciler_n+1]=null
    done
    [[ "$argv" != *$'\0'* ]] || argv=("${(@)argv//$'\0'/}")
    if (( $# < 4 || $# % 3 != 1 )); then
      _reconciler_why="each key needs its type, text or json, and its value"
    elif [[ $_reconciler_spool == /* && -d $_reconciler_spool ]] || _reconciler_find_spool; then
      (( _reconciler_n = EPOCHREALTIME * 1000000 ))
      (( _reconciler_n > _reconciler_last )) || (( _reconciler_n = _reconciler_last + 1 ))
      while _reconciler_name=${(l:16::0:)_reconciler_n}-$sysparams[pid].drop; do
        _reconciler_temp=$_reconciler_spool/.$_reconciler_name.tmp
        [[ -e $_reconciler_spool/$_reconciler_name || -e $_reconciler_temp ]] || break
        (( _reconciler_n += 1 ))
      done
      _reconciler_last=$_reconciler_n
      sysopen -w -o creat,excl -m 600 -u _reconciler_fd $_reconciler_temp &&
        syswrite -o $_reconciler_fd $'reconciler-drop 1\0'"${(pj:\0:)argv}"$'\0end\0' &&
        zf_chmod 600 $_reconciler_temp &&
        zf_mv -f $_reconciler_temp $_reconciler_spool/$_reconciler_name && return 0
      syserror -e _reconciler_why
      (( _reconciler_fd < 0 )) && _reconciler_why="no file can be made there" || zf_rm -f $_reconciler_temp
      _reconciler_why="$_reconciler_spool: $_reconciler_why"
    fi
  } always {
    (( _reconciler_fd < 0 )) || exec {_reconciler_fd}>&-
  } 2>/dev/null
  [[ ! -e /dev/fd/2 ]] ||
    print -ru2 -- "reconciler: what ${1:-nobody} did was not recorded: $_reconciler_why"
  return 0
}

# Where drops go if that is not plain; made if it is not there. LUKA_SOT may hold a ~ that nobody expanded.
_reconciler_find_spool() {
  local _reconciler_root=${LUKA_SOT-} _reconciler_folder
  if [[ -z $_reconciler_root ]]; then
    _reconciler_root=${_reconciler_file:h:h}
    [[ -d $_reconciler_root/.reconciler || ! -d ${_reconciler_file:A:h:h}/.reconciler ]] ||
      _reconciler_root=${_reconciler_file:A:h:h}
  elif [[ $_reconciler_root == '~'(/*|) ]]; then
    _reconciler_root=$HOME${_reconciler_root#\~}
  fi
  _reconciler_spool=$_reconciler_root/.reconciler/spool
  [[ -d $_reconciler_spool ]] && return 0
  if [[ ! -d $_reconciler_root ]]; then
    _reconciler_why="there is no workspace $_reconciler_root (from ${${LUKA_SOT:+LUKA_SOT}:-where reconciler.zsh is})"
    return 1
  fi
  for _reconciler_folder in $_reconciler_spool:h $_reconciler_spool; do
    zf_mkdir $_reconciler_folder && zf_chmod 700 $_reconciler_folder
  done
  [[ -d $_reconciler_spool ]] || _reconciler_why="$_reconciler_spool cannot be made"
  [[ -d $_reconciler_spool ]]
}
