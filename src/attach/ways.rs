//! Both ways to attach: through its init where a container has one, through the engine's exec where not.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use super::exec::ExecAttach;
use super::init::InitAttach;
use super::{Address, Attach, AttachError, Duplex, Endpoint, Listening, Process, ProcessSpec, Question, Service, ServiceState, Terminal};
use crate::engine::ContainerId;
use crate::home::SlotId;

/// Chooses for each container.
pub struct Ways {
    /// For those that were made with an init.
    pub init: InitAttach,
    /// For the others.
    pub exec: ExecAttach,
}

impl Ways {
    fn of(&self, container: &ContainerId) -> &dyn Attach {
        if self.init.knows(container) { &self.init } else { &self.exec }
    }
}

#[async_trait::async_trait]
impl Attach for Ways {
    async fn open(&self, container: &ContainerId, spec: &ProcessSpec) -> Result<Process, AttachError> {
        self.of(container).open(container, spec).await
    }

    async fn connect(&self, container: &ContainerId, to: &Address) -> Result<Box<dyn Duplex>, AttachError> {
        self.of(container).connect(container, to).await
    }

    async fn listen(&self, container: &ContainerId, on: &Endpoint) -> Result<Listening, AttachError> {
        self.of(container).listen(container, on).await
    }

    async fn terminals(&self, container: &ContainerId) -> Result<Vec<Terminal>, AttachError> {
        self.of(container).terminals(container).await
    }

    async fn serve(&self, container: &ContainerId, services: Vec<Service>) -> Result<(), AttachError> {
        self.of(container).serve(container, services).await
    }

    async fn logs(&self, container: &ContainerId, service: Option<&str>, follow: bool) -> Result<Box<dyn Duplex>, AttachError> {
        self.of(container).logs(container, service, follow).await
    }

    fn services(&self, container: &ContainerId) -> Vec<ServiceState> {
        self.of(container).services(container)
    }

    fn can_be_kept(&self, container: &ContainerId) -> bool {
        self.of(container).can_be_kept(container)
    }

    fn is_awaited(&self, container: &ContainerId) -> bool {
        self.of(container).is_awaited(container)
    }

    fn kept(&self, container: &ContainerId) -> Option<Duration> {
        self.of(container).kept(container)
    }

    fn questions(&self) -> Option<mpsc::Receiver<Question>> {
        self.init.questions()
    }

    fn prepare(&self, slot: &SlotId) -> Result<Option<PathBuf>, AttachError> {
        self.init.prepare(slot)
    }

    fn adopt(&self, slot: &SlotId, container: &ContainerId) {
        self.init.adopt(slot, container);
    }

    fn restarts(&self, container: &ContainerId) {
        self.init.restarts(container);
    }

    fn release(&self, slot: &SlotId) {
        self.init.release(slot);
    }

    fn unheld(&self, is_held: &dyn Fn(&SlotId) -> bool) -> Vec<SlotId> {
        self.init.unheld(is_held)
    }
}
