//! Signed links: who has one may reach a port of a workspace until it is over or taken back.
//!
//! A link is `what.signature`, both in base64: HMAC-SHA-256 with a key of the state directory. Of those that are good a list is kept, by the
//! digest of each: taking one back is taking it off the list, and who reads the list has no link.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Target;
use crate::name::WorkspaceName;

const KEY: &str = "key";
const LIVE: &str = "live";
/// Longest link that is looked at, in bytes.
const LONGEST: usize = 512;
/// Links of one workspace, and of all, that are good at once: the list is written anew with each.
const MOST_OF_ONE: usize = 256;
const MOST: usize = 16 * 1024;

/// What a link says. Short names: it stands in an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    #[serde(rename = "w")]
    workspace: WorkspaceName,
    #[serde(rename = "p")]
    port: u16,
    /// When it was made, in milliseconds since 1970.
    #[serde(rename = "i")]
    made: u64,
    /// When it is over.
    #[serde(rename = "e")]
    ends: u64,
    /// Which of those that say the same otherwise: two may be made within a millisecond, and one of them taken back.
    #[serde(rename = "n", default)]
    nonce: u32,
    /// For whom it was made, as the application is told.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub visitor: Option<String>,
}

/// A link that was made just now. Not to be printed whole: its text opens.
pub struct NewLink {
    /// By which it is found among the others: it opens nothing.
    pub id: String,
    /// What opens.
    pub text: String,
    /// What it says.
    pub link: Link,
}

/// A link that was shown, and is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// By which it is found among the others.
    id: String,
    /// What it says.
    pub link: Link,
}

/// Why a link opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is none of ours.
    Forged,
    /// It is for another workspace or port.
    Elsewhere,
    /// Its time is over.
    Over,
    /// It was taken back.
    TakenBack,
}

/// The key, and which links are good.
pub struct Links {
    root: PathBuf,
    key: hmac::Key,
    live: RwLock<BTreeMap<String, Link>>,
    /// Changes whenever some were taken back.
    taken: watch::Sender<()>,
    /// Held while the list is written, which nobody who looks something up waits for.
    writing: Mutex<()>,
}

/// Why links cannot be made, read or taken back.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The directory that they are in.
    #[error("{}: {why}", path.display())]
    Disk {
        /// What of it.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        why: io::Error,
    },
    /// There are as many as may be.
    #[error("there are {MOST_OF_ONE} links to this workspace, or {MOST} to all, that are good still; take some back")]
    TooMany,
}

// === impl Link ===

impl Link {
    /// For how long it is still good.
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.ends.saturating_sub(now()))
    }

    /// The port that it opens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// When it was made.
    pub fn made(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.made)
    }

    /// When it is over.
    pub fn ends(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.ends)
    }

    fn is_good(&self, now: u64) -> bool {
        self.made <= now && now < self.ends
    }
}

// === impl Unfit ===

impl Unfit {
    /// In a word.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Forged => "forged-link",
            Self::Elsewhere => "link-to-elsewhere",
            Self::Over => "link-over",
            Self::TakenBack => "link-revoked",
        }
    }
}

// === impl Links ===

impl Links {
    /// Those of a gateway whose state is here; makes the key where there is none.
    pub fn open(root: &Path) -> Result<Self, LinkError> {
        let failed = |why| LinkError::Disk { path: root.to_owned(), why };
        match fs::DirBuilder::new().mode(0o700).create(root) {
            Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(failed(why)),
            _ => {}
        }
        let path = root.join(KEY);
        if !path.exists() {
            let key: [u8; 32] = rand::random();
            // Whole or not at all: a gateway that finds half a key does not start.
            replace(root, KEY, &key).map_err(failed)?;
        }
        let key = fs::read(&path).map_err(|why| LinkError::Disk { path: path.clone(), why })?;
        if key.len() != 32 {
            return Err(LinkError::Disk {
                path,
                why: io::Error::other("is not a key; without it all links are over, and another is made"),
            });
        }
        let live = match fs::read(root.join(LIVE)).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)) {
            Ok(live) => live,
            Err(why) if why.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(why) => {
                // Which ones are good is not known: none is.
                tracing::error!(path = %root.display(), %why, "cannot read which links are good, so none is");
                BTreeMap::new()
            }
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        Ok(Self { root: root.to_owned(), key, live: RwLock::new(live), taken: watch::Sender::new(()), writing: Mutex::default() })
    }

    /// Makes one. It is on the disk when this returns.
    pub fn make(&self, target: &Target, lifetime: Duration, visitor: Option<String>) -> Result<NewLink, LinkError> {
        let made = now();
        let ends = made.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
        let link = Link { workspace: target.workspace.clone(), port: target.port, made, ends, nonce: rand::random(), visitor };
        // A structure of numbers and text can be written.
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&link).unwrap_or_default());
        let tag = hmac::sign(&self.key, text.as_bytes());
        let text = format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
        let id = id_of(&text);
        let _turn = self.writing.lock();
        let mut live = self.live.read().clone();
        live.retain(|_, link| link.is_good(made));
        let of_it = live.values().filter(|other| other.workspace == link.workspace).count();
        if live.len() >= MOST || of_it >= MOST_OF_ONE {
            return Err(LinkError::TooMany);
        }
        live.insert(id.clone(), link.clone());
        self.write(&live)?;
        *self.live.write() = live;
        Ok(NewLink { id, text, link })
    }

    /// What it says, if it is one of ours for this target, and good now.
    pub fn verify(&self, text: &str, target: &Target) -> Result<Shown, Unfit> {
        let link = self.read(text).ok_or(Unfit::Forged)?;
        if link.workspace != target.workspace || link.port != target.port {
            return Err(Unfit::Elsewhere);
        }
        if !link.is_good(now()) {
            return Err(Unfit::Over);
        }
        let shown = Shown { id: id_of(text), link };
        if self.live.read().contains_key(&shown.id) { Ok(shown) } else { Err(Unfit::TakenBack) }
    }

    /// What it says, if it is one of ours.
    fn read(&self, text: &str) -> Option<Link> {
        if text.len() > LONGEST {
            return None;
        }
        let (said, tag) = text.split_once('.')?;
        hmac::verify(&self.key, said.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(said).ok()?).ok()
    }

    /// Waits until it is over or taken back: what goes on by it ends then.
    pub async fn over(self: Arc<Self>, shown: Shown) {
        let mut taken = self.taken.subscribe();
        while shown.link.is_good(now()) && self.live.read().contains_key(&shown.id) {
            let _ = timeout(shown.link.left(), taken.changed()).await;
        }
    }

    /// Those to a workspace that are good, by their ids.
    pub fn of(&self, workspace: &WorkspaceName) -> Vec<(String, Link)> {
        let (live, now) = (self.live.read(), now());
        let its = live.iter().filter(|(_, link)| link.workspace == *workspace && link.is_good(now));
        its.map(|(id, link)| (id.clone(), link.clone())).collect()
    }

    /// Takes back every link of a workspace; says how many were good.
    pub fn revoke(&self, workspace: &WorkspaceName) -> Result<usize, LinkError> {
        self.take_back(|_, link| link.workspace == *workspace)
    }

    /// Takes back one link of a workspace; `false`: there is none that is good.
    pub fn revoke_one(&self, workspace: &WorkspaceName, id: &str) -> Result<bool, LinkError> {
        Ok(self.take_back(|other, link| other == id && link.workspace == *workspace)? > 0)
    }

    fn take_back(&self, which: impl Fn(&str, &Link) -> bool) -> Result<usize, LinkError> {
        let _turn = self.writing.lock();
        let mut live = self.live.read().clone();
        let (before, now) = (live.len(), now());
        live.retain(|_, link| link.is_good(now));
        let good = live.len();
        live.retain(|id, link| !which(id, link));
        let taken = good - live.len();
        if live.len() < before {
            // Here they are over at once; should that not get onto the disk, whoever asked is told so.
            *self.live.write() = live.clone();
            self.taken.send_replace(());
            self.write(&live)?;
        }
        Ok(taken)
    }

    fn write(&self, live: &BTreeMap<String, Link>) -> Result<(), LinkError> {
        let failed = |why| LinkError::Disk { path: self.root.join(LIVE), why };
        let text = serde_json::to_vec(live).map_err(|why| failed(why.into()))?;
        replace(&self.root, LIVE, &text).map_err(failed)
    }
}

/// By which a link is found, which does not give it away.
fn id_of(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..8])
}

/// Gives a file another content, or its first. Who is killed meanwhile leaves it as it was, and beside it what the next one writes over.
fn replace(root: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let new = root.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, root.join(name))?;
    fs::File::open(root)?.sync_all()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_left_half_written_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("urls");
        fs::create_dir(&root).unwrap();
        for name in ["key.new", "live.new"] {
            fs::write(root.join(name), "hal").unwrap();
        }
        let links = Links::open(&root).unwrap();
        let target = Target { workspace: "alice".parse().unwrap(), port: 8080 };
        let made = links.make(&target, Duration::from_secs(60), None).unwrap();
        assert!(Links::open(&root).unwrap().verify(&made.text, &target).is_ok(), "the key and the list are there at the next start");
    }

    fn target(workspace: &str, port: u16) -> Target {
        Target { workspace: workspace.parse().unwrap(), port }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_link_is_good_for_its_target_and_time_and_until_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("urls");
        let links = Links::open(&root).unwrap();
        let alice = target("alice", 8080);
        let make = |target: &Target| links.make(target, MINUTE, Some("bob".to_owned())).unwrap();
        let made = make(&alice);
        assert_eq!(
            Links::open(&root).unwrap().verify(&made.text, &alice).unwrap().link.visitor.as_deref(),
            Some("bob"),
            "after a start too"
        );
        for other in [target("alice", 8081), target("bob", 8080)] {
            assert_eq!(links.verify(&made.text, &other), Err(Unfit::Elsewhere));
        }
        assert_eq!(links.verify(&links.make(&alice, Duration::ZERO, None).unwrap().text, &alice), Err(Unfit::Over));
        for at in 0..made.text.len() {
            let mut changed = made.text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(links.verify(std::str::from_utf8(&changed).unwrap(), &alice), Err(Unfit::Forged), "{at}");
        }
        let (second, others) = (make(&target("alice", 8081)), make(&target("bob", 1)));
        let listed: Vec<(String, u16)> = links.of(&alice.workspace).into_iter().map(|(id, link)| (id, link.port())).collect();
        assert_eq!(listed.len(), 2);
        assert!(listed.contains(&(made.id.clone(), 8080)) && listed.contains(&(second.id, 8081)));
        assert!(!made.text.contains(&made.id), "what is listed opens nothing");
        assert!(!links.revoke_one(&"bob".parse().unwrap(), &made.id).unwrap(), "it is another's");
        assert!(links.revoke_one(&alice.workspace, &made.id).unwrap());
        assert!(!links.revoke_one(&alice.workspace, &made.id).unwrap());
        assert_eq!(links.verify(&made.text, &alice), Err(Unfit::TakenBack));
        assert!(links.verify(&second.text, &target("alice", 8081)).is_ok());
        assert_eq!(links.revoke(&alice.workspace).unwrap(), 1);
        for links in [&links, &Links::open(&root).unwrap()] {
            let taken = [links.verify(&made.text, &alice), links.verify(&second.text, &target("alice", 8081))];
            assert_eq!(taken, [const { Err(Unfit::TakenBack) }; 2]);
            assert!(links.verify(&others.text, &target("bob", 1)).is_ok());
        }
        let again = make(&alice);
        assert!(links.verify(&again.text, &alice).is_ok());
        let many: std::collections::BTreeSet<String> = (0..50).map(|_| make(&alice).id).collect();
        assert_eq!(many.len(), 50, "those of one millisecond are others, too");
    }

    #[tokio::test]
    async fn whoever_waits_hears_that_a_link_is_over_or_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let links = Arc::new(Links::open(&dir.path().join("urls")).unwrap());
        let alice = target("alice", 8080);
        let over = |lifetime| {
            let made = links.make(&alice, lifetime, None).unwrap();
            (made.id, tokio::spawn(Arc::clone(&links).over(links.verify(&made.text, &alice).unwrap())))
        };
        let ((first, of_first), (_, of_second)) = (over(MINUTE), over(MINUTE));
        tokio::task::yield_now().await;
        links.revoke_one(&alice.workspace, &first).unwrap();
        of_first.await.unwrap();
        assert!(!of_second.is_finished(), "the other is good still");
        links.revoke(&alice.workspace).unwrap();
        of_second.await.unwrap();
        let began = std::time::Instant::now();
        over(Duration::from_secs(2)).1.await.unwrap();
        // Links count in whole milliseconds.
        assert!(began.elapsed() >= Duration::from_millis(1990));
    }

    #[test]
    fn what_is_listed_is_bounded_and_a_list_that_cannot_be_read_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("urls");
        let links = Links::open(&root).unwrap();
        let alice = target("alice", 1);
        let first = links.make(&alice, MINUTE, None).unwrap();
        for number in 1..MOST_OF_ONE {
            links.make(&target("alice", 1 + number as u16), MINUTE, None).unwrap();
        }
        assert!(matches!(links.make(&alice, MINUTE, None), Err(LinkError::TooMany)));
        links.make(&target("bob", 1), MINUTE, None).unwrap();
        fs::write(root.join(LIVE), "[]").unwrap();
        assert_eq!(Links::open(&root).unwrap().verify(&first.text, &alice), Err(Unfit::TakenBack));
    }
}
