//! Which variables a client may set, and how many. Knows names and sizes; nothing of what they are for.

use std::collections::BTreeMap;

use crate::name::VariableName;

/// Variables that one channel may set, as sshd has it.
const MAX_VARIABLES: usize = 128;

/// Longest name and value together, in bytes.
const MAX_VARIABLE: usize = 4 * 1024;

/// All names and values of one channel together, in bytes.
const MAX_TOTAL: usize = 64 * 1024;

/// The names that `accept_env` allows.
#[derive(Debug, Clone)]
pub(super) struct AcceptEnv {
    exact: Vec<String>,
    beginnings: Vec<String>,
}

/// The variables of one channel.
#[derive(Debug, Default)]
pub(super) struct Environment {
    variables: BTreeMap<String, String>,
    bytes: usize,
}

// === impl AcceptEnv ===

impl AcceptEnv {
    /// From patterns: a name, or a beginning with a `*` after it.
    pub(super) fn new(patterns: &[String]) -> Self {
        let (beginnings, exact): (Vec<_>, Vec<_>) = patterns.iter().cloned().partition(|pattern| pattern.ends_with('*'));
        Self { exact, beginnings: beginnings.into_iter().map(|pattern| pattern.trim_end_matches('*').to_owned()).collect() }
    }

    fn allows(&self, name: &str) -> bool {
        let listed = self.exact.iter().any(|exact| exact == name) || self.beginnings.iter().any(|beginning| name.starts_with(beginning));
        // Whatever the configuration says.
        VariableName::fits(name) && listed
    }
}

// === impl Environment ===

impl Environment {
    /// Sets a variable if that is allowed and there is room; says whether it did.
    pub(super) fn set(&mut self, accept: &AcceptEnv, name: &str, value: &str) -> bool {
        let size = name.len() + value.len();
        if size > MAX_VARIABLE || value.contains('\0') || !accept.allows(name) {
            return false;
        }
        let replaced = self.variables.get(name).map_or(0, |old| name.len() + old.len());
        let bytes = self.bytes - replaced + size;
        if bytes > MAX_TOTAL || (replaced == 0 && self.variables.len() == MAX_VARIABLES) {
            return false;
        }
        self.bytes = bytes;
        self.variables.insert(name.to_owned(), value.to_owned());
        true
    }

    /// The variables, and none from now on.
    pub(super) fn take(&mut self) -> Vec<(String, String)> {
        self.bytes = 0;
        std::mem::take(&mut self.variables).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accept(patterns: &[&str]) -> AcceptEnv {
        AcceptEnv::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_is_listed_and_never_what_changes_the_code_that_runs() {
        let listed = accept(&["LANG", "LC_*"]);
        assert!(listed.allows("LANG") && listed.allows("LC_ALL"));
        assert!(!listed.allows("LANGUAGE") && !listed.allows("TERM") && !listed.allows(""));
        let all = accept(&["*"]);
        for never in ["LD_PRELOAD", "BASH_ENV", "ENV", "PATH", "SSH_CONNECTION", "BASH_FUNC_ls%%", "A=B", "A B", "1A", "É"] {
            assert!(!all.allows(never), "{never}");
        }
        assert!(all.allows("ANYTHING_ELSE"));
    }

    #[test]
    fn a_variable_set_twice_has_its_last_value() {
        let (all, mut environment) = (accept(&["*"]), Environment::default());
        assert!(environment.set(&all, "A", "1") && environment.set(&all, "A", "2"));
        assert_eq!(environment.take(), [("A".to_owned(), "2".to_owned())]);
    }

    proptest! {
        #[test]
        fn what_is_held_stays_bounded(sets in prop::collection::vec(("[A-C]{1,3}", 0usize..5000), 0..400)) {
            let (all, mut environment) = (accept(&["*"]), Environment::default());
            for (name, length) in sets {
                environment.set(&all, &name, &"x".repeat(length));
                let bytes: usize = environment.variables.iter().map(|(name, value)| name.len() + value.len()).sum();
                prop_assert_eq!(bytes, environment.bytes);
                prop_assert!(bytes <= MAX_TOTAL && environment.variables.len() <= MAX_VARIABLES);
            }
        }
    }
}
