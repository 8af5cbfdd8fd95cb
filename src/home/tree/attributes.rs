//! Owner, mode, times and extended attributes.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{TreeError, entry};

/// The most that the kernel lists of names, and the most that a value holds, in bytes.
const LONGEST: usize = 64 * 1024;

/// What a file has beside its contents.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permissions and what goes with them, as far as they are kept.
    pub(super) mode: u32,
    pub(super) mtime: Timespec,
    /// Extended attributes, all of them a user's own.
    pub(super) extended: Vec<(CString, Vec<u8>)>,
}

impl Attributes {
    /// What a directory has, for giving it back later. What new files would inherit is taken off until then.
    pub(super) fn take_off(dir: BorrowedFd<'_>, stat: &Stat) -> Result<Self, TreeError> {
        let mut extended = Vec::new();
        for_each(dir, |name, value| {
            if name == INHERITED {
                extended.push((name.to_owned(), value.to_vec()));
            }
            Ok(())
        })?;
        if !extended.is_empty() {
            fs::fremovexattr(dir, INHERITED).map_err(TreeError::of("remove an extended attribute"))?;
        }
        let mtime = times(stat).last_modification;
        Ok(Self { uid: stat.st_uid, gid: stat.st_gid, mode: mode(stat).bits(), mtime, extended })
    }

    /// Gives them to a file or directory. Returns how many its file system does not take.
    pub(super) fn give(&self, to: BorrowedFd<'_>) -> Result<u64, TreeError> {
        own(to, self.uid, self.gid, Mode::from_raw_mode(self.mode))?;
        let mut refused = 0;
        for (name, value) in &self.extended {
            refused += u64::from(!set(to, name, value)?);
        }
        fs::futimens(to, &self.times()).map_err(TreeError::of("set a file's times"))?;
        Ok(refused)
    }

    /// The same, without extended attributes, for what cannot be opened. What is there now gets them, and nothing that it leads to.
    pub(super) fn give_at(&self, dir: BorrowedFd<'_>, name: &CStr, is_link: bool) -> Result<(), TreeError> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(TreeError::of("change a file's owner"))?;
        if !is_link {
            // Through /proc: by its name a link that has taken its place would be followed.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let held = fs::openat(dir, name, flags, Mode::empty()).map_err(TreeError::of("find a file again"))?;
            let place = format!("/proc/self/fd/{}", held.as_raw_fd());
            fs::chmod(place, Mode::from_raw_mode(self.mode)).map_err(TreeError::of("change a file's mode"))?;
        }
        fs::utimensat(dir, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW).map_err(TreeError::of("set a file's times"))
    }

    fn times(&self) -> Timestamps {
        Timestamps { last_access: self.mtime, last_modification: self.mtime }
    }
}

/// What a directory has that new files in it get.
const INHERITED: &CStr = c"system.posix_acl_default";

/// Gives a file or directory what another has. Returns how many attributes its file system does not take.
pub(super) fn carry(from: BorrowedFd<'_>, stat: &Stat, to: BorrowedFd<'_>) -> Result<u64, TreeError> {
    own(to, stat.st_uid, stat.st_gid, mode(stat))?;
    let mut refused = 0;
    for_each(from, |name, value| {
        refused += u64::from(!set(to, name, value)?);
        Ok(())
    })?;
    // The last, because all of the above may touch them.
    fs::futimens(to, &times(stat)).map_err(TreeError::of("set a file's times"))?;
    Ok(refused)
}

/// Sets owner and mode, in this order: a change of the owner may take bits of the mode.
pub(super) fn own(to: BorrowedFd<'_>, uid: u32, gid: u32, mode: Mode) -> Result<(), TreeError> {
    fs::fchown(to, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(TreeError::of("change a file's owner"))?;
    fs::fchmod(to, mode).map_err(TreeError::of("change a file's mode"))
}

/// The mode that something may have in another place: nothing that runs as somebody else.
pub(super) fn mode(stat: &Stat) -> Mode {
    // On a directory, setgid is only about which group new files belong to.
    let kept = if entry::kind(stat) == FileType::Directory { 0o3777 } else { 0o1777 };
    Mode::from_raw_mode(stat.st_mode & kept)
}

/// Whether an extended attribute is a user's own. The others are the kernel's or root's: a file's capabilities, labels.
pub(super) fn is_users(name: &[u8]) -> bool {
    name.starts_with(b"user.") || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
}

/// Sets an extended attribute, and says whether the file system takes it.
pub(super) fn set(to: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<bool, TreeError> {
    match fs::fsetxattr(to, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(true),
        // No attributes at all, none of this length, or a kind that it does not know.
        Err(Errno::OPNOTSUPP | Errno::RANGE | Errno::TOOBIG | Errno::INVAL | Errno::PERM) => Ok(false),
        // ext4 says that there is no space when a value is longer than a block, on an empty disk as well.
        Err(Errno::NOSPC) if has_space(to) => Ok(false),
        Err(why) => Err(TreeError::of("set an extended attribute")(why)),
    }
}

/// Calls back with each extended attribute of a file that is a user's own.
pub(super) fn for_each(from: BorrowedFd<'_>, mut each: impl FnMut(&CStr, &[u8]) -> Result<(), TreeError>) -> Result<(), TreeError> {
    // Nearly every file has none, and no buffer is needed to see that.
    let mut names = [0; 512];
    let mut long = Vec::new();
    let names: &[u8] = match fs::flistxattr(from, &mut names[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(length) => &names[..length],
        Err(Errno::RANGE) => {
            long.resize(LONGEST, 0);
            match fs::flistxattr(from, &mut long[..]) {
                Ok(length) => &long[..length],
                // More names than the kernel can tell: no program can list them.
                Err(Errno::TOOBIG | Errno::RANGE) => return Ok(()),
                Err(why) => return Err(TreeError::of("list extended attributes")(why)),
            }
        }
        Err(why) => return Err(TreeError::of("list extended attributes")(why)),
    };
    let mut value = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if !is_users(name.to_bytes()) {
            continue;
        }
        value.resize(LONGEST, 0);
        match fs::fgetxattr(from, name, &mut value[..]) {
            Ok(length) => each(name, &value[..length])?,
            // Taken away meanwhile.
            Err(Errno::NODATA | Errno::RANGE | Errno::TOOBIG | Errno::OPNOTSUPP) => {}
            Err(why) => return Err(TreeError::of("read an extended attribute")(why)),
        }
    }
    Ok(())
}

/// What can be told without opening.
pub(super) fn of_closed(stat: &Stat) -> Attributes {
    let mtime = times(stat).last_modification;
    Attributes { uid: stat.st_uid, gid: stat.st_gid, mode: mode(stat).bits(), mtime, extended: Vec::new() }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.try_into().unwrap_or(0) };
    Timestamps { last_access: time(stat.st_atime, stat.st_atime_nsec), last_modification: time(stat.st_mtime, stat.st_mtime_nsec) }
}

fn has_space(fd: BorrowedFd<'_>) -> bool {
    // A few blocks more than an attribute could need.
    fs::fstatvfs(fd).is_ok_and(|stat| stat.f_bfree.saturating_mul(stat.f_frsize) > 16 * LONGEST as u64)
}
