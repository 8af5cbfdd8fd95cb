//! Whose login it is, and what that makes of her environment: account, home, shell.
//!
//! Reads what the container has, which may be anything or nothing: an account, a home or a shell that is not there is no reason not to let
//! her in as long as something can be run.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use innkeeper_init::protocol::{DIRECTORY, Failure, Process, Program, Variable};

use crate::session;

/// Longest part of an account file that is read, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// What is looked for where the account names no shell that is of use.
const SHELLS: [&str; 5] = ["/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh", "/usr/bin/sh"];

/// Where distributions keep the SFTP server.
const SFTP: [&str; 5] = ["/usr/lib/openssh", "/usr/lib/ssh", "/usr/libexec", "/usr/libexec/openssh", "/usr/lib"];

/// The path of a container that names none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The name of who has no account.
const NOBODY: &str = "user";

/// A program, what it is called, and its arguments.
type Invocation = (PathBuf, OsString, Vec<OsString>);

/// An account's line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Account {
    name: OsString,
    home: OsString,
    shell: OsString,
}

/// A login.
pub(crate) struct Login {
    /// Where it starts.
    pub(crate) home: PathBuf,
    /// The whole environment.
    pub(crate) env: BTreeMap<OsString, OsString>,
    shell: Option<PathBuf>,
}

// === impl Login ===

impl Login {
    /// Of whoever this process runs as, where it runs.
    pub(crate) fn of_this_container(process: &Process) -> Self {
        Self::new(process, std::env::vars_os(), account().unwrap_or_default())
    }

    fn new(process: &Process, own: impl Iterator<Item = (OsString, OsString)>, account: Account) -> Self {
        let mut env: BTreeMap<_, _> = own.collect();
        add(&mut env, &process.env);
        // What a shell before hers has left: hers is the first.
        env.remove(OsStr::new("OLDPWD"));
        env.remove(OsStr::new("SHLVL"));
        let home = home(env.get(OsStr::new("HOME")), &account.home, &process.home);
        let shell = shell(&account.shell);
        let name = if account.name.is_empty() { NOBODY.into() } else { account.name };
        let mut path = env.get(OsStr::new("PATH")).cloned().filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.into());
        if !std::env::split_paths(&path).any(|part| part == Path::new(DIRECTORY)) {
            path.push(":");
            path.push(DIRECTORY);
        }
        let mut set = |name: &str, value: OsString| env.insert(name.into(), value);
        set("USER", name.clone());
        set("LOGNAME", name);
        set("HOME", home.clone().into());
        set("SHELL", shell.clone().unwrap_or_else(|| "/bin/sh".into()).into());
        set("PATH", path);
        if let Some(pty) = &process.pty {
            if !pty.term.is_empty() && !pty.term.contains('\0') {
                set("TERM", (&pty.term).into());
            }
            match session::terminal_path() {
                Some(path) => set("SSH_TTY", path),
                None => env.remove(OsStr::new("SSH_TTY")),
            };
        }
        Self { home, env, shell }
    }

    /// How to run this.
    pub(crate) fn program(&self, program: &Program) -> Result<Invocation, (Failure, String)> {
        if let Program::Sftp = program {
            let path = self.env.get(OsStr::new("PATH")).map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
            let mut places = SFTP.into_iter().map(PathBuf::from).chain(path).map(|place| place.join("sftp-server"));
            let missing = || (Failure::NotFound, "this image has no sftp-server: file transfer over SFTP is not possible".to_owned());
            return places.find(|path| runs(path)).map(|path| (path, "sftp-server".into(), Vec::new())).ok_or_else(missing);
        }
        let shell = self.shell.clone().ok_or((Failure::NotFound, "this image has no shell".to_owned()))?;
        let base = shell.file_name().unwrap_or_default().to_owned();
        Ok(match program {
            Program::Command(command) => (shell, base, vec!["-c".into(), OsString::from_vec(command.clone())]),
            _ => {
                let mut name = OsString::from("-");
                name.push(base);
                (shell, name, Vec::new())
            }
        })
    }

    /// What she is greeted with, unless she does not want to be.
    pub(crate) fn greeting<'a>(&self, process: &'a Process) -> Option<&'a str> {
        let greeting = process.greeting.as_deref().filter(|greeting| !greeting.is_empty())?;
        (!self.home.join(".hushlogin").exists()).then_some(greeting)
    }
}

/// Adds to an environment what can be in one.
pub(crate) fn add(env: &mut BTreeMap<OsString, OsString>, more: &[Variable]) {
    let usable = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
    for variable in more.iter().filter(|variable| usable(&variable.name) && !variable.value.contains('\0')) {
        env.insert((&variable.name).into(), (&variable.value).into());
    }
}

/// The home of whoever this process runs as: where relative paths begin.
pub(crate) fn home_here(fallback: &str) -> PathBuf {
    home(std::env::var_os("HOME").as_ref(), &account().unwrap_or_default().home, fallback)
}

/// The environment knows best, then the account, then the gateway. An engine that knows nothing says /.
fn home(given: Option<&OsString>, account: &OsStr, fallback: &str) -> PathBuf {
    let given = given.map(OsString::as_os_str).filter(|given| *given != "/").unwrap_or_default();
    let homes = [given, account, OsStr::new(fallback)];
    homes.into_iter().find(|home| !home.is_empty() && Path::new(home).is_dir()).map_or_else(|| "/".into(), PathBuf::from)
}

/// One that only turns people away is none.
fn shell(account: &OsStr) -> Option<PathBuf> {
    let turns_away = |shell: &Path| matches!(shell.file_name().map(OsStr::as_bytes), Some(b"nologin" | b"false"));
    let own = Some(PathBuf::from(account)).filter(|shell| shell.is_absolute() && !turns_away(shell));
    own.into_iter().chain(SHELLS.map(PathBuf::from)).find(|shell| runs(shell))
}

/// Asks the file system once: where the image's layers are served by a process, each part of a path is a question to it.
fn runs(program: &Path) -> bool {
    program.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
}

fn account() -> Option<Account> {
    find(&read("/etc/passwd", LONGEST), rustix::process::getuid().as_raw())
}

/// From the file itself: there may be no library that would know other sources.
fn find(passwd: &[u8], uid: u32) -> Option<Account> {
    let uid = uid.to_string();
    passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        let found = fields.nth(1)? == uid.as_bytes();
        let (home, shell) = (fields.nth(2)?, fields.next()?);
        let own = |bytes: &[u8]| os(bytes.to_vec()).unwrap_or_default();
        found.then(|| Account { name: own(name), home: own(home), shell: own(shell) })
    })
}

/// At most so much of a file; nothing of one that cannot be read.
pub(crate) fn read(path: &str, longest: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()));
    if let Some(file) = file {
        let _ = file.take(longest).read_to_end(&mut bytes);
    }
    bytes
}

/// Bytes as the system has them, if it can: a NUL cannot be in any name or value.
pub(crate) fn os(bytes: Vec<u8>) -> Option<OsString> {
    (!bytes.contains(&0)).then(|| OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] =
        b"root:x:0:0:root:/root:/bin/bash\nshort:x:1000\nann\xff:x:1000:1000:Ann,,,:/home/ann:/bin/zsh\nbob:x:1000:1000::/b:/c";

    #[test]
    fn the_account_is_the_first_whole_line_of_its_number() {
        let ann = find(FILE, 1000).unwrap();
        assert_eq!((ann.name.as_bytes(), ann.home.to_str(), ann.shell.to_str()), (&b"ann\xff"[..], Some("/home/ann"), Some("/bin/zsh")));
        assert_eq!(find(FILE, 1001), None);
        assert_eq!(find(b"last:x:7:7::/l:/s", 7).unwrap().shell, "/s");
        assert_eq!(find(b"", 0), None);
    }

    #[test]
    fn the_first_home_that_is_there_counts() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().as_os_str().to_owned();
        assert_eq!(home(Some(&here), OsStr::new("/usr"), "/etc"), directory.path());
        assert_eq!(home(Some(&"/".into()), &here, "/etc"), directory.path());
        assert_eq!(home(Some(&"/missing".into()), OsStr::new("/etc/passwd"), "/etc"), Path::new("/etc"));
        assert_eq!(home(None, OsStr::new(""), ""), Path::new("/"));
    }

    #[test]
    fn a_shell_that_turns_away_or_is_not_there_is_none() {
        assert_eq!(shell(OsStr::new("/bin/sh")), Some("/bin/sh".into()));
        for account in ["/usr/sbin/nologin", "/bin/false", "/missing/zsh", "", "sh"] {
            assert!(SHELLS.map(PathBuf::from).contains(&shell(OsStr::new(account)).unwrap()), "{account}");
        }
    }

    #[test]
    fn a_login_is_who_the_account_says_whatever_the_session_brings() {
        let variable = |(name, value): (&str, &str)| Variable { name: name.into(), value: value.into() };
        let env = [("USER", "eve"), ("LANG", "C"), ("LANG", "de"), ("", "x"), ("A=B", "x"), ("NUL", "\0"), ("SHLVL", "3")];
        let process = Process { env: env.map(variable).into(), home: "/usr".into(), ..Process::default() };
        let own = [("PATH", "/bin"), ("LANG", "en"), ("OWN", "1"), ("OLDPWD", "/x")].map(|(name, value)| (name.into(), value.into()));
        let account = Account { name: "ann".into(), home: "/missing".into(), shell: "/bin/sh".into() };
        let login = Login::new(&process, own.into_iter(), account);
        let all: Vec<_> = login.env.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
        let expected = ["HOME=/usr", "LANG=de", "LOGNAME=ann", "OWN=1", "PATH=/bin:/.innkeeper", "SHELL=/bin/sh", "USER=ann"];
        assert_eq!(all, expected);
        assert_eq!(login.program(&Program::LoginShell).unwrap(), ("/bin/sh".into(), "-sh".into(), vec![]));
        let arguments = vec!["-c".into(), OsString::from_vec(b"\xff".to_vec())];
        assert_eq!(login.program(&Program::Command(b"\xff".to_vec())).unwrap(), ("/bin/sh".into(), "sh".into(), arguments));
        let none = Login { shell: None, ..login };
        assert_eq!(none.program(&Program::LoginShell).unwrap_err().0, Failure::NotFound);
    }
}
