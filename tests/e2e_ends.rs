//! A workspace is deleted, had back and copied, by an administrator's commands.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/filesystem.rs"]
mod filesystem;
#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::path::Path;
use std::process::Command;

use api::{Api, token};
use filesystem::FileSystem;
use gateway::{Done, Gateway, mounts_below, run, run_with, template, wait_for};
use serde_json::{Value, json};

fn workspace(gateway: &Gateway, arguments: &[&str]) -> Done {
    run(gateway.innkeeper().arg("workspace").args(arguments))
}

fn parsed(gateway: &Gateway, arguments: &[&str]) -> Value {
    serde_json::from_str(&workspace(gateway, arguments).good()).unwrap()
}

/// What is in the directory of homes, but for what its driver keeps there.
fn entries(homes: &Path) -> Vec<String> {
    let all = fs::read_dir(homes).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<String> = all.filter(|name| !name.starts_with('.') && !name.starts_with('+')).collect();
    all.sort();
    all
}

/// A secret that is made up.
const SECRET: &str = "secrets = [\"JWT_SECRET\"]";

#[test]
fn a_deleted_workspace_lets_nobody_in_and_can_be_had_back() {
    let mut gateway = Gateway::start(&template(SECRET));
    gateway.exec("alice", "echo hers >file; mkdir dir; ln file dir/other; chmod 640 file").good();
    let jwt = gateway.exec("alice", "printenv JWT_SECRET").good();
    workspace(&gateway, &["limit", "alice", "--pids", "100"]).good();
    workspace(&gateway, &["env", "alice", "set", "A=1"]).good();
    run_with(gateway.innkeeper().args(["workspace", "secret", "alice", "set", "KEY"]), b"hers-alone").good();
    // A volume goes and comes with it.
    let volume = gateway.state().join("homes/alice.data");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("rows"), "1 2 3").unwrap();
    let mut terminal = gateway.terminal("alice", "echo up; sleep 1000");
    terminal.expect("up");

    let said = workspace(&gateway, &["delete", "alice"]).good();
    assert!(said.starts_with("alice is deleted (2 homes, ") && said.contains("undelete alice` brings it back until "), "{said}");
    terminal.expect("this workspace was deleted");
    assert_eq!(terminal.end().0, Some(77));
    assert_eq!(gateway.container_state("alice"), "", "its container is gone when the command is done");
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("\"deleted; its homes are kept until then\"")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert!(
        line.to_string().contains("alice.data") && line.to_string().contains("\"bytes\":") && line.to_string().contains("\"until\":"),
        "{line}"
    );
    assert!(!gateway.home("alice").exists() && !volume.exists());
    assert_eq!(entries(&gateway.state().join("homes")).iter().filter(|name| name.contains("@deleted@")).count(), 2);

    let refused = |gateway: &Gateway| {
        let done = gateway.exec("alice", "echo in");
        assert_eq!((done.status, done.text().as_str()), (Some(77), ""), "{done:?}");
        assert!(done.stderr.contains("this workspace was deleted"), "{done:?}");
        assert!(!gateway.home("alice").exists());
    };
    refused(&gateway);
    // Again is no different, and a kill makes none.
    assert!(workspace(&gateway, &["delete", "alice"]).good().starts_with("alice is deleted (2 homes, "));
    gateway.kill();
    gateway.up();
    refused(&gateway);
    gateway.exec("bob", "true").good();
    let listed = workspace(&gateway, &["list", "--deleted"]).good();
    assert!(listed.lines().any(|line| line.starts_with("alice  deleted  20") && line.ends_with("alice alice.data")), "{listed}");
    assert_eq!(parsed(&gateway, &["list", "--deleted", "--json"])[0]["name"], "alice");
    for wrong in [&["env", "alice", "set", "A=2"][..], &["copy", "alice", "carol"], &["copy", "bob", "alice"], &["undelete", "bob"]] {
        let done = workspace(&gateway, wrong);
        assert!(done.status == Some(1) && done.stderr.contains("deleted"), "{wrong:?} {done:?}");
    }
    assert!(workspace(&gateway, &["delete", "nobody"]).stderr.contains("no workspace nobody is known"));

    assert_eq!(workspace(&gateway, &["undelete", "alice"]).good().split(" (").next(), Some("alice is back"));
    assert_eq!(gateway.exec("alice", "cat file dir/other; stat -c '%a %h' file; printenv A").good(), "hers\nhers\n640 2\n1\n");
    assert_eq!(fs::read_to_string(volume.join("rows")).unwrap(), "1 2 3");
    let anew = gateway.exec("alice", "printenv JWT_SECRET; printenv KEY").text();
    assert!(anew.lines().count() == 1 && anew.len() > 40 && anew != jwt, "its secrets are gone: {anew}");
    assert_eq!(parsed(&gateway, &["show", "alice", "--json"])["own_limits"]["pids"], 100);
    assert_eq!(workspace(&gateway, &["undelete", "alice"]).status, Some(1));
}

#[test]
fn what_is_deleted_goes_for_good_in_time_or_at_once_and_the_name_begins_anew() {
    let gateway = Gateway::start(&format!("\n[home]\ndeleted_keep = \"2s\"\n{}", template("")));
    let homes = gateway.state().join("homes");
    for (account, arguments) in [("alice", &["delete", "alice"][..]), ("bob", &["delete", "bob", "--now"])] {
        gateway.exec(account, "echo old >file").good();
        workspace(&gateway, &["env", account, "set", "A=1"]).good();
        let said = workspace(&gateway, arguments).good();
        if account == "bob" {
            assert!(said.starts_with("bob is deleted for good (1 home, "), "{said}");
            assert!(entries(&homes).iter().all(|name| !name.starts_with("bob")), "gone when the command is done");
        } else {
            wait_for("it to go for good", || entries(&homes).iter().all(|name| !name.starts_with("alice")));
            wait_for("it to be forgotten", || workspace(&gateway, &["show", "alice"]).status == Some(1));
        }
        assert_eq!(workspace(&gateway, &["undelete", account]).status, Some(1));
        assert_eq!(gateway.exec(account, "ls; printenv A").text(), "", "a new and empty home");
        assert!(homes.join(account).is_dir());
    }
    assert!(gateway.log().contains("deleted for good"));
    // One that was deleted before, too, and is kept for long enough.
    gateway.configure(&template(""));
    gateway.reload();
    gateway.wait_metric("innkeeper_reloads_total{outcome=\"applied\"}", |count| count == 1.0);
    gateway.exec("carol", "true").good();
    workspace(&gateway, &["delete", "carol"]).good();
    workspace(&gateway, &["delete", "carol", "--now"]).good();
    assert_eq!(parsed(&gateway, &["list", "--deleted", "--json"]), Value::Array(Vec::new()));
}

/// Copies, deletes and has back with homes that are kept like this.
fn all_of_it(sections: &str, homes: impl Fn(&Gateway) -> std::path::PathBuf, consistent: bool) {
    let gateway = Gateway::start(&format!("{sections}\n{}", template(&format!("disk = \"64MiB\"\n{SECRET}"))));
    let homes = homes(&gateway);
    gateway.exec("alice", "echo hers >file; ln -s file link; truncate -s 10M holes; mkdir -m 750 dir; touch -d @1000 dir/old").good();
    workspace(&gateway, &["env", "alice", "set", "A=1"]).good();
    workspace(&gateway, &["limit", "alice", "--pids", "100"]).good();
    run_with(gateway.innkeeper().args(["workspace", "secret", "alice", "set", "KEY"]), b"hers-alone").good();
    let jwt = gateway.exec("alice", "printenv JWT_SECRET").good();
    // While she is in it.
    let held = gateway.hold("alice", "echo up; sleep 1000");
    let said = workspace(&gateway, &["copy", "alice", "dave"]).good();
    let how = if consistent { "at one moment" } else { "as a crash would have left it" };
    assert!(said.starts_with("dave has what alice has (1 home") && said.contains(how), "{said}");
    let look = "cat file link; stat -c '%n %s %b %a %Y' holes dir/old; stat -c '%n %a %U' dir; printenv A";
    assert_eq!(gateway.exec("dave", look).good(), gateway.exec("alice", look).good());
    let his = gateway.exec("dave", "printenv JWT_SECRET; printenv KEY").text();
    assert!(his.lines().count() == 1 && his != jwt, "{his}");
    let shown = parsed(&gateway, &["show", "dave", "--json"]);
    assert!(shown["own_limits"]["pids"] == 100 && shown["secrets"].as_array().unwrap().len() == 1, "{shown}");
    gateway.exec("dave", "echo his >file").good();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n", "two, not one");
    let full = gateway.exec("dave", "head -c 100M /dev/zero >big; echo $?").text();
    assert_eq!(full.trim() == "1", !sections.contains("directory"), "the copy is limited as well: {full}");
    for wrong in [["copy", "alice", "dave"], ["copy", "alice", "alice"], ["copy", "nobody", "carol"]] {
        let done = workspace(&gateway, &wrong);
        assert!(done.status == Some(1) && !done.stderr.is_empty(), "{done:?}");
    }
    assert_eq!(entries(&homes), ["alice", "dave"]);

    workspace(&gateway, &["delete", "dave", "--now"]).good();
    workspace(&gateway, &["delete", "alice"]).good();
    drop(held);
    assert_eq!(mounts_below(&homes.join(".mounts")), 0, "nothing of it is mounted");
    workspace(&gateway, &["undelete", "alice"]).good();
    assert_eq!(gateway.exec("alice", "cat link").good(), "hers\n");
    assert_eq!(entries(&homes), ["alice"]);
}

#[test]
fn plain_directories_are_copied_and_come_and_go() {
    all_of_it("\n[home]\ndriver = \"directory\"", |gateway| gateway.state().join("homes"), false);
}

#[test]
fn images_are_copied_and_come_and_go() {
    all_of_it("\n[home]\ndriver = \"loop\"", |gateway| gateway.state().join("homes"), false);
}

#[test]
fn subvolumes_are_copied_and_come_and_go() {
    let disk = FileSystem::make("btrfs", 1 << 30, "").unwrap();
    let root = disk.path().join("homes");
    all_of_it(&format!("\n[home]\ndriver = \"btrfs\"\nroot = \"{}\"", root.display()), |_| root.clone(), true);
}

#[test]
fn a_new_home_starts_with_the_skeleton_of_its_template() {
    let dir = tempfile::tempdir().unwrap();
    let skeleton = dir.path().join("skel");
    fs::create_dir(&skeleton).unwrap();
    fs::write(skeleton.join(".notes"), "from the skeleton\n").unwrap();
    let sections = format!("\n[pool]\nsize = 1\n{}", template(&format!("skeleton = \"{}\"", skeleton.display())));
    let mut gateway = Gateway::start(&sections);
    let look = "cat .notes; stat -c '%U %a' . ; stat -c %U .notes";
    assert_eq!(gateway.exec("alice", look).good(), "from the skeleton\nuser 700\nuser\n");
    // Only what is new: what she does to hers stays.
    gateway.exec("alice", "rm .notes; echo hers >file").good();
    run(Command::new("docker").args(["rm", "-f", &gateway.container("alice")])).good();
    assert_eq!(gateway.exec("alice", "ls -A").good(), "file\n");
    // One that cannot be read makes no home, and half a home least of all.
    gateway.stop();
    let archive = dir.path().join("skel.tar");
    run(Command::new("tar").arg("-C").arg(&skeleton).args(["-cf"]).arg(&archive).arg(".")).good();
    gateway.configure(&format!("\n[pool]\nsize = 1\n{}", template(&format!("skeleton = \"{}\"", archive.display()))));
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, &whole[..1024]).unwrap();
    gateway.up();
    assert_eq!(gateway.exec("bob", "true").status, Some(75));
    assert!(!gateway.home("bob").exists());
    fs::write(&archive, &whole).unwrap();
    assert_eq!(gateway.exec("bob", look).good(), "from the skeleton\nuser 700\nuser\n");
}

/// New homes and volumes start with a snapshot of another workspace, with homes that are kept like this.
fn snapshots(home: &str, homes: impl Fn(&Gateway) -> std::path::PathBuf, consistent: bool) {
    let sections = |skeleton: &str| {
        let volume = format!("\n[[template.default.volume]]\nname = \"data\"\npath = \"/data\"\ndisk = \"64MiB\"\n{skeleton}\n");
        format!("{home}\n{}{volume}", template(&format!("disk = \"64MiB\"\n{skeleton}\n{SECRET}")))
    };
    let mut gateway = Gateway::start(&sections(""));
    let homes = homes(&gateway);
    gateway.exec("alice", "echo hers >file; ln -s file link; mkdir -m 750 dir; touch -d @1000 dir/old; echo 1 >/data/rows").good();
    run_with(gateway.innkeeper().args(["workspace", "secret", "alice", "set", "KEY"]), b"hers-alone").good();
    let jwt = gateway.exec("alice", "printenv JWT_SECRET").good();
    let held = gateway.hold("alice", "echo up; sleep 1000");
    let said = workspace(&gateway, &["snapshot", "alice", "take", "v1"]).good();
    let how = if consistent { "at one moment" } else { "as a crash would have left it" };
    assert!(said.starts_with("alice@v1 is kept (2 homes") && said.contains(how), "{said}");
    assert!(workspace(&gateway, &["snapshot", "alice", "take", "v1"]).stderr.contains("there is a snapshot v1 of alice already"));
    assert!(workspace(&gateway, &["snapshot", "nobody", "take", "v1"]).stderr.contains("no workspace nobody"));
    assert_eq!(workspace(&gateway, &["snapshot", "alice", "list"]).good(), "v1\n");
    let check = || run(gateway.innkeeper().arg("check"));
    gateway.configure(&sections("skeleton = \"workspace:alice@v2\""));
    let missing = check();
    let text = format!("{}{}", missing.text(), missing.stderr);
    assert!(missing.status == Some(1) && text.contains("`innkeeper workspace snapshot alice take v2` takes one"), "{text}");
    gateway.configure(&sections("skeleton = \"workspace:alice@v1\""));
    assert_eq!(check().status, Some(0), "{:?}", check());
    gateway.stop();
    drop(held);
    gateway.up();
    // What she does from now on reaches nobody.
    gateway.exec("alice", "echo changed >file; echo 2 >/data/rows").good();
    let look = "cat file link /data/rows; stat -c '%n %a %U %Y' dir/old; stat -c '%n %a %U' dir . /data";
    for account in ["bob", "carol"] {
        let has = gateway.exec(account, look).good();
        assert_eq!(has, "hers\nhers\n1\ndir/old 644 user 1000\ndir 750 user\n. 700 user\n/data 700 user\n", "{account}");
        let secrets = gateway.exec(account, "printenv JWT_SECRET; printenv KEY").text();
        assert!(secrets.lines().count() == 1 && secrets != jwt, "a secret of its own, and none of hers: {secrets}");
        gateway.exec(account, "echo own >file").good();
    }
    let full = gateway.exec("bob", "head -c 100M /dev/zero >big; echo $?; rm big").text();
    assert_eq!(full.trim() == "1", !home.contains("directory"), "it is limited as any is: {full}");
    let refused = workspace(&gateway, &["snapshot", "alice", "remove", "v1"]);
    assert!(refused.status == Some(1) && refused.stderr.contains("new homes of the template default start with"), "{refused:?}");

    // Of one that is deleted nothing goes to others, and back again it does.
    workspace(&gateway, &["delete", "alice"]).good();
    let none = gateway.exec("dave", "true");
    assert!(none.status == Some(75) && !homes.join("dave").exists(), "{none:?}");
    wait_for("the log to say why", || gateway.log().contains("and alice is deleted"));
    assert_eq!(gateway.exec("bob", "cat file").good(), "own\n", "who has a home is in nobody's way");
    workspace(&gateway, &["undelete", "alice"]).good();
    assert_eq!(gateway.exec("dave", "cat file").good(), "hers\n");
    workspace(&gateway, &["delete", "dave", "--now"]).good();
    workspace(&gateway, &["delete", "alice", "--now"]).good();
    assert!(entries(&homes).iter().all(|name| !name.starts_with("alice")), "{:?}", entries(&homes));
    assert_eq!(gateway.exec("dave", "true").status, Some(75));
    assert!(!homes.join("dave").exists());
    wait_for("the log to say why", || gateway.log().contains("there is no snapshot alice@snapshot@v1"));
}

#[test]
fn directories_start_with_a_snapshot() {
    snapshots("\n[home]\ndriver = \"directory\"", |gateway| gateway.state().join("homes"), false);
}

#[test]
fn images_start_with_a_snapshot() {
    snapshots("\n[home]\ndriver = \"loop\"", |gateway| gateway.state().join("homes"), false);
}

#[test]
fn subvolumes_start_with_a_snapshot_that_shares_what_is_the_same() {
    let disk = FileSystem::make("btrfs", 1 << 30, "").unwrap();
    let root = disk.path().join("homes");
    snapshots(&format!("\n[home]\ndriver = \"btrfs\"\nroot = \"{}\"", root.display()), |_| root.clone(), true);
}

#[test]
fn a_home_is_not_made_of_a_snapshot_that_is_larger_than_it_may_be() {
    let mut gateway = Gateway::start(&template("disk = \"64MiB\""));
    gateway.exec("alice", "head -c 8M /dev/urandom >large").good();
    workspace(&gateway, &["snapshot", "alice", "take", "v1"]).good();
    gateway.stop();
    gateway.configure(&template("disk = \"4MiB\"\nskeleton = \"workspace:alice@v1\""));
    gateway.up();
    assert_eq!(gateway.exec("bob", "true").status, Some(75));
    assert!(!gateway.home("bob").exists());
    wait_for("the log to say why", || gateway.log().contains("and only 4MiB may be"));
    workspace(&gateway, &["limit", "bob", "--disk", "32MiB"]).good();
    assert_eq!(gateway.exec("bob", "wc -c <large").good().trim(), (8 << 20).to_string());
}

#[test]
fn a_workspace_goes_to_another_host_in_one_file() {
    let here = Gateway::start(&template(&format!("disk = \"64MiB\"\n{SECRET}")));
    here.exec("alice", "echo hers >file; ln file other; ln -s file link; truncate -s 10M holes; mkdir -m 750 dir; touch -d @1000 dir/old")
        .good();
    here.exec("alice", "head -c 3M /dev/urandom >noise").good();
    workspace(&here, &["env", "alice", "set", "A=1"]).good();
    workspace(&here, &["limit", "alice", "--pids", "100"]).good();
    run_with(here.innkeeper().args(["workspace", "secret", "alice", "set", "KEY"]), b"hers-alone").good();
    let volume = here.state().join("homes/alice.data");
    fs::create_dir(&volume).unwrap();
    // More than may be in the home: a volume has a limit of its own.
    fs::write(volume.join("rows"), vec![7; 80 << 20]).unwrap();
    let look = "cat file link; stat -c '%n %s %h %a %Y' holes file dir/old; stat -c '%n %a %U' dir; sha256sum noise; printenv A";
    let hers = here.exec("alice", look).good();
    let _held = here.hold("alice", "echo up; sleep 1000");
    let file = here.dir.path().join("alice.export");
    let path = file.to_str().unwrap();
    let said = workspace(&here, &["export", "alice", "--to", path]).good();
    assert!(said.starts_with("alice is in ") && !here.dir.path().join("alice.export.part").exists(), "{said}");
    assert_eq!(workspace(&here, &["export", "alice", "--to", path]).status, Some(1), "nothing is overwritten");
    assert!(workspace(&here, &["export", "nobody", "--to", "-"]).stderr.contains("nothing to export"));
    let whole = fs::read(&file).unwrap();
    assert!(!whole.windows(10).any(|window| window == b"hers-alone"));

    // Kept in another way there.
    let data = "\n[[template.default.volume]]\nname = \"data\"\npath = \"/data\"\ndisk = \"128MiB\"\n";
    let there = Gateway::start(&format!("\n[home]\ndriver = \"loop\"\n{}{data}", template(&format!("disk = \"64MiB\"\n{SECRET}"))));
    let import = |bytes: &[u8]| run_with(there.innkeeper().args(["workspace", "import", "carol", "--from", "-"]), bytes);
    let mut forged = whole.clone();
    forged[whole.len() / 2] ^= 1;
    for (bytes, says) in [
        (&whole[..whole.len() - 5], "cannot be imported"),
        (&whole[..1000], "cannot be imported"),
        (&forged, "cannot be imported"),
        (b"x", "cannot be imported"),
    ] {
        let done = import(bytes);
        assert!(done.status == Some(1) && done.stderr.contains(says), "{done:?}");
        assert_eq!(entries(&there.state().join("homes")), Vec::<String>::new(), "no part of it stays");
        assert_eq!(workspace(&there, &["show", "carol"]).status, Some(1));
    }
    let said = import(&whole).good();
    assert!(said.starts_with("carol is imported (2 homes, "), "{said}");
    assert_eq!(entries(&there.state().join("homes")), ["carol", "carol.data"]);
    assert_eq!(there.exec("carol", look).good(), hers);
    assert_eq!(there.exec("carol", "wc -c </data/rows").good().trim(), (80 << 20).to_string());
    assert_eq!(parsed(&there, &["show", "carol", "--json"])["own_limits"]["pids"], 100);
    let secrets = there.exec("carol", "printenv JWT_SECRET; printenv KEY").text();
    assert_eq!(secrets.lines().count(), 1, "its own, and none of hers: {secrets}");
    let again = workspace(&there, &["import", "carol", "--from", path]);
    assert!(again.status == Some(1) && again.stderr.contains("carol already"), "{again:?}");
}

/// Every file below a directory, and every column of the database in it, that has this name in it or is called by it; but for the audit trail,
/// whose events stay for as long as it is kept, and the accounts, which are not the workspace's.
fn traces(state: &Path, name: &str) -> Vec<String> {
    let is_in = |bytes: &[u8]| bytes.windows(name.len()).any(|window| window == name.as_bytes());
    let (mut found, mut open) = (Vec::new(), vec![state.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if path == state.join("audit") || path == state.join("accounts.toml") {
                continue;
            }
            let called = is_in(path.strip_prefix(state).unwrap().as_os_str().as_encoded_bytes());
            if called || meta.is_file() && is_in(&fs::read(&path).unwrap()) {
                found.push(path.display().to_string());
            }
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    let database = rusqlite::Connection::open(state.join("innkeeper.db")).unwrap();
    let mut tables = database.prepare("select name from sqlite_master where type = 'table'").unwrap();
    let tables: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(tables.len() >= 9, "{tables:?}");
    for table in tables {
        let mut all = database.prepare(&format!("select * from {table}")).unwrap();
        let columns: Vec<String> = all.column_names().map(str::to_owned).collect();
        let mut rows = all.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for (number, column) in columns.iter().enumerate() {
                if let rusqlite::types::ValueRef::Text(bytes) | rusqlite::types::ValueRef::Blob(bytes) = row.get_ref(number).unwrap()
                    && is_in(bytes)
                {
                    found.push(format!("{table}.{column}"));
                }
            }
        }
    }
    found
}

/// What the trail says was removed in this step of a workspace's end.
fn removal(gateway: &Gateway, name: &str, step: &str) -> Value {
    let is_it = |line: &str| line.contains("\"removed\"") && line.contains(&format!("\"step\":\"{step}\""));
    let shown = gateway.trail(&["--workspace", name], |shown| shown.lines().any(is_it));
    serde_json::from_str(shown.lines().find(|line| is_it(line)).unwrap()).unwrap()
}

#[test]
fn what_the_trail_says_was_removed_is_gone_and_nothing_names_it_any_more() {
    const NAME: &str = "zebra-7";
    let (target, lent) = (tempfile::Builder::new().prefix("innkeeper-target-").tempdir().unwrap(), tempfile::tempdir().unwrap());
    let volume = "\n[[template.default.volume]]\nname = \"data\"\npath = \"/data\"\ndisk = \"1GiB\"\n";
    let sections = |keep: &str| {
        let backup = format!("[backup]\ntarget = \"{}\"\nkey = \"a key of a test\"\nevery = \"0s\"", target.path().display());
        let mounts = format!("[mounts]\nallow = [\"{}\"]", lent.path().display());
        let home = format!("[home]\ndeleted_keep = \"{keep}\"");
        format!("\n{backup}\n{mounts}\n{home}\n{}{volume}", template(&format!("disk = \"1GiB\"\nrecording = \"terminals\"\n{SECRET}")))
    };
    let mut gateway = Gateway::start(&sections("2s"));
    let state = gateway.state();
    let admin = Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "root", &["admin"])));
    let furnish = |gateway: &Gateway| {
        gateway.exec(NAME, "echo hers >file; echo 1 >/data/rows").good();
        let mut terminal = gateway.terminal(NAME, "echo up; sleep 1000");
        terminal.expect("up");
        for arguments in [
            &["limit", NAME, "--pids", "100"][..],
            &["env", NAME, "set", "A=1"],
            &["mount", NAME, "add", lent.path().to_str().unwrap(), "/lent"],
            &["snapshot", NAME, "take", "v1"],
        ] {
            workspace(gateway, arguments).good();
        }
        run_with(gateway.innkeeper().args(["workspace", "secret", NAME, "set", "KEY"]), b"hers-alone").good();
        run(gateway.innkeeper().args(["backup", "run", NAME])).good();
        token(&mut gateway.innkeeper(), "robot", &["workspace:zebra-7"]);
        let asked = json!({ "snapshot": { "snapshot": "v2" } });
        let answer = admin.ask_with("POST", "/workspaces/zebra-7/tasks", Some(&asked), &[("Idempotency-Key", "once")]);
        assert_eq!(answer.status, 200, "{answer:?}");
        (terminal, gateway.inspect(NAME, "{{.Id}}"))
    };
    let home = |removed: &Value, name: &str| {
        let found = removed["homes"].as_array().unwrap().iter().find(|home| home["name"] == name).cloned().unwrap();
        assert!(found["bytes"].as_u64().unwrap() > 0 && found["inodes"].as_u64().unwrap() >= 2, "{removed}");
    };
    let is_gone = |gateway: &Gateway| {
        assert_eq!(gateway.container_state(NAME), "");
        assert_eq!(workspace(gateway, &["show", NAME]).status, Some(1));
        let recordings = run(gateway.innkeeper().args(["recording", "list", "--json"])).good();
        assert!(!recordings.contains(NAME), "{recordings}");
        assert!(!run(gateway.innkeeper().args(["token", "list"])).good().contains("robot"));
        assert_eq!(mounts_below(&state.join("homes")), 0);
        assert_eq!(traces(&state, NAME), Vec::<String>::new());
    };
    gateway.add_account(NAME);

    // At once.
    let (terminal, container) = furnish(&gateway);
    assert!(!traces(&state, NAME).is_empty(), "it is looked for where it is");
    workspace(&gateway, &["delete", NAME, "--now", "--backups"]).good();
    let event = removal(&gateway, NAME, "deleted-for-good");
    let removed = &event["removed"];
    assert_eq!(event["container"], container, "{event}");
    home(removed, NAME);
    home(removed, "zebra-7.data");
    for (what, expected) in [
        ("snapshots", json!(["v1", "v2"])),
        ("sessions", json!(1)),
        ("secrets", json!(2)),
        ("variables", json!(1)),
        ("mounts", json!(1)),
        ("settings", json!(true)),
        ("tokens", json!(1)),
        ("answers", json!(1)),
        ("recordings", json!(1)),
        ("backups", json!(1)),
        ("backups-kept", json!(false)),
        ("accounts-kept", json!([NAME])),
        ("kept-until", Value::Null),
    ] {
        assert_eq!(removed[what], expected, "{what}: {event}");
    }
    drop(terminal);
    is_gone(&gateway);
    assert!(!run(gateway.innkeeper().args(["backup", "list"])).good().contains(NAME));
    let again = admin.ask_with(
        "POST",
        "/workspaces/zebra-7/tasks",
        Some(&json!({ "snapshot": { "snapshot": "v2" } })),
        &[("Idempotency-Key", "once")],
    );
    assert_eq!((again.status, again.replayed, again.body), (200, true, json!({})), "done once, and it says no more of what");

    // First out of sight, and for good in time: what went when is in two events. Its backups stay.
    gateway.stop();
    gateway.configure(&sections("3s"));
    fs::remove_dir_all(state.join("audit")).unwrap();
    gateway.up();
    let admin = Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "root-2", &["admin"])));
    gateway.exec(NAME, "echo again >file").good();
    workspace(&gateway, &["env", NAME, "set", "A=1"]).good();
    run(gateway.innkeeper().args(["backup", "run", NAME])).good();
    let container = gateway.inspect(NAME, "{{.Id}}");
    admin.good(200, "DELETE", "/workspaces/zebra-7", None);
    let event = removal(&gateway, NAME, "deleted");
    let removed = &event["removed"];
    assert_eq!((&event["container"], &removed["secrets"], &removed["variables"]), (&json!(container), &json!(1), &json!(0)), "{event}");
    assert!(removed["kept-until"].as_str().unwrap().starts_with("20"), "{event}");
    home(removed, NAME);
    let event = removal(&gateway, NAME, "deleted-for-good");
    let removed = &event["removed"];
    assert_eq!((&event["container"], &removed["secrets"], &removed["variables"]), (&Value::Null, &json!(0), &json!(1)), "{event}");
    assert_eq!((&removed["backups"], &removed["backups-kept"]), (&json!(0), &json!(true)), "{event}");
    home(removed, NAME);
    is_gone(&gateway);
    assert!(run(gateway.innkeeper().args(["backup", "list"])).good().contains(NAME), "as docs/homes.md says");
}
