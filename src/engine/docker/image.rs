//! What Docker says of an image's program, in the engine's words.

use std::time::Duration;

use bollard::models::{HealthConfig, ImageConfig};

use crate::engine::{ImageCheck, ImageProgram};

/// What runs a HEALTHCHECK in shell form where the image names no SHELL.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The program that an image is for. As Docker does: CMD are the arguments of ENTRYPOINT, or the program itself where there is none.
pub(super) fn program(config: ImageConfig) -> ImageProgram {
    let ImageConfig { entrypoint, cmd, working_dir, healthcheck, shell, .. } = config;
    let command = [entrypoint, cmd].into_iter().flatten().flatten().collect();
    let directory = working_dir.filter(|directory| !directory.is_empty()).unwrap_or_else(|| "/".to_owned());
    ImageProgram { command, directory, check: healthcheck.and_then(|check| self::check(check, shell)) }
}

fn check(check: HealthConfig, shell: Option<Vec<String>>) -> Option<ImageCheck> {
    let mut test = check.test?.into_iter();
    let command = match test.next()?.as_str() {
        "CMD" => test.collect(),
        "CMD-SHELL" => {
            let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or_else(|| SHELL.map(str::to_owned).into());
            shell.into_iter().chain(test).collect()
        }
        // NONE, or a word of a later engine.
        _ => return None,
    };
    // Docker counts nanoseconds, and 0 is "not said".
    let span = |nanos: Option<i64>| nanos.and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0).map(Duration::from_nanos);
    Some(ImageCheck {
        command,
        every: span(check.interval),
        timeout: span(check.timeout),
        retries: check.retries.and_then(|retries| u32::try_from(retries).ok()).filter(|retries| *retries > 0),
        grace: span(check.start_period),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn test(test: &[&str], shell: Option<Vec<String>>) -> Option<Vec<String>> {
        let healthcheck = Some(HealthConfig { test: words(test), ..HealthConfig::default() });
        program(ImageConfig { healthcheck, shell, ..ImageConfig::default() }).check.map(|check| check.command)
    }

    #[test]
    fn the_command_is_entrypoint_and_cmd() {
        let of = |entrypoint, cmd| program(ImageConfig { entrypoint, cmd, ..ImageConfig::default() }).command;
        assert_eq!(of(words(&["/run"]), words(&["-p", "80"])), ["/run", "-p", "80"]);
        assert_eq!(of(None, words(&["httpd"])), ["httpd"]);
        assert_eq!(of(words(&[]), None), <[String; 0]>::default());
        assert_eq!(program(ImageConfig { working_dir: Some(String::new()), ..ImageConfig::default() }).directory, "/");
    }

    #[test]
    fn a_healthcheck_is_a_command_or_none() {
        assert_eq!(test(&["CMD", "ask", "me"], None), words(&["ask", "me"]));
        assert_eq!(test(&["CMD-SHELL", "ask || exit 1"], None), words(&["/bin/sh", "-c", "ask || exit 1"]));
        assert_eq!(test(&["CMD-SHELL", "ask"], words(&["/bin/bash", "-ec"])), words(&["/bin/bash", "-ec", "ask"]));
        assert_eq!(test(&["NONE"], None), None);
        assert_eq!(test(&[], None), None);
    }

    #[test]
    fn what_is_not_said_of_a_healthcheck_is_nobodys_zero() {
        let said = HealthConfig {
            test: words(&["CMD", "ask"]),
            interval: Some(1_500_000_000),
            timeout: Some(0),
            retries: Some(0),
            start_period: Some(-1),
            start_interval: None,
        };
        let check = program(ImageConfig { healthcheck: Some(said), ..ImageConfig::default() }).check.unwrap();
        assert_eq!(check.every, Some(Duration::from_millis(1500)));
        assert_eq!((check.timeout, check.retries, check.grace), (None, None, None));
    }
}
