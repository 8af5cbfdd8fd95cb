//! Who of a process's group still has its pipes: they are the ones who are told that nobody is at the other end.
//!
//! Whoever was put into the background with output of its own was made to stay, with or without `nohup`: that is how the server of an editor is
//! started that is to be found again after the connection was lost.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// Sends HUP to the leader of a group, and to those in it whose output or error goes into one of these pipes. A stopped process gets it at once.
pub(crate) fn tell(leader: Pid, pipes: &[u64]) {
    let number = leader.as_raw_pid();
    let others = members(number).into_iter().filter(|pid| *pid != number && has(*pid, pipes)).filter_map(Pid::from_raw);
    // Nobody is told before everybody has been found: who is told ends, and its number may be another's next.
    let all: Vec<Pid> = std::iter::once(leader).chain(others).collect();
    for signal in [Signal::HUP, Signal::CONT] {
        for pid in &all {
            let _ = kill_process(*pid, signal);
        }
    }
}

/// The processes of a group.
fn members(group: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid| std::fs::read(format!("/proc/{pid}/stat")).is_ok_and(|stat| group_of(&String::from_utf8_lossy(&stat)) == Some(group)))
        .collect()
}

fn group_of(stat: &str) -> Option<i32> {
    // After the name in parentheses, which may hold anything: state, parent, group.
    stat.rsplit_once(") ")?.1.split(' ').nth(2)?.parse().ok()
}

/// Whether the output or the error of a process goes into one of these pipes.
fn has(pid: i32, pipes: &[u64]) -> bool {
    let is_one = |place: &Path| pipes.iter().any(|pipe| place.as_os_str() == format!("pipe:[{pipe}]").as_str());
    [1, 2].iter().any(|number| std::fs::read_link(format!("/proc/{pid}/fd/{number}")).is_ok_and(|place| is_one(&place)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_has_output_of_its_own_is_not_told() {
        let (mut output, theirs) = std::io::pipe().unwrap();
        let inode = rustix::fs::fstat(&output).unwrap().st_ino;
        let line = "sleep 300 >/dev/null 2>&1 & echo $!; sleep 300 2>/dev/null & echo $!; echo up; wait";
        let mut shell = Command::new("/bin/sh").args(["-c", line]).stdout(theirs).stderr(Stdio::null()).process_group(0).spawn().unwrap();
        let mut said = String::new();
        while !said.ends_with("up\n") {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            said.push(char::from(byte[0]));
        }
        let pids: Vec<i32> = said.lines().filter_map(|line| line.parse().ok()).collect();
        let of = |pid| group_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default());
        assert_eq!(of(pids[0]), Some(shell.id().cast_signed()));
        // The shell goes on before its children have sent their output elsewhere.
        for (pid, numbers) in [(pids[0], &[1, 2][..]), (pids[1], &[2])] {
            let is_away = |number| {
                let file = std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
                file.is_ok_and(|file| file == std::path::Path::new("/dev/null"))
            };
            while !numbers.iter().all(is_away) {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
        tell(Pid::from_child(&shell), &[inode]);
        assert_eq!(shell.wait().unwrap().signal(), Some(1));
        // It reads as ended once the last one that has it is gone.
        assert_eq!(output.read(&mut [0]).unwrap(), 0);
        assert_eq!(of(pids[0]), Some(shell.id().cast_signed()), "it goes on");
        kill_process(Pid::from_raw(pids[0]).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_group_is_found_behind_any_name() {
        assert_eq!(group_of("7 (ba) (sh) S 1 9 7 34816 7 0"), Some(9));
        assert_eq!(group_of("7 (sh)"), None);
    }
}
