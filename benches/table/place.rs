//! Where a run keeps its files: the key that logs in everywhere, the state of gateways and of an sshd.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A directory that goes when this is dropped, with the client's key in it.
pub struct Place {
    dir: PathBuf,
}

impl Place {
    /// A new one.
    pub fn new() -> Result<Self> {
        let place = Self { dir: tempfile::Builder::new().prefix("innkeeper-bench-").tempdir()?.keep() };
        make_key(&place.path("id"))?;
        Ok(place)
    }

    /// A file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The client's public key, as in an `authorized_keys` file.
    pub fn public_key(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.path("id.pub"))?.trim().to_owned())
    }

    /// The client, the same for every server: OpenSSH's with its own preferences and one ed25519 key.
    pub fn ssh(&self, port: u16, account: &str) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "/dev/null", "-i"]).arg(self.path("id"));
        let known_hosts = format!("UserKnownHostsFile={}", self.path("known_hosts").display());
        let options = ["IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=accept-new", "LogLevel=ERROR", known_hosts.as_str()];
        for option in options {
            command.args(["-o", option]);
        }
        command.arg("-p").arg(port.to_string()).arg(format!("{account}@127.0.0.1"));
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing is deleted through a mount that a gateway could not take away.
        let dir = self.dir.display().to_string();
        if std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| !mounts.contains(&dir)) {
            std::fs::remove_dir_all(&dir).ok();
        } else {
            eprintln!("{dir} has mounts below it and stays");
        }
    }
}

/// Makes an ed25519 key pair.
pub fn make_key(path: &Path) -> Result<()> {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "innkeeper bench", "-f"]).arg(path).output();
    let made = made.context("ssh-keygen")?;
    ensure!(made.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}
