//! Archives of homes, which lie on other people's disks, and what is unpacked of them.
#![no_main]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

// The tree's code alone: all of the gateway would be built for a fuzzer otherwise.
#[path = "."]
mod home {
    #[allow(dead_code, unused_imports)]
    #[path = "../../src/home/tree/mod.rs"]
    pub mod tree;
}

use home::tree::archive::{read, read_foreign};
use home::tree::{Limits, Progress, remove};

/// A place in memory, with something beside the home that is not to be touched.
static PLACE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    fs::create_dir(place.path().join("outside")).expect("a directory");
    fs::write(place.path().join("outside/file"), "untouched").expect("a file");
    place
});

fn on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Whatever says that it is a header has the right sum, which random bytes would never find.
fn mend(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let place = PLACE.path();
    let home = place.join("home");
    fs::create_dir(&home).expect("a directory");
    let into = File::open(&home).expect("a directory");
    let limits = Limits { bytes: 1 << 20, entries: 100 };
    let mut tar = bytes.to_vec();
    mend(&mut tar);
    // As it is, then sealed by nobody.
    let _ = read_foreign(&tar[..], into.as_fd(), 1000, limits, &on);
    let _ = read(bytes, into.as_fd(), limits, &on);
    drop(into);
    let parent = File::open(place).expect("a directory");
    remove(parent.as_fd(), OsStr::new("home"), &on).expect("whatever is unpacked can be removed");
    assert_eq!(names(place), ["outside"]);
    assert_eq!(names(&place.join("outside")), ["file"]);
    assert_eq!(fs::read(place.join("outside/file")).expect("a file"), b"untouched");
});
