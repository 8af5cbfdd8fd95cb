//! What a workspace's container is doing, and what is to be done next. Pure: no time, no I/O, no waiting.
//!
//! ```text
//!            wanted            admitted              ready                   stop
//!   absent ─────────▶ queued ───────────▶ creating ─────────▶ running ───────────────▶ stopping
//!      ▲                │ ▲   (claimed from the pool,          │ ▲ │ died                 │
//!      │ removed        │ │    or made)                 paused ▼ │ ▼                      │ stopped
//!      │      abandoned ▼ │ wanted                      (wanted: starting)                ▼
//!      └──────────────── stopped ◀─────────────────────────────────────────────────────────
//!                         queued ─▶ starting ─▶ running
//! ```
//! Upgraded while it runs, it is `starting` until it runs again, in another container or in the same.
//! Any action may fail. Then nothing is assumed: the state is `Unknown` until the engine was asked, and what it says is where things
//! go on from. At most one action is under way; its end is an event.

use crate::engine::{ContainerId, ContainerState};

/// What a workspace's container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// There is none.
    Absent,
    /// Somebody wants it and waits for a place; the stopped container, if there is one.
    Queued(Option<ContainerId>),
    /// One is being claimed or made.
    Creating,
    /// It is being started, or let go on after a pause.
    Starting(ContainerId),
    /// It runs.
    Running(ContainerId),
    /// Somebody froze it.
    Paused(ContainerId),
    /// It is being stopped.
    Stopping(ContainerId),
    /// It stands still, and is kept.
    Stopped(ContainerId),
    /// Something failed, or was missed: only the engine knows.
    Unknown,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Somebody wants it to run.
    Wanted,
    /// There is a place for it.
    Admitted,
    /// Nobody wants it any more.
    Abandoned,
    /// The action under way ended well, and this container runs.
    Ready(ContainerId),
    /// It should stop.
    Stop,
    /// Another container should be tried in its place.
    Upgrade,
    /// It should go, if it stands still.
    Remove,
    /// The action under way ended well, and the container stands still.
    Halted,
    /// The action under way ended in there being no container.
    Gone,
    /// The action under way failed.
    Failed,
    /// The engine was asked: this is how it is.
    Observed(Option<(ContainerId, ContainerState)>),
    /// Something may have happened to it: a look is due.
    Doubted,
}

/// What is to be done. All of it is done by the workspace's one driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Get a place.
    Admit,
    /// Claim a container from the pool, or make one.
    Acquire,
    /// Start this one.
    Start(ContainerId),
    /// Let this one go on.
    Unpause(ContainerId),
    /// Stop this one.
    Stop(ContainerId),
    /// Stop this one, and try another in its place.
    Upgrade(ContainerId),
    /// Remove this one: it cannot be used.
    Discard(ContainerId),
    /// Give this one the limits that are wished for. Changes no state.
    Adjust(ContainerId),
    /// Ask the engine.
    Observe,
}

impl State {
    /// Where an event leads, and what is to be done then.
    pub(super) fn on(self, event: Event) -> (Self, Option<Action>) {
        use Event as E;
        use State as S;
        match (self, event) {
            (S::Absent, E::Wanted) => (S::Queued(None), Some(Action::Admit)),
            (S::Stopped(id), E::Wanted) => (S::Queued(Some(id)), Some(Action::Admit)),
            // Frozen, it kept its place.
            (S::Paused(id), E::Wanted) => (S::Starting(id.clone()), Some(Action::Unpause(id))),
            (S::Unknown, E::Wanted | E::Doubted | E::Stop) => (S::Unknown, Some(Action::Observe)),

            (S::Queued(None), E::Admitted) => (S::Creating, Some(Action::Acquire)),
            (S::Queued(Some(id)), E::Admitted) => (S::Starting(id.clone()), Some(Action::Start(id))),
            (S::Queued(None), E::Abandoned | E::Failed) => (S::Absent, None),
            (S::Queued(Some(id)), E::Abandoned | E::Failed) => (S::Stopped(id), None),

            (S::Creating | S::Starting(_), E::Ready(id)) => (S::Running(id), None),

            (S::Running(id) | S::Paused(id), E::Stop) => (S::Stopping(id.clone()), Some(Action::Stop(id))),
            // It keeps its place; whichever container it has then runs.
            (S::Running(id), E::Upgrade) => (S::Starting(id.clone()), Some(Action::Upgrade(id))),
            (S::Stopped(id), E::Remove) => (S::Unknown, Some(Action::Discard(id))),
            (S::Stopping(id), E::Halted) => (S::Stopped(id), None),

            // What was under way has failed, or what stood has moved: look.
            (S::Creating | S::Starting(_) | S::Stopping(_), E::Failed) => (S::Unknown, Some(Action::Observe)),
            (S::Running(_) | S::Paused(_) | S::Stopped(_) | S::Absent, E::Doubted) => (S::Unknown, Some(Action::Observe)),
            // The look itself failed. The next who wants something looks again.
            (S::Unknown, E::Failed) => (S::Unknown, None),

            (S::Unknown, E::Observed(found)) => match found {
                None => (S::Absent, None),
                Some((id, ContainerState::Running)) => (S::Running(id), None),
                Some((id, ContainerState::Paused)) => (S::Paused(id), None),
                Some((id, ContainerState::Created | ContainerState::Exited)) => (S::Stopped(id), None),
                Some((id, ContainerState::Unusable)) => (S::Unknown, Some(Action::Discard(id))),
            },
            (S::Unknown | S::Starting(_), E::Gone) => (S::Absent, None),

            // Wanted again while it is on its way, or running.
            (state @ (S::Queued(_) | S::Creating | S::Starting(_) | S::Running(_) | S::Stopping(_)), E::Wanted) => (state, None),
            // Nothing to stop, or stopping already; what is on its way is asked again once it has arrived.
            (state @ (S::Absent | S::Queued(_) | S::Creating | S::Starting(_) | S::Stopping(_) | S::Stopped(_)), E::Stop) => (state, None),
            // A doubt while an action is under way is answered by that action's end; the driver doubts again then.
            (state @ (S::Queued(_) | S::Creating | S::Starting(_) | S::Stopping(_)), E::Doubted) => (state, None),
            // Ends of actions that are not under way: the driver has at most one, so these are not met.
            (
                state,
                E::Upgrade | E::Remove | E::Admitted | E::Abandoned | E::Ready(_) | E::Halted | E::Gone | E::Failed | E::Observed(_),
            ) => (state, None),
        }
    }

    /// The container, if one is known.
    pub(super) fn container(&self) -> Option<&ContainerId> {
        match self {
            Self::Absent | Self::Creating | Self::Unknown | Self::Queued(None) => None,
            Self::Queued(Some(id)) => Some(id),
            Self::Starting(id) | Self::Running(id) | Self::Paused(id) | Self::Stopping(id) | Self::Stopped(id) => Some(id),
        }
    }

    /// Whether its container may be using anything, so that it needs a place.
    pub(super) fn occupies(&self) -> bool {
        match self {
            Self::Creating | Self::Starting(_) | Self::Running(_) | Self::Paused(_) | Self::Stopping(_) | Self::Unknown => true,
            Self::Absent | Self::Queued(_) | Self::Stopped(_) => false,
        }
    }

    /// The value of the metric label `state`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Queued(_) => "queued",
            Self::Creating => "creating",
            Self::Starting(_) => "starting",
            Self::Running(_) => "running",
            Self::Paused(_) => "paused",
            Self::Stopping(_) => "stopping",
            Self::Stopped(_) => "stopped",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> ContainerId {
        ContainerId("c".to_owned())
    }

    /// Runs events, each with what it should lead to.
    fn check(from: State, steps: &[(Event, &str, Option<Action>)]) {
        let mut state = from;
        for (event, label, action) in steps {
            let (next, todo) = state.clone().on(event.clone());
            assert_eq!((next.label(), &todo), (*label, action), "{event:?} in {state:?}");
            state = next;
        }
    }

    #[test]
    fn the_first_visit_and_the_next() {
        check(
            State::Absent,
            &[
                (Event::Wanted, "queued", Some(Action::Admit)),
                (Event::Wanted, "queued", None),
                (Event::Admitted, "creating", Some(Action::Acquire)),
                (Event::Ready(id()), "running", None),
                (Event::Wanted, "running", None),
                (Event::Stop, "stopping", Some(Action::Stop(id()))),
                (Event::Wanted, "stopping", None),
                (Event::Halted, "stopped", None),
                (Event::Wanted, "queued", Some(Action::Admit)),
                (Event::Admitted, "starting", Some(Action::Start(id()))),
                (Event::Ready(id()), "running", None),
            ],
        );
    }

    #[test]
    fn nothing_is_assumed_after_a_failure() {
        check(
            State::Stopping(id()),
            &[
                (Event::Failed, "unknown", Some(Action::Observe)),
                (Event::Failed, "unknown", None),
                (Event::Wanted, "unknown", Some(Action::Observe)),
                (Event::Observed(Some((id(), ContainerState::Running))), "running", None),
            ],
        );
    }

    #[test]
    fn one_that_is_deleted_is_stopped_first() {
        check(
            State::Running(id()),
            &[
                (Event::Remove, "running", None),
                (Event::Stop, "stopping", Some(Action::Stop(id()))),
                (Event::Halted, "stopped", None),
                (Event::Remove, "unknown", Some(Action::Discard(id()))),
                (Event::Gone, "absent", None),
                (Event::Remove, "absent", None),
            ],
        );
    }

    #[test]
    fn one_that_is_upgraded_keeps_its_place() {
        let other = ContainerId("d".to_owned());
        check(
            State::Running(id()),
            &[
                (Event::Upgrade, "starting", Some(Action::Upgrade(id()))),
                (Event::Wanted, "starting", None),
                (Event::Stop, "starting", None),
                (Event::Ready(other.clone()), "running", None),
                (Event::Stop, "stopping", Some(Action::Stop(other))),
                (Event::Upgrade, "stopping", None),
            ],
        );
    }

    #[test]
    fn a_broken_container_is_thrown_away() {
        check(
            State::Unknown,
            &[
                (Event::Observed(Some((id(), ContainerState::Unusable))), "unknown", Some(Action::Discard(id()))),
                (Event::Gone, "absent", None),
            ],
        );
    }

    #[test]
    fn who_leaves_the_queue_leaves_things_as_they_were() {
        check(State::Queued(Some(id())), &[(Event::Abandoned, "stopped", None)]);
        check(State::Queued(None), &[(Event::Abandoned, "absent", None)]);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let seen = prop_oneof![
            Just(ContainerState::Created),
            Just(ContainerState::Running),
            Just(ContainerState::Paused),
            Just(ContainerState::Exited),
            Just(ContainerState::Unusable)
        ];
        prop_oneof![
            Just(Event::Wanted),
            Just(Event::Admitted),
            Just(Event::Abandoned),
            Just(Event::Ready(id())),
            Just(Event::Stop),
            Just(Event::Remove),
            Just(Event::Upgrade),
            Just(Event::Halted),
            Just(Event::Gone),
            Just(Event::Failed),
            Just(Event::Doubted),
            proptest::option::of(seen).prop_map(|seen| Event::Observed(seen.map(|seen| (id(), seen)))),
        ]
    }

    proptest! {
        /// Whatever has happened: being wanted, and everything going well from there, ends in `running`.
        #[test]
        fn no_history_leads_to_a_dead_end(events in proptest::collection::vec(any_event(), 0..40)) {
            let mut state = State::Absent;
            let mut action = None;
            for event in events {
                let (next, todo) = state.on(event);
                state = next;
                action = todo.or(action);
            }
            for _ in 0..8 {
                let (next, todo) = match (&state, action.take()) {
                    (State::Running(_), _) => break,
                    (State::Unknown, Some(Action::Discard(_))) => state.on(Event::Gone),
                    (State::Unknown, Some(_)) => state.on(Event::Observed(None)),
                    (State::Queued(_), _) => state.on(Event::Admitted),
                    (State::Creating | State::Starting(_), _) => state.on(Event::Ready(id())),
                    (State::Stopping(_), _) => state.on(Event::Halted),
                    (State::Absent | State::Stopped(_) | State::Paused(_) | State::Unknown, _) => state.on(Event::Wanted),
                };
                state = next;
                action = todo;
            }
            prop_assert!(matches!(state, State::Running(_)), "{state:?}");
        }
    }
}
