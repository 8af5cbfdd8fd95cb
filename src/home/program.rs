//! Programs of the distribution, run to their end: by their absolute path, with no input of a user's, an empty environment, a deadline, and no more of
//! what they say than is of use.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A program, and the package that it comes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program {
    name: &'static str,
    package: &'static str,
}

/// Makes an ext4.
pub(super) const MKFS_EXT4: Program = Program { name: "mkfs.ext4", package: "e2fsprogs" };
/// Gives an ext4 another size.
pub(super) const RESIZE2FS: Program = Program { name: "resize2fs", package: "e2fsprogs" };
/// Checks an ext4.
pub(super) const E2FSCK: Program = Program { name: "e2fsck", package: "e2fsprogs" };
/// Gives a directory to a project.
pub(super) const CHATTR: Program = Program { name: "chattr", package: "e2fsprogs" };
/// Has a loop device look at its file again.
pub(super) const LOSETUP: Program = Program { name: "losetup", package: "mount" };
/// Mounts an image through a loop device.
pub(super) const MOUNT: Program = Program { name: "mount", package: "mount" };
/// Holds all writes to a file system up.
pub(super) const FSFREEZE: Program = Program { name: "fsfreeze", package: "util-linux" };
/// Copies an image.
pub(super) const CP: Program = Program { name: "cp", package: "coreutils" };
/// Everything about btrfs.
pub(super) const BTRFS: Program = Program { name: "btrfs", package: "btrfs-progs" };
/// Quotas of XFS.
pub(super) const XFS_QUOTA: Program = Program { name: "xfs_quota", package: "xfsprogs" };

/// A program's own input, as a file that it can open.
pub(super) const INPUT: &str = "/proc/self/fd/0";
/// Where distributions have programs of the system. The environment's own PATH says nothing: the gateway may run under any.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// For what takes milliseconds unless the disk does not answer.
pub(super) const SOON: Duration = Duration::from_secs(15);
/// For what reads or writes a whole image.
pub(super) const LONG: Duration = Duration::from_secs(300);
/// Most that is kept of what a program says, in bytes. A list of a thousand subvolumes fits.
const MOST_SAID: u64 = 1 << 20;

impl Program {
    /// Where it is.
    pub(super) fn find(self) -> io::Result<PathBuf> {
        let there = PLACES.iter().map(|place| PathBuf::from(place).join(self.name)).find(|path| path.is_file());
        there.ok_or_else(|| {
            let Self { name, package } = self;
            io::Error::new(io::ErrorKind::NotFound, format!("there is no program {name}; install the package {package}"))
        })
    }

    /// Runs it, and returns what it wrote to its output.
    pub(super) fn run<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>, within: Duration) -> io::Result<String> {
        self.run_on(Stdio::null(), args, within)
    }

    /// The same, with an input, which it may know as [`INPUT`].
    pub(super) fn run_on<A: AsRef<OsStr>>(self, input: Stdio, args: impl IntoIterator<Item = A>, within: Duration) -> io::Result<String> {
        let mut command = Command::new(self.find()?);
        command.args(args).env_clear().env("LC_ALL", "C").env("PATH", PLACES.join(":")).current_dir("/");
        let mut child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let said = thread::spawn(reader(child.stdout.take()));
        let complaints = thread::spawn(reader(child.stderr.take()));
        let status = self.wait(&mut child, within)?;
        // Where it left a process behind that keeps the pipes open, this waits for that; none of these programs does.
        let said = said.join().unwrap_or_default();
        if status.success() {
            return Ok(said);
        }
        let complaints = complaints.join().unwrap_or_default();
        let lines = complaints.lines().chain(said.lines()).map(str::trim).filter(|line| !line.is_empty());
        let last: Vec<&str> = lines.take(4).collect();
        Err(io::Error::other(format!("{}: {status}: {}", self.name, last.join("; "))))
    }

    fn wait(self, child: &mut Child, within: Duration) -> io::Result<std::process::ExitStatus> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let deadline = Timespec { tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
        let ended = loop {
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&deadline)) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        if ended == 0 {
            child.kill()?;
            // One that hangs in the kernel does not die either, and is not waited for.
            if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).is_ok_and(|ended| ended > 0) {
                child.wait()?;
            }
            let late = format!("{} did not end within {}", self.name, humantime::format_duration(within));
            return Err(io::Error::new(io::ErrorKind::TimedOut, late));
        }
        child.wait()
    }
}

fn reader<R: Read>(pipe: Option<R>) -> impl FnOnce() -> String {
    move || {
        let Some(mut pipe) = pipe else { return String::new() };
        let mut said = Vec::new();
        (&mut pipe).take(MOST_SAID).read_to_end(&mut said).ok();
        // The rest is read too, so that who says it does not wait for us.
        io::copy(&mut pipe, &mut io::sink()).ok();
        String::from_utf8_lossy(&said).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SH: Program = Program { name: "sh", package: "dash" };

    #[test]
    fn what_it_says_comes_back_and_what_it_complains_of_is_the_error() {
        assert_eq!(SH.run(["-c", "echo out; echo err >&2; echo $HOME"], SOON).unwrap(), "out\n\n");
        let why = SH.run(["-c", "echo no room >&2; exit 3"], SOON).unwrap_err().to_string();
        assert!(why.contains("sh: ") && why.contains("3") && why.contains("no room"), "{why}");
    }

    #[test]
    fn the_package_of_a_missing_program_is_named_and_nobody_waits_for_ever() {
        let why = Program { name: "mkfs.none", package: "nonesuch" }.run([""; 0], SOON).unwrap_err().to_string();
        assert!(why.contains("mkfs.none") && why.contains("install the package nonesuch"), "{why}");
        let began = Instant::now();
        let late = SH.run(["-c", "exec sleep 60"], Duration::from_secs(1)).unwrap_err();
        assert!(late.kind() == io::ErrorKind::TimedOut && began.elapsed() < Duration::from_secs(20), "{late}");
    }
}
