//! How a workspace stands, told to people who ask inside it (`innkeeper-status`), and how long they may keep it running.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::directory::Directory;
use super::driver::Handle;
use super::recipe;
use crate::attach::Standing;
use crate::engine::ContainerId;
use crate::home::Usage;
use crate::name::WorkspaceName;

impl Directory {
    /// Answers questions from inside containers, one after the other, until told to stop.
    pub(super) async fn answer_questions(self, stop: CancellationToken) {
        let Some(mut questions) = self.house.parts.attach.questions() else { return };
        loop {
            let question = tokio::select! {
                question = questions.recv() => question,
                () = stop.cancelled() => return,
            };
            let Some(question) = question else { return };
            // Who has hung up meanwhile needs no answer.
            let _ = question.answer.send(self.standing(&question.container).await);
        }
    }

    /// How the workspace of this container stands; nothing of one that is nobody's.
    async fn standing(&self, container: &ContainerId) -> Standing {
        let of_container = |handle: &Handle| handle.seen.borrow().running.as_ref() == Some(container);
        let found = self.drivers.iter().find(|entry| of_container(entry.value())).map(|entry| (entry.key().clone(), entry.value().clone()));
        let Some((name, handle)) = found else { return Standing::default() };
        let template = handle.seen.borrow().record.template.clone();
        let Ok(recipe) = self.house.recipe(Some(&template)) else { return Standing::default() };
        Standing { text: self.describe(&name, &handle, container, &recipe.template).await, longest_lease: recipe.template.keep_max.get() }
    }

    async fn describe(&self, name: &WorkspaceName, handle: &Handle, container: &ContainerId, template: &super::Template) -> String {
        let mut text = String::new();
        let mut line = |what: &str, words: String| text.push_str(&format!("{what:<10}{words}\n"));
        line("workspace", name.to_string());
        let limits = handle.seen.borrow().limits.unwrap_or_else(|| template.limits());
        match self.house.engine().usage(container).await {
            Ok(usage) => {
                line("memory", format!("{} of {}", amount(usage.memory), limits.memory));
                line("processes", format!("{} of {}", usage.pids, limits.pids));
                line("cpu", format!("{} at once at most, {} used so far", limits.cpus, span(usage.cpu)));
            }
            Err(_) => line("limits", format!("memory {}, processes {}, cpus {}", limits.memory, limits.pids, limits.cpus)),
        }
        let volumes = handle.seen.borrow().volumes.clone();
        let (house, trees) = (Arc::clone(&self.house), recipe::trees(name, volumes.keys()));
        let homes = self.house.on_disk(move || {
            let usages: Result<Vec<_>, _> = trees.iter().map(|id| house.parts.homes.usage(id)).collect();
            Ok((usages?, house.parts.homes.free()?))
        });
        if let Ok((usages, free)) = homes.await {
            let mut usages = usages.iter().map(Option::as_ref);
            line("home", home(usages.next().flatten(), free));
            for ((volume, path), usage) in volumes.iter().zip(usages) {
                let usage = usage.map_or_else(|| "not measured yet".to_owned(), |usage| used(usage).join(", "));
                line("volume", format!("{volume} at {path}: {usage}"));
            }
        }
        let (rules, seen) = (self.house.rules.load(), handle.seen.borrow().clone());
        let sessions = handle.leases.count();
        let then = match (rules.idle_limit(&seen), handle.leases.idle()) {
            (None, _) => "never stopped for being idle".to_owned(),
            (Some(limit), None) => format!("stopped {} after the last has ended", span(limit)),
            (Some(limit), Some(idle)) => format!("idle for {}, stopped after {}", span(idle), span(limit)),
        };
        line("sessions", format!("{sessions} now; {then}"));
        let (recorded, watched) = self.house.roll.seen(name);
        if recorded > 0 {
            line("recording", format!("{recorded} of them, of which {watched} are watched by an administrator right now"));
        }
        if let Some(left) = self.life(&rules, &seen, container).left() {
            line("lifetime", format!("{} left", span(left)));
        }
        text
    }
}

/// What there is in a home, and how much room.
fn home(usage: Option<&Usage>, free: u64) -> String {
    let mut parts = usage.map(used).unwrap_or_default();
    parts.push(format!("{} free on its disk", amount(free)));
    parts.join(", ")
}

/// What there is in a home or a volume, and may be.
fn used(usage: &Usage) -> Vec<String> {
    let of = |limit: Option<String>| limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
    let bytes = format!("{}{}", amount(usage.bytes), of(usage.limit.bytes.map(|limit| amount(limit).to_string())));
    let inodes = usage.inodes.map(|inodes| format!("{inodes}{} files", of(usage.limit.inodes.map(|limit| limit.to_string()))));
    std::iter::once(bytes).chain(inodes).collect()
}

/// To the digit that means something.
fn amount(bytes: u64) -> bytesize::ByteSize {
    bytesize::ByteSize(bytes)
}

/// In whole seconds.
fn span(span: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(span.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Quota;

    #[test]
    fn a_homes_use_is_said_against_its_limits() {
        let usage = |inodes, limit| Usage { bytes: 3 << 30, inodes, limit };
        let all = usage(Some(12), Quota { bytes: Some(50 << 30), inodes: Some(1000) });
        assert_eq!(home(Some(&all), 1 << 30), "3.0 GiB of 50.0 GiB, 12 of 1000 files, 1.0 GiB free on its disk");
        assert_eq!(home(Some(&usage(None, Quota::default())), 1 << 30), "3.0 GiB, 1.0 GiB free on its disk");
        assert_eq!(home(None, 1 << 30), "1.0 GiB free on its disk");
    }
}
