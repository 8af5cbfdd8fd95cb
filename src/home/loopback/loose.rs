//! Loop devices on images that nobody has mounted: what a kill between the steps of a mount has left, or somebody's hand. They take a device
//! and keep an image that is removed on the disk.
//!
//! Whose an image is, its path says only as the reader sees it: before anything is done about a device, the file that it is on is compared with
//! the one of that name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::HomeError;
use super::super::mounts::mounted_devices;
use super::super::program::{LOSETUP, SOON};

/// A loop device on a file right below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::home) struct Loose {
    /// The name that the file has, or had.
    pub(in crate::home) name: OsString,
    /// `loop7`.
    device: OsString,
}

/// What the kernel says of a device's file, by way of `losetup`.
#[derive(Deserialize)]
struct Told {
    loopdevices: Vec<Behind>,
}

#[derive(Deserialize)]
struct Behind {
    #[serde(rename = "back-ino")]
    inode: serde_json::Value,
    #[serde(rename = "back-maj:min")]
    device: String,
}

/// Added by the kernel to the path of a file that is removed.
const DELETED: &str = " (deleted)";
/// Where the kernel lists block devices.
const BLOCK: &str = "/sys/block";
/// How long a device may take to be let go of.
const LET_GO: Duration = Duration::from_secs(2);

/// Those that are mounted nowhere, as far as this process sees.
pub(super) fn loose(root: &Path) -> Result<Vec<Loose>, HomeError> {
    let mounted = mounted_devices()?;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(BLOCK).map_err(HomeError::of("list", Path::new(BLOCK)))? {
        let device = entry.map_err(HomeError::of("list", Path::new(BLOCK)))?.file_name();
        let Some(file) = file_of(&device) else { continue };
        // One that went a moment ago.
        let Ok(number) = std::fs::read_to_string(Path::new(BLOCK).join(&device).join("dev")) else { continue };
        if file.parent() != Some(root) || mounted.contains(number.trim()) {
            continue;
        }
        all.extend(file.file_name().map(|name| Loose { name: name.to_owned(), device }));
    }
    Ok(all)
}

/// Lets go of one, if it is still as it was found and its file is ours. A device that somebody has open goes when it is closed. Says whether
/// it is gone.
pub(super) fn detach(root: &Path, found: &Loose) -> Result<bool, HomeError> {
    if !loose(root)?.contains(found) || !is_ours(root, found)? {
        return Ok(false);
    }
    let node = Path::new("/dev").join(&found.device);
    LOSETUP.run(["-d".as_ref(), node.as_os_str()], SOON).map_err(HomeError::of("detach", &node))?;
    let deadline = Instant::now() + LET_GO;
    while file_of(&found.device).is_some() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(true)
}

/// Whether its file is the one of that name, or was on the file system of the root.
fn is_ours(root: &Path, found: &Loose) -> Result<bool, HomeError> {
    let node = Path::new("/dev").join(&found.device);
    let args = ["--json".as_ref(), "--output".as_ref(), "BACK-INO,BACK-MAJ:MIN".as_ref(), node.as_os_str()];
    let said = LOSETUP.run(args, SOON).map_err(HomeError::of("look at", &node))?;
    let told: Told = serde_json::from_str(&said).map_err(|why| HomeError::of("look at", &node)(io::Error::other(why)))?;
    let [behind] = told.loopdevices.as_slice() else { return Ok(false) };
    let of = |meta: &std::fs::Metadata| format!("{}:{}", rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let path = root.join(&found.name);
    match std::fs::symlink_metadata(&path) {
        // Older versions write numbers as text.
        Ok(meta) => Ok(behind.device.trim() == of(&meta) && behind.inode.to_string().trim_matches('"') == meta.ino().to_string()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            let meta = std::fs::metadata(root).map_err(HomeError::of("look at", root))?;
            Ok(behind.device.trim() == of(&meta))
        }
        Err(why) => Err(HomeError::of("look at", &path)(why)),
    }
}

/// The file that a loop device is on, or was when that had a name; `None`: it is none, or on nothing.
fn file_of(device: &OsStr) -> Option<PathBuf> {
    if !device.as_encoded_bytes().starts_with(b"loop") {
        return None;
    }
    let text = std::fs::read_to_string(Path::new(BLOCK).join(device).join("loop/backing_file")).ok()?;
    let path = text.trim_end_matches('\n');
    Some(PathBuf::from(path.strip_suffix(DELETED).unwrap_or(path)))
}
