//! OpenSSH's server on the same machine, to hold the gateway against. Nothing under `/etc/ssh` is read or written.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::place::{Place, make_key};
use crate::wait::until;

/// A running sshd that lets root in with the place's key. Dropping it ends it.
pub struct Sshd {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Sshd {
    /// Starts one.
    ///
    /// Without PAM, which Debian turns on: it is a little faster so, and what it is compared with has no PAM either. Root needs no
    /// process of hers without privileges, which is the fastest login that sshd has.
    pub fn start(place: &Place) -> Result<Self> {
        let dir = place.path("sshd");
        fs::create_dir(&dir)?;
        make_key(&dir.join("host_key"))?;
        fs::write(dir.join("authorized_keys"), place.public_key()?)?;
        // Where it locks itself in before a login. Debian's init script makes it, and so may nobody have.
        fs::create_dir_all("/run/sshd")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at = |name: &str| dir.join(name).display().to_string();
        let config = [
            format!("Port {port}"),
            "ListenAddress 127.0.0.1".to_owned(),
            format!("HostKey {}", at("host_key")),
            format!("AuthorizedKeysFile {}", at("authorized_keys")),
            "StrictModes no".to_owned(),
            "UsePAM no".to_owned(),
            "PidFile none".to_owned(),
            "PermitRootLogin prohibit-password".to_owned(),
            "MaxStartups 1000".to_owned(),
        ];
        fs::write(dir.join("config"), config.join("\n") + "\n")?;
        let program = if Path::new("/usr/sbin/sshd").exists() { "/usr/sbin/sshd" } else { "sshd" };
        let mut command = Command::new(program);
        command.arg("-D").arg("-e").arg("-f").arg(dir.join("config")).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(dir.join("log"))?).spawn().context("sshd")?;
        let sshd = Self { child, port };
        until("sshd to listen", || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        Ok(sshd)
    }

    /// The listening process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
