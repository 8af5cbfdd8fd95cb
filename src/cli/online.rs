//! What `innkeeper check --online` tries on this machine itself. What it asks others is [`crate::app::probes`].

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use crate::config::Settings;
use crate::telemetry::{Outcome, Probe};

pub(super) fn probes(settings: &Settings) -> Vec<Probe> {
    let directory = settings.state_dir.clone();
    let mut probes = vec![
        Probe::new("state_dir", move || std::future::ready(writable(&directory))),
        Probe::new("mounts", || std::future::ready(can_mount())),
    ];
    let http = (!settings.http.listen.is_empty()).then_some(("http.listen", &settings.http.listen));
    for (key, listen) in settings.ssh.listen.iter().map(|listen| ("ssh.listen", listen)).chain(http) {
        let listen = listen.clone();
        probes.push(Probe::new(format!("{key} {listen}"), move || std::future::ready(free(&listen))));
    }
    probes
}

/// Whether the directory, or the nearest one above it that is there, takes files.
fn writable(directory: &Path) -> Outcome {
    let Some(there) = directory.ancestors().find(|path| path.exists()).map(PathBuf::from) else {
        return Outcome::Failed(format!("{}: no such directory", directory.display()));
    };
    if !there.is_dir() {
        return Outcome::Failed(format!("{} is not a directory", there.display()));
    }
    match access(&there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if there == directory => Outcome::Fine(format!("{} is writable", directory.display())),
        Ok(()) => Outcome::Fine(format!("{} will be made", directory.display())),
        Err(why) => Outcome::Failed(format!("{}: {}; mend: run as root or change its owner", there.display(), io::Error::from(why))),
    }
}

/// Whether homes can be mounted into containers that run already.
fn can_mount() -> Outcome {
    if rustix::process::geteuid().is_root() {
        Outcome::Fine("running as root, so containers from the pool can receive a home".to_owned())
    } else {
        Outcome::Doubtful("not root: containers from the pool cannot receive a home, every workspace's is made with it".to_owned())
    }
}

/// Whether the address can be listened on.
fn free(listen: &str) -> Outcome {
    let bound = listen.parse::<SocketAddr>().map_err(io::Error::other).and_then(TcpListener::bind);
    match bound {
        Ok(_) => Outcome::Fine("free".to_owned()),
        Err(why) if why.kind() == io::ErrorKind::AddrInUse => {
            Outcome::Doubtful("in use: by a running gateway, or by another program".to_owned())
        }
        Err(why) => Outcome::Failed(format!("{why}")),
    }
}
