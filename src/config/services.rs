//! What is wrong with a template's services.

use std::collections::HashSet;

use super::check::{LONGEST, check_env, require};
use super::problem::Problem;
use crate::units::Span;
use crate::workspace::{Readiness, Service};

/// Most services of a template: each is looked at and listed.
const MOST: usize = 32;

/// Most that all services of a template may be told in, in bytes of text. All go to a container's init in one message of at most 192 KiB,
/// in which what the image says of its own program has its place as well.
const LONGEST_TEXT: usize = 64 * 1024;

/// What each text and each service costs in that message beside its bytes, generously.
const OVERHEAD: usize = 8;

/// Checks the services of a template. `key` is the list's.
pub(super) fn check_services(key: &str, services: &[Service], all: &mut Vec<Problem>) {
    let mut names = HashSet::new();
    let mut images = 0;
    for (number, service) in services.iter().enumerate() {
        let under = |name: &str| format!("{key}.{number}.{name}");
        require(all, names.insert(&service.name), &under("name"), &format!("there is another service called {}", service.name));
        match (service.image, service.command.is_empty()) {
            (false, true) => all.push(Problem::error(under("command"), "must be set, or `image = true` for the image's own program")),
            (true, false) => all.push(Problem::error(under("image"), "and `command` are both set; take one of the two out")),
            (true, true) => images += 1,
            (false, false) => check_command(&under("command"), &service.command, all),
        }
        require(all, !service.image || images <= 1, &under("image"), "is set in another service; the image has but one program");
        check_env(&under("env"), &service.env, all);
        let absolute = |directory: &String| directory.starts_with('/') && !directory.contains('\0');
        let fits = service.directory.as_ref().is_none_or(absolute);
        require(all, fits, &under("directory"), "must be an absolute path, for example \"/srv/app\"");
        if let Some(ready) = &service.ready {
            check_ready(&under("ready"), ready, all);
        }
    }
    require(all, services.len() <= MOST, key, &format!("has more than {MOST} services"));
    let length: usize = services.iter().map(length).sum();
    require(all, length <= LONGEST_TEXT, key, &format!("is {length} bytes of text altogether, and must not be above {LONGEST_TEXT}"));
}

fn check_ready(key: &str, ready: &Readiness, all: &mut Vec<Problem>) {
    let under = |name: &str| format!("{key}.{name}");
    let ways = [ready.port.is_some(), !ready.command.is_empty(), ready.image].into_iter().filter(|set| *set).count();
    require(all, ways == 1, key, "must have exactly one of `port`, `command` and `image = true`");
    require(all, ready.port != Some(0), &under("port"), "must be from 1 to 65535");
    if !ready.command.is_empty() {
        check_command(&under("command"), &ready.command, all);
    }
    for (name, span, least) in [("every", ready.every, 1), ("timeout", ready.timeout, 1), ("grace", ready.grace, 0)] {
        let Some(span) = span else { continue };
        let fits = span.get().subsec_nanos() == 0 && span >= Span::secs(least) && span.get() <= LONGEST;
        require(all, fits, &under(name), &format!("must be whole seconds, at least {least}s and not longer than ten years"));
    }
    require(all, ready.retries != Some(0), &under("retries"), "must be at least 1");
}

fn check_command(key: &str, command: &[String], all: &mut Vec<Problem>) {
    let fits = command.first().is_some_and(|program| !program.is_empty()) && command.iter().all(|word| !word.contains('\0'));
    require(all, fits, key, "must begin with a program, for example [\"python3\", \"app.py\"], and have no zero byte");
}

/// About how long it is in the message to init, in bytes.
fn length(service: &Service) -> usize {
    let ready = service.ready.iter().flat_map(|ready| &ready.command);
    let env = service.env.iter().flat_map(|(name, value)| [name, value]);
    let texts = service.command.iter().chain(env).chain(&service.directory).chain(ready);
    texts.map(|text| text.len() + OVERHEAD).sum::<usize>() + 8 * OVERHEAD
}
