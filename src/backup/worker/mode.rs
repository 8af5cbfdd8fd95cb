//! A file's mode as the repository's format has it: that of Go's `os.FileMode`, whose bits above the permissions are its own.

const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const STICKY: u32 = 1 << 20;
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const CHARACTER: u32 = 1 << 21;

/// `st_mode` in the repository's form.
pub(super) fn to_repository(mode: u32) -> u32 {
    let kind = match mode & stat::FORMAT {
        stat::DIRECTORY => DIRECTORY,
        stat::SYMLINK => SYMLINK,
        stat::BLOCK => DEVICE,
        stat::CHARACTER => DEVICE | CHARACTER,
        stat::FIFO => FIFO,
        stat::SOCKET => SOCKET,
        _ => 0,
    };
    let bit = |bit: u32, to: u32| if mode & bit == 0 { 0 } else { to };
    mode & 0o777 | kind | bit(0o4000, SETUID) | bit(0o2000, SETGID) | bit(0o1000, STICKY)
}

/// The permissions that a restored file gets: never more than reading, writing and executing, so that a backup does not bring back a
/// program that runs as somebody else.
pub(super) fn of_file(mode: u32) -> u32 {
    mode & 0o777
}

/// The permissions that a restored directory gets. In a directory setgid and sticky give nobody power.
pub(super) fn of_directory(mode: u32) -> u32 {
    let bit = |bit: u32, to: u32| if mode & bit == 0 { 0 } else { to };
    mode & 0o777 | bit(SETGID, 0o2000) | bit(STICKY, 0o1000)
}

/// The kinds in `st_mode`.
mod stat {
    pub(super) const FORMAT: u32 = 0o170_000;
    pub(super) const DIRECTORY: u32 = 0o040_000;
    pub(super) const SYMLINK: u32 = 0o120_000;
    pub(super) const BLOCK: u32 = 0o060_000;
    pub(super) const CHARACTER: u32 = 0o020_000;
    pub(super) const FIFO: u32 = 0o010_000;
    pub(super) const SOCKET: u32 = 0o140_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_come_back_and_power_does_not() {
        for mode in 0..0o10_000 {
            assert_eq!(of_file(to_repository(0o100_000 | mode)), mode & 0o777);
            assert_eq!(of_directory(to_repository(0o040_000 | mode)), mode & 0o3777);
        }
    }
}
