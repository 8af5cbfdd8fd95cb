//! Ending: everybody in the container is told, and when all have gone, so does it.
//!
//! Whoever takes longer than the engine's grace is killed by the engine.

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// Tells everybody, or these where everybody would be more: TERM, and HUP to the shells at a terminal, which ignore TERM. A stopped process gets them once it goes on.
pub(crate) fn tell(own: &[Pid]) {
    let everybody = everybody();
    let groups = everybody.map_or_else(|| own.to_vec(), |everybody| vec![everybody]);
    let tell = |signal| {
        for group in &groups {
            let _ = kill_process_group(*group, signal);
        }
    };
    tell(Signal::TERM);
    for pid in leaders() {
        if everybody.is_some() || own.contains(&pid) {
            let _ = rustix::process::kill_process(pid, Signal::HUP);
        }
    }
    tell(Signal::CONT);
}

/// Whether all have gone, or these where all would be more.
pub(crate) fn is_over(mut own: impl Iterator<Item = Pid>) -> bool {
    match everybody() {
        Some(everybody) => test_kill_process_group(everybody).is_err(),
        None => own.next().is_none(),
    }
}

/// Everybody but the first process, in a container's own process namespace. Elsewhere it would be everybody there is.
fn everybody() -> Option<Pid> {
    // The group of number 1, negative, is how the system's call says everybody.
    (rustix::process::getpid() == Pid::INIT).then_some(Pid::INIT)
}

/// The leaders of sessions at a terminal.
fn leaders() -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| {
        entry.file_name().to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))?;
        leader(&String::from_utf8_lossy(&std::fs::read(entry.path().join("stat")).ok()?))
    });
    stats.filter_map(Pid::from_raw).filter(|pid| *pid != Pid::INIT).collect()
}

/// Its number, if it is one.
fn leader(stat: &str) -> Option<i32> {
    let (pid, _) = stat.split_once(' ')?;
    // After the name in parentheses, which may hold anything: state, parent, group, session, terminal.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    (fields.nth(3)? == pid && fields.next()? != "0").then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::leader;

    #[test]
    fn leaders_at_a_terminal_are_told_apart() {
        assert_eq!(leader("7 (ba) (sh) S 1 7 7 34816 7 0"), Some(7));
        assert_eq!(leader("7 (sh) S 1 7 7 0 -1 0"), None);
        assert_eq!(leader("8 (sleep) S 7 8 7 34816 7 0"), None);
        assert_eq!(leader(""), None);
    }
}
