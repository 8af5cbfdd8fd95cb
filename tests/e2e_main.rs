//! The main job, end to end: log in, land in one's own container, find it again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use gateway::{Gateway, wait_for};

#[test]
fn she_leaves_files_is_stopped_and_finds_them_again() {
    let gateway = Gateway::start("[idle]\ntimeout = \"2s\"\n");
    gateway.exec("alice", "echo hers > file").good();
    assert_eq!(gateway.exec("alice", "cat file; id -u; pwd").good(), "hers\n1000\n/home/user\n");
    wait_for("alice's container to be stopped", || gateway.container_state("alice") == "exited");
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    assert_eq!(gateway.exec("bob", "ls; cat /home/user/file 2>&1; true").good(), "cat: /home/user/file: No such file or directory\n");
    assert_eq!(gateway.containers().len(), 2);
}
