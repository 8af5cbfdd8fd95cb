//! Ansible: it puts programs into files and pipes, opens terminals, and shares connections, all in one play.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/venv.rs"]
mod venv;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use gateway::{DEADLINE, Done, Gateway, finish, noise};

const PLAY: &str = r#"
- hosts: all
  gather_facts: true
  vars: {greeting: "hé 'there'"}
  tasks:
    - ping:
    - copy: {src: noise, dest: copied, mode: "0640"}
    - copy: {content: "written here\n", dest: ~/written}
    - template: {src: page.j2, dest: page}
    - command: {cmd: "cat page", chdir: "{{ ansible_env.HOME }}"}
      register: page
      changed_when: false
    - assert: {that: ["page.stdout == greeting + ' from user'", "ansible_env.HOME == '/home/user'"]}
    - shell: echo out; echo err >&2; exit 3
      register: failing
      failed_when: "failing.rc != 3 or failing.stdout != 'out' or 'err' not in failing.stderr + failing.stdout"
      changed_when: false
    - fetch: {src: copied, dest: fetched, flat: true}
"#;

/// Runs the play with these settings.
fn play(gateway: &Gateway, python: &Path, settings: &[(&str, &str)]) -> Done {
    let dir = gateway.dir.path();
    let mut ansible = Command::new(python);
    ansible.args(["-m", "ansible", "playbook", "-i", "inventory", "play.yml"]).current_dir(dir);
    // Nothing of the machine's own Ansible has a say, nor is left in it.
    ansible
        .env("HOME", dir)
        .env("ANSIBLE_HOME", dir.join("ansible"))
        .env("ANSIBLE_CONFIG", dir.join("ansible.cfg"))
        .env("LC_ALL", "C.UTF-8");
    ansible.env("ANSIBLE_NOCOLOR", "1").env("ANSIBLE_SSH_CONTROL_PATH_DIR", dir.join("cp"));
    ansible.envs(settings.iter().copied());
    let child = ansible.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(child, 5 * DEADLINE)
}

#[test]
fn a_play_goes_through_in_each_of_its_ways() {
    let gateway = Gateway::start("");
    let python = venv::python("ansible", &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/ansible.txt"));
    let here = |name: &str| gateway.dir.path().join(name);
    let bytes = noise(1 << 20);
    fs::write(here("noise"), &bytes).unwrap();
    fs::write(here("play.yml"), PLAY).unwrap();
    fs::write(here("ansible.cfg"), "").unwrap();
    fs::write(here("page.j2"), "{{ greeting }} from {{ ansible_user_id }}").unwrap();
    // As `User` in ~/.ssh/config. Of an `ansible_user` Ansible takes `~alice` for the home, and inside nobody is called that.
    let inventory = format!(
        "host ansible_host=127.0.0.1 ansible_port={} ansible_ssh_common_args='-o User=alice {}' ansible_python_interpreter=/usr/bin/python3\n",
        gateway.ssh_port,
        gateway.client_options().join(" ")
    );
    fs::write(here("inventory"), inventory).unwrap();
    gateway.exec("alice", "true").good();

    for (ways, changed) in [
        (&[("ANSIBLE_PIPELINING", "false")][..], 4),
        (&[("ANSIBLE_PIPELINING", "true")], 0),
        (&[("ANSIBLE_PIPELINING", "false"), ("ANSIBLE_SSH_TRANSFER_METHOD", "scp")], 0),
        (&[("ANSIBLE_PIPELINING", "false"), ("ANSIBLE_SSH_TRANSFER_METHOD", "piped"), ("ANSIBLE_SSH_ARGS", "-o ControlMaster=no")], 0),
    ] {
        let done = play(&gateway, &python, ways);
        let said = done.good();
        // The first time it makes things, and fetches one; then it finds them as they should be.
        assert!(said.contains(&format!("changed={changed} ")) && said.contains("failed=0"), "{ways:?}: {said}");
        assert!(fs::read(here("fetched")).unwrap() == bytes, "{ways:?}");
    }
    let look = "stat -c '%a %s' copied; cat written page; ls -A .ansible/tmp";
    assert_eq!(gateway.exec("alice", look).good(), "640 1048576\nwritten here\nhé 'there' from user");
}
