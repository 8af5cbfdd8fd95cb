# The first process of a container, until its own init is there: does nothing, reaps, and ends quickly when asked to.
#
# `wait` collects every child, also those that were not its own, so nothing stays a zombie. The engine signals only this process on
# a stop, so it passes the request on: TERM to everybody, and HUP to the shells at a terminal, which ignore TERM (they are who leads a
# session that has one). Then it waits for all to be gone; whoever takes longer than the grace is killed by the engine.
# `kill -NAME -GROUP` is the one form that dash, bash and busybox understand alike.
end() {
    trap '' TERM
    kill -TERM -1 2>/dev/null
    for stat in /proc/[0-9]*/stat; do
        read -r line 2>/dev/null <"$stat" || continue
        pid=${line%% *}
        # After the name in parentheses, which may hold anything: state, parent, group, session, terminal.
        set -f
        set -- ${line##*) }
        set +f
        [ "$pid" = 1 ] || [ "$4" != "$pid" ] || [ "$5" = 0 ] || kill -HUP "$pid" 2>/dev/null
    done
    # A stopped process gets its signals only once it goes on.
    kill -CONT -1 2>/dev/null
    while kill -0 -1 2>/dev/null; do
        sleep 0.02 2>/dev/null || sleep 1
    done
    exit 0
}
trap end TERM
while :; do
    sleep 86400 &
    wait
done
