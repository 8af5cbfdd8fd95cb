//! Homes in images: each a sparse file with an ext4 of its own, mounted through a loop device. Works on any disk, and limits bytes and inodes.
//!
//! What a kill leaves: an image under a name that is no home's; a mount, which the next [`Driver::reach`] finds; an image that was made longer
//! and whose file system was not, which it finds too. Loop devices are let go of by the kernel when the last mount is gone; one that was never
//! mounted is found by the sweep. A file system is
//! made smaller in a copy of its image that then takes its place, so that one torn halfway is never the home.
//!
//! Of inodes an image has what it was made with, and more in proportion when it grows: their number cannot be set afterwards. Quotas of ext4's
//! own could, and are not in every kernel.

mod loose;
mod superblock;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use tracing::{info, warn};

pub(super) use self::loose::Loose;
use self::superblock::Superblock;
use super::directory::{Directories, counted, is_directory, live, open_tree};
use super::driver::{Applied, Driver, Hold, Holds, Quota, Usage, View};
use super::mounts::{mount_points, mounts_in};
use super::program::{CP, E2FSCK, FSFREEZE, INPUT, LONG, LOSETUP, MKFS_EXT4, MOUNT, RESIZE2FS, SOON};
use super::tree::copy_contents;
use super::{HomeError, capability};

/// Images.
#[derive(Debug)]
pub(super) struct Loopback {
    root: PathBuf,
    /// Where trees are mounted. Belongs to root; containers see what is in it through their slots only.
    mounts: PathBuf,
}

/// Below the root, where trees are mounted.
const MOUNTS: &str = ".mounts";
/// Added to a mount point's name: that of a file which says that the file system there may be frozen.
const FROZEN: &str = ".frozen";
/// The size of an image of which nobody said how large it should be. It takes no room until something is in it.
const USUAL_SIZE: u64 = 50 << 30;
/// The smallest image in which an ext4 with a journal still has room for files.
pub(crate) const SMALLEST: u64 = 16 << 20;
/// The fewest inodes that it is made with: ext4 keeps eleven for itself.
const FEWEST_INODES: u64 = 64;
/// Images are a multiple of this.
const STEP: u64 = 1 << 20;
/// From this size on the journal has 8 MiB: as much as a home needs, and written in no time. Below, it is as large as mkfs thinks right.
const LARGE: u64 = 256 << 20;
/// Most that is copied to give a file system another size while somebody waits for her home, in bytes: a few seconds of any disk.
const MOST_COPIED: u64 = 2 << 30;
/// How long a loop device may take to be let go of after the last mount is gone.
const LET_GO: Duration = Duration::from_secs(2);
/// What makes an ext4 of 50 GiB ready in milliseconds: no inode table and no journal is written (reading a sparse file gives zeros anyway), group
/// descriptors lie together with what they describe, and no blocks are kept for root, who does not live here.
const FORMAT: [&str; 11] = [
    "-q",
    "-F",
    "-m0",
    "-eremount-ro",
    "-G256",
    "-Eassume_storage_prezeroed=1,lazy_itable_init=1,lazy_journal_init=1,nodiscard",
    "-O",
    "^resize_inode,meta_bg",
    "-b4096",
    "-I256",
    "-t",
];
/// How it is mounted: what is deleted is given back to the disk, and no thread fills in the inode tables that were left out.
const OPTIONS: &str = "noinit_itable,discard";

impl Loopback {
    /// Images right below `root`, which must have no links in it.
    pub(super) fn open(root: &Path) -> Result<Self, HomeError> {
        MKFS_EXT4.find().and(MOUNT.find()).map_err(HomeError::of("keep images in", root))?;
        let mounts = root.join(MOUNTS);
        match rustix::fs::mkdir(&mounts, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(why) => return Err(HomeError::of("make", &mounts)(why)),
        }
        Ok(Self { root: root.to_owned(), mounts })
    }

    /// Where the tree of an entry is mounted, if it is.
    fn mount_point(&self, entry: &Path) -> PathBuf {
        self.mounts.join(entry.file_name().unwrap_or_default())
    }

    fn is_mounted(&self, entry: &Path) -> Result<bool, HomeError> {
        Ok(mount_points()?.contains(&self.mount_point(entry)))
    }

    fn mount(&self, image: &Path, options: &str) -> Result<PathBuf, HomeError> {
        let point = self.mount_point(image);
        match rustix::fs::mkdir(&point, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(why) => return Err(HomeError::of("make", &point)(why)),
        }
        if let Some(device) = device_of(image)? {
            // Still mounted somewhere, in a slot for example: the same file system once more, never a second one on the same image.
            let options = std::ffi::CString::new(options).unwrap_or_default();
            let flags = MountFlags::NODEV | MountFlags::NOSUID;
            match rustix::mount::mount(&device, &point, c"ext4", flags, options.as_c_str()) {
                // By a program that a killed process had started, a moment ago.
                Err(rustix::io::Errno::BUSY) if self.is_mounted(image)? => {}
                other => other.map_err(HomeError::of("mount", image))?,
            }
        } else {
            let options = format!("loop,nodev,nosuid,{options}");
            let args = ["-t".as_ref(), "ext4".as_ref(), "-o".as_ref(), options.as_ref(), image.as_os_str(), point.as_os_str()];
            MOUNT.run(args, SOON).map_err(HomeError::of("mount", image))?;
        }
        Ok(point)
    }

    /// Mounts an image, and puts right what a kill may have left of its making.
    fn reach_image(&self, image: &Path) -> Result<PathBuf, HomeError> {
        if self.is_mounted(image)? {
            return Ok(self.mount_point(image));
        }
        if device_of(image)?.is_none() && Superblock::read(image)?.is_damaged() {
            // As at the start of a host. What it cannot mend by itself it leaves alone, and the kernel then mounts it or refuses to.
            warn!(image = %image.display(), "home was damaged, by a full or failing disk perhaps; checking it");
            if let Err(why) = E2FSCK.run(["-p".as_ref(), image.as_os_str()], LONG) {
                info!(image = %image.display(), %why, "checked");
            }
        }
        let point = self.mount(image, OPTIONS)?;
        let dir = open_tree(&point)?;
        // What mkfs and e2fsck make belongs to root. Whatever she called so belongs to her, and stays.
        let found = rustix::fs::statat(&dir, "lost+found", rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|found| found.st_uid == 0) {
            rustix::fs::unlinkat(&dir, "lost+found", rustix::fs::AtFlags::REMOVEDIR).ok();
        }
        Ok(point)
    }

    /// Gives an image that is mounted the size that it should have, which can only be a larger one.
    fn fit_mounted(&self, image: &Path, wanted: u64) -> Result<Applied, HomeError> {
        let length = std::fs::metadata(image).map_err(HomeError::of("look at", image))?.len();
        let block = Superblock::read(image)?;
        if length == wanted && block.bytes() + STEP > wanted {
            return Ok(Applied::Now);
        }
        if length > wanted {
            return Ok(Applied::Later("a file system is made smaller only while nobody uses it".to_owned()));
        }
        if !capability::has(capability::SYS_RESOURCE) {
            return Ok(Applied::Later("this process has no CAP_SYS_RESOURCE, which making a mounted ext4 larger takes".to_owned()));
        }
        let Some(device) = device_of(image)? else { return Ok(Applied::Later("its loop device was not found".to_owned())) };
        // A kill after each of these is found by the comparison above, and it is gone on from there.
        let file = File::options().write(true).open(image).map_err(HomeError::of("open", image))?;
        file.set_len(wanted).map_err(HomeError::of("make longer", image))?;
        LOSETUP.run(["-c".as_ref(), device.as_os_str()], SOON).map_err(HomeError::of("tell the device of", image))?;
        RESIZE2FS.run([&device], LONG).map_err(HomeError::of("make larger", image))?;
        info!(image = %image.display(), bytes = wanted, "home made larger");
        Ok(Applied::Now)
    }

    /// Gives an image that nobody uses the size that it should have.
    fn fit_unmounted(&self, image: &Path, wanted: u64) -> Result<Applied, HomeError> {
        let length = std::fs::metadata(image).map_err(HomeError::of("look at", image))?.len();
        let block = Superblock::read(image)?;
        if length == wanted && block.bytes() + STEP > wanted {
            return Ok(Applied::Now);
        }
        if wanted > length && capability::has(capability::SYS_RESOURCE) {
            // Longer first, the file system follows when it is mounted.
            return Ok(Applied::Now);
        }
        if wanted < block.used_bytes() + STEP {
            return Ok(Applied::Later("there is more in it than that".to_owned()));
        }
        if block.used_bytes() > MOST_COPIED && !reflinks(&self.root) {
            return Ok(Applied::Later("it is too full to be copied while somebody waits for it".to_owned()));
        }
        let copy = self.root.join(super::shelf::fresh_draft());
        let done = self.resized(image, &copy, wanted).and_then(|()| {
            std::fs::rename(&copy, image).map_err(HomeError::of("put another in place of", image))?;
            super::shelf::sync(&self.root)
        });
        if let Err(why) = done {
            std::fs::remove_file(&copy).ok();
            // What it was, it still is.
            warn!(image = %image.display(), %why, "cannot give a home another size");
            return Ok(Applied::Later(why.to_string()));
        }
        info!(image = %image.display(), bytes = wanted, "home given another size");
        Ok(Applied::Now)
    }

    /// Makes a copy of an image with a file system of another size.
    fn resized(&self, image: &Path, copy: &Path, wanted: u64) -> Result<(), HomeError> {
        copy_image(image, copy, "auto")?;
        let file = File::options().read(true).write(true).open(copy).map_err(HomeError::of("open", copy))?;
        if wanted > file.metadata().map_err(HomeError::of("look at", copy))?.len() {
            file.set_len(wanted).map_err(HomeError::of("make longer", copy))?;
        }
        // Status 1 is "mended", which the journal of a file system that was not unmounted is enough for; a second look then has to be clean.
        let check = || E2FSCK.run(["-f".as_ref(), "-p".as_ref(), copy.as_os_str()], LONG);
        check().or_else(|_| check()).map_err(HomeError::of("check", copy))?;
        let blocks = (wanted / u64::from(Superblock::read(copy)?.block_size())).to_string();
        RESIZE2FS.run([copy.as_os_str(), blocks.as_ref()], LONG).map_err(HomeError::of("give another size to", copy))?;
        file.set_len(wanted).map_err(HomeError::of("cut", copy))?;
        file.sync_all().map_err(HomeError::of("sync", copy))
    }

    /// A frozen file system is let go of even where the first try fails: whoever works in it hangs until then.
    fn thaw(&self, point: &Path) -> Result<(), HomeError> {
        let thaw = || FSFREEZE.run(["-u".as_ref(), point.as_os_str()], SOON);
        thaw().or_else(|_| thaw()).map_err(HomeError::of("thaw", point))?;
        Ok(())
    }

    /// Copies an image while nothing is written to it.
    fn copy_frozen(&self, image: &Path, at: &Path) -> Result<(), HomeError> {
        let point = self.mount_point(image);
        let mut mark = point.clone().into_os_string();
        mark.push(FROZEN);
        // A kill from here on leaves this, by which the next start knows what to thaw.
        File::create(&mark).and_then(|file| file.sync_all()).map_err(HomeError::of("mark", &point))?;
        let frozen = FSFREEZE.run(["-f".as_ref(), point.as_os_str()], SOON).map_err(HomeError::of("freeze", &point));
        let copied = frozen.and_then(|_| {
            let copied = copy_image(image, at, "always");
            self.thaw(&point).and(copied)
        });
        std::fs::remove_file(&mark).map_err(HomeError::of("remove the mark of", &point))?;
        copied
    }
}

impl Driver for Loopback {
    fn make(&self, entry: &Path, quota: &Quota) -> Result<(), HomeError> {
        let size = size_of(quota);
        let memory = memory_file(size).map_err(HomeError::of("format", entry))?;
        let inodes = quota.inodes.map(|inodes| format!("-N{}", inodes.clamp(FEWEST_INODES, size / 4096)));
        let journal = (size >= LARGE).then_some("-Jsize=8");
        let args = FORMAT.into_iter().chain(["ext4"]).chain(inodes.as_deref()).chain(journal).chain([INPUT]);
        let input = memory.try_clone().map_err(HomeError::of("format", entry))?;
        MKFS_EXT4.run_on(input.into(), args, SOON).map_err(HomeError::of("format", entry))?;
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(entry).map_err(HomeError::of("make", entry))?;
        let file = OwnedFd::from(file);
        copy_contents(&memory, &file).map_err(|why| HomeError::of("write", entry)(io::Error::other(why)))?;
        rustix::fs::fsync(&file).map_err(HomeError::of("sync", entry))
    }

    fn reach(&self, entry: &Path, quota: Option<&Quota>) -> Result<(PathBuf, Applied), HomeError> {
        if is_directory(entry) {
            return Directories.reach(entry, quota);
        }
        is_image(entry)?;
        let wanted = quota.map(size_of);
        let mut applied = Applied::Now;
        if let Some(wanted) = wanted
            && !self.is_mounted(entry)?
            && device_of(entry)?.is_none()
        {
            applied = self.fit_unmounted(entry, wanted)?;
        }
        let tree = self.reach_image(entry)?;
        if let Some(wanted) = wanted
            && applied == Applied::Now
        {
            applied = self.fit_mounted(entry, wanted)?;
        }
        Ok((tree, applied))
    }

    fn fit(&self, entry: &Path, quota: &Quota) -> Result<Applied, HomeError> {
        if is_directory(entry) {
            return Directories.fit(entry, quota);
        }
        is_image(entry)?;
        if self.is_mounted(entry)? {
            self.fit_mounted(entry, size_of(quota))
        } else {
            Ok(Applied::Later("nobody uses it; it has that size when somebody does".to_owned()))
        }
    }

    fn holds(&self, entry: &Path, quota: &Quota) -> Result<Holds, HomeError> {
        if is_directory(entry) {
            return Directories.holds(entry, quota);
        }
        is_image(entry)?;
        let length = std::fs::metadata(entry).map_err(HomeError::of("look at", entry))?.len();
        // Of one that is mounted its device knows what its image has only later.
        let device = device_of(entry)?;
        let block = Superblock::read(device.as_deref().unwrap_or(entry))?;
        let inodes = quota.inodes.map_or(Hold::Now, |wanted| holds_inodes(block, wanted));
        Ok(Holds { bytes: holds_bytes(block, length, size_of(quota), device.is_some()), inodes })
    }

    fn usage(&self, entry: &Path) -> Result<Option<Usage>, HomeError> {
        if is_directory(entry) {
            return Ok(None);
        }
        if self.is_mounted(entry)? {
            return counted(&self.mount_point(entry)).map(Some);
        }
        is_image(entry)?;
        Ok(Some(Superblock::read(entry)?.usage()))
    }

    fn is_counted(&self, entry: &Path) -> bool {
        !is_directory(entry)
    }

    fn view(&self, entry: &Path, at: &Path) -> Result<View, HomeError> {
        if is_directory(entry) {
            return Directories.view(entry, at);
        }
        is_image(entry)?;
        let tree = self.reach_image(entry)?;
        // A whole copy would hold her up for as long as it takes; one that shares its blocks takes none.
        if !reflinks(&self.root) {
            return live(&tree, entry);
        }
        self.copy_frozen(entry, at)?;
        let path = self.mount(at, "ro,noload")?;
        Ok(View { path, consistent: true, made: true, open: None })
    }

    /// A loop device and the kernel's threads for the journal.
    fn must_rest(&self) -> bool {
        true
    }

    fn reached(&self) -> Result<Vec<OsString>, HomeError> {
        Ok(mounts_in(&self.mounts)?.iter().filter_map(|point| Some(point.file_name()?.to_owned())).collect())
    }

    fn is_slow_to_make(&self) -> bool {
        true
    }

    fn leave(&self, entry: &Path) -> Result<(), HomeError> {
        if is_directory(entry) {
            return Ok(());
        }
        let point = self.mount_point(entry);
        let deadline = Instant::now() + LET_GO;
        loop {
            // Each time: a `mount` that a killed gateway has started may be about to.
            while mount_points()?.contains(&point) {
                match unmount(&point, UnmountFlags::NOFOLLOW) {
                    Err(rustix::io::Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                    other => other.map_err(HomeError::of("unmount", &point))?,
                }
            }
            if device_of(entry)?.is_none() {
                break;
            }
            if Instant::now() >= deadline {
                return Err(HomeError::of("take away", entry)(io::Error::from(io::ErrorKind::ResourceBusy)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        rustix::fs::rmdir(&point).ok();
        Ok(())
    }

    fn remove(&self, entry: &Path) -> Result<(), HomeError> {
        if is_directory(entry) {
            return Directories.remove(entry);
        }
        self.leave(entry)?;
        match std::fs::remove_file(entry) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(HomeError::of("remove", entry)),
        }
    }

    fn recover(&self) -> Result<usize, HomeError> {
        let mut found = 0;
        for entry in std::fs::read_dir(&self.mounts).map_err(HomeError::of("list", &self.mounts))? {
            let mark = entry.map_err(HomeError::of("list", &self.mounts))?.path();
            let Some(point) = mark.to_str().and_then(|mark| mark.strip_suffix(FROZEN)) else { continue };
            // That it is not frozen any more is the usual failure.
            FSFREEZE.run(["-u", point], SOON).ok();
            std::fs::remove_file(&mark).map_err(HomeError::of("remove", &mark))?;
            found += 1;
        }
        for point in mounts_in(&self.mounts)? {
            // Nothing is there to be torn: its image has no name any more.
            let Some(name) = point.file_name().filter(|name| !self.root.join(name).exists()) else { continue };
            info!(mount = %name.display(), "nobody owns this mount, unmounting it");
            unmount(&point, UnmountFlags::DETACH).map_err(HomeError::of("unmount", &point))?;
            rustix::fs::rmdir(&point).ok();
            found += 1;
        }
        Ok(found)
    }

    fn loose(&self) -> Result<Vec<Loose>, HomeError> {
        loose::loose(&self.root)
    }

    fn detach(&self, found: &Loose) -> Result<bool, HomeError> {
        loose::detach(&self.root, found)
    }

    fn close(&self) -> Result<(), HomeError> {
        for point in mounts_in(&self.mounts)? {
            unmount(&point, UnmountFlags::DETACH).map_err(HomeError::of("unmount", &point))?;
            rustix::fs::rmdir(&point).ok();
        }
        rustix::fs::rmdir(&self.mounts).ok();
        Ok(())
    }
}

/// A sparse file of this length that is in memory and nowhere else. mkfs syncs what it has written four times, each of which takes the disk
/// longer than all of mkfs; here that is nothing, and the few hundred kilobytes are then written to the disk, and synced, once.
fn memory_file(size: u64) -> io::Result<OwnedFd> {
    // Linux has the second flag since 6.3, and may be told to insist on it.
    let made = memfd_create("image", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL);
    let made = made.or_else(|_| memfd_create("image", MemfdFlags::CLOEXEC))?;
    rustix::fs::ftruncate(&made, size)?;
    Ok(made)
}

/// The size of an image for this quota.
fn size_of(quota: &Quota) -> u64 {
    quota.bytes.unwrap_or(USUAL_SIZE).max(SMALLEST).next_multiple_of(STEP)
}

/// How a size holds of an image of this length.
fn holds_bytes(block: Superblock, length: u64, wanted: u64, in_use: bool) -> Hold {
    if length == wanted && block.bytes() + STEP > wanted {
        return Hold::Now;
    }
    let why = if wanted < block.used_bytes() + STEP {
        "there is more in it than that; it is tried at each start"
    } else if !in_use {
        "nobody uses it; it has that size when somebody does"
    } else if wanted < length {
        "a file system is made smaller only while nobody uses it"
    } else {
        "it could not be made larger while it is in use; the log says why"
    };
    Hold::AtNextStart(why.to_owned())
}

/// How a number of inodes holds, which an image has for good.
fn holds_inodes(block: Superblock, wanted: u64) -> Hold {
    let (has, rounding) = block.inodes();
    if (wanted..=wanted.saturating_add(rounding)).contains(&has) {
        return Hold::Now;
    }
    Hold::Impossible(format!("an image keeps as many as it was made with, and more as it grows: {has}"))
}

/// What stands in an image's place and is none, a link above all, is not touched.
fn is_image(entry: &Path) -> Result<(), HomeError> {
    let meta = std::fs::symlink_metadata(entry).map_err(HomeError::of("look at", entry))?;
    if meta.is_file() && meta.uid() == 0 {
        return Ok(());
    }
    let what = if meta.file_type().is_symlink() { "a link" } else { "no image" };
    Err(HomeError::of("use", entry)(io::Error::other(format!("it is {what}"))))
}

/// The loop device that an image is attached to.
fn device_of(image: &Path) -> Result<Option<PathBuf>, HomeError> {
    let block = Path::new("/sys/block");
    for entry in std::fs::read_dir(block).map_err(HomeError::of("list", block))? {
        let entry = entry.map_err(HomeError::of("list", block))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b"loop") {
            continue;
        }
        // Not there: nothing is attached.
        let Ok(backing) = std::fs::read_to_string(entry.path().join("loop/backing_file")) else { continue };
        if Path::new(backing.trim_end_matches('\n')) == image {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

fn copy_image(from: &Path, to: &Path, reflink: &str) -> Result<(), HomeError> {
    let reflink = format!("--reflink={reflink}");
    let args = [reflink.as_ref(), "--sparse=auto".as_ref(), "-T".as_ref(), "--".as_ref(), from.as_os_str(), to.as_os_str()];
    CP.run(args, LONG).map_err(HomeError::of("copy", from))?;
    Ok(())
}

/// Whether files on this file system can share their blocks.
fn reflinks(root: &Path) -> bool {
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683E;
    const BCACHEFS: u64 = 0xca45_1a4e;
    rustix::fs::statfs(root).is_ok_and(|stat| matches!(stat.f_type as u64, XFS | BTRFS | BCACHEFS))
}
