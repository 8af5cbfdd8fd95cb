//! A container's init as a program: how large it is, in an image that has nothing else, and where it is of another make than its gateway.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on ends, and says why")]

#[path = "common/client.rs"]
mod client;
#[path = "common/forward.rs"]
mod forward;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/image.rs"]
mod image;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use forward::{Listening, Shared, ask, connect, echo_inside, local};
use gateway::{Gateway, Terminal, docker, run, run_with, sha256, wait_for};
use image::Tag;
use russh::{ChannelMsg, Sig};

/// The program as it was built with the gateway.
const PROGRAM: &str = env!("INNKEEPER_INIT");

/// The most that it may take on a disk, in bytes: there is one file of it on a host, and it is read for every container.
const LARGEST: u64 = 2 << 20;

/// The headers of an ELF file of 64 bits by what they say that is needed to run it: the kinds of its segments.
fn segments(program: &[u8]) -> Vec<u32> {
    assert_eq!(&program[..6], b"\x7fELF\x02\x01", "of 64 bits, the lesser byte first");
    let number = |at: usize, length: usize| program[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).map(|nth| number(table + nth * size, 4) as u32).collect()
}

#[test]
fn it_is_small_and_needs_nothing_beside_it() {
    let program = fs::read(PROGRAM).unwrap();
    eprintln!("innkeeper-init: {} bytes", program.len());
    assert!(program.len() as u64 <= LARGEST, "{} bytes", program.len());
    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    const INTERPRETER: u32 = 3;
    let segments = segments(&program);
    assert!(segments.contains(&LOAD) && !segments.contains(&DYNAMIC) && !segments.contains(&INTERPRETER), "{segments:?}");
}

/// An image with one static program and nothing else: no shell, no account, no directory. It is gone with the value.
struct Scratch(String);

impl Scratch {
    fn new(gateway: &Gateway) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::copy("/bin/busybox", dir.path().join("busybox")).unwrap();
        let recipe = "FROM scratch\nCOPY busybox /busybox\nENTRYPOINT [\"/busybox\", \"httpd\", \"-f\", \"-v\", \"-p\", \"127.0.0.1:8080\", \"-h\", \"/home/user\"]\n";
        fs::write(dir.path().join("Dockerfile"), recipe).unwrap();
        let tag = format!("innkeeper-test/scratch:{}", gateway.instance);
        docker(&["build", "--quiet", "--network", "none", "--tag", &tag, dir.path().to_str().unwrap()]);
        Self(tag)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        Command::new("docker").args(["image", "rm", "--force", &self.0]).stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    }
}

#[test]
fn an_image_of_one_static_program_is_enough() {
    let mut gateway = Gateway::start("");
    let image = Scratch::new(&gateway);
    gateway.stop();
    let service = "[[template.default.service]]\nname = \"web\"\nimage = true\nready = { port = 8080, every = \"1s\" }\n";
    gateway.configure(&format!("[template.default]\nimage = \"{}\"\nmemory = \"64MiB\"\n{service}", image.0));
    gateway.up();
    // It has no shell to run a line with, which is what she is told; her container comes up all the same.
    let refused = gateway.exec("alice", "true");
    assert!(refused.status == Some(127) && refused.stderr.starts_with("innkeeper: "), "{refused:?}");
    fs::write(gateway.home("alice").join("page"), "one static program\n").unwrap();
    let ready = || run(gateway.innkeeper().args(["workspace", "services", "alice"])).text().contains("ready");
    wait_for("its program to be ready", ready);
    let request = b"GET /page HTTP/1.0\r\n\r\n";
    let answer = run_with(gateway.ssh("alice").args(["-W", "127.0.0.1:8080"]), request).text();
    assert!(answer.contains(" 200 OK\r\n") && answer.ends_with("one static program\n"), "{answer}");
    // And what it says is kept.
    wait_for("a line in its log", || run(gateway.innkeeper().args(["workspace", "logs", "alice"])).text().contains("200"));

    // Shared is what it has of its file: containers of a host have that once.
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.inspect("alice", "{{.State.Pid}}"))).unwrap();
    let resident = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("Rss"));
    eprintln!("innkeeper-init, with a service and after a forward: {:?}", resident.collect::<Vec<_>>());
    run(gateway.innkeeper().arg("clean")).status.unwrap();
}

/// What runs as the first process of alice's container.
fn runs(gateway: &Gateway) -> String {
    sha256(&fs::read(format!("/proc/{}/exe", gateway.inspect("alice", "{{.State.Pid}}"))).unwrap())
}

/// Where the gateway has its program, for the containers that it will make.
fn program_of(gateway: &Gateway) -> PathBuf {
    let mut all = fs::read_dir(gateway.state().join("init")).unwrap().map(|entry| entry.unwrap().path());
    all.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("innkeeper-init-")).unwrap()
}

/// Has the gateway give out another build of init: as long as it runs, since each start looks after it. What is behind a program's last byte
/// is not run, so it does what ours does, and it is another file with another sum.
fn give_out_another(gateway: &Gateway) -> String {
    let (program, other) = (program_of(gateway), gateway.dir.path().join("other"));
    let bytes = [fs::read(PROGRAM).unwrap(), b"of another make".to_vec()].concat();
    fs::write(&other, &bytes).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&other, &program).unwrap();
    sha256(&bytes)
}

/// Everything that a session may want, of a container that runs.
async fn all_works(gateway: &Gateway, round: usize) {
    assert_eq!(gateway.exec_with("alice", "cat; exit 5", b"both ways").text(), "both ways");
    let mut terminal = gateway.terminal("alice", "");
    terminal.send("stty size; echo $((6*7))-here\r");
    terminal.expect("24 80\r\n42-here");
    terminal.resize(33, 99);
    terminal.send("sh -c 'until [ \"$(stty size)\" = \"33 99\" ]; do sleep 0.1; done; echo re''sized; exec sleep 1000'\r");
    terminal.expect("resized");
    terminal.send("\x03");
    terminal.expect("$ ");
    terminal.send("echo interrupted $?\r");
    terminal.expect("interrupted 130");
    terminal.send("exit 4\r");
    assert_eq!(terminal.end().0, Some(4));

    let connection = client::connect(gateway.ssh_port, "alice", client::key(gateway)).await;
    let mut signalled = connection.channel_open_session().await.unwrap();
    signalled.exec(true, "trap 'echo caught; exit 9' USR1; echo up; while :; do sleep 0.05; done").await.unwrap();
    let mut said = Vec::new();
    let mut status = None;
    let mut is_sent = false;
    while let Some(news) = signalled.wait().await {
        match news {
            ChannelMsg::Data { data } => said.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
        if said == b"up\n" && !std::mem::replace(&mut is_sent, true) {
            signalled.signal(Sig::USR1).await.unwrap();
        }
    }
    assert_eq!((String::from_utf8_lossy(&said).as_ref(), status), ("up\ncaught\n", Some(9)));
    let lent = connection.channel_open_session().await.unwrap();
    lent.agent_forward(true).await.unwrap();
    lent.exec(true, "ssh-add -l; true").await.unwrap();
    assert_eq!(client::end(lent).await.0, "The agent has no identities.\n");
    drop(connection);

    let path = format!("/home/user/echo-{round}");
    let (_inside, ports) = echo_inside(gateway, &["127.0.0.1", path.as_str()]);
    let near = [format!("port-{round}"), format!("socket-{round}")];
    let near = near.each_ref().map(String::as_str);
    let mut ssh = gateway.ssh("alice");
    ssh.args(local(gateway, near[0], &format!("127.0.0.1:{}", ports[0]))).args(local(gateway, near[1], &path));
    let _client = Listening::start(gateway, ssh.arg("-N"), &near);
    assert_eq!(ask(connect(gateway, near[0]), "hello"), "127.0.0.1 hello");
    assert_eq!(ask(connect(gateway, near[1]), "hello"), format!("{path} hello"));
    let mut client = Shared::start(gateway, "alice", &[]);
    let port = client.remote(&format!("127.0.0.1:0:127.0.0.1:{}", gateway.ssh_port)).unwrap();
    let banner = gateway.exec("alice", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -r line <&3; echo $line")).good();
    assert!(banner.starts_with("SSH-2.0-"), "{banner}");
    assert!(gateway.exec("alice", "innkeeper-status").good().contains("workspace"));
    assert_eq!(gateway.exec("alice", "innkeeper-keep 1m -- echo kept").good(), "kept\n");
}

/// A shell at the terminal `work` that is the same as before.
fn back_at_work(gateway: &Gateway) -> Terminal {
    let mut work = gateway.terminal("alice", "@work");
    work.send("echo still-$mark\r");
    work.expect("still-red");
    work
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_keeps_the_init_that_it_was_made_with_until_it_is_replaced() {
    let tag = Tag::new("RUN echo one > /etc/mark");
    let mut gateway = Gateway::start(&format!("\n[template.default]\nimage = \"{}\"\nmemory = \"512MiB\"\n", tag.name));
    let ours = sha256(&fs::read(PROGRAM).unwrap());
    let other = give_out_another(&gateway);
    gateway.exec("alice", "true").good();
    assert_eq!(runs(&gateway), other);
    let mut work = gateway.terminal("alice+work", "");
    work.send("mark=red; echo $mark-is-set\r");
    work.expect("red-is-set");

    // The next gateway comes with its own.
    gateway.kill();
    gateway.up();
    assert_ne!(work.end().0, Some(0));
    assert_eq!(sha256(&fs::read(program_of(&gateway)).unwrap()), ours);
    drop(back_at_work(&gateway));
    all_works(&gateway, 0).await;
    gateway.exec("bob", "true").good();
    let bobs = gateway.inspect("bob", "{{.State.Pid}}");
    assert_eq!(sha256(&fs::read(format!("/proc/{bobs}/exe")).unwrap()), ours, "what is made now has the new one");
    drop(back_at_work(&gateway));

    // Stopped and started it is the same container, with the same program.
    docker(&["kill", &gateway.container("alice")]);
    wait_for("it to be dead", || gateway.container_state("alice") == "exited");
    all_works(&gateway, 1).await;
    assert_eq!(runs(&gateway), other);

    tag.build("RUN echo two > /etc/mark");
    run(gateway.innkeeper().args(["workspace", "upgrade", "alice", "--now"])).good();
    assert_eq!(gateway.exec("alice", "cat /etc/mark").good(), "two\n");
    assert_eq!(runs(&gateway), ours, "with its container its init is another");
    all_works(&gateway, 2).await;
    let is_other = |path: &Path| fs::read(path.join("innkeeper-init")).is_ok_and(|bytes| sha256(&bytes) == other);
    let is_left = || fs::read_dir(gateway.state().join("init")).unwrap().any(|entry| is_other(&entry.unwrap().path()));
    wait_for("nothing of the other to be left", || !is_left());
    run(gateway.innkeeper().arg("clean")).status.unwrap();
}
