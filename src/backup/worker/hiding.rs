//! A repository without those of its files that are known to be wrong.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use rustic_core::{BytesList, FileType, Id, ReadBackend, RusticResult, WriteBackend};

/// The files that are not shown.
#[derive(Clone, Default)]
pub(super) struct Hidden(Arc<RwLock<HashSet<Id>>>);

impl Hidden {
    pub(super) fn hide(&self, ids: impl IntoIterator<Item = Id>) {
        self.0.write().extend(ids);
    }
}

/// Shows a backend but for what is hidden.
pub(super) struct Hiding {
    pub(super) backend: Arc<dyn WriteBackend>,
    pub(super) hidden: Hidden,
}

impl ReadBackend for Hiding {
    fn location(&self) -> String {
        self.backend.location()
    }
    fn list_with_size(&self, tpe: FileType) -> RusticResult<Vec<(Id, u32)>> {
        let mut listed = self.backend.list_with_size(tpe)?;
        let hidden = self.hidden.0.read();
        listed.retain(|(id, _)| !hidden.contains(id));
        Ok(listed)
    }
    fn read_full(&self, tpe: FileType, id: &Id) -> RusticResult<Bytes> {
        self.backend.read_full(tpe, id)
    }
    fn read_partial(&self, tpe: FileType, id: &Id, cacheable: bool, offset: u32, length: u32) -> RusticResult<Bytes> {
        self.backend.read_partial(tpe, id, cacheable, offset, length)
    }
    fn warmup_path(&self, tpe: FileType, id: &Id) -> String {
        self.backend.warmup_path(tpe, id)
    }
}

impl WriteBackend for Hiding {
    fn create(&self) -> RusticResult<()> {
        self.backend.create()
    }
    fn write_bytes(&self, tpe: FileType, id: &Id, cacheable: bool, content: BytesList) -> RusticResult<()> {
        self.backend.write_bytes(tpe, id, cacheable, content)
    }
    fn remove(&self, tpe: FileType, id: &Id, cacheable: bool) -> RusticResult<()> {
        self.backend.remove(tpe, id, cacheable)
    }
}
