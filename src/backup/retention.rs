//! Which backups are no longer kept: a decision without I/O.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::Backup;

/// What is kept of each home. A backup stays as long as either rule keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// How many of the newest, however old.
    pub last: u32,
    /// How long each, however many.
    pub age: Duration,
}

/// The backups that no rule keeps. A backup from the future counts as new: a clock that was wrong for a day deletes nothing.
pub fn surplus(backups: &[Backup], keep: Keep, now: SystemTime) -> Vec<&Backup> {
    let mut newest_first: Vec<&Backup> = backups.iter().collect();
    newest_first.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.id.cmp(&b.id)));
    let mut newer: HashMap<&str, u32> = HashMap::new();
    newest_first.retain(|backup| {
        let rank = newer.entry(&backup.home).or_default();
        *rank = rank.saturating_add(1);
        let age = now.duration_since(backup.at).unwrap_or_default();
        *rank > keep.last && age >= keep.age
    });
    newest_first
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn left(ages: &[(&str, u64)], keep: Keep) -> Vec<String> {
        let now = SystemTime::UNIX_EPOCH + 1000 * DAY;
        let backup = |(home, days): &(&str, u64)| Backup {
            id: format!("{home}{days}"),
            home: (*home).to_owned(),
            roots: vec!["home".to_owned()],
            at: now - u32::try_from(*days).unwrap() * DAY,
            bytes: 0,
            files: 0,
            consistent: true,
            settings: None,
        };
        let backups: Vec<Backup> = ages.iter().map(backup).collect();
        let gone: Vec<String> = surplus(&backups, keep, now).iter().map(|backup| backup.id.clone()).collect();
        backups.into_iter().map(|backup| backup.id).filter(|id| !gone.contains(id)).collect()
    }

    #[test]
    fn what_either_rule_keeps_stays() {
        let ages = [("a", 0), ("a", 3), ("a", 10), ("a", 40), ("b", 90), ("b", 100)];
        assert_eq!(left(&ages, Keep { last: 1, age: 5 * DAY }), ["a0", "a3", "b90"]);
        assert_eq!(left(&ages, Keep { last: 3, age: Duration::ZERO }), ["a0", "a3", "a10", "b90", "b100"]);
        assert_eq!(left(&ages, Keep { last: 0, age: 95 * DAY }), ["a0", "a3", "a10", "a40", "b90"]);
        assert_eq!(left(&ages, Keep { last: 99, age: Duration::ZERO }).len(), 6);
    }

    #[test]
    fn a_home_that_is_no_longer_backed_up_keeps_its_last() {
        assert_eq!(left(&[("gone", 900)], Keep { last: 1, age: DAY }), ["gone900"]);
    }

    #[test]
    fn a_backup_from_the_future_is_new() {
        let now = SystemTime::UNIX_EPOCH + DAY;
        let backup = Backup {
            id: "x".to_owned(),
            home: "a".to_owned(),
            roots: vec!["home".to_owned()],
            at: now + DAY,
            bytes: 0,
            files: 0,
            consistent: true,
            settings: None,
        };
        assert!(surplus(std::slice::from_ref(&backup), Keep { last: 0, age: DAY }, now).is_empty());
    }
}
