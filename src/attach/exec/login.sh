# Becomes a session's process: finds out whose it is, sets up the terminal, and execs. Under any POSIX shell.
#
# It comes in an environment variable, and so does everything it is told: the engine publishes the arguments of what it starts.
# Variables are named so that none of the session's own is overwritten; those it is told things in are gone before the exec.

# The account, from the file itself: getent may be missing, and so may the file.
ik_user= ik_home= ik_shell=
if [ -r /etc/passwd ]; then
    while IFS=: read -r ik_name ik_a ik_uid ik_b ik_c ik_dir ik_sh || [ -n "$ik_name" ]; do
        if [ "$ik_uid" = "$INNKEEPER_UID" ]; then
            ik_user=$ik_name ik_home=$ik_dir ik_shell=$ik_sh
            break
        fi
    done </etc/passwd
fi
USER=${ik_user:-user}
LOGNAME=$USER

# The home: the container's environment knows best, then the account, then the gateway. An engine that knows nothing says /.
ik_given=${HOME:-/}
HOME=/
[ "$ik_given" != / ] || ik_given=
for ik_dir in "$ik_given" "$ik_home" "$INNKEEPER_HOME"; do
    if [ -n "$ik_dir" ] && [ -d "$ik_dir" ]; then
        HOME=$ik_dir
        break
    fi
done
cd "$HOME" 2>/dev/null || cd /

# A shell that is not there, or that only turns people away, is no reason not to let her in.
case $ik_shell in */nologin | */false) ik_shell= ;; esac
SHELL=/bin/sh
for ik_sh in "$ik_shell" /bin/bash /usr/bin/bash /usr/local/bin/bash; do
    if [ -f "$ik_sh" ] && [ -x "$ik_sh" ]; then
        SHELL=$ik_sh
        break
    fi
done
export USER LOGNAME HOME SHELL

if [ -n "${INNKEEPER_TERMINAL+set}" ]; then
    if command -v stty >/dev/null 2>&1; then
        # Unless the engine has set it by now: the window may have changed since, and what it says is newer.
        case $(stty size 2>/dev/null) in
        '0 0' | '') [ -z "$INNKEEPER_TERMINAL" ] || stty $INNKEEPER_TERMINAL 2>/dev/null ;;
        esac
        # All at once, or one by one where the image's stty does not know them all.
        if [ -n "$INNKEEPER_MODES" ] && ! stty $INNKEEPER_MODES 2>/dev/null; then
            set -- $INNKEEPER_MODES
            while [ $# -gt 0 ]; do
                case ${2-} in
                '^'* | [0-9]* | undef) stty "$1" "$2" 2>/dev/null; shift ;;
                *) stty "$1" 2>/dev/null ;;
                esac
                shift
            done
        fi
    fi
    if SSH_TTY=$(tty 2>/dev/null); then export SSH_TTY; else unset SSH_TTY; fi
    if [ -n "$INNKEEPER_GREETING" ] && [ ! -e "$HOME/.hushlogin" ]; then
        printf '%s\n' "$INNKEEPER_GREETING"
    fi
fi

ik_program=$INNKEEPER_PROGRAM
ik_command=$INNKEEPER_COMMAND
# What a shell before hers has left: hers is the first.
unset OLDPWD SHLVL
unset INNKEEPER_SCRIPT INNKEEPER_UID INNKEEPER_HOME INNKEEPER_TERMINAL INNKEEPER_MODES INNKEEPER_GREETING INNKEEPER_PROGRAM INNKEEPER_COMMAND

case $ik_program in
shell)
    exec "$SHELL" -l
    ;;
command)
    exec "$SHELL" -c "$ik_command"
    ;;
octal)
    # Bytes that are no text, as escapes. In the C locale a byte is a character; the x keeps trailing newlines.
    ik_had=${LC_ALL+set} ik_lc=${LC_ALL-}
    LC_ALL=C
    ik_command=$(printf "${ik_command}x")
    ik_command=${ik_command%x}
    if [ -n "$ik_had" ]; then LC_ALL=$ik_lc; else unset LC_ALL; fi
    exec "$SHELL" -c "$ik_command"
    ;;
sftp)
    for ik_sftp in /usr/lib/openssh /usr/lib/ssh /usr/libexec /usr/libexec/openssh /usr/lib; do
        [ ! -x "$ik_sftp/sftp-server" ] || exec "$ik_sftp/sftp-server"
    done
    if command -v sftp-server >/dev/null 2>&1; then exec sftp-server; fi
    echo 'this image has no sftp-server: file transfer over SFTP is not possible' >&2
    exit 127
    ;;
esac
