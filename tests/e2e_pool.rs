//! The pool: containers that stand ready, also for somebody who has files already.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::collections::BTreeSet;
use std::process::Command;

use gateway::{Gateway, docker, image, run_with, wait_for};

const CLAIMS: &str = "innkeeper_starts_total{path=\"claim\"}";
const READY: &str = "innkeeper_pool_ready{template=\"default\"}";

/// The ids of the pool's containers.
fn ids(gateway: &Gateway) -> BTreeSet<String> {
    let label = format!("label=innkeeper={}", gateway.instance);
    docker(&["ps", "-aq", "--no-trunc", "--filter", &label, "--filter", "name=.pool."]).lines().map(str::to_owned).collect()
}

#[test]
fn who_returns_gets_a_container_from_the_pool_with_her_files_in_it() {
    let gateway = Gateway::start("[pool]\nsize = 2\n");
    wait_for("the pool to be filled", || gateway.pool() == 2);
    let ready = ids(&gateway);
    gateway.exec("alice", "echo hers >file; chmod 600 file").good();
    assert!(ready.contains(&gateway.inspect("alice", "{{.Id}}")), "she got one that stood ready");
    wait_for("the pool to be filled again", || gateway.pool() == 2);

    docker(&["rm", "-f", &gateway.container("alice")]);
    let ready = ids(&gateway);
    assert_eq!(gateway.exec("alice", "cat file; pwd; touch second; stat -c %U file").good(), "hers\n/home/user\nuser\n");
    assert!(ready.contains(&gateway.inspect("alice", "{{.Id}}")));
    assert!(gateway.home("alice").join("second").exists());
    gateway.wait_metric(CLAIMS, |count| count == 2.0);
    assert_eq!(gateway.metric("innkeeper_pool_claims_total"), Some(2.0));
    wait_for("the pool to be filled again", || gateway.pool() == 2);

    // A container of the pool that is lost is replaced, and one that is lost just before it is claimed costs nobody the login.
    let lost = ids(&gateway);
    docker(&[&["rm", "-f"][..], &lost.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    gateway.exec("bob", "echo his >file").good();
    wait_for("the pool to be filled again", || gateway.pool() == 2);
    assert!(ids(&gateway).is_disjoint(&lost));
}

#[test]
fn ten_accounts_at_once_get_ten_containers_and_their_own_files() {
    let gateway = Gateway::start("[pool]\nsize = 3\n");
    let names: Vec<String> = (0..10).map(|number| format!("user{number}")).collect();
    names.iter().for_each(|name| gateway.add_account(name));
    for _ in 0..2 {
        wait_for("the pool to be filled", || gateway.pool() == 3);
        std::thread::scope(|scope| {
            for name in &names {
                let gateway = &gateway;
                scope.spawn(move || {
                    assert_eq!(gateway.exec(name, &format!("echo {name} >file; cat file; ls -A")).good(), format!("{name}\nfile\n"))
                });
            }
        });
        let there: Vec<String> = gateway.containers().into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| there.contains(&gateway.container(name))), "{there:?}");
        let gone: Vec<String> = names.iter().map(|name| gateway.container(name)).collect();
        docker(&[&["rm", "-f"][..], &gone.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    }
    gateway.wait_metric(CLAIMS, |count| count >= 6.0);
}

/// A name for an image. It goes with the value.
struct Tag(String);

impl Drop for Tag {
    fn drop(&mut self) {
        std::process::Command::new("docker").args(["rmi", &self.0]).output().ok();
    }
}

#[test]
fn what_stands_ready_is_what_would_be_made_now() {
    let tag = Tag(format!("innkeeper-test/pool-{:08x}:latest", rand::random::<u32>()));
    docker(&["tag", &image(), &tag.0]);
    let settings = |pids: u32, size: usize, paused: bool| {
        format!("[pool]\nsize = {size}\npaused = {paused}\n[template.default]\nimage = \"{}\"\nmemory = \"512MiB\"\npids = {pids}\n", tag.0)
    };
    let gateway = Gateway::start(&settings(100, 2, false));
    let reload = |text: &str| {
        gateway.configure(text);
        gateway.reload();
    };
    wait_for("the pool to be filled", || gateway.pool() == 2);

    // Another template.
    let old = ids(&gateway);
    reload(&settings(101, 2, false));
    wait_for("the pool to be replaced", || gateway.pool() == 2 && ids(&gateway).is_disjoint(&old));

    // Another image behind the same name, made of the old one; the gateway is told nothing.
    let old = ids(&gateway);
    let recipe = format!("FROM {}\nENV CHANGED=yes\n", tag.0);
    run_with(Command::new("docker").args(["build", "--quiet", "--tag", &tag.0, "-"]), recipe.as_bytes()).good();
    wait_for("the pool to be replaced", || gateway.pool() == 2 && ids(&gateway).is_disjoint(&old));
    assert_eq!(gateway.exec("alice", "echo $CHANGED").good(), "yes\n");
    wait_for("the pool to be filled again", || gateway.pool() == 2);

    // Paused: it is used up and not filled. Its gauge is set by the look that decides so.
    reload(&settings(101, 2, true));
    gateway.wait_metric("innkeeper_reloads_total{outcome=\"applied\"}", |count| count == 2.0);
    gateway.exec("bob", "true").good();
    gateway.wait_metric(READY, |ready| ready == 1.0);
    gateway.wait_sweeps(3);
    assert_eq!(gateway.pool(), 1);
    reload(&settings(101, 3, false));
    wait_for("the pool to be filled", || gateway.pool() == 3);
    reload(&settings(101, 0, false));
    wait_for("the pool to be emptied", || gateway.pool() == 0);
    assert_eq!(gateway.exec("alice", "echo there").good(), "there\n");
}
