//! What is wrong with a template's volumes.

use std::path::Path;

use super::check::{check_skeleton, require};
use super::problem::Problem;
use crate::workspace::Template;

/// Most volumes of a template: each is a mount of every container, and may be a loop device.
const MOST: usize = 8;

/// The longest path of one, in bytes.
const LONGEST_PATH: usize = 128;

/// Where a container has its programs, its devices, what the kernel says, and innkeeper's own. A volume there would hide it, or be hidden.
const TAKEN: [&str; 14] =
    ["/proc", "/sys", "/dev", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/run", "/var/run", "/.innkeeper"];

/// Checks where the volumes of a template are. `key` is the list's.
pub(super) fn check_volumes(key: &str, template: &Template, all: &mut Vec<Problem>) {
    let volumes = &template.volume;
    require(all, volumes.len() <= MOST, key, &format!("has more than {MOST} volumes"));
    for (number, volume) in volumes.iter().enumerate() {
        let under = |name: &str| format!("{key}.{number}.{name}");
        let before = &volumes[..number];
        let distinct = before.iter().all(|other| other.name != volume.name);
        require(all, distinct, &under("name"), &format!("there is another volume called {}", volume.name));
        check_skeleton(&under("skeleton"), volume.skeleton.as_ref(), all);
        let problem = if !is_plain(&volume.path) {
            let form = "must be an absolute path of letters, digits and `._+@-`, without `..`";
            Some(format!("{form}, of at most {LONGEST_PATH} bytes, for example \"/data\""))
        } else if let Some(taken) = TAKEN.iter().find(|taken| Path::new(&volume.path).starts_with(taken)) {
            Some(format!("is in {taken}, which is the container's own; write for example \"/data\""))
        } else if overlap(&volume.path, &template.home) {
            Some(format!("is in or around the home, {}; write for example \"/data\"", template.home))
        } else {
            let other = before.iter().find(|other| overlap(&volume.path, &other.path));
            other.map(|other| format!("is in or around that of the volume {}, {}", other.name, other.path))
        };
        if let Some(problem) = problem {
            all.push(Problem::error(under("path"), problem));
        }
    }
}

/// Whether it is an absolute path that is the same wherever it is written: in a label, in a command that a person is told, in the engine.
fn is_plain(path: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._+@-".contains(c);
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(fits);
    path.len() <= LONGEST_PATH && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part))
}

/// Whether one is the other, or in it.
fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (Path::new(one), Path::new(other));
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Volume;

    /// What is wrong with volumes of these names at these paths, as keys.
    fn wrong(volumes: &[(&str, &str)]) -> Vec<String> {
        let volume = |(name, path): &(&str, &str)| Volume { name: name.parse().unwrap(), path: (*path).to_owned(), ..Volume::default() };
        let template = Template { volume: volumes.iter().map(volume).collect(), ..Template::default() };
        let mut all = Vec::new();
        check_volumes("volume", &template, &mut all);
        all.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn a_volume_is_where_nothing_else_is() {
        for path in ["/data", "/srv/a.b-c", "/home/other", "/home/user2", "/var/cache", "/library", "/etcetera", "/opt/x@1+2"] {
            assert!(wrong(&[("a", path)]).is_empty(), "{path}");
        }
        for path in ["", "/", "data", "/data/", "//data", "/a/../b", "/a/./b", "/a b", "/a:b", "/a,b", "/$HOME", "/ä", "/a\n"] {
            assert_eq!(wrong(&[("a", path)]), ["volume.0.path"], "{path}");
        }
        for path in ["/proc", "/sys/fs", "/dev/x", "/etc", "/usr/local/x", "/bin", "/sbin", "/lib", "/lib64/x", "/run/x", "/.innkeeper"] {
            assert_eq!(wrong(&[("a", path)]), ["volume.0.path"], "{path}");
        }
        for path in ["/home/user", "/home/user/data", "/home"] {
            assert_eq!(wrong(&[("a", path)]), ["volume.0.path"], "{path}");
        }
        assert_eq!(wrong(&[("a", &format!("/{}", "x".repeat(LONGEST_PATH)))]), ["volume.0.path"]);
    }

    #[test]
    fn volumes_are_distinct_apart_and_few() {
        assert!(wrong(&[("a", "/data"), ("b", "/data2"), ("c", "/cache/x"), ("d", "/cache/y")]).is_empty());
        assert_eq!(wrong(&[("a", "/x"), ("a", "/y")]), ["volume.1.name"]);
        assert_eq!(wrong(&[("a", "/x"), ("b", "/x")]), ["volume.1.path"]);
        assert_eq!(wrong(&[("a", "/x/y"), ("b", "/x")]), ["volume.1.path"]);
        assert_eq!(wrong(&[("a", "/x"), ("b", "/x/y")]), ["volume.1.path"]);
        let many: Vec<(String, String)> = (0..=MOST).map(|number| (format!("v{number}"), format!("/v{number}"))).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, path)| (name.as_str(), path.as_str())).collect();
        assert_eq!(wrong(&many), ["volume"]);
        assert!(wrong(&many[..MOST]).is_empty());
    }
}
