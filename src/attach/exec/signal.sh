# Sends a signal to the processes of one session. Under any POSIX shell, with nothing but its builtins.
#
# The engine cannot signal what it started, and says no process number that means anything in here. So every session's first process
# carries a mark in its environment. Its children inherit it; the one that is meant has no parent in here (0), while a daemon that has
# left its session behind has the container's first process for one, and is left alone.
# `kill -NAME -GROUP` is the one form that dash, bash and busybox understand alike.
ik_found=3
for ik_dir in /proc/[0-9]*; do
    { read -r ik_stat <"$ik_dir/stat"; } 2>/dev/null || continue
    # After the name in parentheses, which may hold anything: state, parent, group, session, terminal, the terminal's foreground group.
    set -f
    set -- ${ik_stat##*) }
    set +f
    [ "${2-}" = 0 ] || continue
    ik_marked=
    while IFS= read -r ik_line || [ -n "$ik_line" ]; do
        case $ik_line in *"INNKEEPER_SESSION=$INNKEEPER_TARGET"*)
            ik_marked=yes
            break
            ;;
        esac
    done 2>/dev/null <"$ik_dir/environ"
    [ -n "$ik_marked" ] || continue
    ik_found=0
    ik_group=$3
    ik_foreground=$3
    [ "$6" -le 0 ] || ik_foreground=$6
    if [ "$INNKEEPER_HANG_UP" = yes ]; then
        # As a terminal that is hung up does: its foreground, and the session's leader, which tells its own jobs if it is a shell.
        # A stopped process gets a signal only once it goes on.
        for ik_target in "$ik_foreground" "$ik_group"; do
            kill -HUP -"$ik_target" 2>/dev/null
            kill -CONT -"$ik_target" 2>/dev/null
        done
    else
        kill -"$INNKEEPER_SIGNAL" -"$ik_foreground" 2>/dev/null
    fi
    break
done
exit $ik_found
