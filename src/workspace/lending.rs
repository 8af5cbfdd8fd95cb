//! Directories of the host in a workspace: where they may appear, which of them can be had now, and what a container says it was made with.
//!
//! One that cannot be had keeps nobody out: the container starts without it, and the person is told.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::house::House;
use super::recipe::Recipe;
use super::{EnsureError, NetworkPolicy, policy};
use crate::engine::{Mount, Propagation};
use crate::home::{HomeError, Slot, make_within};
use crate::name::{WorkspaceName, printable};
use crate::store::StoredMount;

/// What a container was made with of what is lent; it has no such label if that is nothing.
pub(super) const LABEL: &str = "innkeeper.mounts";

/// Directories of the host that can be had right now, and those that cannot.
#[derive(Debug, Default)]
pub(super) struct Offer {
    ready: Vec<(StoredMount, OwnedFd)>,
    absent: Vec<String>,
}

/// What of the host is in a container, and where it leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fit {
    /// What its label says.
    pub(super) label: Option<String>,
    /// Where something should be and is not.
    pub(super) absent: Vec<String>,
    /// Where its network leads.
    pub(super) network: NetworkPolicy,
}

/// Why something cannot appear at a place in a container.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TargetError {
    #[error("must be an absolute path without `.` and `..`, of at most 255 bytes, and without control characters and `:`")]
    Form,
    #[error("would hide the home {0}; choose a directory in it, or elsewhere")]
    Home(String),
    #[error("would hide what a container needs to run; choose a directory below /mnt, /srv or the home")]
    System,
    #[error("and the mount at {0} are one in the other; remove that first")]
    Nested(String),
}

/// Longest path of a target, in bytes.
const LONGEST_TARGET: usize = 255;

/// Where nothing may appear, and nothing below: programs, their configuration, the kernel's, ours.
const NOT_BELOW: &[&str] =
    &["/proc", "/sys", "/dev", "/etc", "/.innkeeper", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/boot"];

/// Where nothing may appear, though it may below.
const NOT_AT: &[&str] = &[
    "/",
    "/usr",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local",
    "/var",
    "/home",
    "/root",
    "/run",
    "/tmp",
];

/// How long the file system of a source may take to answer: beyond that it is as good as gone.
const SOURCE_DEADLINE: Duration = Duration::from_secs(5);

/// Whether something may appear at this path, in a container whose home is one of these and which has these others.
pub(super) fn check_target<'a>(target: &str, homes: impl IntoIterator<Item = &'a str>, others: &[StoredMount]) -> Result<(), TargetError> {
    let plain = target.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
    let printed = printable(target) == target && !target.contains(':');
    if target == "/" {
        return Err(TargetError::System);
    }
    if !plain || !printed || target.len() > LONGEST_TARGET {
        return Err(TargetError::Form);
    }
    let path = Path::new(target);
    // Whatever is above a home hides it as well.
    if let Some(home) = homes.into_iter().find(|home| Path::new(home).starts_with(path)) {
        return Err(TargetError::Home(home.to_owned()));
    }
    if NOT_AT.contains(&target) || NOT_BELOW.iter().any(|system| path.starts_with(system)) {
        return Err(TargetError::System);
    }
    // The same one again is set anew.
    let others = others.iter().filter(|other| other.target != target);
    match others.map(|other| &other.target).find(|other| path.starts_with(other) || Path::new(other).starts_with(path)) {
        Some(other) => Err(TargetError::Nested(other.clone())),
        None => Ok(()),
    }
}

// === impl Offer ===

impl Offer {
    /// What a container's label says that has all that is ready.
    pub(super) fn label(&self) -> Option<String> {
        label(self.ready.iter().map(|(mount, _)| mount))
    }
}

fn label<'a>(mounts: impl Iterator<Item = &'a StoredMount>) -> Option<String> {
    let mut lines: Vec<String> =
        mounts.map(|StoredMount { source, target, read_write }| format!("{target}\0{source}\0{read_write}")).collect();
    lines.sort();
    (!lines.is_empty()).then(|| HEXLOWER.encode(&Sha256::digest(lines.join("\n"))[..8]))
}

// === impl Fit ===

impl Fit {
    /// That of a container which is found.
    pub(super) fn found(labels: &BTreeMap<String, String>) -> Self {
        let network = labels.get(policy::LABEL).map(|text| NetworkPolicy::read(text)).unwrap_or_default();
        Self { label: labels.get(LABEL).cloned(), absent: Vec::new(), network }
    }
}

// === impl House ===

impl House {
    /// Looks which of these can be had now by a container whose home is there.
    pub(super) async fn offer(&self, workspace: &WorkspaceName, mounts: &[StoredMount], recipe: &Recipe) -> Offer {
        // The engine makes no container of which two mounts are in one place.
        let places: Vec<String> = recipe.places().into_iter().map(|(_, path)| path).collect();
        let places = &places;
        let can_mount = self.parts.slots.can_mount();
        let look = |mount: &StoredMount| {
            let mount = mount.clone();
            async move {
                let opened = match check_target(&mount.target, places.iter().map(String::as_str), &[]) {
                    Ok(()) if can_mount => self.open_source(&mount.source).await,
                    Ok(()) => Err("nothing can be mounted on this host".to_owned()),
                    Err(why) => Err(format!("{} {why}", mount.target)),
                };
                (mount, opened)
            }
        };
        let mut offer = Offer::default();
        for (mount, opened) in join_all(mounts.iter().map(look)).await {
            match opened {
                Ok(directory) => offer.ready.push((mount, directory)),
                Err(why) => {
                    warn!(%workspace, target = mount.target, source = mount.source, why, "a mount cannot be had, going on without it");
                    offer.absent.push(mount.target);
                }
            }
        }
        offer
    }

    /// A directory of the host, if it can be had now.
    pub(super) async fn open_source(&self, source: &str) -> Result<OwnedFd, String> {
        let (fence, path) = (self.rules.load().fence.clone(), PathBuf::from(source));
        let open = tokio::task::spawn_blocking(move || fence.open(&path).map_err(|why| why.to_string()));
        match tokio::time::timeout(SOURCE_DEADLINE, open).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(panicked)) => Err(panicked.to_string()),
            Err(_) => Err(format!("{source} does not answer")),
        }
    }

    /// Has what is offered stand ready beside a slot, whose home is this. A kill in between leaves what goes with the slot.
    pub(super) async fn lend(
        &self,
        offer: Offer,
        slot: Slot,
        home: PathBuf,
        inside: String,
    ) -> Result<(Slot, Vec<Mount>, Fit), EnsureError> {
        let Offer { ready, mut absent } = offer;
        if ready.is_empty() && absent.is_empty() {
            return Ok((slot, Vec::new(), Fit::default()));
        }
        self.on_disk(move || {
            let (mut lent, mut mounts) = (Vec::new(), Vec::new());
            for (number, (mount, directory)) in ready.into_iter().enumerate() {
                let place = || -> Result<PathBuf, HomeError> {
                    if let Ok(below) = Path::new(&mount.target).strip_prefix(&inside) {
                        make_within(&home, below)?;
                    }
                    slot.lend(number, &directory, !mount.read_write)
                };
                match place() {
                    Ok(source) => {
                        // Read-only it is already, where it is to be. Asked for that as well, engines mount it anew, with no option but that one.
                        let target = mount.target.clone();
                        mounts.push(Mount { source, target, read_only: false, propagation: Propagation::Slave });
                        lent.push(mount);
                    }
                    Err(why) => {
                        warn!(target = mount.target, source = mount.source, %why, "a mount cannot be made, going on without it");
                        absent.push(mount.target);
                    }
                }
            }
            let fit = Fit { label: label(lent.iter()), absent, network: NetworkPolicy::default() };
            Ok((slot, mounts, fit))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(target: &str) -> Result<(), TargetError> {
        check_target(target, ["/home/user"], &[])
    }

    fn mount(target: &str, read_write: bool) -> StoredMount {
        StoredMount { source: "/srv/a".to_owned(), target: target.to_owned(), read_write }
    }

    #[test]
    fn nothing_hides_the_home_or_what_a_container_needs() {
        for good in ["/data", "/home/user/drive", "/home/other", "/mnt/a b", "/usr/share/x", "/home/username", "/procfs", "/é"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [("/home/user", "/home/user"), ("/home", "/home/user")] {
            assert_eq!(check(bad), Err(TargetError::Home(why.to_owned())), "{bad}");
        }
        for bad in ["/", "/proc", "/proc/1", "/sys/fs", "/dev/shm", "/etc", "/etc/x", "/.innkeeper/socket", "/usr", "/lib64/x", "/tmp"] {
            assert_eq!(check(bad), Err(TargetError::System), "{bad}");
        }
        let long = format!("/{}", "x".repeat(255));
        for bad in ["", "data", "/a/../b", "/a/./b", "/a//b", "/a/", "//", "/a\nb", "/a\0", "/a:b", "/a\u{202e}b", &long] {
            assert_eq!(check(bad), Err(TargetError::Form), "{bad:?}");
        }
    }

    #[test]
    fn none_lies_in_another() {
        let others = [mount("/data/a", false)];
        for (target, nested) in [("/data", true), ("/data/a/b", true), ("/data/a", false), ("/data/ab", false), ("/data/b", false)] {
            assert_eq!(check_target(target, [], &others).is_err(), nested, "{target}");
        }
    }

    #[test]
    fn a_label_says_what_is_in_it_whatever_the_order() {
        let (one, two) = (mount("/a", false), mount("/b", false));
        assert_eq!(label([&one, &two].into_iter()), label([&two, &one].into_iter()));
        assert_ne!(label([&one].into_iter()), label([&mount("/a", true)].into_iter()));
        assert_ne!(label([&one].into_iter()), label([&one, &two].into_iter()));
        assert_eq!(label([].into_iter()), None);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_a_plain_path_beside_home_and_system(target in "(/(home|user|proc|etc|a|\\.|\\.\\.|)){0,5}|\\PC{0,20}") {
            if check(&target).is_ok() {
                prop_assert!(target.starts_with('/') && !target.split('/').any(|part| part == ".." || part == "."));
                prop_assert!(!Path::new("/home/user").starts_with(&target));
                prop_assert!(!NOT_BELOW.iter().any(|system| Path::new(&target).starts_with(system)));
            }
        }
    }
}
