//! A workspace gets a container of a newer image, with the home it has, and its former one back where that does not come up.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/image.rs"]
mod image;

use std::process::Stdio;
use std::time::Duration;

use gateway::{Gateway, docker, mounts_below, run, wait_for};
use image::Tag;
use serde_json::Value;

/// A template of this image, in which a check of its own decides; and upgrades are given up soon.
fn template(tag: &Tag, keys: &str) -> String {
    format!("\n[limits]\nupgrade_timeout = \"5s\"\n[template.default]\nimage = \"{}\"\nmemory = \"512MiB\"\n{keys}", tag.name)
}

fn list(gateway: &Gateway) -> Value {
    let all: Value = serde_json::from_str(&run(gateway.innkeeper().args(["workspace", "list", "--json"])).good()).unwrap();
    all[0].clone()
}

fn upgrade(gateway: &Gateway, more: &[&str]) -> gateway::Done {
    run(gateway.innkeeper().args(["workspace", "upgrade"]).args(more))
}

fn mark(gateway: &Gateway) -> String {
    gateway.exec("alice", "cat /etc/mark file").good()
}

/// Stops her container as an administrator would, and leaves it so.
fn stop(gateway: &Gateway) {
    run(gateway.innkeeper().args(["workspace", "suspend", "alice", "--reason", "a test"])).good();
    run(gateway.innkeeper().args(["workspace", "resume", "alice"])).good();
    assert_eq!(gateway.container_state("alice"), "exited");
}

/// There is one container, with one slot, one home on it, and nothing beside.
#[track_caller]
fn is_alone(gateway: &Gateway) {
    let slots = gateway.state().join("slots");
    wait_for("one container and its slot to be left", || {
        let names: Vec<String> = gateway.containers().into_iter().map(|(name, _)| name).collect();
        names == [gateway.container("alice")] && std::fs::read_dir(&slots).unwrap().count() == 1 && mounts_below(&slots) == 2
    });
}

#[test]
fn an_upgrade_waits_for_the_next_start_or_is_done_now() {
    let tag = Tag::new("RUN echo one > /etc/mark");
    let gateway = Gateway::start(&template(&tag, "env = { HERS = 'still' }"));
    gateway.exec("alice", "echo hers > file").good();
    run(gateway.innkeeper().args(["workspace", "limit", "alice", "--pids", "99"])).good();
    wait_for("its image to be looked at", || list(&gateway)["image"] == "current");
    assert!(upgrade(&gateway, &["alice"]).good().contains("nothing to upgrade"));
    assert!(upgrade(&gateway, &["alice", "--now"]).good().contains("nothing to upgrade"));
    let nobody = upgrade(&gateway, &["nobody"]);
    assert!(nobody.status == Some(1) && nobody.stderr.contains("no workspace nobody is known"), "{nobody:?}");

    tag.build("RUN echo two > /etc/mark");
    wait_for("its image to be older", || list(&gateway)["image"] == "older");
    gateway.wait_metric("innkeeper_outdated", |count| count == 1.0);
    let first = gateway.inspect("alice", "{{.Id}}");
    assert!(upgrade(&gateway, &["alice"]).good().contains("at its next start"));
    assert!(list(&gateway)["upgrade"]["failed"].is_null() && list(&gateway)["upgrade"]["asked"].is_string());
    assert_eq!((mark(&gateway), gateway.inspect("alice", "{{.Id}}")), ("one\nhers\n".to_owned(), first.clone()), "it runs on");
    stop(&gateway);
    // Where nothing waits for it a start is a start.
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("made anew, from a newer image");
    drop(terminal);
    assert_eq!(mark(&gateway), "two\nhers\n");
    assert_ne!(gateway.inspect("alice", "{{.Id}}"), first);
    assert_eq!(gateway.inspect("alice", "{{.HostConfig.PidsLimit}}"), "99");
    assert_eq!(gateway.exec("alice", "echo $HERS").good(), "still\n");
    assert!(list(&gateway)["upgrade"].is_null());
    is_alone(&gateway);

    tag.build("RUN echo three > /etc/mark");
    let mut terminal = gateway.terminal("alice", "echo u''p; sleep 1000");
    terminal.expect("up");
    assert_eq!(upgrade(&gateway, &["alice", "--now"]).good(), "alice has a container of its template's image\n");
    terminal.expect("your container is being stopped (it gets another image); your home is kept");
    terminal.end();
    assert_eq!(gateway.container_state("alice"), "running");
    assert_eq!(mark(&gateway), "three\nhers\n");
    assert_eq!(gateway.metric("innkeeper_upgrades_total{outcome=\"done\"}"), Some(2.0));
    is_alone(&gateway);

    tag.build("RUN echo four > /etc/mark");
    stop(&gateway);
    assert_eq!(upgrade(&gateway, &["--all", "--template", "other", "--now"]).good(), "0 are upgraded\n");
    assert_eq!(upgrade(&gateway, &["--all", "--now"]).good(), "alice\n1 are upgraded\n");
    assert_eq!(mark(&gateway), "four\nhers\n");

    // An image that is not here is refused, and nothing of it is kept.
    let missing = "127.0.0.1:1/innkeeper-test/nothing:1";
    gateway.configure(&template(&tag, "").replace(&tag.name, missing));
    gateway.reload();
    wait_for("the other template", || gateway.log().contains("configuration applied"));
    for how in [&["alice"][..], &["alice", "--now"]] {
        let refused = upgrade(&gateway, how);
        assert!(refused.status == Some(1) && refused.stderr.contains(missing) && refused.stderr.contains("is not here"), "{refused:?}");
    }
    assert!(list(&gateway)["upgrade"].is_null());
    assert_eq!(mark(&gateway), "four\nhers\n", "it runs on");
    run(gateway.innkeeper().arg("clean")).status.unwrap();
}

/// One whose check never says yes: her former container comes back, whichever way it was asked for.
fn is_undone(readiness: &str) {
    let tag = Tag::new(&with_check("RUN echo one > /etc/mark && touch /etc/good"));
    let sections = template(&tag, &format!("[[template.default.service]]\nname = \"web\"\nimage = true\nready = {readiness}\n"));
    let gateway = Gateway::start(&sections);
    gateway.exec("alice", "echo hers > file").good();
    let first = gateway.inspect("alice", "{{.Id}}");

    tag.build(&with_check("RUN echo two > /etc/mark"));
    let refused = upgrade(&gateway, &["alice", "--now"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("has its former container: service web was not ready"), "{refused:?}");
    assert_eq!(gateway.container_state("alice"), "running", "it ran before");
    assert_eq!((mark(&gateway), gateway.inspect("alice", "{{.Id}}")), ("one\nhers\n".to_owned(), first.clone()));
    is_alone(&gateway);
    let shown = run(gateway.innkeeper().args(["workspace", "show", "alice"])).good();
    assert!(shown.contains("and undone: service web was not ready within 5s"), "{shown}");
    let listed = run(gateway.innkeeper().args(["workspace", "list"])).good();
    assert!(listed.contains("upgrade failed"), "{listed}");
    let undone = |count: f64| gateway.wait_metric("innkeeper_upgrades_total{outcome=\"undone\"}", |now| now == count);
    undone(1.0);
    assert!(gateway.log().contains("upgrade undone"));

    // Not again by itself, and again when it is asked for.
    stop(&gateway);
    assert_eq!(mark(&gateway), "one\nhers\n");
    undone(1.0);
    upgrade(&gateway, &["alice"]).good();
    stop(&gateway);
    assert_eq!(mark(&gateway), "one\nhers\n");
    undone(2.0);
    is_alone(&gateway);

    // And when the image is another: the check says yes after a while, and who logs in meanwhile waits for it.
    tag.build(&with_check("RUN echo three > /etc/mark && ln -s /home/user/good /etc/good"));
    stop(&gateway);
    gateway.configure(&sections.replace("\"5s\"", "\"10m\""));
    gateway.reload();
    wait_for("the longer time", || gateway.log().contains("configuration applied"));
    let later = gateway.home("alice").join("good");
    let mut first = gateway.ssh("alice");
    let first = first.arg("cat /etc/mark").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the upgrade to begin", || gateway.log().matches("\"upgrading\"").count() >= 3);
    let mut second = gateway.ssh("alice");
    let second = second.arg("cat /etc/mark").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    std::fs::write(later, "").unwrap();
    for waited in [first, second] {
        assert_eq!(gateway::finish(waited, gateway::DEADLINE).good(), "three\n");
    }
    assert_eq!(mark(&gateway), "three\nhers\n");
    assert!(list(&gateway)["upgrade"].is_null());
    is_alone(&gateway);
    let name = gateway.container("alice");
    assert_eq!(docker(&["ps", "-aq", "--filter", &format!("name={name}")]).lines().count(), 1);
}

fn with_check(recipe: &str) -> String {
    format!("{recipe}\nENTRYPOINT [\"sleep\", \"1000\"]\nHEALTHCHECK --interval=1s --retries=1 CMD test -e /etc/good")
}

#[test]
fn one_whose_service_is_never_ready_is_undone() {
    is_undone("{ command = [\"test\", \"-e\", \"/etc/good\"], every = \"1s\" }");
}

#[test]
fn one_whose_healthcheck_fails_is_undone() {
    is_undone("{ image = true }");
}

#[test]
fn one_whose_program_ends_is_undone_at_once() {
    let tag = Tag::new("RUN echo one > /etc/mark\nENTRYPOINT [\"sleep\", \"1000\"]");
    let service = "[[template.default.service]]\nname = \"web\"\nimage = true\n";
    let gateway = Gateway::start(&template(&tag, service).replace("\"5s\"", "\"10m\""));
    gateway.exec("alice", "echo hers > file").good();
    tag.build("RUN echo two > /etc/mark\nENTRYPOINT [\"sh\", \"-c\", \"exit 7\"]");
    let refused = upgrade(&gateway, &["alice", "--now"]);
    assert!(refused.status == Some(1) && refused.stderr.contains("service web ended (status 7)"), "{refused:?}");
    // One that cannot be started at all.
    tag.build("RUN echo three > /etc/mark\nENTRYPOINT []\nCMD []");
    let refused = upgrade(&gateway, &["alice", "--now"]);
    assert!(refused.status == Some(1) && refused.stderr.contains("service web cannot be run with this image"), "{refused:?}");
    assert_eq!(mark(&gateway), "one\nhers\n");
    tag.build("RUN echo four > /etc/mark\nENTRYPOINT [\"sleep\", \"1000\"]");
    upgrade(&gateway, &["alice", "--now"]).good();
    assert_eq!(mark(&gateway), "four\nhers\n");
    is_alone(&gateway);
}

#[test]
fn a_container_without_an_init_is_upgraded_too() {
    let tag = Tag::new("RUN echo one > /etc/mark");
    let gateway = Gateway::start(&template(&tag, "attach = \"exec\"\n"));
    gateway.exec("alice", "echo hers > file").good();
    tag.build("RUN echo two > /etc/mark");
    upgrade(&gateway, &["alice", "--now"]).good();
    assert_eq!(mark(&gateway), "two\nhers\n");
    // One whose first process cannot run.
    tag.build("RUN rm -f /bin/sh && ln -s /nowhere /bin/sh");
    let refused = upgrade(&gateway, &["alice", "--now"]);
    assert!(refused.status == Some(1) && refused.stderr.contains("has its former container"), "{refused:?}");
    assert_eq!(mark(&gateway), "two\nhers\n");
    is_alone(&gateway);
}

#[test]
fn an_image_of_a_home_goes_from_one_container_to_the_other_and_back() {
    let tag = Tag::new("RUN echo one > /etc/mark && touch /etc/good");
    let service = "[[template.default.service]]\nname = \"web\"\ncommand = [\"sleep\", \"1000\"]\n\
                   ready = { command = [\"test\", \"-e\", \"/etc/good\"], every = \"1s\" }\n";
    let volume = "disk = \"64MiB\"\n[[template.default.volume]]\nname = \"data\"\npath = \"/data\"\ndisk = \"64MiB\"\n";
    let sections = format!("\n[home]\ndriver = \"loop\"\n{}", template(&tag, &format!("{volume}{service}")));
    let gateway = Gateway::start(&sections);
    gateway.exec("alice", "echo hers > file && echo more > /data/file").good();
    let found = |mark: &str| {
        assert_eq!(gateway.exec("alice", "cat /etc/mark file /data/file").good(), format!("{mark}\nhers\nmore\n"));
        assert_eq!(mounts_below(&gateway.state().join("homes")), 2, "each image once");
    };
    tag.build("RUN echo bad > /etc/mark");
    assert_eq!(upgrade(&gateway, &["alice", "--now"]).status, Some(1));
    found("one");
    // The one that comes up may take longer than the other was waited for.
    assert!(sections.contains("upgrade_timeout = \"5s\""));
    gateway.configure(&sections.replace("upgrade_timeout = \"5s\"", "upgrade_timeout = \"2m\""));
    gateway.reload();
    gateway.wait_metric("innkeeper_reloads_total{outcome=\"applied\"}", |count| count == 1.0);
    tag.build("RUN echo two > /etc/mark && touch /etc/good");
    upgrade(&gateway, &["alice", "--now"]).good();
    found("two");
    stop(&gateway);
    assert_eq!(mounts_below(&gateway.state().join("homes")), 0, "let go of, as nobody uses them");
    found("two");
}
