//! Forwarding, with the real client and a real container: what is reached inside, and what is reached from there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/forward.rs"]
mod forward;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/service.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
mod service;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use forward::{Listening, Shared, ask, connect, echo_inside, free_port, local, reach_from_inside};
use gateway::{DEADLINE, Gateway, Session, docker, run, run_with, template, wait_for};
use service::{Reply, Service};

#[test]
fn ports_inside_are_reached_by_every_name_that_they_have_there() {
    let gateway = Gateway::start("");
    let (_inside, ports) = echo_inside(&gateway, &["127.0.0.1", "::1", "0.0.0.0"]);
    // `localhost` is both loopbacks: what listens on one only is found by trying both.
    let name = gateway.exec("alice", "hostname").good().trim().to_owned();
    let at = |name: &str, host: &str, port: u16| local(&gateway, name, &format!("{host}:{port}"));
    let mut ssh = gateway.ssh("alice");
    ssh.args(at("four", "127.0.0.1", ports[0])).args(at("six", "[::1]", ports[1]));
    ssh.args(at("both-four", "localhost", ports[0])).args(at("both-six", "localhost", ports[1]));
    ssh.args(at("any", "localhost", ports[2])).args(at("name", &name, ports[2]));
    let _client = Listening::start(&gateway, ssh.arg("-N"), &["four", "six", "both-four", "both-six", "any", "name"]);
    for (near, greeting) in
        [("four", "127.0.0.1"), ("six", "::1"), ("both-four", "127.0.0.1"), ("both-six", "::1"), ("any", "0.0.0.0"), ("name", "0.0.0.0")]
    {
        assert_eq!(ask(connect(&gateway, near), "hello"), format!("{greeting} hello"), "{near}");
    }
    let direct = run_with(gateway.ssh("alice").arg("-W").arg(format!("localhost:{}", ports[0])), b"hello");
    assert_eq!(direct.good(), "127.0.0.1 hello");
}

#[test]
fn a_hundred_at_once_are_open_together() {
    let gateway = Gateway::start("");
    let server = r#"
import socket
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
peers = [listener.accept()[0] for _ in range(100)]
for peer in peers:
    peer.sendall(peer.recv(100) + b" of a hundred")
    peer.close()
"#;
    let mut inside = Session::start(gateway.ssh("alice").arg(format!("python3 -c '{server}'")));
    let port = inside.expect("\n");
    let mut ssh = gateway.ssh("alice");
    let _client = Listening::start(&gateway, ssh.args(local(&gateway, "near", &format!("127.0.0.1:{}", port.trim()))).arg("-N"), &["near"]);
    // Nobody is answered before everybody is there.
    let mut streams: Vec<UnixStream> = (0..100).map(|_| connect(&gateway, "near")).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(number.to_string().as_bytes()).unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("{number} of a hundred"));
    }
    inside.end().good();
}

#[test]
fn what_nobody_listens_on_is_refused_and_the_connection_lives() {
    let gateway = Gateway::start("");
    let (_inside, ports) = echo_inside(&gateway, &["127.0.0.1"]);
    let mut ssh = gateway.ssh("alice");
    ssh.args(local(&gateway, "closed", "127.0.0.1:1")).args(local(&gateway, "no-name", "no-such-host.invalid:1"));
    ssh.args(local(&gateway, "no-socket", "/home/user/none")).args(local(&gateway, "open", &format!("127.0.0.1:{}", ports[0])));
    let mut client = Session::start(ssh.args(["-v", "echo up; cat"]));
    client.expect("up\n");
    for near in ["closed", "no-name", "no-socket", "closed"] {
        assert_eq!(ask(connect(&gateway, near), "hello"), "", "{near}");
    }
    assert_eq!(ask(connect(&gateway, "open"), "hello"), "127.0.0.1 hello");
    client.send("still here\n");
    client.expect("still here\n");
    client.close();
    let done = client.end();
    assert_eq!(done.stderr.matches("open failed: connect failed").count(), 4, "{done:?}");
    assert!(done.stderr.contains("connect failed: Connection refused") && done.status == Some(0), "{done:?}");
    let direct = run(gateway.ssh("alice").args(["-v", "-W", "127.0.0.1:1"]));
    assert!(direct.status == Some(255) && direct.stderr.contains("Connection refused"), "{direct:?}");
}

#[test]
fn a_browser_looks_at_pages_inside() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "mkdir site; echo a page of hers >site/index.html").good();
    let serve = r#"cd site; exec python3 -uc "import http.server as h; s = h.ThreadingHTTPServer((\"\", 0), h.SimpleHTTPRequestHandler); print(s.server_port); s.serve_forever()""#;
    let mut inside = Session::start(gateway.ssh("alice").arg(serve));
    let port = inside.expect("\n").trim().to_owned();
    let name = gateway.exec("alice", "hostname").good().trim().to_owned();
    let socks = free_port();
    let mut client =
        Session::start(gateway.ssh("alice").args(["-o", "ExitOnForwardFailure=yes", "-D"]).arg(socks.to_string()).arg("echo up; cat"));
    client.expect("up\n");
    for host in ["localhost", "127.0.0.1", &name] {
        let page = run(Command::new("curl")
            .args(["-sS", "--noproxy", "", "--socks5-hostname"])
            .args([format!("127.0.0.1:{socks}"), format!("http://{host}:{port}/")]));
        assert_eq!(page.good(), "a page of hers\n", "{host}");
    }
    let refused = run(Command::new("curl")
        .args(["-sS", "--noproxy", "", "--socks5-hostname"])
        .args([format!("127.0.0.1:{socks}"), "http://localhost:1/".to_owned()]));
    assert_eq!(refused.status, Some(97), "curl says that the proxy could not connect: {refused:?}");
}

#[test]
fn a_workspace_is_the_stone_one_jumps_from() {
    let gateway = Gateway::start("");
    // What the jump arrives at inside is this very gateway, which alice's own client brings there.
    let mut bridge = Shared::start(&gateway, "alice", &[]);
    let port = bridge.remote(&format!("127.0.0.1:0:127.0.0.1:{}", gateway.ssh_port)).unwrap();
    let config = gateway.dir.path().join("config");
    let known = gateway.dir.path().join("known_hosts");
    std::fs::write(
        &config,
        format!(
            "Host *\nIdentityFile {}/id\nIdentitiesOnly yes\nUserKnownHostsFile {}\nStrictHostKeyChecking accept-new\nBatchMode yes\nLogLevel ERROR\n\
             Host stone\nHostName 127.0.0.1\nPort {}\nUser alice\nHost beyond\nHostName 127.0.0.1\nPort {port}\nUser bob\n",
            gateway.dir.path().display(),
            known.display(),
            gateway.ssh_port
        ),
    )
    .unwrap();
    gateway.exec("bob", "echo bobs >mine").good();
    let far = run(Command::new("ssh").arg("-F").arg(&config).args(["-J", "stone", "beyond", "cat mine"]));
    assert_eq!(far.good(), "bobs\n");
}

#[test]
fn a_port_inside_leads_to_the_client_until_that_is_called_off() {
    let gateway = Gateway::start("");
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = far.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = far.accept() {
            let mut said = [0; 5];
            stream.read_exact(&mut said).unwrap();
            stream.write_all(&[b"you said ", &said[..]].concat()).unwrap();
        }
    });
    let mut client = Shared::start(&gateway, "alice", &[]);
    for host in ["", "127.0.0.1:", "localhost:", "[::1]:"] {
        let wanted = format!("{host}0:{target}");
        let port = client.remote(&wanted).unwrap();
        let at = if host.starts_with('[') { "::1" } else { "127.0.0.1" };
        assert_eq!(reach_from_inside(&gateway, &format!("(\"{at}\", {port})")).good(), "you said hello", "{wanted}");
        client.cancel(&wanted).good();
        let gone = reach_from_inside(&gateway, &format!("(\"{at}\", {port})"));
        assert!(gone.status == Some(1) && gone.stderr.contains("Connection refused"), "{wanted}: {gone:?}");
        // The same port can be had again.
        let again = format!("{host}{port}:{target}");
        client.remote(&again).unwrap();
        assert_eq!(reach_from_inside(&gateway, &format!("(\"{at}\", {port})")).good(), "you said hello", "{again}");
        let taken = client.remote(&format!("{host}{port}:127.0.0.1:1"));
        assert!(taken.is_err(), "what is taken is refused: {taken:?}");
        client.cancel(&again).good();
    }
}

#[test]
fn sockets_are_forwarded_both_ways_and_only_a_stale_one_is_replaced() {
    let gateway = Gateway::start("");
    let (_inside, _) = echo_inside(&gateway, &["/home/user/echo"]);
    let near = gateway.dir.path().join("near");
    let mut ssh = gateway.ssh("alice");
    let _client = Listening::start(&gateway, ssh.args(local(&gateway, "near", "/home/user/echo")).arg("-N"), &["near"]);
    assert_eq!(ask(UnixStream::connect(&near).unwrap(), "hello"), "/home/user/echo hello");

    let target = gateway.dir.path().join("target");
    let far = UnixListener::bind(&target).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = far.accept() {
            let mut said = [0; 5];
            stream.read_exact(&mut said).unwrap();
            stream.write_all(&[b"you said ", &said[..]].concat()).unwrap();
        }
    });
    let make = r#"python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.bind("stale"); s.listen()'; echo mine >file; mkdir -p directory; ln -sf /home/user/nowhere dangling; ln -sf file link; ln -sf stale to-stale; ls -li --time-style=+ file directory dangling link to-stale"#;
    let before = gateway.exec("alice", make).good();
    let mut client = Shared::start(&gateway, "alice", &[]);
    for taken in ["file", "directory", "dangling", "link", "to-stale", "echo"] {
        let refused = client.remote(&format!("/home/user/{taken}:{}", target.display()));
        assert!(refused.is_err(), "{taken}: {refused:?}");
    }
    let look = "ls -li --time-style=+ file directory dangling link to-stale; test -S stale && ! test -e nowhere && cat file";
    assert_eq!(gateway.exec("alice", look).good(), before + "mine\n", "all of it is as it was");
    for path in ["stale", "new"] {
        let wanted = format!("/home/user/{path}:{}", target.display());
        client.remote(&wanted).unwrap();
        assert_eq!(reach_from_inside(&gateway, &format!("\"{path}\"")).good(), "you said hello", "{path}");
        assert_eq!(gateway.exec("alice", &format!("stat -c %a {path}")).good(), "600\n");
        client.cancel(&wanted).good();
        wait_for("the socket to be taken away", || gateway.exec("alice", &format!("test -e {path}")).status == Some(1));
    }
}

#[test]
fn what_a_template_or_a_grant_denies_is_prohibited_and_logged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service =
        runtime.block_on(Service::start(|_| Reply::json(r#"{"success": true, "innkeeper": {"permit": {"local_forwarding": false}}}"#)));
    let sections = format!(
        "[auth]\nmethods = [\"accounts\", \"webhook\"]\n[auth.webhook]\nurl = \"{}\"\n{}[template.default.permit]\nremote_forwarding = false\n",
        service.url,
        template("")
    );
    let gateway = Gateway::start(&sections);
    let (_inside, ports) = echo_inside(&gateway, &["127.0.0.1"]);
    let refusals = |kind: &str| {
        let log = gateway.log();
        log.lines()
            .filter(|line| line.contains("forward refused") && line.contains(&format!("\"{kind}\"")) && line.contains("denied"))
            .count()
    };
    let to = format!("127.0.0.1:{}", ports[0]);
    // By the template: one way only.
    assert_eq!(run_with(gateway.ssh("alice").arg("-W").arg(&to), b"hello").good(), "127.0.0.1 hello");
    for (kind, wanted) in [("remote", "0:127.0.0.1:1"), ("remote_socket", "/home/user/socket:/nowhere")] {
        let denied = run(gateway.ssh("alice").args(["-o", "ExitOnForwardFailure=yes", "-R", wanted, "true"]));
        assert!(denied.status == Some(255) && denied.stderr.contains("remote port forwarding failed"), "{denied:?}");
        wait_for("the administrator to be told", || refusals(kind) == 1);
    }
    // By the grant: not this way either.
    let stranger = |arguments: &[&str]| run(gateway.ssh("erin").args(arguments));
    assert_eq!(stranger(&["true"]).status, Some(0));
    let denied = stranger(&["-v", "-W", &to]);
    assert!(denied.status == Some(255) && denied.stderr.contains("administratively prohibited"), "{denied:?}");
    wait_for("the administrator to be told", || refusals("local") == 1);
    let line = gateway.log().lines().find(|line| line.contains("forward refused") && line.contains(&to)).map(str::to_owned);
    let id = line.as_deref().and_then(|line| line.split_once("\"span\":{\"id\":\"")).map(|(_, rest)| &rest[..32]).unwrap();
    let whose = gateway.log().lines().any(|line| line.contains(id) && line.contains("erin"));
    assert!(whose, "the connection's other lines say whose it is: {}", gateway.log());
    // What is switched off altogether is off each way, for a template that is changed while it serves.
    gateway.configure(&format!("{}[template.default.permit]\nforwarding = false\n", template("")));
    gateway.reload();
    gateway.wait_metric("innkeeper_reloads_total{outcome=\"applied\"}", |count| count == 1.0);
    let denied = run(gateway.ssh("alice").args(["-v", "-W", &to]));
    assert!(denied.status == Some(255) && denied.stderr.contains("administratively prohibited"), "{denied:?}");
}

#[test]
fn a_forward_keeps_a_workspace_running_and_ends_with_its_container() {
    let gateway = Gateway::start("[idle]\ntimeout = \"1s\"\n");
    gateway.exec("alice", "true").good();
    // In the background, so that no session holds it.
    let start = r#"nohup python3 -c '
import contextlib, socket
listener = socket.create_server(("127.0.0.1", 8000))
while True:
    with listener.accept()[0] as peer, contextlib.suppress(OSError):
        peer.sendall(b"hello")
        if peer.recv(5) == b"still": peer.sendall(b"there")
        peer.recv(1)
' >/dev/null 2>&1 & until python3 -c 'import socket; socket.create_connection(("127.0.0.1", 8000))' 2>/dev/null; do sleep 0.1; done"#;
    // But until somebody has come by the forward.
    let held = gateway.hold("alice", "echo up; cat");
    gateway.exec("alice", start).good();
    let mut ssh = gateway.ssh("alice");
    let mut client = Listening::start(&gateway, ssh.args(local(&gateway, "near", "127.0.0.1:8000")).arg("-N"), &["near"]);
    let mut stream = connect(&gateway, "near");
    let mut word = [0; 5];
    stream.read_exact(&mut word).unwrap();
    drop(held);
    gateway.wait_sweeps(8);
    assert_eq!(gateway.container_state("alice"), "running", "somebody is there");
    stream.write_all(b"still").unwrap();
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"there");
    drop(stream);
    wait_for("alice's container to be stopped", || gateway.container_state("alice") == "exited");
    gateway.wait_metric("innkeeper_forwards_open", |open| open == 0.0);

    // Whoever connects starts it again; and it is there for as long as somebody listens in it.
    assert_eq!(ask(connect(&gateway, "near"), "x"), "", "it runs, and what listened there does not");
    assert!(client.is_there());
    let mut back = Shared::start(&gateway, "alice", &[]);
    back.remote("/home/user/back:/nowhere").unwrap();
    gateway.wait_sweeps(8);
    assert_eq!(gateway.container_state("alice"), "running", "somebody listens there");

    // Killed under it, its streams end, and the client does not.
    gateway.exec("alice", start).good();
    let mut stream = connect(&gateway, "near");
    stream.read_exact(&mut word).unwrap();
    docker(&["kill", &gateway.container("alice")]);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty() && client.is_there());
    gateway.wait_metric("innkeeper_forwards_open", |open| open == 0.0);
    gateway.exec("alice", start).good();
    let mut stream = connect(&gateway, "near");
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello", "by the same connection, in the container that was started again");
}
