# What people install for themselves comes first.
for __dir in "$HOME/bin" "$HOME/.local/bin"; do
    [ -d "$__dir" ] && PATH="$__dir:$PATH"
done
unset __dir

# bash as a login shell does not read ~/.bashrc by itself, and a home that started empty has no ~/.profile that would.
if [ -n "${BASH_VERSION-}" ] && [ -n "${PS1-}" ] && [ -r "$HOME/.bashrc" ] &&
    [ ! -e "$HOME/.bash_profile" ] && [ ! -e "$HOME/.bash_login" ] && [ ! -e "$HOME/.profile" ]; then
    . "$HOME/.bashrc"
fi
