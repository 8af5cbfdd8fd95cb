//! Lists in pages: `limit` says how many, `cursor` where to go on.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;

/// Entries of a page where nobody says how many, and at most.
pub(super) const USUAL: usize = 100;
pub(super) const MOST: usize = 1000;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// The entries, in the order of their names, where nothing else is said.
    pub(super) items: Vec<T>,
    /// The `cursor` of the next page; `null`: this is the last.
    pub(super) next: Option<String>,
}

/// Which of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Part {
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    pub(super) cursor: Option<String>,
}

/// A page of these. The cursor holds the key of the last entry before it, so that what comes and goes meanwhile moves nothing.
pub(super) fn page<T>(mut all: Vec<T>, limit: Option<u32>, cursor: Option<&str>, key: impl Fn(&T) -> String) -> Result<Page<T>, Problem> {
    let limit = limit.map_or(USUAL, |limit| limit as usize);
    if !(1..=MOST).contains(&limit) {
        return Err(Problem::malformed(format!("limit must be from 1 to {MOST}")));
    }
    all.sort_by_cached_key(&key);
    if let Some(cursor) = cursor {
        let after = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let after = after.ok_or_else(|| Problem::malformed("cursor is not one that was given out"))?;
        all.retain(|entry| key(entry) > after);
    }
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more).map(|last| BASE64URL_NOPAD.encode(key(last).as_bytes()));
    Ok(Page { items: all, next })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_together_are_the_whole_list_in_order(names in prop::collection::btree_set("[a-z]{1,4}", 0..40), limit in 1u32..10) {
            let (mut seen, mut cursor) = (Vec::new(), None);
            loop {
                let all: Vec<String> = names.iter().rev().cloned().collect();
                let Page { items, next } = page(all, Some(limit), cursor.as_deref(), Clone::clone).unwrap();
                prop_assert!(items.len() <= limit as usize);
                seen.extend(items);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            prop_assert_eq!(seen, names.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_was_never_given_out_is_refused() {
        for (limit, cursor) in [(Some(0), None), (Some(1001), None), (None, Some("!")), (None, Some("_w"))] {
            assert!(page(vec![String::new()], limit, cursor, Clone::clone).is_err(), "{limit:?} {cursor:?}");
        }
    }
}
