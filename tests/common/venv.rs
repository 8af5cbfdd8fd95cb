//! Python programs that tests bring along, installed once, under `target/`.

// A module of several test binaries, of which each uses a part.
#![allow(dead_code, unreachable_pub)]

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python that has what a requirements file names. The lock lets several test processes ask at once.
pub fn python(name: &str, requirements: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    fs::read(requirements).unwrap().hash(&mut hasher);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let venv = target.join(format!("{name}-venv-{:016x}", hasher.finish()));
    let lock = File::create(target.join(format!("{name}-venv.lock"))).unwrap();
    lock.lock().unwrap();
    let (python, complete) = (venv.join("bin/python"), venv.join("complete"));
    if !complete.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements));
        File::create(complete).unwrap();
    }
    python
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
