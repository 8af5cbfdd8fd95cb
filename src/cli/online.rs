//! What `innkeeper check --online` tries on this machine itself. What it asks others is [`crate::app::probes`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use crate::config::Settings;
use crate::home::{HomeId, KeptId, Prospect, Skeleton, prospects, skeleton};
use crate::name::{TemplateName, VolumeName};
use crate::telemetry::{Outcome, Probe};

pub(super) fn probes(settings: &Settings) -> Vec<Probe> {
    let directory = settings.state_dir.clone();
    let mut probes = vec![
        Probe::new("state_dir", move || std::future::ready(writable(&directory))),
        Probe::new("mounts", || std::future::ready(can_mount())),
        home(settings),
    ];
    let http = (!settings.http.listen.is_empty()).then_some(("http.listen", &settings.http.listen));
    for (key, listen) in settings.ssh.listen.iter().map(|listen| ("ssh.listen", listen)).chain(http) {
        let listen = listen.clone();
        probes.push(Probe::new(format!("{key} {listen}"), move || std::future::ready(free(&listen))));
    }
    probes
}

/// Whether new homes can start with what they are to start with. Looks at files that were named, and so needs no `--online`.
pub(super) fn skeletons(settings: &Settings) -> Vec<Probe> {
    let named = settings.template.iter().flat_map(|(name, template)| template.skeletons().map(move |found| (name, found)));
    let probe = |(name, (volume, skeleton)): (&TemplateName, (Option<&VolumeName>, &Skeleton))| {
        let key = volume.map_or_else(|| format!("template.{name}.skeleton"), |volume| format!("template.{name}.volume {volume} skeleton"));
        let (root, volume, skeleton) = (settings.homes(), volume.cloned(), skeleton.clone());
        Probe::new(key, move || std::future::ready(look_at(&skeleton, volume.as_ref(), &root)))
    };
    named.map(probe).collect()
}

/// Whether a home, or this volume, can start with it; `root` is where homes are.
fn look_at(skeleton: &Skeleton, volume: Option<&VolumeName>, root: &Path) -> Outcome {
    match skeleton {
        Skeleton::Path(path) => match skeleton::look(path) {
            Ok(()) => Outcome::Fine(format!("{} can be read", path.display())),
            Err(why) => Outcome::Failed(format!("{}: {why}", path.display())),
        },
        Skeleton::Snapshot { workspace, snapshot } => {
            let home = HomeId { workspace: workspace.clone(), volume: volume.cloned() };
            match (KeptId { home, snapshot: snapshot.clone() }).look(root) {
                Ok(true) => Outcome::Fine(format!("there is {skeleton}")),
                Ok(false) => {
                    let of = volume.map_or_else(String::new, |volume| format!(" with a volume {volume}"));
                    let mend = format!("`innkeeper workspace snapshot {workspace} take {snapshot}` takes one");
                    Outcome::Failed(format!("there is no {skeleton}{of}; {mend}"))
                }
                Err(why) => Outcome::Failed(format!("{skeleton}: {why}")),
            }
        }
    }
}

/// What homes can be limited to here.
fn home(settings: &Settings) -> Probe {
    let (kind, root) = (settings.home.driver, settings.homes());
    Probe::new("home.driver", move || {
        let (mut impossible, mut lacking, mut good) = (Vec::new(), Vec::new(), Vec::new());
        for prospect in prospects(kind, &root) {
            match prospect {
                Prospect::Impossible(why) => impossible.push(why),
                Prospect::Lacking(what) => lacking.push(what),
                Prospect::Good(what) => good.push(what),
            }
        }
        let outcome = if !impossible.is_empty() {
            Outcome::Failed(impossible.join("; "))
        } else if !lacking.is_empty() {
            Outcome::Doubtful(lacking.into_iter().chain(good).collect::<Vec<_>>().join("; "))
        } else {
            Outcome::Fine(good.join("; "))
        };
        std::future::ready(outcome)
    })
}

/// Whether the directory, or the nearest one above it that is there, takes files.
fn writable(directory: &Path) -> Outcome {
    let Some(there) = directory.ancestors().find(|path| path.exists()).map(PathBuf::from) else {
        return Outcome::Failed(format!("{}: no such directory", directory.display()));
    };
    if !there.is_dir() {
        return Outcome::Failed(format!("{} is not a directory", there.display()));
    }
    match try_write(&there) {
        Ok(()) if there == directory => Outcome::Fine(format!("{} is writable", directory.display())),
        Ok(()) => Outcome::Fine(format!("{} will be made", directory.display())),
        Err(why) => Outcome::Failed(format!("nothing can be written in {}: {why}", there.display())),
    }
}

/// Makes a file and takes it away again: permission bits say too little, of a full or read-only file system, or to root.
fn try_write(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".innkeeper-check-{}", std::process::id()));
    let written = File::create_new(&path).and_then(|mut file| file.write_all(b"innkeeper check\n").and_then(|()| file.sync_all()));
    match (written, fs::remove_file(&path)) {
        (Err(why), _) => Err(why),
        (Ok(()), removed) => removed,
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
