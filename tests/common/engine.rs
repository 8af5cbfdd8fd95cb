//! A real Docker Engine for tests: images that need no registry, and an instance's name whose containers and networks go when it does.
//!
//! Uses the `docker` program rather than the code under test.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// An instance's name that no other test has. Dropping it removes what carries it.
pub struct TestInstance(pub String);

impl TestInstance {
    /// A new one; `what` tells a reader of `docker ps` which test it belongs to.
    pub fn new(what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t-{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        assert!(name.len() <= 32, "{name}");
        Self(name)
    }
}

impl Drop for TestInstance {
    fn drop(&mut self) {
        let label = format!("label=innkeeper={}", self.0);
        for (list, remove) in [(&["ps", "-aq"][..], &["rm", "-fv"][..]), (&["network", "ls", "-q"], &["network", "rm"])] {
            let found = Command::new("docker").args(list).args(["--filter", &label]).output().expect("docker runs");
            let found = String::from_utf8_lossy(&found.stdout).into_owned();
            let ids: Vec<&str> = found.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = Command::new("docker").args(remove).args(ids).stdout(Stdio::null()).stderr(Stdio::null()).status();
            }
        }
    }
}

/// Runs `docker` and returns what it printed.
pub fn docker(args: &[&str]) -> String {
    let output = Command::new("docker").args(args).stdin(Stdio::null()).output().expect("docker runs");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// An image made of the host's busybox, dash and bash, whose `/bin/sh` is the one named. Made on first use and kept.
pub fn image(sh: &str) -> String {
    let tag = format!("innkeeper-test/{sh}-sh:1");
    // Tests in several processes want it at once.
    let lock = fs::File::create(std::env::temp_dir().join("innkeeper-test-image.lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let there = Command::new("docker").args(["image", "inspect", &tag]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.expect("docker runs").success() {
        build(sh, &tag);
    }
    tag
}

fn build(sh: &str, tag: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path();
    for path in ["bin", "usr/bin", "etc", "proc", "sys", "dev", "tmp", "home/user", "usr/lib/openssh"] {
        fs::create_dir_all(root.join(path)).expect("a directory");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("a mode");
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("a mode");
    chown(root.join("home/user"), Some(1000), Some(1000)).expect("run the tests as root");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    let applets = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
    for applet in String::from_utf8(applets).expect("UTF-8").lines().filter(|name| !["busybox", "sh"].contains(name)) {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    for program in ["/usr/bin/dash", "/usr/bin/bash", "/usr/lib/openssh/sftp-server"] {
        copy_with_libraries(Path::new(program), root);
    }
    let sh = if sh == "busybox" { "busybox".to_owned() } else { format!("/usr/bin/{sh}") };
    symlink(sh, root.join("bin/sh")).expect("a link");
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n").expect("a file");
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("a file");
    let import = format!("tar -C '{}' -c . | docker import -c 'ENV PATH=/usr/bin:/bin' - {tag}", root.display());
    let made = Command::new("sh").args(["-c", &import]).stdout(Stdio::null()).status().expect("sh runs");
    assert!(made.success(), "{import}");
}

fn copy_with_libraries(program: &Path, root: &Path) {
    let needs = Command::new("ldd").arg(program).output().expect("ldd runs").stdout;
    let needs = String::from_utf8(needs).expect("UTF-8");
    let libraries = needs.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in libraries.chain([program]) {
        let to = root.join(file.strip_prefix("/").expect("absolute"));
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        fs::copy(file, to).expect("a copy");
    }
}
