//! The input of all channels of one connection: whose client is held back, and the bound on all of it together.
//!
//! Knows how much waits where; nothing of what it is or where it goes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use russh::ChannelId;

use super::input::Input;

/// Bytes of all channels together from which on nothing is read from the connection. A channel that is not taken from keeps about 3 MiB, so
/// that twenty of them can stand still before the others do.
const CROWDED: usize = 64 << 20;

/// How long the connection stands still before whoever has most waiting is ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether there is room again.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// All channels' input.
#[derive(Default)]
pub(super) struct Inputs {
    by_channel: Mutex<HashMap<ChannelId, Weak<Input>>>,
    waiting: Arc<AtomicUsize>,
}

impl Inputs {
    /// The input of a channel from now on, for as long as somebody holds it.
    pub(super) fn begin(&self, id: ChannelId) -> Arc<Input> {
        let input = Arc::new(Input::counted(self.waiting.clone()));
        let by_channel = &mut *self.by_channel.lock();
        by_channel.retain(|_, input| input.strong_count() > 0);
        by_channel.insert(id, Arc::downgrade(&input));
        input
    }

    /// Whether so much waits on this channel that its client should send no more.
    pub(super) fn is_full(&self, id: ChannelId) -> bool {
        self.by_channel.lock().get(&id).and_then(Weak::upgrade).is_some_and(|input| input.is_full())
    }

    /// Whether that is so on any.
    pub(super) fn is_any_full(&self) -> bool {
        self.by_channel.lock().values().filter_map(Weak::upgrade).any(|input| input.is_full())
    }

    /// Whether more waits than one connection may keep.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > CROWDED
    }

    /// Waits until that is over. What it takes to get there, in the end, is ended.
    pub(super) async fn relieve(&self) {
        let relieved = async {
            while self.is_crowded() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(PATIENCE, relieved).await.is_err() {
            let all: Vec<_> = self.by_channel.lock().values().filter_map(Weak::upgrade).collect();
            if let Some(most) = all.iter().max_by_key(|input| input.waiting()) {
                most.give_up();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// The library makes no numbers for others, except of what it parses.
    fn id(number: u8) -> ChannelId {
        let mut wire: &[u8] = &[0, 0, 0, number];
        russh::keys::ssh_encoding::Decode::decode(&mut wire).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn many_channels_have_one_bound_and_the_fullest_is_ended() {
        let inputs = Inputs::default();
        let channels: Vec<_> = (0..40).map(|number| inputs.begin(id(number))).collect();
        for (number, channel) in channels.iter().enumerate() {
            channel.push(&Bytes::from(vec![0; if number == 7 { 3 << 20 } else { 2 << 20 }]));
        }
        assert!(inputs.is_crowded() && inputs.is_full(id(3)) && inputs.is_any_full());
        inputs.relieve().await;
        assert!(channels[7].is_stuck() && channels[7].gone().is_cancelled());
        assert!(channels.iter().filter(|channel| channel.is_stuck()).count() == 1);
        drop(channels);
        assert!(!inputs.is_crowded() && !inputs.is_any_full(), "what is let go counts no more");
        inputs.begin(id(50));
        assert_eq!(inputs.by_channel.lock().len(), 1);
    }
}
