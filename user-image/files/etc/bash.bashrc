# Interactive bash, for everybody. A home may be empty, so whatever makes the shell comfortable is here; ~/.bashrc has the last word.
# It forks nothing: the first prompt must not wait.

[ -z "${PS1-}" ] && return

# --- history: many sessions, and a container that may be stopped under them, so every command is written at once
shopt -s histappend cmdhist
HISTCONTROL=ignoreboth
HISTSIZE=20000
HISTFILESIZE=100000
HISTTIMEFORMAT='%F %T  '

# --- habits
shopt -s checkwinsize globstar 2>/dev/null
export EDITOR="${EDITOR:-vim}" PAGER="${PAGER:-less}"
# -R shows colours, -F leaves at once when all fits on the screen, -i ignores case unless a capital is typed, -M says where one is.
export LESS="${LESS:--RFiM}"
alias ls='ls --color=auto' ll='ls -lh' la='ls -lhA' grep='grep --color=auto'

# --- a terminal that this image has never heard of is taken for xterm, which nearly all of them resemble
__terminal_known() {
    local dir
    for dir in "$HOME/.terminfo" /etc/terminfo /lib/terminfo /usr/share/terminfo; do
        [ -e "$dir/${TERM:0:1}/$TERM" ] && return 0
    done
    return 1
}
[ -n "${TERM-}" ] && ! __terminal_known && export TERM=xterm-256color
unset -f __terminal_known

# --- the prompt: where am I, and the last status when it was not 0
__prompt() {
    local status=$?
    history -a
    __status=''
    [ "$status" -ne 0 ] && __status="$status "
}
PROMPT_COMMAND=__prompt
case "${TERM-}" in
dumb | '') PS1='${__status}\u@${INNKEEPER_WORKSPACE:-\h}:\w\$ ' ;;
*) PS1='\[\e[31m\]${__status}\[\e[1;32m\]\u@${INNKEEPER_WORKSPACE:-\h}\[\e[0m\]:\[\e[1;34m\]\w\[\e[0m\]\$ ' ;;
esac
# The title of the window, where there is one.
case "${TERM-}" in
xterm* | rxvt* | alacritty* | foot* | tmux* | screen*) PS1='\[\e]0;\u@${INNKEEPER_WORKSPACE:-\h}:\w\a\]'"$PS1" ;;
esac

# --- completion: loading all of it takes longer than everything above, so the first Tab does it
if [ -r /usr/share/bash-completion/bash_completion ] && ! shopt -oq posix; then
    __load_completion() {
        unset -f __load_completion
        complete -r -D
        . /usr/share/bash-completion/bash_completion
        # 124: look again, now that the completions are there.
        return 124
    }
    complete -D -F __load_completion
fi
