//! Places for connections: so many in all, and so many of one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::source::source_of;

/// The places. The table has an entry for each source that has a connection open, so it is as bounded as those are.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    each: usize,
    sources: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place, for as long as it is held.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many in all, and of each source; 0: as many as in all.
    pub(super) fn new(all: usize, each: usize) -> Self {
        let each = if each == 0 { all } else { each };
        Self { all: Arc::new(Semaphore::new(all)), each, sources: Mutex::default() }
    }

    /// Waits until there is one for somebody.
    pub(super) async fn one(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Gives it to who has come, unless there are as many from there as may be.
    pub(super) fn give(self: &Arc<Self>, permit: OwnedSemaphorePermit, from: IpAddr) -> Option<Place> {
        let source = source_of(from);
        let mut sources = self.sources.lock();
        let count = sources.entry(source).or_default();
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), source, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sources = self.places.sources.lock();
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_source_has_so_many_and_nothing_is_kept_of_who_has_left() {
        let places = Arc::new(Places::new(10, 2));
        let come = async |from: &str| places.give(places.one().await.unwrap(), from.parse().unwrap());
        let (one, two) = (come("2001:db8::1").await.unwrap(), come("2001:db8::2").await.unwrap());
        assert!(come("2001:db8::3").await.is_none(), "one network is one source");
        let mapped = [come("::ffff:10.0.0.1").await, come("10.0.0.1").await, come("10.0.0.1").await];
        assert_eq!(mapped.iter().filter(|place| place.is_some()).count(), 2);
        let other = come("2001:db8:0:1::1").await;
        assert!(other.is_some() && come("10.0.0.2").await.is_some());
        drop(one);
        let again = come("2001:db8::3").await;
        assert!(again.is_some());
        drop((two, mapped, other, again));
        assert!(places.sources.lock().is_empty());
        assert_eq!(places.all.available_permits(), 10);
        let any = Arc::new(Places::new(3, 0));
        let held: Vec<_> =
            [(); 3].map(|()| any.give(Arc::clone(&any.all).try_acquire_owned().unwrap(), "10.0.0.1".parse().unwrap())).into();
        assert!(held.iter().all(Option::is_some));
    }
}
