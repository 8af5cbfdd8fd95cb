//! Backups of workspaces, by an administrator's commands and by the clock: made, listed, verified, restored.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/backup.rs"]
mod backup;
#[path = "common/filesystem.rs"]
mod filesystem;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/s3.rs"]
mod s3;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backup::{furnish, look, noise, same, text};
use filesystem::FileSystem;
use gateway::{Done, Gateway, docker, finish, mounts_below, run, template, wait_for};
use serde_json::Value;

/// How long a backup may take: on a busy machine it gets a tenth of what others do.
const PATIENCE: Duration = Duration::from_secs(300);

fn command(gateway: &Gateway, arguments: &[&str]) -> Done {
    let mut command = gateway.innkeeper();
    command.arg("backup").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), PATIENCE)
}

/// Waits until a metric is as wanted, for as long as a few backups may take.
#[track_caller]
fn wait_metric(gateway: &Gateway, name: &str, so: impl Fn(f64) -> bool) {
    wait_long(name, || gateway.metric(name).is_some_and(&so));
}

#[track_caller]
fn wait_long(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn json(gateway: &Gateway, arguments: &[&str]) -> Value {
    serde_json::from_str(&command(gateway, arguments).good()).unwrap()
}

/// Sections with backups into a directory, a volume, and these keys for backups and for homes.
fn sections(target: &Path, backups: &str, homes: &str) -> String {
    sections_to(&text(target), backups, homes)
}

/// The same with backups to anywhere.
fn sections_to(target: &str, backups: &str, homes: &str) -> String {
    let volume = "[[template.default.volume]]\nname = \"data\"\npath = \"/data\"\ndisk = \"1GiB\"\n";
    let template = template("disk = \"1GiB\"");
    format!("\n[backup]\ntarget = \"{target}\"\nkey = \"a key of a test\"\n{backups}\n[home]\n{homes}\n{template}\n{volume}")
}

/// Names among homes, but for what the driver keeps there.
fn entries(homes: &Path) -> Vec<String> {
    let all = fs::read_dir(homes).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<String> = all.filter(|name| !name.starts_with('.')).collect();
    all.sort();
    all
}

fn target() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("innkeeper-target-").tempdir().unwrap()
}

#[test]
fn a_workspace_comes_back_beside_in_place_and_on_another_host() {
    let target = target();
    let sections = sections(target.path(), "every = \"0s\"", "");
    let gateway = Gateway::start(&sections);
    let homes = gateway.state().join("homes");
    gateway.exec("alice", "echo row > /data/rows").good();
    run(gateway.innkeeper().args(["workspace", "env", "alice", "set", "COLOUR=blue"])).good();
    run(gateway.innkeeper().args(["workspace", "limit", "alice", "--pids", "77"])).good();
    furnish(&gateway.home("alice"));
    let was = look(&gateway.home("alice"));
    let rows = look(&homes.join("alice.data"));

    let said = command(&gateway, &["run", "alice"]).good();
    assert!(said.starts_with("alice: backup ") && said.contains("as a crash would have left it"), "{said}");
    assert!(command(&gateway, &["run", "nobody"]).stderr.contains("no workspace nobody is known"));
    let listed = json(&gateway, &["list", "--json"]);
    let first = listed["backups"][0].clone();
    assert_eq!((listed["backups"].as_array().unwrap().len(), &first["workspace"]), (1, &Value::from("alice")));
    assert_eq!((&first["homes"], &first["consistent"]), (&serde_json::json!(["home", "volume.data"]), &Value::from(false)));
    let id = first["id"].as_str().unwrap();
    let table = command(&gateway, &["list", "alice"]).good();
    assert!(table.contains(&id[..12]) && table.contains("data") && table.contains("in use"), "{table}");
    assert_eq!(json(&gateway, &["list", "bob", "--json"])["backups"], serde_json::json!([]));
    assert!(command(&gateway, &["verify"]).good().contains("all as it was written"));

    // Beside, under another name.
    let said = command(&gateway, &["restore", &format!("alice@{}", &id[..12]), "--to", "bob"]).good();
    assert!(said.starts_with("bob is what alice was (2 homes, "), "{said}");
    same(&gateway.home("alice"), &gateway.home("bob"));
    same(&homes.join("alice.data"), &homes.join("bob.data"));
    assert_eq!(gateway.exec("bob", "cat /data/rows; printenv COLOUR").good(), "row\nblue\n");
    assert_eq!(gateway.inspect("bob", "{{.HostConfig.PidsLimit}}"), "77");
    assert!(command(&gateway, &["restore", "alice", "--to", "bob"]).stderr.contains("there is a workspace bob already"));
    assert!(command(&gateway, &["restore", "alice@0000", "--to", "eve"]).stderr.contains("alice has no backup 0000"));
    assert!(command(&gateway, &["restore", "nobody", "--to", "eve"]).stderr.contains("there is no backup of nobody"));
    assert_eq!(command(&gateway, &["restore", "alice"]).status, Some(64), "where to is said");
    assert!(!entries(&homes).iter().any(|name| name.starts_with("eve") || name.starts_with('+')));

    // In place: whoever is in it is told, and what was there is kept.
    let mut terminal = gateway.terminal("alice", "echo mine > ~/new; echo more >> /data/rows; echo u''p; sleep 1000");
    terminal.expect("up");
    let changed = look(&gateway.home("alice"));
    let said = command(&gateway, &["restore", "alice", "--in-place"]).good();
    assert!(said.contains("backup confirm alice"), "{said}");
    terminal.expect("it is being restored from a backup");
    assert!(look(&gateway.home("alice")) == was && look(&homes.join("alice.data")) == rows, "it is what was backed up");
    assert_eq!(gateway.exec("alice", "cat /data/rows; ls new").text(), "row\n");
    assert_eq!(json(&gateway, &["list", "--json"])["unconfirmed"][0]["workspace"], "alice");
    assert!(command(&gateway, &["list"]).good().contains("alice was restored in place at"));
    let refused = command(&gateway, &["restore", "alice", "--in-place"]);
    assert!(refused.status == Some(1) && refused.stderr.contains("confirm alice"), "{refused:?}");
    command(&gateway, &["revert", "alice"]).good();
    assert!(look(&gateway.home("alice")) == changed, "it is what it was before");
    assert_eq!(gateway.exec("alice", "cat /data/rows ~/new").good(), "row\nmore\nmine\n");
    assert!(command(&gateway, &["revert", "alice"]).stderr.contains("nothing is kept of alice"));
    // A volume that was not there before has nothing of the backup's afterwards.
    docker(&["rm", "-f", &gateway.container("alice")]);
    let place = homes.join("alice.data");
    let unique = gateway.state().parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let bound = |line: &str| line.contains(&unique) && line.contains("/homes/alice.data ");
    wait_for("the volume to be let go of", || !std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().any(bound));
    std::fs::remove_dir_all(&place).unwrap();
    command(&gateway, &["restore", "alice", "--in-place"]).good();
    assert!(place.join("rows").exists());
    command(&gateway, &["revert", "alice"]).good();
    assert!(!place.join("rows").exists());
    assert_eq!(gateway.exec("alice", "ls /data").good(), "");

    command(&gateway, &["restore", &format!("alice@{id}"), "--in-place"]).good();
    command(&gateway, &["confirm", "alice"]).good();
    assert!(!entries(&homes).iter().any(|name| name.contains("@replaced@")), "{:?}", entries(&homes));
    assert!(look(&gateway.home("alice")) == was);

    // On a host that has nothing but the configuration.
    let elsewhere = Gateway::start(&sections);
    command(&elsewhere, &["restore", "alice", "--to", "alice"]).good();
    assert!(look(&elsewhere.home("alice")) == was && look(&elsewhere.state().join("homes/alice.data")) == rows);
    assert_eq!(elsewhere.exec("alice", "cat deep/er/and/deeper/file 2>/dev/null; cat /data/rows; printenv COLOUR").text(), "row\nblue\n");

    // Gone, and its backups with it.
    let said = run(elsewhere.innkeeper().args(["workspace", "delete", "alice", "--now", "--backups"])).good();
    assert!(said.contains("and so are its backups"), "{said}");
    assert_eq!(json(&gateway, &["list", "--json"])["backups"], serde_json::json!([]));
    assert!(command(&gateway, &["verify"]).good().contains("0 backups"));
}

/// All that is in a home and in a volume comes back where there is nothing but the configuration: each byte, owner, mode, time and attribute.
fn all_comes_back_on_a_fresh_host(sections: &str) {
    let mut here = Gateway::start(sections);
    let homes = here.state().join("homes");
    here.exec("alice", "true").good();
    let both = ["alice", "alice.data"].map(|name| homes.join(name));
    for (place, file) in both.iter().zip(["only here", "only there"]) {
        furnish(place);
        fs::write(place.join(file), file).unwrap();
    }
    // What a program listens on cannot be kept: it is nothing without the program.
    let sockets = both.each_ref().map(|place| UnixListener::bind(place.join("socket")).unwrap());
    let mut was = both.each_ref().map(|place| look(place));
    let strange = ["sparse", "text", "large", "deep/large again", "empty", "link out", "pipe", "deep/er/and", "deep/er/and/deeper/file"];
    assert!(was.iter().all(|seen| strange.iter().all(|name| seen.contains_key(Path::new(name))) && seen.len() > 280));
    for seen in &mut was {
        seen.remove(Path::new("socket")).unwrap();
    }
    command(&here, &["run", "alice"]).good();
    drop(sockets);
    here.stop();

    let there = Gateway::start(sections);
    assert_ne!(there.state(), here.state());
    assert!(entries(&there.state().join("homes")).is_empty());
    command(&there, &["restore", "alice", "--to", "alice"]).good();
    for (name, seen) in ["alice", "alice.data"].into_iter().zip(&was) {
        let place = there.state().join("homes").join(name);
        let back = look(&place);
        let differ: Vec<_> = seen.iter().filter(|(path, entry)| back.get(*path) != Some(entry)).take(3).collect();
        assert!(differ.is_empty() && back.len() == seen.len(), "{name}: {differ:?}; {} of {}", back.len(), seen.len());
        let holes = fs::metadata(place.join("sparse")).unwrap();
        assert!(holes.len() > 300 << 20 && holes.blocks() * 512 < 1 << 20, "{} bytes for a hole", holes.blocks() * 512);
    }
    assert_eq!(there.exec("alice", "cat 'only here' '/data/only there'").good(), "only hereonly there");
}

#[test]
fn all_comes_back_from_a_directory_on_a_fresh_host() {
    let target = target();
    all_comes_back_on_a_fresh_host(&sections(target.path(), "every = \"0s\"", ""));
}

#[test]
fn all_comes_back_from_a_bucket_on_a_fresh_host() {
    let mut server = s3::Server::start();
    server.make_bucket("homes");
    let sections = sections_to("s3://homes/main", &format!("every = \"0s\"\n{}", server.section("backup")), "");
    all_comes_back_on_a_fresh_host(&sections);
    // What the service says is told, and no secret.
    let wrong = sections.replace(s3::SECRET_KEY, "another-secret");
    let gateway = Gateway::start(&wrong);
    let told =
        |said: &str| said.contains("SignatureDoesNotMatch") && said.contains("backup.s3.access_key") && !said.contains("another-secret");
    let asked = run(gateway.innkeeper().args(["check", "--online"])).text();
    assert!(asked.contains("✗ backup.target: ") && told(&asked), "{asked}");
    gateway.exec("alice", "true").good();
    for arguments in [&["run", "alice"][..], &["list"], &["verify"], &["restore", "alice", "--to", "bob"]] {
        let refused = command(&gateway, arguments);
        assert!(refused.status == Some(1) && told(&refused.stderr), "{arguments:?}: {refused:?}");
    }
    assert!(!gateway.log().contains("another-secret") && !gateway.log().contains("X-Amz"));
    server.kill();
    let asked = run(gateway.innkeeper().args(["check", "--online"])).text();
    assert!(asked.contains("✗ backup.target: ") && asked.contains("backup.s3.endpoint"), "{asked}");
}

#[test]
fn what_cannot_be_read_back_is_found_and_restores_nothing() {
    let target = target();
    let gateway = Gateway::start(&sections(target.path(), "every = \"0s\"", ""));
    gateway.exec("alice", "true").good();
    fs::write(gateway.home("alice").join("file"), noise(3 << 20, 1)).unwrap();
    command(&gateway, &["run"]).good();
    flip_a_bit(target.path());
    let found = command(&gateway, &["verify"]);
    assert_eq!(found.status, Some(1));
    assert!(found.stderr.contains("of alice cannot be restored whole") && found.text().contains("things are wrong"), "{found:?}");
    assert!(gateway.log().contains("the repository is damaged"));
    for arguments in [&["restore", "alice", "--to", "bob"][..], &["restore", "alice", "--in-place"]] {
        let failed = command(&gateway, arguments);
        assert_eq!(failed.status, Some(1), "{failed:?}");
        let left = entries(&gateway.state().join("homes"));
        assert_eq!(left, ["alice", "alice.data"], "{failed:?}");
    }
    assert!(fs::read(gateway.home("alice").join("file")).unwrap() == noise(3 << 20, 1));
    assert_eq!(gateway.exec("alice", "wc -c < file").good(), "3145728\n", "she is let in again");
    flip_a_bit(target.path());
    command(&gateway, &["verify"]).good();
    command(&gateway, &["restore", "alice", "--to", "bob"]).good();
}

#[test]
fn damage_is_found_by_the_clock_and_known_until_all_is_good_again() {
    const DAMAGE: &str = "innkeeper_backup_damage";
    let target = target();
    let clock = |every: &str, percent: u8| {
        sections(target.path(), &format!("every = \"0s\"\nverify_every = \"{every}\"\nverify_percent = {percent}"), "")
    };
    let mut gateway = Gateway::start(&clock("1s", 100));
    gateway.exec("alice", "true").good();
    fs::write(gateway.home("alice").join("file"), noise(3 << 20, 1)).unwrap();
    command(&gateway, &["run"]).good();
    wait_metric(&gateway, "innkeeper_backup_last_verified_timestamp_seconds", |at| at > 0.0);
    assert_eq!(gateway.metric(DAMAGE), Some(0.0));
    flip_a_bit(target.path());
    wait_metric(&gateway, DAMAGE, |wrong| wrong > 0.0);
    assert!(gateway.log().contains("the repository is damaged"));
    // The next gateway knows, and a part that is good does not make the rest so.
    gateway.stop();
    gateway.configure(&clock("30d", 1));
    gateway.up();
    wait_metric(&gateway, DAMAGE, |wrong| wrong > 0.0);
    command(&gateway, &["verify", "--percent", "1"]);
    assert!(gateway.metric(DAMAGE).unwrap() > 0.0);
    // All of it is read as long as something was wrong.
    flip_a_bit(target.path());
    gateway.stop();
    gateway.configure(&clock("1s", 1));
    gateway.up();
    wait_metric(&gateway, DAMAGE, |wrong| wrong == 0.0);
}

/// Changes one bit of the repository's largest file, or changes it back.
fn flip_a_bit(target: &Path) {
    let mut todo = vec![target.join("data")];
    let mut packs = Vec::new();
    while let Some(path) = todo.pop() {
        match fs::read_dir(&path) {
            Ok(all) => todo.extend(all.map(|entry| entry.unwrap().path())),
            Err(_) => packs.push(path),
        }
    }
    let pack = packs.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[1 << 20] ^= 1;
    fs::write(&pack, &bytes).unwrap();
}

#[test]
fn backups_are_made_by_the_clock_kept_for_as_long_as_is_said_and_not_on_a_full_disk() {
    let target = target();
    let mut gateway = Gateway::start(&sections(target.path(), "every = \"30s\"\nkeep_last = 2\nkeep_for = \"0s\"", ""));
    gateway.exec("alice", "echo 1 > file").good();
    gateway.exec("bob", "echo 2 > file").good();
    wait_metric(&gateway, "innkeeper_backups_total", |count| count >= 6.0);
    wait_metric(&gateway, "innkeeper_backups_late", |late| late == 0.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(gateway.metric("innkeeper_backup_last_success_timestamp_seconds").unwrap() > now - PATIENCE.as_secs_f64());
    wait_long("the oldest to be taken out", || gateway.log().contains("old backups taken out"));
    wait_long("few to be left of each", || {
        let listed = json(&gateway, &["list", "--json"]);
        let of = |name: &str| listed["backups"].as_array().unwrap().iter().filter(|backup| backup["workspace"] == name).count();
        (1..=4).contains(&of("alice")) && (1..=4).contains(&of("bob"))
    });
    gateway.stop();
    gateway.configure(&format!(
        "{}\n[limits]\ndisk_floor = \"1000000TiB\"\n",
        sections(target.path(), "every = \"30s\"\nkeep_last = 2\nkeep_for = \"0s\"", "")
    ));
    gateway.up();
    wait_metric(&gateway, "innkeeper_disk_low", |low| low == 1.0);
    let refused = command(&gateway, &["run", "alice"]);
    assert!(refused.status == Some(1) && refused.stderr.contains("limits.disk_floor"), "{refused:?}");
    wait_metric(&gateway, "innkeeper_backup_failures_total", |count| count >= 2.0);
    wait_metric(&gateway, "innkeeper_backups_late", |late| late == 2.0);
    let refused = command(&gateway, &["restore", "alice", "--to", "carol"]);
    assert!(refused.status == Some(1) && refused.stderr.contains("limits.disk_floor"), "{refused:?}");
}

#[test]
fn without_a_target_that_is_said() {
    let gateway = Gateway::start("");
    for arguments in [&["list"][..], &["run"], &["run", "alice"], &["verify"], &["restore", "alice", "--to", "bob"]] {
        let said = command(&gateway, arguments);
        assert!(said.status == Some(1) && said.stderr.contains("`backup.target` is not set"), "{arguments:?}: {said:?}");
    }
}

/// What a backup shows of homes that this driver keeps on this kind of file system, while they are written to.
fn of_one_moment(driver: &str, kind: &str, at_one_moment: bool) {
    let Ok(disk) = FileSystem::make(kind, 2 << 30, "") else { return };
    let target = target();
    let root = disk.path().join("homes");
    let homes = format!("driver = \"{driver}\"\nroot = \"{}\"", text(&root));
    let mut gateway = Gateway::start(&sections(target.path(), "every = \"0s\"", &homes));
    gateway.exec("alice", "echo row > /data/rows; seq 100000 > numbers; mkdir dir; ln numbers dir/same").good();
    // The first line of both is the same at any one moment.
    let writes = "i=0; echo up; while :; do i=$((i+1)); echo $i > ~/a; echo $i > ~/b; done";
    let writing = gateway.hold("alice", writes);
    std::thread::sleep(Duration::from_millis(300));
    let made = json(&gateway, &["run", "alice", "--json"]);
    assert_eq!(made["backups"][0]["consistent"], at_one_moment, "{made}");
    drop(writing);
    assert!(!entries(&root).iter().any(|name| name.starts_with('=')), "the snapshot is gone: {:?}", entries(&root));
    assert!(command(&gateway, &["list"]).good().contains(if at_one_moment { "at one moment" } else { "in use" }));
    command(&gateway, &["restore", "alice", "--to", "bob"]).good();
    let [a, b]: [u64; 2] = ["a", "b"].map(|name| gateway.exec("bob", &format!("cat {name}")).text().trim().parse().unwrap_or(0));
    // Either is empty for a moment, when it is opened to be written.
    let as_at_one_moment = match (a, b) {
        (0, other) | (other, 0) => other > 0,
        (a, b) => a == b || a == b + 1,
    };
    assert!(!at_one_moment || as_at_one_moment, "{a} {b}");
    assert_eq!(gateway.exec("bob", "cat /data/rows; tail -n 1 dir/same; stat -c %h numbers").good(), "row\n100000\n2\n");
    // What was mounted for nothing but a backup is let go of.
    for account in ["alice", "bob"] {
        run(gateway.innkeeper().args(["workspace", "suspend", account, "--reason", "a test"])).good();
    }
    let mounts = || mounts_below(&root.join(".mounts"));
    wait_for("homes to rest", || driver != "loop" || mounts() == 0);
    command(&gateway, &["run"]).good();
    wait_for("homes to rest again", || driver != "loop" || mounts() == 0);
    command(&gateway, &["restore", "alice", "--in-place"]).good();
    command(&gateway, &["revert", "alice"]).good();
    command(&gateway, &["verify"]).good();
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
}

#[test]
fn a_subvolume_is_backed_up_as_of_one_moment() {
    of_one_moment("btrfs", "btrfs", true);
}

#[test]
fn an_image_that_can_be_frozen_and_shared_is_backed_up_as_of_one_moment() {
    of_one_moment("loop", "btrfs", true);
}

#[test]
fn an_image_elsewhere_is_backed_up_in_use_and_let_go_of() {
    of_one_moment("loop", "ext4", false);
}
