//! A Docker Engine of the test's own, which it may kill and start again without disturbing anybody else's containers.
//!
//! It has a network namespace of its own, so its bridges and firewall rules are nobody's concern; mounts it shares with the host, as a
//! gateway's homes have to reach its containers.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::gateway::{DEADLINE, run, signal, wait_for};

/// The running engine. Dropping it removes its containers, its mounts and itself.
pub struct SecondEngine {
    dir: tempfile::TempDir,
    live_restore: bool,
    driver: String,
    daemon: Option<Child>,
}

impl SecondEngine {
    /// Starts one that has the images named.
    pub fn start(live_restore: bool, images: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("innkeeper-engine-").tempdir().unwrap();
        let driver = run(Command::new("docker").args(["info", "-f", "{{.Driver}}"])).good().trim().to_owned();
        let mut engine = Self { dir, live_restore, driver, daemon: None };
        engine.up();
        for image in images {
            let load = format!("docker save {image} | docker -H unix://{} load", engine.socket().display());
            run(Command::new("sh").args(["-c", &load])).good();
        }
        engine
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// The client of this engine.
    pub fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.socket().display()));
        command
    }

    /// Starts the daemon and waits until it answers.
    pub fn up(&mut self) {
        self.begin();
        wait_for("the second engine to answer", || {
            if let Ok(Some(status)) = self.daemon.as_mut().unwrap().try_wait() {
                panic!("the second engine ended: {status}\n{}", self.log());
            }
            self.answers()
        });
    }

    fn begin(&mut self) {
        assert!(self.daemon.is_none(), "it runs");
        let path = |name: &str| self.dir.path().join(name);
        fs::write(path("daemon.json"), "{}").unwrap();
        let log = File::options().create(true).append(true).open(path("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sh", "-c", "ip link set lo up; exec dockerd \"$@\"", "sh"]);
        for (option, name) in [("--config-file", "daemon.json"), ("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(path(name));
        }
        command.arg("-H").arg(format!("unix://{}", self.socket().display())).args(["--storage-driver", &self.driver]);
        if self.live_restore {
            command.arg("--live-restore");
        }
        // In a process group of its own: an interrupted test must not take it down before its containers.
        let daemon = command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.daemon = Some(daemon.unwrap());
    }

    fn answers(&self) -> bool {
        self.docker().arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }

    /// Ends the daemon as the kernel would.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let containerd = fs::read_to_string(self.dir.path().join("exec/containerd/containerd.pid")).unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        // It dies with its parent; one that is still dying would be taken for alive by the next daemon.
        wait_for("its containerd to end", || !Path::new("/proc").join(containerd.trim()).exists());
    }

    /// Ends it as an administrator would.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        signal(daemon.id(), "TERM");
        wait_for("the second engine to end", || daemon.try_wait().unwrap().is_some());
    }
}

impl Drop for SecondEngine {
    fn drop(&mut self) {
        #[allow(clippy::print_stderr, reason = "what a failed test leaves to read")]
        if std::thread::panicking() {
            eprintln!("--- end of the second engine's log, the newest first\n{}", self.log());
        }
        // Containers outlive a daemon that was killed, so it is needed to remove them. Nothing here may panic: perhaps something has already.
        if self.daemon.is_none() {
            self.begin();
        }
        let deadline = Instant::now() + DEADLINE;
        while !self.answers() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        let client = format!("docker -H unix://{}", self.socket().display());
        Command::new("sh").args(["-c", &format!("{client} ps -aq | xargs -r {client} rm -f")]).stdout(Stdio::null()).status().ok();
        if let Some(mut daemon) = self.daemon.take() {
            Command::new("kill").arg(daemon.id().to_string()).status().ok();
            while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
            daemon.kill().ok();
            daemon.wait().ok();
        }
        // A container that lost its containerd keeps its shim: what has this directory among its arguments is of this engine.
        let dir = self.dir.path().display().to_string();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if process.path().join("exe").exists() && String::from_utf8_lossy(&arguments).contains(&dir) {
                Command::new("kill").arg("-KILL").arg(process.file_name()).stderr(Stdio::null()).status().ok();
            }
        }
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        // The innermost first.
        for at in table.lines().rev().filter_map(|line| line.split(' ').nth(4)).filter(|at| at.starts_with(&dir)) {
            Command::new("umount").args(["-l", at]).stderr(Stdio::null()).status().ok();
        }
    }
}
