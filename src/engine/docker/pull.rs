//! Fetching an image, and telling how far it is.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;

use super::Docker;
use super::error::meaning;
use crate::engine::{Engine, EngineError, ImageId};

/// How long a pull may say nothing. It talks all the time while it fetches or unpacks.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Fetches an image; `progress` hears of each layer that has arrived.
pub(super) async fn pull(docker: &Docker, reference: &str, progress: &(dyn Fn(String) + Send + Sync)) -> Result<ImageId, EngineError> {
    let image_error = |why: String| EngineError::Image { image: reference.to_owned(), why };
    let options = CreateImageOptionsBuilder::new().from_image(&with_tag(reference)).build();
    let mut lines = Box::pin(docker.api.create_image(Some(options), None, None));
    let mut layers = Layers::default();
    loop {
        let line = tokio::time::timeout(SILENCE_MAX, lines.next()).await.map_err(|_| EngineError::TimedOut("pull"))?;
        match line {
            None => break,
            Some(Ok(line)) => {
                if let Some(text) = layers.heard(line) {
                    progress(text);
                }
            }
            Some(Err(error)) => {
                return Err(match meaning("pull", reference, error) {
                    EngineError::Refused { why, .. } => image_error(why),
                    EngineError::NotFound(_) => image_error("there is no such image".to_owned()),
                    other => other,
                });
            }
        }
    }
    docker.image(reference).await?.ok_or_else(|| image_error("pulled, but not there".to_owned()))
}

/// Without a tag the engine would fetch every tag there is.
fn with_tag(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    if name.contains(':') || name.contains('@') { reference.to_owned() } else { format!("{reference}:latest") }
}

/// The layers heard of, and whether each has arrived.
#[derive(Default)]
struct Layers(HashMap<String, bool>);

impl Layers {
    /// Takes one line of the engine's; says something when a layer was announced or has arrived.
    fn heard(&mut self, line: CreateImageInfo) -> Option<String> {
        let (id, status) = (line.id?, line.status?);
        let arrived = match status.as_str() {
            "Pull complete" | "Already exists" => true,
            "Pulling fs layer" => false,
            _ => return None,
        };
        if self.0.insert(id, arrived) == Some(arrived) {
            return None;
        }
        let here = self.0.values().filter(|&&arrived| arrived).count();
        Some(format!("{here} of {} layers", self.0.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_is_asked_for() {
        assert_eq!(with_tag("registry:5000/a/b"), "registry:5000/a/b:latest");
        assert_eq!(with_tag("a:1"), "a:1");
        assert_eq!(with_tag("a@sha256:00"), "a@sha256:00");
    }

    #[test]
    fn progress_counts_layers() {
        let mut layers = Layers::default();
        let mut heard = |id: &str, status: &str| {
            let (id, status) = (Some(id.to_owned()), Some(status.to_owned()));
            layers.heard(CreateImageInfo { id, status, ..CreateImageInfo::default() })
        };
        assert_eq!(heard("latest", "Pulling from a"), None);
        assert_eq!(heard("1", "Already exists").as_deref(), Some("1 of 1 layers"));
        assert_eq!(heard("2", "Pulling fs layer").as_deref(), Some("1 of 2 layers"));
        assert_eq!(heard("2", "Downloading"), None);
        assert_eq!(heard("2", "Pull complete").as_deref(), Some("2 of 2 layers"));
    }
}
